"""Bars of progress that a test reads."""

from types import SimpleNamespace


def ticking(told):
    """As `nb.progress`, but that of every bar `told` hears the steps."""
    return lambda total, what: SimpleNamespace(update=told)
