"""Whole files only: everything is written to a temporary name in its folder and renamed."""

import hashlib
import json
import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .names import SURROGATES, short

PART = "part-"  # what the names of files being written begin with, after a dot
WAIT_S = 30  # between two words about a lock that is waited for


def write_bytes(path: Path, data: bytes) -> Path:
    """Writes `data` so that `path` holds either its old content or all of the new one; makes the
    folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(prefix=f".{PART}", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(part, 0o644)  # mkstemp gives 0o600, which would travel into packs
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    return path


def sweep(folder: Path) -> None:
    """Deletes what a process that was killed while it wrote left below `folder`."""
    for part in Path(folder).rglob(f".{PART}*"):
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    """`write_bytes` of UTF-8 text with \\n line ends, on every system; bytes of a file's name that
    are no UTF-8 stay as they are."""
    return write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_json(path: Path, value) -> Path:
    """Indented JSON with a final newline; NaN is refused, because JSON has none."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, default=plain)
    return write_text(path, SURROGATES.sub(lambda c: f"\\u{ord(c[0]):04x}", text) + "\n")


def read_json(path: Path, *missing):
    """What a JSON file holds; of one that is not there what is given as `missing`, if it is."""
    if missing and not Path(path).is_file():
        return missing[0]
    return json.loads(Path(path).read_text(encoding="utf-8"))


def read_record(path: Path) -> dict | None:
    """A dict that was written as JSON; None where there is no such file or it holds anything
    else."""
    try:
        value = read_json(path)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def plain(value):
    """A NumPy or torch scalar or array as plain Python, a path as text; TypeError for anything
    else."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(
        f"{short(repr(value))} ({type(value).__name__}) does not fit into JSON: give numbers, "
        "strings, lists or dicts"
    )


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value) -> str:
    """SHA-256 of a JSON value, keys sorted: the same for equal values, whatever order they were
    made in."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=plain).encode()).hexdigest()


def tree(folder: Path) -> list[Path]:
    """Files under `folder` in a fixed order, without temporary and hidden ones."""
    found = ((p.relative_to(folder), p) for p in Path(folder).rglob("*") if p.is_file())
    seen = ((r, p) for r, p in found if not any(part.startswith(".") for part in r.parts))
    return [p for _, p in sorted(seen, key=lambda pair: pair[0].as_posix())]


@contextmanager
def locked(folder: Path):
    """One process at a time for `folder`: a lock file beside it, freed by the system even if the
    process is killed. Says on stderr that it waits."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{folder.name} is in use by another run: waiting for it", file=sys.stderr)
        _wait(lock, folder)
    try:
        yield
    finally:
        lock.release()


def _wait(lock: FileLock, folder: Path) -> None:
    waited = 0
    while True:
        try:
            lock.acquire(timeout=WAIT_S)
            return
        except Timeout:
            waited += WAIT_S
            print(f"{folder.name}: still waiting after {waited} s", file=sys.stderr)
