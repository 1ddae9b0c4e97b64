"""What a field of a configuration may hold: each check gives back a plain Python value, or raises
one line that names field, value and remedy. A leaf.

So a configuration built from JSON, YAML, pandas or numpy equals the one that was typed."""

import math
import operator
from difflib import get_close_matches

LARGEST = 2**31 - 1  # of a whole number, where nothing smaller bounds it


def whole(name: str, value, low: int = 1, high: int = LARGEST) -> int:
    """`value` as an int from low to high: ints of any library, and floats like 8.0."""
    number = _integer(value)
    if number is None:
        raise ValueError(f"{name} {value!r} is not a whole number: give {_range(low, high)}")
    if number > high:
        raise ValueError(f"{name} {value} is not supported: give {low} to {high}")
    if number < low:
        fault = {0: "negative", 1: "not positive"}.get(low, "not supported")
        raise ValueError(f"{name} {value} is {fault}: give {_range(low, high)}")
    return number


def real(name: str, value, low: float = 0.0, high: float = math.inf, *, above: bool = False):
    """`value` as a finite float from low to high, or, with `above`, greater than low."""
    number = _float(value)
    if number is None:
        raise ValueError(f"{name} {value!r} is not a number: give {_range(low, high, above)}")
    if not (low < number if above else low <= number) or not number <= high:
        fault = "not positive" if above and low == 0 and not number > high else "out of range"
        raise ValueError(f"{name} {value} is {fault}: give {_range(low, high, above)}")
    if math.isinf(number):
        raise ValueError(f"{name} {value} is not finite: give {_range(low, high, above)}")
    return number


def flag(name: str, value) -> bool:
    """`value` as a bool: True, False, or numpy's own."""
    if not _is_flag(value):
        raise ValueError(f"{name} {value!r} is neither True nor False: give one of them")
    return bool(value)


def choice(name: str, value, known):
    """The one of `known`, words and perhaps None, that `value` equals."""
    for one in known:
        if value is one or (isinstance(value, str) and value == one):
            return one
    raise ValueError(
        f"{name} {value!r} is unknown: choose one of "
        f"{', '.join(map(str, known))}{near(value, known)}"
    )


def near(name, known) -> str:
    """ " (did you mean …?)" with the closest of the known names, or nothing when none is close."""
    close = get_close_matches(str(name), [str(k) for k in known], 1, 0.4)
    return f" (did you mean {close[0]!r}?)" if close else ""


def settle(config, **values) -> None:
    """Give a frozen dataclass its checked values; to be called from `__post_init__` only."""
    for name, value in values.items():
        object.__setattr__(config, name, value)


def _is_flag(value) -> bool:
    return isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")  # numpy 1 and 2


def _float(value) -> float | None:
    if _is_flag(value) or isinstance(value, (str, bytes)) or getattr(value, "ndim", 0):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None


def _integer(value) -> int | None:
    number = _float(value)
    if number is None:
        return None
    try:
        return operator.index(value)
    except TypeError:
        return int(number) if number.is_integer() else None


def _range(low, high, above=False) -> str:
    if high in (LARGEST, math.inf):
        return f"a finite number above {low:g}" if above else f"at least {low:g}"
    return f"{low:g} to {high:g}" if not above else f"a number above {low:g}, at most {high:g}"
