"""The shape of the house: which wing may import which, how large the core is, and that the library
stays silent."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "lib" / "minitransformer"
LEVELS = {
    "report": 4,
    "export": 4,
    "bench": 4,
    "checkpoint": 3,
    "decode": 3,
    "evaluate": 3,
    "train": 3,
    "native": 2,
    "cache": 1,
    "quant": 1,
    "corpus": 1,
    "model": 0,
    "affine": 0,
}
FORBIDDEN = {
    ("train", "corpus"),
    ("evaluate", "corpus"),
}  # train takes batches, evaluate takes any callable
OUTSIDE_THE_CORE = ("native", "export", "report")
# The core without blank lines: 3,000 for the spine, the rest for every cache, decoder and number
# format; a file with them.
CORE_LINES, FILE_LINES = 4900, 250
SPEAKING = (
    "report/__main__.py",
    "report/runner.py",
    "report/targets.py",
)  # the command line is what may print
FILES = sorted(PACKAGE.rglob("*.py"))


def wing(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def wings_imported(source, parts):
    """The wings that a module of this package imports; `parts` are the folders it lies in, below
    the package."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = parts[: len(parts) - node.level + 1] + (
                node.module.split(".") if node.module else []
            )
            found |= {base[0]} if base else {alias.name for alias in node.names}
        names = (
            [node.module]
            if isinstance(node, ast.ImportFrom) and node.module and not node.level
            else []
        )
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {
            (name.split(".") + ["?"])[1]
            for name in names
            if name.split(".")[0] == "minitransformer"
        }
    return found


def wrong_arrows(own, imported):
    others = imported - {own}
    return sorted(
        other
        for other in others
        if LEVELS.get(other, 9) >= LEVELS[own] or (own, other) in FORBIDDEN
    )


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if p != PACKAGE / "__init__.py"],
    ids=lambda p: p.relative_to(PACKAGE).as_posix(),
)
def test_imports_run_one_way(path):
    parts = list(path.relative_to(PACKAGE).parent.parts)
    assert wrong_arrows(wing(path), wings_imported(path.read_text(encoding="utf-8"), parts)) == []


def test_the_arrows_are_seen():
    assert wings_imported("from ..cache import x", ["decode"]) == {"cache"}
    assert wings_imported("from .. import quant", ["train"]) == {"quant"}
    assert wings_imported("from .model import x", []) == {"model"}
    late = "def f():\n    from minitransformer.train import x\nimport minitransformer.quant, torch"
    assert wings_imported(late, []) == {"train", "quant"}
    assert wrong_arrows("decode", {"cache", "model"}) == [] and wrong_arrows(
        "cache", {"decode"}
    ) == ["decode"]
    assert wrong_arrows("cache", {"quant"}) == ["quant"] and wrong_arrows("train", {"corpus"}) == [
        "corpus"
    ]


def test_every_wing_has_its_level():
    assert {wing(p) for p in FILES} - {"__init__"} <= set(LEVELS)


def test_the_core_stays_small():
    core = [p for p in FILES if wing(p) not in OUTSIDE_THE_CORE]
    lines = sum(
        bool(line.strip()) for p in core for line in p.read_text(encoding="utf-8").splitlines()
    )
    assert lines < CORE_LINES


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_a_file_stays_short_silent_and_finished(path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= FILE_LINES
    assert max(map(len, source.splitlines()), default=0) <= 130
    nodes = list(ast.walk(ast.parse(source)))
    calls = {
        node.func.id
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    raised = {
        name.id
        for node in nodes
        if isinstance(node, ast.Raise)
        for name in ast.walk(node)
        if isinstance(name, ast.Name)
    }
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert "print" not in calls or path.relative_to(PACKAGE).as_posix() in SPEAKING
    assert "NotImplementedError" not in raised and "TODO" not in source
    assert not {"environ", "getenv"} & attributes or wing(path) == "report"
