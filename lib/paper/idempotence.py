"""`make verify-corpus` and `make test-idem`: run again into a fresh folder and compare all that
should be the same.

Times differ between equal runs. So columns and keys that are named as times, and what the timing
chapters draw, are left out by name, each with its reason; everything else must be equal."""

import csv
import json
import re
from fnmatch import fnmatch
from pathlib import Path

from . import stages

CORPUS = ("corpus.*", "tokens.jsonl", "vocab.txt", "tokenizer.json", "oracle.npz")
VARIES = {
    "*.ipynb": "an executed notebook shows times",
    "index.html": "shows times",
    "run.json": "says when and how long",
    "HASHES.txt": "hashes of the files named here too",
    "timemodel.json": "fitted to measured times",
    "train/*.pt": "a checkpoint keeps its log, with times",
    **{
        f"claims/{name}.json": "holds measured speeds"
        for name in ("04-kv-bench", "05-quant-bench", "06-ablations", "report")
    },
    **{
        f"figures/{name}.*": "draws times"
        for name in (
            "latency",
            "step",
            "speculation",
            "serving",
            "quant-layers",
            "quant-latency",
            "quant-dispatch",
            "widths",
        )
    },
    **{
        f"tables/{name}.csv": "lists times"
        for name in (
            "latency",
            "phases",
            "constants",
            "prediction",
            "seed-row",
            "kinds",
            "large",
            "speculation",
            "beams",
            "batches",
            "serving",
            "quant-seed",
            "quant-speed",
            "quant-dispatch",
            "chapters",
        )
    },
    "dispatch.csv": "lists times",
    "figures/process-memory.*": "draws what the operating system counts",
    **dict.fromkeys(
        ("claims.json", "headline.json", "tables/audit-sections.csv", "tables/refuted.csv"),
        "repeats measured speeds",
    ),
}
# Columns and keys that are times, or follow from one (the label of a number format says whether it
# was measured fast).
TIMED = re.compile(
    r"(^|_)(s|ms|us|ns|seconds?|time_ratio|speedup|per_s|when|commit|label)(_low|_high)?$"
)


def compare(first: Path, second: Path, only=("*",)) -> dict[str, list[str]]:
    """Artefacts of two runs whose names match `only`, sorted into {"equal", "differ", "missing",
    "varies"}."""
    names = sorted(
        {
            name
            for root in (first, second)
            for name in stages.artefacts(root)
            if any(fnmatch(name, p) for p in only)
        }
    )
    found = {"equal": [], "differ": [], "missing": [], "varies": []}
    for name in names:
        if not ((first / name).is_file() and (second / name).is_file()):
            found["missing"].append(name)
        elif why(name):
            found["varies"].append(name)
        else:
            found["equal" if same(first / name, second / name) else "differ"].append(name)
    return found


def why(name: str) -> str | None:
    """Why an artefact differs between equal runs; None for one that must not."""
    return next((reason for pattern, reason in VARIES.items() if fnmatch(name, pattern)), None)


def same(a: Path, b: Path) -> bool:
    """Equal bytes, or equal in everything that is not named as a time (JSON, JSON lines, CSV)."""
    return (
        a.read_bytes() == b.read_bytes()
        or a.suffix in TABLES
        and TABLES[a.suffix](a) == TABLES[a.suffix](b)
    )


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
