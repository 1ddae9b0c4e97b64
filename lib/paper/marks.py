"""The marks of the report's HTML: strips, certificate rulers, and numbers written with their units
and intervals.

One vocabulary, as in the figures: blue dot and bar = measured with its 95 % interval, hollow
vermilion diamond = the original report's number, dashed line = threshold or limit, pale field = the
claim holds here, hatching = nothing can lie here."""

import math
import re

from markupsafe import Markup, escape

from .numerals import MINUS, RATIO_DIGITS, brief, fixed, number, supported

NARROW = "\u202f"  # narrow no-break space, between a number and its unit
FROM, TO = 3.0, 97.0  # % of a strip's width that its marks are clamped to
HELD = {"<": (0, 50), "<=": (0, 50), ">": (50, 100), ">=": (50, 100)}  # % where a bar is met


def strip(value, interval=None, bar=None, seed=None, limit=None, beyond=None, log=None, start=None):
    """One row's number line as inline SVG, its marks clamped to 3-97 %; "" where `value` is not a
    number.

    A `bar`, (operator, bound) as (">=", 3.7), has its bound at 50 %, with the side where the claim
    holds shaded, nothing at 10 % and twice the bound at 90 %: one scale for every row, on which a
    place is a share of the bound and what is further out is an arrow. About a bound of zero the
    interval sets the scale, and "" is returned where there is none or nothing is there to compare
    with. Without a bar the line spans all the numbers given, logarithmically if they differ more
    than fivefold (or as `log` says; ticks at 1, 2, 5, 10, ... tell), and `start`, where nothing is
    gained; `limit` is dashed and `beyond` ("above" | "below") hatches what lies past it."""
    if not _is_number(value):
        return Markup("")
    interval = interval if interval and all(_is_number(x) for x in interval) else None
    seed = seed if _is_number(seed) else None
    limit = limit if _is_number(limit) else None
    scaled = bar and (interval or bar[1] or not value)  # a margin to zero alone has no scale
    if not (scaled or not bar and (seed, limit) != (None, None)):
        return Markup("")  # nothing to stand beside
    given = [value, *(interval or ()), seed, limit, start]
    place, ticks = _around(bar[1], value, interval) if bar else _across(given, log)
    marks = []
    if bar:
        low, high = HELD[bar[0]]
        marks.append(f'<rect class="hold" x="{low}%" width="{high - low}%" y="1" height="12"/>')
    elif limit is not None and beyond:
        x = place(limit)
        low, high = (x, 100) if beyond == "above" else (0, x)
        marks.append(
            f'<rect x="{low:g}%" width="{high - low:g}%" y="1" height="12" fill="url(#beyond)"/>'
        )
    marks.append('<line class="axis" x1="0" x2="100%" y1="7" y2="7"/>')
    for x in map(place, ticks):
        marks.append(f'<line class="axis" x1="{x:g}%" x2="{x:g}%" y1="7" y2="10"/>')
    for x in [50.0] if bar else [] if limit is None else [place(limit)]:
        marks.append(f'<line class="limit" x1="{x:g}%" x2="{x:g}%" y1="-1" y2="15"/>')
    if seed is not None:
        marks.append(_shape("seedmark", place(seed), "M0-4.5 4.5 0 0 4.5-4.5 0z"))
    if interval:
        marks.append(
            f'<line class="iv" x1="{place(interval[0]):g}%" x2="{place(interval[1]):g}%" y1="7" '
            f'y2="7"/>'
        )
    x = place(value)
    if FROM < x < TO:
        marks.append(f'<circle class="dot" cx="{x:g}%" cy="7" r="4.2"/>')
    else:
        marks.append(_shape("dot", x, "M-4-5 4 0-4 5z" if x == TO else "M4-5-4 0 4 5z"))
    return Markup(f'<svg class="strip" aria-hidden="true">{"".join(marks)}</svg>')


def _shape(kind, x, path):
    return f'<svg x="{x:g}%" y="7" overflow="visible"><path class="{kind}" d="{path}"/></svg>'


def _around(center, value, interval):
    """Positions in % with `center` at 50 and 10 and 90 for nothing and twice the center, or for
    the furthest of the interval from a center of zero; no ticks."""
    reach = abs(center) or max(abs(x) for x in (value, *(interval or ()))) or 1.0
    return lambda x: _clamped(50 + 40 * (x - center) / reach), ()


def _across(values, log):
    """Positions in % over all `values`, with a margin of 12 at both ends, and the ticks of a
    logarithmic line."""
    known = [x for x in values if x is not None]
    if log is None:
        log = min(known) > 0 and max(known) > 5 * min(known)
    log = log and min(known) > 0
    scale = math.log if log else float
    low, high = scale(min(known)), scale(max(known))
    ticks = _one_two_five(min(known), max(known)) if log else ()
    return (
        lambda x: _clamped(50 if high == low else 12 + 76 * (scale(x) - low) / (high - low)),
        ticks,
    )


def _one_two_five(low, high):
    """The numbers 1, 2, 5, 10, 20, ... from low to high; over more than three decades the powers
    of ten alone."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first < 4 else (1,)
    found = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    return [x for x in found if low <= x <= high]


def _clamped(percent):
    return round(min(max(percent, FROM), TO), 1)


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def written(value, unit="", interval=None):
    """A value for reading with its unit: as many decimals as its interval supports, but one digit
    that is not zero; three digits of a ratio that has none; text and "yes" / "no" as they are."""
    if not _is_number(value):
        return value if isinstance(value, str) else number(value)
    places = _places(interval)
    digits = RATIO_DIGITS if unit == "×" and not isinstance(value, int) else 4
    if places is not None and value and not round(value, places):  # 0.0 would hide the side
        places, digits = None, 1
    text = brief(number(value, digits)) if places is None else fixed(value, places)
    return _with_unit(text, unit)


def measured(row):
    """What a row of claims was measured as; what follows from printed numbers has their digits."""
    if not row.get("printed") or row["measured"] is None:
        return written(row["measured"], row["unit"], row.get("interval"))
    places = len(str(row["seed_value"]).partition(".")[2])
    return _with_unit(fixed(row["measured"], places), row["unit"])


def stated(value, unit=""):
    """The original report's own number: its digits, with a thousands comma."""
    return (
        _with_unit(f"{value:,}".replace("-", MINUS), unit) if _is_number(value) else written(value)
    )


def _with_unit(text, unit):
    """The number and its unit, kept together where the unit is a symbol; words may go to the next
    line; one of what is counted is no plural."""
    if not unit or unit in ("×", "x"):
        return text + ("×" if unit else "")
    space = NARROW if len(unit) < 5 or unit[0] in "%×" else " "
    if text == "1":
        unit = re.sub(r"^([a-z]{4,})s\b", r"\1", unit)
    return text + space + unit


def interval_text(interval, bound=None):
    """[1.89, 2.12], with two significant digits of its width, or as many more as tell its ends from
    a `bound` beside it; "" for None, and where it has no width: a number that was compared with
    itself."""
    if not interval or interval[0] == interval[1]:
        return ""
    places = _places(interval)
    near = [end for end in interval if bound not in (None, end)]
    while places in range(6) and any(fixed(x, places) == fixed(bound, places) for x in near):
        places += 1
    ends = (number(x, 3) if places is None else fixed(x, places) for x in interval)
    return f"[{', '.join(ends)}]"


def _places(interval):
    """Decimals that give the interval's width two significant digits; None where plain decimals do
    not suit it."""
    places = supported(*interval) if interval else None
    return None if places is None or places > 6 else places


def ruler(error, margin):
    """The certificate's logarithmic ruler: error at a quarter, margin at three quarters, the room
    between them shaded."""
    # an exact zero has no logarithm: it stands far to the left
    shown = error if error > 0 else margin * 1e-12
    low, high = sorted((math.log10(shown), math.log10(margin)))
    span = max(high - low, 0.5)
    middle, safe = (low + high) / 2, error < margin

    def x(power):
        return round(280 + 280 * (power - middle) / span, 1)

    at, edge = x(math.log10(shown)), x(math.log10(margin))
    field = f'<rect class="safe" x="{at}" y="20" width="{edge - at:g}" height="16"/>'
    parts = [field] if safe else []
    parts += [
        '<line x1="0" x2="560" y1="36" y2="36"/>',
        f'<circle cx="{at}" cy="28" r="5"/>',
        f'<line class="m" x1="{edge}" x2="{edge}" y1="16" y2="40"/>',
    ]
    ends, away = (("end", "start"), 4) if safe else (("start", "end"), -4)  # two labels never touch
    parts += [
        f'<text x="{at - away}" y="10" text-anchor="{ends[0]}">error {number(error, 3)}</text>',
        f'<text x="{edge + away}" y="10" text-anchor="{ends[1]}">margin {number(margin, 3)}</text>',
    ]
    room = "exact" if error == 0 else f"room: {number(float(f'{margin / error:.2g}'), 2)}×"
    if safe and span > 1:
        parts.append(f'<text class="safe-t" x="280" y="32" text-anchor="middle">{room}</text>')
    first, last = math.ceil(middle - 0.95 * span), math.floor(middle + 0.95 * span)
    for power in range(first, last + 1, max(math.ceil((last - first) / 6), 1)):
        label = f'10<tspan dy="-4">{str(power).replace("-", MINUS)}</tspan>'
        parts.append(
            f'<line x1="{x(power)}" x2="{x(power)}" y1="36" y2="41"/>'
            f'<text x="{x(power)}" y="56" text-anchor="middle">{label}</text>'
        )
    relation = f"{room} between them" if safe else "the error is not below the margin"
    alt = f"Logarithmic ruler: error {number(error, 3)}, margin {number(margin, 3)}; {relation}."
    return Markup(
        f'<svg class="ruler" viewBox="0 0 560 62" role="img" '
        f'aria-label="{escape(alt)}">{"".join(parts)}</svg>'
    )
