"""Named corpora (corpora.toml): looked up on disk, else downloaded, verified by SHA-256 and renamed
into place."""

import difflib
import hashlib
import http.client
import time
import tomllib
import urllib.request
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from ..files import replacing
from .text import shown

CHECKOUT = Path(__file__).resolve().parents[3]
CHUNK = 1 << 16
SILENCE = 60  # seconds that a server may say nothing
SLOWEST = 1000  # bytes a second that a download may average, once it has taken SILENCE

Progress = Callable[[str, int, int], None]  # (file, bytes done, bytes in all)


def catalogue() -> dict[str, dict]:
    """Name -> entry of every named corpus: title, licence, source, and files, each with split,
    path, url, sha256, bytes (and its derivation)."""
    return tomllib.loads((files(__package__) / "corpora.toml").read_text(encoding="utf-8"))


def downloads() -> Path:
    """Where downloads go unless told: data/ of the checkout that this package is in, without one
    .cache/minitransformer in the user's home."""
    in_checkout = (CHECKOUT / "pyproject.toml").is_file() and (CHECKOUT / "data").is_dir()
    return CHECKOUT / "data" if in_checkout else Path.home() / ".cache" / "minitransformer"


def find(name: str, entries: dict[str, dict]) -> dict:
    """The entry of a name; ValueError names the closest known one."""
    if name in entries:
        return entries[name]
    close = difflib.get_close_matches(name.lower(), entries, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(entries)}"
    raise ValueError(
        f"corpus {shown(name)!r} is neither a file nor a known name: {hint}"
        " (or give the path of a text file)"
    )


def on_disk(
    entry: dict, corpora_dir: Path | None = None, download_dir: Path | None = None
) -> dict[str, Path]:
    """Split -> file of an entry, of those that are there: in corpora_dir or in download_dir."""
    folders = [Path(folder) for folder in (corpora_dir, download_dir or downloads()) if folder]
    places = {f["split"]: [folder / f["path"] for folder in folders] for f in entry["files"]}
    there = {split: [p for p in paths if p.is_file()] for split, paths in places.items()}
    return {split: paths[0] for split, paths in there.items() if paths}


def obtain(
    name: str, entry: dict, corpora_dir=None, download_dir=None, progress: Progress | None = None
) -> dict[str, Path]:
    """Split -> verified file, found in corpora_dir or download_dir, else downloaded into
    download_dir (None: see `downloads`).

    ValueError: a file has another SHA-256; FileNotFoundError: the download failed; OSError: it
    cannot be written. Each is one line, and nothing half-written stays."""
    found = on_disk(entry, corpora_dir, download_dir)
    for file in entry["files"]:
        path = found.get(file["split"])
        if path is None:
            path = found[file["split"]] = Path(download_dir or downloads()) / file["path"]
            _download(name, file, path, progress)
        remedy = "delete it to have it downloaded again"
        _verify(f"corpus {name!r}: {shown(path)}", path.read_bytes(), file["sha256"], remedy)
    return {file["split"]: found[file["split"]] for file in entry["files"]}


def _verify(what: str, data: bytes, expected: str, remedy: str) -> None:
    actual = hashlib.sha256(data).hexdigest()
    if actual != expected:
        raise ValueError(
            f"{what} has sha256 {actual} ({len(data):,} bytes), expected {expected}: {remedy}"
        )


def _download(name: str, file: dict, path: Path, progress: Progress | None) -> None:
    """Fetches, verifies, derives our text where it differs from the download, and only then writes:
    to a name of its own, then renamed."""
    by_hand = (
        f"try again, put the file at {shown(path)} by hand, or set CORPORA_DIR to a folder that"
        f" holds {file['path']}"
    )
    try:
        data = _fetch(file, progress)
    except (OSError, http.client.HTTPException) as error:
        raise FileNotFoundError(
            f"corpus {name!r} could not be downloaded from {file['url']}"
            f" ({_line(error)}): {by_hand}"
        ) from error
    derive = file.get("derive")
    source = f"corpus {name!r}: the reply of {file['url']}"
    _verify(source, data, (derive or file)["sha256"], by_hand)
    if derive:
        data = derived(data, derive)
        _verify(f"corpus {name!r}: the text derived from it", data, file["sha256"], by_hand)
    try:
        with replacing(path) as part:
            part.write_bytes(data)
    except OSError as error:
        reason = _line(error.__cause__ or error)  # as the system says it
        raise OSError(
            f"corpus {name!r} cannot be written to {shown(path)} ({reason}): free or unlock the"
            f" folder, or set CORPORA_DIR to a folder that holds {file['path']}"
        ) from error


def _fetch(file: dict, progress: Progress | None) -> bytes:
    """The reply of a server, no longer than twice what the registry says; TimeoutError when it
    stalls or crawls, ConnectionError when it ends early."""
    limit, data, start = 2 * file.get("bytes", 1 << 29), bytearray(), time.monotonic()
    with urllib.request.urlopen(file["url"], timeout=SILENCE) as reply:
        total = int(reply.headers.get("Content-Length") or 0)
        while chunk := reply.read1(CHUNK):
            data += chunk
            if progress:
                progress(file["path"], len(data), max(total, len(data)))
            if len(data) > limit:
                raise ConnectionError(f"the reply is longer than {limit:,} bytes")
            took = time.monotonic() - start
            if took > SILENCE and len(data) < SLOWEST * took:
                raise TimeoutError(f"only {len(data):,} bytes came in {took:.0f} s")
    if len(data) < total:
        raise ConnectionError(f"the reply ended after {len(data):,} of {total:,} bytes")
    return bytes(data)


def _line(error: BaseException) -> str:
    """An error in one line, without the name of a file that it may carry."""
    return " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())


def derived(data: bytes, step: dict) -> bytes:
    """Our file from a download: decode, CRLF to LF, keep [start, end), strip blank lines at both
    ends, one final LF, UTF-8."""
    text = data.decode(step["encoding"]).replace("\r\n", "\n")
    start = text.index(step["start"])
    return (text[start : text.index(step["end"], start)].strip("\n") + "\n").encode()
