"""The files that lie beside a page: which of a run's artefacts it links, and the list that says
what they are, so that a page sent alone still answers every link."""

import re
from pathlib import Path

from .files import sha256

ALWAYS = ("index.html", "claims.json", "run.json", "HASHES.txt")  # copied by `make publish`
KINDS = (  # heading, what belongs under it
    ("Executed notebooks", r"[^/]+\.ipynb"),
    ("Claims and provenance", r"(claims|run)\.json|HASHES\.txt"),
    ("Results", r"[^/]+\.csv"),
    ("Tables", r"tables/.+\.csv"),
    ("Figures", r"figures/.+\.csv"),
)


def published(run_dir: Path) -> list[str]:
    """The names of the files that are published with the page: itself, its claims, provenance and
    hashes, and every CSV and executed notebook."""
    linked = [*Path(run_dir).rglob("*.csv"), *Path(run_dir).glob("*.ipynb")]
    names = (path.relative_to(run_dir).as_posix() for path in linked)
    # hidden are folders of work and the notebook of an execution that was killed
    kept = (n for n in names if not n.startswith(".") and not n.endswith(".failed.ipynb"))
    return [*ALWAYS, *sorted(kept)]


def anchor(path: str) -> str:
    """The id of a file's entry in the list."""
    return "file-" + re.sub(r"[^A-Za-z0-9_.-]+", "-", path)


def listed(run_dir: Path) -> list[tuple[str, list[dict]]]:
    """[(heading, files)] of what lies beside the page; a file is {path, anchor, size, sha}, the
    last "" of one that is written after the page."""
    names = [n for n in published(run_dir) if n == "HASHES.txt" or (Path(run_dir) / n).is_file()]
    groups = []
    for heading, pattern in KINDS:
        chosen = [_entry(Path(run_dir), n) for n in names if re.fullmatch(pattern, n)]
        groups += [(heading, chosen)] if chosen else []
    return groups


def _entry(run_dir: Path, name: str) -> dict:
    path = run_dir / name
    late = name == "HASHES.txt"
    return {
        "path": name,
        "anchor": anchor(name),
        "size": "" if late else _size(path.stat().st_size),
        "sha": "" if late else sha256(path)[:12],
    }


def _size(count: int) -> str:
    return f"{count / 1000:,.0f} kB" if count >= 1000 else f"{count} bytes"
