"""How a command of the library ends: with its work done, or with one line that says why not. A
leaf."""

import sys
from collections.abc import Callable

FAULTS = (OSError, ValueError, RuntimeError, MemoryError)


def ended(work: Callable[[], int | None]) -> int:
    """The exit status of a command that does `work`: what that returns, or 0; 2 where it cannot be
    done, 130 where it is interrupted, each said in one line."""
    try:
        return work() or 0
    except KeyboardInterrupt:
        print("interrupted: what was finished is kept", file=sys.stderr)
        return 130
    except FAULTS as error:
        print(f"error: {line(error)}", file=sys.stderr)
        return 2


def line(error: BaseException) -> str:
    """An error as one line; of the system's own, which names a file, with a remedy."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename} ({error.strerror}): see to its rights, or give another"
    return " ".join(str(error).split()) or type(error).__name__
