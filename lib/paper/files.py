"""Whole files only: everything is written to a temporary name in its folder and renamed."""

import hashlib
import json
import os
import tempfile
from pathlib import Path


def write_bytes(path: Path, data: bytes) -> Path:
    """Writes `data` so that `path` holds either its old content or all of the new one; makes the
    folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(part, 0o644)  # mkstemp gives 0o600, which would travel into packs
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise
    return path


def write_text(path: Path, text: str) -> Path:
    """`write_bytes` of UTF-8 text with \\n line ends, on every system."""
    return write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value) -> Path:
    """Indented JSON with a final newline; NaN is refused, because JSON has none."""
    return write_text(
        path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, default=plain) + "\n"
    )


def read_json(path: Path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def plain(value):
    """A NumPy or torch scalar or array as plain Python, a path as text; TypeError for anything
    else."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(
        f"{value!r} ({type(value).__name__}) does not fit into JSON: give numbers, strings, lists or dicts"
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
    found = (p for p in Path(folder).rglob("*") if p.is_file())
    relative = ((p.relative_to(folder), p) for p in found)
    return [
        p
        for r, p in sorted(relative, key=lambda pair: pair[0].as_posix())
        if not any(part.startswith(".") for part in r.parts)
    ]
