"""Files and folders that are whole or not there: written beside their place, then moved into it;
and JSON that says one thing only. A leaf."""

import errno
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path

import psutil
from safetensors import SafetensorError
from tokenizers import Tokenizer

REFUSALS = (OSError, SafetensorError)  # how a full disk is told, by Python and by safetensors
NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A sibling to write a file to: it takes the place of `path` when the block ends well; when it
    does not, `path` is as it was and the sibling is gone. OSError, one line, when the disk
    refuses."""
    part = _part(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except REFUSALS as error:
        raise _refused(path, error) from error
    finally:
        with suppress(OSError):  # none, or nowhere that one may write
            part.unlink()


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """The same for a folder: an empty sibling to fill, which takes the place of `path` whole."""
    path = path.resolve()  # a link stays a link: what it points to is replaced
    old = path.with_name(f".{path.name}.old")
    part = _part(old.with_suffix(""))
    try:
        part.mkdir(parents=True)
        yield part
        _swap(part, path, old)
    except REFUSALS as error:
        raise _refused(path, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)


def _part(path: Path) -> Path:
    """A sibling that no other process writes to, and nothing is there yet; what processes that are
    gone have left is deleted."""
    for left in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
        pid = left.name.removeprefix(f"{path.name}.").removesuffix(".part")
        if pid.isdecimal() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid))):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    return path.with_name(f"{path.name}.{os.getpid()}.part")


def _swap(part, path, old):
    """Move the new folder to where the old one is; whatever stops it in between, one of them is
    there."""
    _restore(path, old)  # what a killed process left
    shutil.rmtree(old, ignore_errors=True)
    try:
        if path.exists():
            os.rename(path, old)
        os.rename(part, path)
    finally:
        _restore(path, old)


def _restore(path, old):
    if old.exists() and not path.exists():
        os.rename(old, path)


def _refused(path, error) -> OSError:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
    remedy = "free some space or give another place"
    if getattr(error, "errno", None) in NOT_OURS:
        remedy = "give a place that you may write to"
    kind = type(error) if isinstance(error, OSError) else OSError
    return kind(f"cannot write {path} ({reason}): {remedy}; what was there is whole")


def check_replaceable(directory: Path, known: tuple[str, ...], wrote: str) -> None:
    """ValueError when replacing the folder would take something away that is not `known`, patterns
    of paths below it; `wrote` is what writes those."""
    if not directory.exists():
        return
    if not directory.is_dir():
        raise ValueError(f"{directory} is a file: give a folder's name")
    here = directory.resolve()
    if here == Path.cwd() or here in Path.cwd().parents:
        raise ValueError(f"{directory} holds the working folder: give a folder for the model alone")
    for path in chain(sorted(here.iterdir()), here.glob("*/*")):
        name = path.relative_to(here).as_posix()
        if not any(fnmatch(name, one) for one in known):
            raise ValueError(
                f"{directory} holds {name}, which no {wrote} wrote: "
                "move it, or give a folder for the model alone"
            )


def check_room(path: Path, size: int) -> None:
    """OSError, one line, where the disk of `path` has less than `size` bytes free: a large file is
    refused before the disk is full of half of it."""
    place = path.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < size:
        told = f"it takes {size / 2**30:,.1f} GiB and {free / 2**30:,.1f} are free"
        raise _refused(path, OSError(errno.ENOSPC, told))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class NotJSON(ValueError):
    """Why a file is not JSON, without its name."""


def read_json(path: Path):
    """What a JSON file holds. NotJSON for anything else, and for a name given twice, a NaN or an
    infinity, of which readers make different things."""
    try:
        text = path.read_text("utf-8")
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:  # of the encoding, too
        raise NotJSON(str(error)) from error


def read_tokenizer(path: Path, remedy: str) -> Tokenizer:
    """The tokenizer in a file; ValueError, one line, where it holds none or is not there."""
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is no tokenizer ({reason}): {remedy}") from error


def _once(pairs: list) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} is given twice")
    return found


def _no_number(word: str):
    raise ValueError(f"{word} is no number of JSON")
