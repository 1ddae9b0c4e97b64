"""Named corpora (data/corpora.toml): looked up on disk, else downloaded, verified by SHA-256 and
renamed into place."""

import difflib
import hashlib
import os
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

DATA = (
    Path(__file__).resolve().parents[3] / "data"
)  # of the checkout that this package is installed from
CHUNK = 1 << 16

Progress = Callable[[str, int, int], None]  # (file, bytes done, bytes in all)


def named_corpora(path: Path = DATA / "corpora.toml") -> dict[str, dict]:
    """Name -> entry: title, licence, source, and files, each with split, path, url, sha256, bytes
    (and its derivation)."""
    return tomllib.loads(Path(path).read_text(encoding="utf-8"))


def find(name: str, entries: dict[str, dict]) -> dict:
    """The entry of a name; ValueError names the closest known one."""
    if name in entries:
        return entries[name]
    close = difflib.get_close_matches(name.lower(), entries, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(entries)}"
    raise ValueError(
        f"corpus {name!r} is neither a file nor a known name: {hint} (or give the path of a text file)"
    )


def obtain(name: str, entry: dict, corpora_dir: Path | None = None, download_dir: Path = DATA,
           progress: Progress | None = None) -> dict[str, Path]:  # fmt: skip
    """Split -> verified file, found in corpora_dir or download_dir, else downloaded into
    download_dir.

    ValueError: a file has another SHA-256; FileNotFoundError: the download failed.
    """
    found = {}
    for file in entry["files"]:
        places = [Path(folder) / file["path"] for folder in (corpora_dir, download_dir) if folder]
        path = next((p for p in places if p.is_file()), None)
        if path is None:
            path = places[-1]
            _download(name, file, path, progress)
        _verify(
            f"corpus {name!r}: {path}",
            path.read_bytes(),
            file["sha256"],
            "delete it to have it downloaded again",
        )
        found[file["split"]] = path
    return found


def _verify(what: str, data: bytes, expected: str, remedy: str) -> None:
    actual = hashlib.sha256(data).hexdigest()
    if actual != expected:
        raise ValueError(
            f"{what} has sha256 {actual} ({len(data):,} bytes), expected {expected}: {remedy}"
        )


def _download(name: str, file: dict, path: Path, progress: Progress | None) -> None:
    """Fetches to `<path>.part`, verifies, derives our text where it differs from the download, and
    renames."""
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    by_hand = f"try again, put the file at {path} by hand, or set CORPORA_DIR to a folder that holds {file['path']}"
    try:
        try:
            with urllib.request.urlopen(file["url"], timeout=60) as reply, part.open("wb") as out:
                total, done = int(reply.headers.get("Content-Length") or 0), 0
                while chunk := reply.read(CHUNK):
                    out.write(chunk)
                    done += len(chunk)
                    if progress:
                        progress(file["path"], done, max(total, done))
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            raise FileNotFoundError(
                f"corpus {name!r} could not be downloaded from {file['url']} ({error}): {by_hand}"
            ) from error
        data = part.read_bytes()
        derive = file.get("derive")
        _verify(
            f"corpus {name!r}: the reply of {file['url']}",
            data,
            (derive or file)["sha256"],
            by_hand,
        )
        if derive:
            part.write_bytes(derived(data, derive))
            _verify(
                f"corpus {name!r}: the text derived from {file['url']}",
                part.read_bytes(),
                file["sha256"],
                by_hand,
            )
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def derived(data: bytes, step: dict) -> bytes:
    """Our file from a download: decode, CRLF to LF, keep [start, end), strip blank lines at both
    ends, one final LF, UTF-8."""
    text = data.decode(step["encoding"]).replace("\r\n", "\n")
    start = text.index(step["start"])
    return (text[start : text.index(step["end"], start)].strip("\n") + "\n").encode()
