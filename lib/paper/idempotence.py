"""`make verify-corpus` and `make test-idem`: run again into a fresh folder and compare all that
should be the same.

Times differ between equal runs. So columns and keys that are named as times, and the artefacts that
a chapter declares as timed in its metadata, are left out, each with its reason; everything else
must be equal."""

import csv
import json
import re
from fnmatch import fnmatchcase
from pathlib import Path

from . import stages
from .project import declared

CORPUS = ("corpus.*", "tokens.jsonl", "vocab.txt", "tokenizer.json", "oracle.npz")
VARIES = {
    "*.ipynb": "an executed notebook shows times",
    "index.html": "shows times",
    "run.json": "says when and how long",
    "HASHES.txt": "hashes of the files named here too",
    "claims.json": "repeats measured speeds",
}
TIMED_BY = "{} says that it depends on measured times"
# Columns and keys that are times, or follow from one (the label of a number format says whether it
# was measured fast).
TIMED = re.compile(
    r"(^|_)(s|ms|us|ns|seconds?|time_ratio|speedup|per_s|when|commit|label)(_low|_high)?$"
)


def compare(first: Path, second: Path, only=("*",)) -> dict[str, list[str]]:
    """Artefacts of two runs whose names match `only`, sorted into {"equal", "differ", "missing",
    "varies"}."""
    reasons = varying(first)
    every = {name for root in (first, second) for name in stages.artefacts(root)}
    names = sorted(name for name in every if any(fnmatchcase(name, p) for p in only))
    found = {"equal": [], "differ": [], "missing": [], "varies": []}
    for name in names:
        if not ((first / name).is_file() and (second / name).is_file()):
            found["missing"].append(name)
        elif _first(name, reasons):
            found["varies"].append(name)
        else:
            found["equal" if same(first / name, second / name) else "differ"].append(name)
    return found


def varying(run_dir: Path) -> dict[str, str]:
    """Pattern -> reason for the artefacts that differ between equal runs: those of every run, and
    those that the run's chapters declare as timed."""
    found = dict(VARIES)
    for path in sorted(run_dir.glob("*.ipynb")):
        chapter = declared(path)
        if chapter:
            found |= dict.fromkeys(chapter.timed, TIMED_BY.format(chapter.name))
    return found


def why(name: str, run_dir: Path) -> str | None:
    """Why an artefact differs between equal runs; None for one that must not."""
    return _first(name, varying(run_dir))


def _first(name: str, reasons: dict[str, str]) -> str | None:
    return next((reason for pattern, reason in reasons.items() if fnmatchcase(name, pattern)), None)


def same(a: Path, b: Path) -> bool:
    """Equal bytes, or equal in everything that is not named as a time (JSON, JSON lines, CSV)."""
    if a.read_bytes() == b.read_bytes():
        return True
    return a.suffix in TABLES and TABLES[a.suffix](a) == TABLES[a.suffix](b)


def _untimed(value):
    if isinstance(value, dict):
        return {k: _untimed(v) for k, v in value.items() if not TIMED.search(k)}
    return [_untimed(v) for v in value] if isinstance(value, list) else value


def _json(path: Path):
    return _untimed(json.loads(path.read_text(encoding="utf-8")))


def _jsonl(path: Path):
    return [_untimed(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def _csv(path: Path):
    with open(path, newline="", encoding="utf-8") as file:
        return [_untimed(row) for row in csv.DictReader(file)]


TABLES = {".json": _json, ".jsonl": _jsonl, ".csv": _csv}
