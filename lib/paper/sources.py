"""Which library files a notebook runs, read from its imports without running anything.

A stage's key hashes these files, so that a change reruns the chapters that use what changed."""

import ast
from functools import cache
from pathlib import Path

from .files import sha256

LIB = Path(__file__).resolve().parent.parent  # the folder of all our packages
READ = ("*.c", "*.h", "*.toml", "*.mplstyle")  # what modules read from their own folder
PACKAGES = ("minitransformer", "studies", "paper", "report")
SHOWING = ("paper/", "report/")  # what is in them draws and says, and computes nothing
# Modules of the paper that decide how notebooks run, not what they compute or show: a change in
# them reruns nothing. (A new chapter adds nothing here; a new module of the runner does.)
RUN_SIDE = {
    f"paper/{name}.py"
    for name in (
        *("__main__", "targets", "commands", "schedule", "progress"),
        *("runner", "execution", "warm", "uncollected", "scrub"),
        *("project", "names", "parameters", "files", "sources", "stages", "variants", "derived"),
        *("revision", "provenance", "evidence", "pack", "idempotence", "publish"),
    )
}


def imports(source: str) -> set[str]:
    """The modules of our packages that a notebook's code uses, as dotted names."""
    python = [line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))]
    return used(ast.parse("\n".join(python)), ())


def library_files(modules: set[str]) -> dict[str, str]:
    """SHA-256 of the files behind `modules` and of all that they use, by path in lib/."""
    found, queue = {}, [*modules]
    while queue:
        path = file_of(queue.pop())
        name = path and path.relative_to(LIB).as_posix()
        if path is not None and name not in found and name not in RUN_SIDE:
            found[name] = sha256(path)
            queue += used_by(path, found[name])
    folders = {(LIB / name).parent for name in found}
    for path in (path for folder in folders for kind in READ for path in folder.glob(kind)):
        found[path.relative_to(LIB).as_posix()] = sha256(path)
    return dict(sorted(found.items()))


def file_of(module: str) -> Path | None:
    """The file of a dotted module of ours; None where there is none."""
    place = LIB.joinpath(*module.split("."))
    files = (place / "__init__.py", place.with_name(f"{place.name}.py"))
    return next((path for path in files if path.is_file()), None)


@cache
def used_by(path: Path, sha: str) -> frozenset[str]:
    """The modules of our packages that a file of them uses, anywhere in it, as dotted names; `sha`
    keeps the cache true."""
    folders = path.relative_to(LIB).parent.parts
    return frozenset(used(ast.parse(path.read_text(encoding="utf-8")), folders))


def used(tree: ast.AST, folders: tuple[str, ...]) -> set[str]:
    """The modules of ours that define what the code `tree` imports; relative imports start from
    `folders`."""
    found = set()
    for node in statements(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, folders)
            found |= {origin(base, alias.name) for alias in node.names}
    return {name for name in found if name.partition(".")[0] in PACKAGES}


def statements(tree: ast.AST):
    """The statements of a module, however deep; their expressions, most of its nodes, import
    nothing."""
    queue = [tree]
    while queue:
        node = queue.pop()
        yield node
        for part in ("body", "orelse", "finalbody", "handlers", "cases"):
            queue += getattr(node, part, ())


def absolute(node: ast.ImportFrom, folders: tuple[str, ...]) -> str:
    """The module that `from ... import` names, as a dotted name."""
    above = folders[: len(folders) - node.level + 1] if node.level else ()
    return ".".join([*above, *([node.module] if node.module else [])])


def origin(base: str, name: str) -> str:
    """The module that defines `name` of the module `base`. A package only passes on what its files
    define: what it passes on besides is no dependency."""
    if base.partition(".")[0] not in PACKAGES or file_of(f"{base}.{name}"):
        return f"{base}.{name}"
    path = file_of(base)
    if path is None or path.name != "__init__.py":
        return base
    passed = passed_on(path, sha256(path))
    return origin(*passed[name]) if name in passed else base


@cache
def passed_on(path: Path, sha: str) -> dict[str, tuple[str, str]]:
    """Name -> (module, its name there) of what an __init__.py imports, at once or (`_EXPORTS`) when
    it is asked for."""
    folders = path.relative_to(LIB).parent.parts
    found = {n: (".".join([*folders, m]), n) for n, m in literal(path, "_EXPORTS").items()}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            base = absolute(node, folders)
            found |= {alias.asname or alias.name: (base, alias.name) for alias in node.names}
    return found


def literal(path: Path, name: str):
    """The literal that a module assigns to `name`, without importing it; {} where it assigns
    none."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name:
            return ast.literal_eval(node.value)
    return {}
