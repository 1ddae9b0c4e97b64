"""Numbers written for reading: thousands commas, true minus signs, as many digits as carry
meaning."""

import math
import re

import numpy as np
import pandas as pd

MINUS = "\u2212"
MOST = 6  # decimals that are read; beyond them a number has a power of ten


def number(value, digits=4):
    """A number for reading: `digits` significant, thousands commas, true minus; 1.2·10⁻⁶ outside
    10⁻⁴ .. 10⁹.

    Integers are written whole, booleans "yes" / "no"; None and NaN are an en dash.
    """
    if value is None or pd.isna(value):
        return "–"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{value:,}".replace("-", MINUS)
    if math.isinf(value):
        return "∞" if value > 0 else MINUS + "∞"
    if value and not 1e-4 <= abs(value) < 1e9:
        mantissa, exponent = f"{value:.{max(digits - 3, 1)}e}".split("e")
        power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"{mantissa}·10{power}".replace("-", MINUS)
    return fixed(value, _decimals(value, digits))


def fixed(value, places):
    """With so many decimals; what rounds to zero has no sign."""
    text = f"{value:,.{places}f}"
    return text.lstrip("-") if not text.strip("-0.") else text.replace("-", MINUS)


def supported(low, high):
    """Decimals that give an interval's width two significant digits; None where there is none."""
    width = high - low
    if not (math.isfinite(width) and width > 0):
        return None
    return max(1 - math.floor(math.log10(width)), 0)


UNITS = {
    "percent": "%", "bytes": "bytes", "ms": "ms", "us": "µs", "s": "s", "seconds": "s",
    "nats": "nats",
    "kib": "KiB", "mb": "MB", "mib": "MiB", "bits": "bits",
}  # fmt: skip
NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)+")


def heading(name):
    """A column's name for reading: `step_ms` as "step, ms"; what is not such a name stays."""
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        return name
    *words, last = name.split("_")
    return " ".join(words) + (f", {UNITS[last]}" if last in UNITS else f" {last}")


def readable(df):
    """A copy of a DataFrame for reading: whole numbers with commas, and one count of decimals down
    each float column.

    The count gives the column's median magnitude four significant digits; text stays as it is.
    """
    out = df.astype(object)
    for place, dtype in enumerate(df.dtypes):
        if dtype.kind == "f":
            out.isetitem(place, column(df.iloc[:, place], 4, ratios=True))
        elif dtype.kind in "iub":
            out.isetitem(place, [number(value) for value in df.iloc[:, place]])
    return out


def column(values, digits=3, intervals=(), ratios=False):
    """Numbers down a column as texts with one count of decimals: that which gives the largest of
    them `digits` significant ones; where `ratios` matter, as on a logarithmic axis, the median, and
    what it would write as zero keeps two digits. Fewer where the median width of the `intervals`
    (low, high) does not support them."""
    values = np.asarray(values, float)
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    places = 0
    if len(sizes):
        most = _decimals(float(sizes.max()), digits)
        places = max(_decimals(float(np.median(sizes)), digits), most) if ratios else most
    known = [enough for pair in intervals if (enough := supported(*pair)) is not None]
    if known:
        places = min(places, int(np.median(known)))
    if places > MOST:
        return [number(value if value else 0, digits) for value in values.tolist()]
    write = _fixed if ratios and not known else fixed
    return [write(value, places) if np.isfinite(value) else number(value) for value in values]


def _fixed(value, places):
    """With so many decimals, except what they would write as zero."""
    if value == 0 or 0.5 * 10**-places <= abs(value) < 1e9:
        return fixed(value, places)
    return number(value, 2)


def _decimals(value, digits=4):
    """How many decimals give `value` that many significant digits, at least none."""
    return max(digits - 1 - math.floor(math.log10(abs(value))), 0) if value else 1
