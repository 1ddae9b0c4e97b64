"""Rows of a training log: plain values only, so that any reader can read what a run has kept."""

from collections.abc import Mapping


def row_of(given) -> dict:
    """What `on_step` returned, as plain values: None is nothing to add. ValueError for anything but
    a dict of names."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ValueError(f"on_step returned {given!r}: give a dict of what to log, or None")
    return plain("on_step's row", given)


def plain(name: str, value):
    """`value` of Python's own types: None, bool, int, float, str, and lists and dicts of them; the
    scalars and arrays of numpy and torch become these.

    ValueError naming what cannot be kept (a date, a path, an object)."""
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return value if type(value) is kind else kind(value)
    if value is None:
        return None
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise ValueError(f"{name} has the key {odd[0]!r}: give text as keys")
        return {str(key): plain(f"{name}[{key!r}]", own) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(f"{name}[{i}]", own) for i, own in enumerate(value)]
    if hasattr(value, "tolist") and not isinstance(value, type):  # numpy and torch
        listed = value.tolist()
        if type(listed) is not type(value):
            return plain(name, listed)
    raise ValueError(
        f"{name} is {value!r}, which a log cannot keep: "
        "give numbers, text, None, or lists and dicts of them"
    )
