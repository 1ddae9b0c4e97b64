"""Which library files a notebook runs, read from its imports without running anything.

A stage's key hashes these files, so that a change reruns the chapters that use what changed.
"""

import ast
from functools import cache
from pathlib import Path

from .files import sha256

LIB = Path(__file__).resolve().parent.parent  # the folder of all our packages
PACKAGES = ("minitransformer", "studies", "paper")
# Modules of the paper that decide how notebooks run, not what they compute or show: a change in
# them reruns nothing. (A new chapter adds nothing here; a new module of the runner does.)
RUN_SIDE = {
    f"paper/{name}.py"
    for name in (
        *(
            "__main__",
            "targets",
            "commands",
            "runner",
            "execution",
            "schedule",
            "progress",
            "scrub",
        ),
        *("project", "names", "parameters", "files", "sources", "stages", "variants", "derived"),
        *("revision", "provenance", "evidence", "pack", "idempotence"),
    )
}


def imports(source: str) -> set[str]:
    """The modules of our packages that a notebook's code imports, as dotted names."""
    python = [line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))]
    found = set()
    for node in ast.walk(ast.parse("\n".join(python))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= named(node.module, node.names)
    return {name for name in found if name.partition(".")[0] in PACKAGES}


def named(base: str, aliases) -> set[str]:
    """What `from base import aliases` names; names of a lazy root are resolved to their modules."""
    lazy = exports(base)
    return {f"{base}.{lazy.get(alias.name, alias.name)}" for alias in aliases}


def exports(module: str) -> dict:
    """The lazy exports of a package's root, name -> module; {} for anything else."""
    if "." in module or module not in PACKAGES:
        return {}
    return literal(LIB / module / "__init__.py", "_EXPORTS")


def library_files(modules: set[str]) -> dict[str, str]:
    """SHA-256 of the files behind `modules` and of all that they import, by path in lib/."""
    found, queue = {}, [f for m in modules for f in files_of(m)]
    while queue:
        path = queue.pop()
        name = path.relative_to(LIB).as_posix()
        if name not in found and name not in RUN_SIDE:
            found[name] = sha256(path)
            queue += [f for m in relative_imports(path, found[name]) for f in files_of(m)]
    if "paper/figures.py" in found:
        styles = (LIB / "paper").glob("*.mplstyle")
        found |= {f.relative_to(LIB).as_posix(): sha256(f) for f in styles}
    return dict(sorted(found.items()))


def files_of(module: str) -> list[Path]:
    """The files that importing `module` (dotted; its last part may be a name in a module) runs."""
    folder, files = LIB, []
    for part in module.split("."):
        if (folder / part).is_dir():
            folder = folder / part
            files.append(folder / "__init__.py")
        elif (folder / f"{part}.py").is_file():
            return [*files, folder / f"{part}.py"]
    return [f for f in files if f.is_file()]


@cache
def relative_imports(path: Path, sha: str) -> frozenset[str]:
    """The modules of our packages that a file of them imports, anywhere in it, as dotted names;
    `sha` keeps the cache true."""
    parts = path.relative_to(LIB).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])]
            found |= named(".".join(base), node.names)
        elif isinstance(node, ast.ImportFrom):
            found |= named(node.module, node.names)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return frozenset(name for name in found if name.partition(".")[0] in PACKAGES)


def literal(path: Path, name: str):
    """The literal that a module assigns to `name`, without importing it; {} where it assigns
    none."""
    if path.is_file():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name:
                return ast.literal_eval(node.value)
    return {}
