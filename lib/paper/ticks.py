"""The ticks of an axis that holds numbers: where they stand, as many as have room, and how they are
written."""

import numpy as np
from matplotlib.ticker import FixedFormatter, FixedLocator, LogLocator, MaxNLocator, NullLocator

from .numerals import number

SIZE = 9  # points of every text
DIGIT, POINT = 0.64, 0.32  # em that a digit and a comma or point of the figures' font take
ROOM = 0.8  # em between two labels


class Ticks:
    """The ticks wanted on an axis (`values`, or None for round ones)."""

    def __init__(self, values=None):
        self.values = None if values is None else sorted(float(value) for value in values)

    def fix(self, axis):
        """Puts onto the axis what has room at its present length, with the numbers written out:
        1-2-5 on a log axis, whole decades when it is long, ordinary steps when it is short."""
        low, high = sorted(axis.get_view_interval())
        for values in self._choices(axis, low, high):
            inside = [value for value in values if low <= value <= high]
            texts = written(inside, axis.get_scale() == "linear")
            kept = _apart(axis, inside, texts)
            if len(kept) == len(inside):
                break
        axis.set_major_locator(FixedLocator([inside[i] for i in kept]))
        axis.set_major_formatter(FixedFormatter([texts[i] for i in kept]))
        axis.set_minor_locator(NullLocator())

    def _choices(self, axis, low, high):
        """Lists of ticks, the fullest first."""
        decades = np.log10(high / low) if axis.get_scale() == "log" else 0
        if self.values is not None:
            return [self.values]
        if decades > 0.7:
            wanted = ((1,),) if decades > 3.5 else ((1, 2, 5), (1, 3))
            found = [LogLocator(subs=s, numticks=20).tick_values(low, high) for s in wanted]
            whole = [_decades(low, high, first) for first in (1, 3)]  # of the two, what gives more
            return [*found, whole[len(whole[1]) > len(whole[0])] if decades <= 3.5 else found[0]]
        space = (axis.axes.bbox.width / 48, axis.axes.bbox.height / 34)[axis.axis_name == "y"]
        most = 4 if decades else int(np.clip(space, 2, 9))
        tries = range(most, 1, -1)
        return [MaxNLocator(n, steps=[1, 2, 5, 10]).tick_values(low, high) for n in tries]


def _decades(low, high, first) -> list[float]:
    """`first` times every power of ten from low to high."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    return [first * 10.0**power for power in powers if low <= first * 10.0**power <= high]


def written(values, linear) -> list[str]:
    """1,000, 0.05, −2: no exponent between 10⁻⁴ and 10⁹, and one count of decimals along a linear
    axis."""
    places = [len(f"{value:.6f}".rstrip("0").partition(".")[2]) for value in values]
    texts = []
    for value, own in zip(values, places, strict=True):
        if value and not 1e-4 <= abs(value) < 1e9:
            texts.append(number(float(value)).replace(".0·", "·").replace("1·10", "10"))
        else:
            count = max(places) if linear else own
            texts.append(f"{value + 0.0:,.{count}f}".replace("-", "−"))
    return texts


def _apart(axis, values, texts) -> list[int]:
    """Which ticks to keep so that no label touches another, the last and the first before all."""
    along = {"x": 0, "y": 1}[axis.axis_name]
    em = SIZE * axis.axes.figure.dpi / 72
    at = axis.axes.transData.transform(np.column_stack([values, values]).reshape(-1, 2))[:, along]
    kept, order = [], list(range(len(values)))
    for i in order[-1:] + order[:-1]:
        half = em * 0.7 if along else em * (_width(texts[i]) + ROOM) / 2
        if all(abs(at[i] - at[j]) >= half + room for j, room in kept):
            kept.append((i, half))
    return sorted(i for i, _ in kept)


def _width(text) -> float:
    return sum(POINT if mark in ",." else DIGIT for mark in text)
