"""The shape of the house: which wing may import which, how large the core is, and that the library
stays silent."""

import ast
import re
from pathlib import Path

import pytest

from paper import sources

LIB = Path(__file__).resolve().parent.parent / "lib"
PACKAGE = LIB / "minitransformer"
LEVELS = {
    "pretrain": 5,
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
    "commands": -1,
    "fields": -1,
    "files": -1,
}
# train takes batches, evaluate takes any callable
FORBIDDEN = {("train", "corpus"), ("evaluate", "corpus")}
# Lines of code, blank and comment lines aside.
BUDGETS = {"minitransformer": 9380, "studies": 8990, "paper": 7655, "report": 736}
FILE_LINES = 430
# the command line is what may print and read the environment
SPEAKING = (
    "minitransformer/commands.py",
    "minitransformer/corpus/__main__.py",
    "minitransformer/export/__main__.py",
    "minitransformer/pretrain.py",
    "studies/__main__.py",
    *(
        f"paper/{name}.py"
        for name in (
            "__main__",
            "commands",
            "execution",
            "files",
            "progress",
            "publish",
            "sweep",
            "targets",
            "variants",
        )
    ),
)
EVERY = sorted(LIB.rglob("*.py"))
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


def lines_of_code(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in lines)


@pytest.mark.parametrize("part", BUDGETS)
def test_a_part_stays_small(part):
    files = [p for p in (LIB / part).rglob("*.py") if not {"native", "export"} & set(p.parts)]
    assert sum(map(lines_of_code, files)) <= BUDGETS[part]


def packages_imported(source):
    """Which of our packages a file imports by name, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.partition(".")[0])
    return names & {"minitransformer", "studies", "paper", "report"}


@pytest.mark.parametrize("path", EVERY, ids=lambda p: p.relative_to(LIB).as_posix())
def test_the_parts_meet_in_notebooks_only(path):
    """notebooks -> studies -> minitransformer, and notebooks -> report -> paper."""
    part = path.relative_to(LIB).parts[0]
    allowed = {"studies": {"minitransformer"}, "report": {"paper"}}
    found = packages_imported(path.read_text(encoding="utf-8")) - {part}
    assert found <= allowed.get(part, set())


# What the report is about. Who runs notebooks, draws tables and renders pages knows none of it.
SUBJECT = re.compile(r"perplexity|\bint[248]\b|fp32|attention|n-gram|nats per|kv.cache", re.I)


@pytest.mark.parametrize("path", sorted((LIB / "paper").glob("*.py")), ids=lambda p: p.name)
def test_the_paper_knows_nothing_of_transformers(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if SUBJECT.search(line)] == []


def in_circles(uses):
    """The modules that stand in a circle of imports or above one, of {module: those it uses}."""
    left = {module: {*used} - {module, None} for module, used in uses.items()}
    while done := {module for module, used in left.items() if not used}:
        left = {module: used - done for module, used in left.items() if module not in done}
    return sorted(left)


def used_by(path):
    """The files that a file uses when it runs, whether it imports them at the top or later."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    return {*map(sources.file_of, sources.used(tree, path.relative_to(LIB).parent.parts))}


def test_no_imports_run_in_a_circle():
    assert in_circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}}) == ["a", "b", "c"]
    assert in_circles({path: used_by(path) for path in EVERY}) == []


def test_the_parts_are_told_apart():
    assert packages_imported("import paper.html\nfrom studies import x") == {"paper", "studies"}
    assert packages_imported("from report import plots") == {"report"}
    assert packages_imported("def f():\n    from minitransformer import x") == {"minitransformer"}


@pytest.mark.parametrize("path", EVERY, ids=lambda p: p.relative_to(LIB).as_posix())
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
    assert "print" not in calls or path.relative_to(LIB).as_posix() in SPEAKING
    assert "NotImplementedError" not in raised and "TODO" not in source
    reads = path.relative_to(LIB).as_posix() == "minitransformer/native/build.py"  # CC, no more
    assert not {"environ", "getenv"} & attributes or path.parent.name == "paper" or reads


def test_the_engine_is_read_in_one_sitting():
    source = (PACKAGE / "native" / "engine.c").read_text("utf-8")
    lines = source.splitlines()
    code = [line for line in lines if line.strip() and not line.strip().startswith("//")]
    assert len(code) <= 1220 and max(map(len, lines)) <= 100
    assert "TODO" not in source and "printf" not in source and "malloc" not in source
