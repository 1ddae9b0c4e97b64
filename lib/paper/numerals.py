"""Numbers written for reading: thousands commas, true minus signs, as many digits as carry
meaning."""

import math
import re
from numbers import Real
from string import Formatter

import numpy as np
import pandas as pd

MINUS = "\u2212"
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MOST = 6  # decimals that are read; beyond them a number has a power of ten


def number(value, digits=4):
    """A number for reading: `digits` significant, thousands commas, true minus; 1.2·10⁻⁶ outside
    10⁻⁴ .. 10⁹.

    Integers are written whole, booleans "yes" / "no"; None and NaN are an en dash."""
    if value is None or pd.isna(value):
        return "–"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{value:,}".replace("-", MINUS)
    if math.isinf(value):
        return "∞" if value > 0 else MINUS + "∞"
    if value and not 1e-4 <= abs(value) < 1e9:
        return raised(f"{value:.{max(digits - 3, 1)}e}").replace("-", MINUS)
    return fixed(value, _decimals(value, digits))


def raised(text):
    """A number's text with its power of ten as it is read: "3e-13" as "3·10⁻¹³"."""
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa}·10{str(int(exponent)).translate(RAISED)}" if e else text


def fixed(value, places):
    """With so many decimals; what rounds to zero has no sign."""
    text = f"{value:,.{places}f}"
    return text.lstrip("-") if not text.strip("-0.") else text.replace("-", MINUS)


class Sentence(Formatter):
    """Fills a sentence's template: a number's minus is a true one, and none stands before zero; a
    power of ten is written as everywhere."""

    def format_field(self, value, spec):
        text = super().format_field(value, spec)
        if not isinstance(value, Real):
            return text
        text = raised(text)
        if not text.startswith(("-", "+")):
            return text
        zero = not text.strip("+-0.,% ")
        return text[1:] if zero else text.replace("-", MINUS, 1)


def told(template, values):
    """A template over named values as a sentence; one without values stands as it is."""
    return Sentence().format(template, **values) if values else template


def names(template) -> set[str]:
    """The names of values that a template holds."""
    fields = [field for _, field, _, _ in Formatter().parse(template) if field]
    return {re.split(r"[.\[]", field)[0] for field in fields}


def supported(low, high):
    """Decimals that give an interval's width two significant digits; None where there is none."""
    width = high - low
    if not (math.isfinite(width) and width > 0):
        return None
    return max(1 - math.floor(math.log10(width)), 0)


# Where a line may not end: behind a sign that stands before a number, before the sign of a unit,
# on either side of the × of a shape
TOGETHER = re.compile(
    r"(?<=[<>≤≥=≈±]) (?=[−+-]?[\d.]*\d)|(?<=\d) (?=(?:%|×|[µmn]?s|[KMG]i?B|dB|M)(?!\w))"
    r"|(?<=\d[ \u202f]×) (?=\d)"
)


def unbroken(text):
    """A text in which a number stays with its sign and its unit: "< 5 %"."""
    return TOGETHER.sub("\u202f", text)


UNITS = {
    "percent": "%", "bytes": "bytes", "ms": "ms", "us": "µs", "s": "s", "seconds": "s",
    "nats": "nats",
    "kib": "KiB", "mb": "MB", "mib": "MiB", "bits": "bits",
}  # fmt: skip
WORDS = {"speedup": "speed-up", "nbytes": "bytes"}  # of a column's name, as they are read
NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")
RATIO = re.compile(r"\b(times|speed-up|spread|ratio|roofline|operations|time model|over)\b|×")
RATIO_DIGITS = 3  # significant, of every number that is so many times another
WIDE, PERCENT_PLACES = 1000, 3  # percentages farther apart than WIDE have three digits each


def heading(name):
    """A column's name for reading: `step_ms` as "step, ms", `us_per_token` as "µs per token"; what
    is not such a name stays."""
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        return name
    *words, last = (WORDS.get(word, word) for word in name.split("_"))
    if not words:
        return last
    if "per" in words:
        return " ".join((UNITS.get(words[0], words[0]), *words[1:], UNITS.get(last, last)))
    unit = f", {UNITS[last]}" if last in UNITS else f" {last}"
    return " ".join(words) + unit


def readable(df):
    """A copy of a DataFrame for reading: whole numbers with commas, and one format down each float
    column, chosen from its unit.

    What is so many times another has three significant digits. All else has one count of decimals,
    which gives the column's median magnitude four digits (of percentages three), or fewer, but
    two, where another column of the same unit has less; percentages that lie far apart have three
    digits each. Text stays as it is, and numbers among it are written as they are."""
    out, counts = df.astype(object), {}
    for place, kind in enumerate(df.dtypes):
        values, name = df.iloc[:, place], df.columns[place]
        unit = _unit(name)
        if kind.kind == "f" and is_ratio(name):
            out.isetitem(place, [number(value, RATIO_DIGITS) for value in values])
        elif kind.kind == "f" and unit == "%" and _wide(values):
            out.isetitem(place, [percentage(value) for value in values])
        elif kind.kind == "f":
            most = places(values, RATIO_DIGITS if unit == "%" else 4)
            counts.setdefault(unit or place, {})[place] = most
        else:
            out.isetitem(place, [_as_it_is(value) for value in values])
    for of_unit in counts.values():
        least = min((count for count in of_unit.values() if count is not None), default=None)
        for place in of_unit:
            values = df.iloc[:, place]
            count = least if least is None else max(least, places(values, 2) or 0)
            count = count and min(count, _needed(values, count))
            out.isetitem(place, column(values, 4, ratios=True, count=count))
    return out


def _unit(name):
    """What stands behind the comma of a column's head: "µs" of `step_us`; "" without one."""
    head = str(heading(name))
    return head.rpartition(", ")[2] if ", " in head else ""


def is_ratio(name):
    """Whether a column says how many times something is something else."""
    return _unit(name) == "×" or not _unit(name) and bool(RATIO.search(str(heading(name))))


def _wide(values):
    """Whether numbers other than zero lie so far apart that no count of decimals suits them."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    return len(sizes) > 0 and sizes.max() > WIDE * sizes.min()


def percentage(value):
    """133.9, 30.0, 1.48, 0.001: three significant digits, with at least one decimal and at most
    three."""
    if not (np.isfinite(value) and value):
        return number(value)
    return fixed(value, min(max(_decimals(value, 3), 1), PERCENT_PLACES))


def _as_it_is(value):
    """A whole number or a setting among texts, all its digits and no more; a text as it stands."""
    if not isinstance(value, (Real, np.bool_)) and value is not None:
        return value
    return number(value) if not isinstance(value, float) else brief(number(value))


def brief(text):
    """3.860 as 3.86 and 8.000 as 8: an exact number needs no zeros at its end."""
    return text.rstrip("0").rstrip(".") if "." in text and "·" not in text else text


def _needed(values, most):
    """The fewest decimals, at least one below ten, that write numbers which `most` write in full,
    as a setting's, a count's or a printed number's; `most` where they do not, or all are zero."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    if not known.any():
        return most
    tries = range(int(np.abs(known).max() < 10), most)
    return next((n for n in tries if np.allclose(known, known.round(n), 1e-12, 0)), most)


def places(values, digits, ratios=True):
    """The decimals that give the largest number of a column so many significant digits; where
    `ratios` matter, the median one. None where there is no number but zero."""
    values = np.asarray(values, float)
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    if not len(sizes):
        return None
    most = _decimals(float(sizes.max()), digits)
    return max(_decimals(float(np.median(sizes)), digits), most) if ratios else most


def column(values, digits=3, intervals=(), ratios=False, count=None):
    """Numbers down a column as texts with one count of decimals, `count` or that of `places`; where
    `ratios` matter, as on a logarithmic axis, what it would write as zero keeps two digits. Fewer
    where the median width of the `intervals` (low, high) does not support them."""
    values = np.asarray(values, float)
    count = places(values, digits, ratios) or 0 if count is None else count
    known = [enough for pair in intervals if (enough := supported(*pair)) is not None]
    if known:
        count = min(count, int(np.median(known)))
    if count > MOST:
        return [_powered(value, digits) for value in values.tolist()]
    write = _fixed if ratios and not known else fixed
    return [write(value, count) if np.isfinite(value) else number(value) for value in values]


def _fixed(value, places):
    """With so many decimals, except what they would write as zero."""
    if value == 0 or 0.5 * 10**-places <= abs(value) < 1e9:
        return fixed(value, places)
    return number(value, 2)


def _powered(value, digits):
    """A number of a column that has powers of ten: one too if it is small."""
    if 1e-4 <= abs(value) < 1e-2:
        return raised(f"{value:.{max(digits - 3, 1)}e}").replace("-", MINUS)
    return number(value if value else 0, digits)


def _decimals(value, digits=4):
    """How many decimals give `value` that many significant digits, at least none."""
    return max(digits - 1 - math.floor(math.log10(abs(value))), 0) if value else 1
