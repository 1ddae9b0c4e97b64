"""Files and folders that are whole or not there: written beside their place, then moved into it. A
leaf."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A sibling to write a file to: it takes the place of `path` when the block ends well; when it
    does not, `path` is as it was and the sibling is gone. OSError, one line, when the disk
    refuses."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """The same for a folder: an empty sibling to fill, which takes the place of `path` whole."""
    path = path.resolve()  # a link stays a link: what it points to is replaced
    part, old = (path.with_name(f".{path.name}.{end}") for end in ("part", "old"))
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        _swap(part, path, old)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)


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
    reason = error.strerror or " ".join(str(error).split())[:200]
    return type(error)(
        f"cannot write {path} ({reason}): free some space or give another place; what was there "
        "is whole"
    )
