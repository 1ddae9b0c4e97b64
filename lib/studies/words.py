"""Numbers in the sentences that studies hand over whole."""

import math
import re

CACHES = {"dynamic": "growing"}  # kinds of cache whose name in the library is not the page's
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def minus(text: str) -> str:
    """A number's text with a true minus, as the page sets those that it formats itself."""
    return text.replace("-", "\u2212")


def powered(text: str) -> str:
    """ "7.4e-08" as 7.4·10⁻⁸, as the page sets its own."""
    mantissa, e, power = text.partition("e")
    return f"{mantissa}·10{str(int(power)).translate(RAISED)}" if e else text


def plain(reason: str) -> str:
    """What went wrong, for who reads of it: without the advice to who called, which stands behind
    the last colon, and without the exception's class."""
    told = re.sub(r"^\w+(Error|Exception): ", "", reason)
    return re.sub(r": (give|use|choose) [^:]*$", "", told)


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
