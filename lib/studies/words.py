"""Numbers in the sentences that studies hand over whole."""

import math


def minus(text: str) -> str:
    """A number's text with a true minus, as the page sets those that it formats itself."""
    return text.replace("-", "\u2212")


def span(values) -> str:
    """Whole numbers in words: the one that all are, or the least and the largest."""
    low, high = min(values), max(values)
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"


def with_interval(value: float, low: float, high: float, unit: str = "", sign: str = "") -> str:
    """A number, its unit and its interval, in as many decimals as give the interval two digits;
    two decimals and no interval where it has no width. `sign` "+": a plus as well."""
    width = high - low
    if not width > 0:
        return minus(f"{value:{sign}.2f}{unit}")
    places = max(1 - math.floor(math.log10(width)), 0)
    number, least, most = (minus(f"{x:{sign}.{places}f}") for x in (value, low, high))
    return f"{number}{unit} [{least}, {most}]"
