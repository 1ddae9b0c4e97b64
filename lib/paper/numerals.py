"""Numbers written for reading: thousands commas, true minus signs, as many digits as carry
meaning."""

import math
import re

import numpy as np
import pandas as pd

MINUS = "\u2212"


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
            out.isetitem(place, column(df.iloc[:, place], 4))
        elif dtype.kind in "iub":
            out.isetitem(place, [number(value) for value in df.iloc[:, place]])
    return out


def column(values, digits=3, intervals=()):
    """Numbers down a column as texts with one count of decimals: `digits` significant for the
    median magnitude, or as many as the median width of the `intervals` (low, high) supports."""
    values = np.asarray(values, float)
    usual = np.abs(values[np.isfinite(values) & (values != 0)])
    known = [places for pair in intervals if (places := supported(*pair)) is not None]
    places = _decimals(float(np.median(usual)), digits) if len(usual) else 0
    if known:
        places = min(places, int(np.median(known)))
    write = fixed if known else _fixed
    return [write(value, places) if np.isfinite(value) else number(value) for value in values]


def _fixed(value, places):
    if value == 0 or 0.5 * 10**-places <= abs(value) < 1e9:
        return fixed(value, places)
    return number(value)


def _decimals(value, digits=4):
    """How many decimals give `value` that many significant digits, at least none."""
    return max(digits - 1 - math.floor(math.log10(abs(value))), 0) if value else 1
