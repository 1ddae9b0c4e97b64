"""The canvas of every figure: style, palette, axes, ticks, limits.

Every text is literal: a label that comes from data never reaches matplotlib's parser of TeX.

Figures are made without pyplot, so nothing is global and a notebook shows each exactly once.
"""

import io
import re
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import matplotlib as mpl
import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import (
    FixedLocator,
    Formatter,
    Locator,
    LogLocator,
    MaxNLocator,
    NullLocator,
)
from PIL import Image

from .numerals import number
from .words import drawable

STYLE = Path(__file__).with_name("figures.mplstyle")
INK, INK_2, HATCH = "#1a1d21", "#474e57", "#e1e4e7"
# Name -> (line and marker, text label). Vermilion is the seed report's, blue our main path's, grey
# the baseline's.
PALETTE = {
    "blue": ("#0b559f", "#0b559f"),
    "teal": ("#1a9e77", "#0b7457"),
    "plum": ("#6e2468", "#6e2468"),
    "ochre": ("#b98000", "#855a00"),
    "grey": ("#6b7280", "#474e57"),
    "vermilion": ("#b93a08", "#b93a08"),
}
SEED = re.compile("seed('s|’s| report)", re.I)
ORDER = ("blue", "teal", "plum", "ochre", "grey")
DASHED = (0, (5, 2.6))
WIDTH = ContextVar("width", default=6.0)  # of a figure in inches, as wide as the text
SEED_MARK = dict(
    marker="D", ls="", mfc="white", mec=PALETTE["vermilion"][0], mew=1.6, ms=6, zorder=5
)


@contextmanager
def styled():
    """The report's style, and nothing of the caller's, for as long as the block lasts."""
    with mpl.rc_context(), matplotlib.style.context(["default", "seaborn-v0_8-white", STYLE]):
        yield


class LiteralFigure(Figure):
    """A figure that is drawn in the report's style, all its texts literal, whoever draws it."""

    def draw(self, renderer):
        with styled():  # ticks are made while drawing
            for text in self.findobj(Text):
                text.set_parse_math(False)
            super().draw(renderer)


def png_bytes(fig) -> bytes:
    """The PNG of a figure at 192 dpi: the same bytes for the same figure, no software metadata,
    nothing cropped.

    Its colours are the 256 that stand for all best: a third of the bytes, and no difference that an
    eye sees."""
    full, small = io.BytesIO(), io.BytesIO()
    with styled():
        fig.savefig(full, format="png", metadata={"Software": None}, bbox_inches=None)
    with Image.open(full) as image:
        few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        few.save(small, "PNG", optimize=True, dpi=image.info["dpi"])
    return small.getvalue()


@contextmanager
def narrow(inches=4.4):
    """Figures of this width for as long as the block lasts: two stand beside each other."""
    token = WIDTH.set(inches)
    try:
        yield
    finally:
        WIDTH.reset(token)


def sheet(tall):
    """An empty figure, `tall` pixels of the page high, and its axes, whose data are such pixels
    from the top left."""
    fig, ax = canvas(tall / 96)
    fig.set_layout_engine("none")
    ax.set_position((0, 0, 1, 1))
    ax.set(xlim=(0, fig.get_figwidth() * 96), ylim=(tall, 0))
    ax.set_axis_off()
    return fig, ax


def canvas(height=3.5, columns=1, log=""):
    """An empty figure, 6 inches wide unless `narrow`, and its axes (an array of them for several
    columns); `log` "x", "y", "xy" or ""."""
    fig = LiteralFigure(figsize=(WIDTH.get(), height), layout="constrained")
    FigureCanvasAgg(fig)
    axes = fig.subplots(1, columns)
    for name in log:
        axes.set(**{f"{name}scale": "log"})
    return fig, axes


def assign(groups, colors=None) -> dict:
    """A palette name for each group: those given, else vermilion for the seed report's, else the
    order of the palette."""
    chosen = dict(colors or {})
    free = [name for name in ORDER if name not in chosen.values()] or list(ORDER)
    for group in groups:
        if group not in chosen:
            used = sum(g in groups and c != "vermilion" for g, c in chosen.items() if c in free)
            chosen[group] = "vermilion" if SEED.match(str(group)) else free[used % len(free)]
    unknown = [c for c in chosen.values() if c not in PALETTE]
    if unknown:
        raise ValueError(
            f"colour {unknown[0]!r} is not in the palette: choose one of {', '.join(PALETTE)}"
        )
    return chosen


class TickText(Formatter):
    """1,000, 0.05, −2: no exponent between 10⁻⁴ and 10⁹, and one count of decimals along a linear
    axis."""

    def __call__(self, value, pos=None):
        if value and not 1e-4 <= abs(value) < 1e9:
            return number(float(value)).replace(".0·", "·").replace("1·10", "10")
        linear = self.axis is not None and self.axis.get_scale() == "linear"
        places = max(
            self._places(v)
            for v in ([value, *self.axis.get_majorticklocs()] if linear else [value])
        )
        return f"{value + 0.0:,.{places}f}".replace("-", "−")

    @staticmethod
    def _places(value):
        return len(f"{value:.6f}".rstrip("0").partition(".")[2])


class Roomy(Locator):
    """The ticks of the first of several locators whose labels have room; of the last as many as
    fit, its ends first."""

    def __init__(self, *locators):
        self.locators = locators

    def set_axis(self, axis):
        super().set_axis(axis)
        for locator in self.locators:
            locator.set_axis(axis)

    def __call__(self):
        for locator in self.locators:
            low, high = sorted(self.axis.get_view_interval())
            ticks = [tick for tick in locator() if low <= tick <= high]
            kept = self._apart(ticks)
            if len(kept) == len(ticks):
                break
        return kept

    def tick_values(self, vmin, vmax):
        return self.locators[0].tick_values(vmin, vmax)

    def _apart(self, ticks):
        """`ticks` without those whose label would touch one that is kept."""
        axes, place = self.axis.axes, {"x": 0, "y": 1}[self.axis.axis_name]
        em = 8.5 * self.axis.figure.dpi / 72  # tick labels have 8.5 points
        kept = []
        for tick in [*ticks[-1:], *ticks[:-1]]:
            at = axes.transData.transform((tick, tick))[place]
            text = f"{tick:,.6f}".rstrip("0").rstrip(".")
            wide = 0.32 * len(text) + 0.4  # a digit is 0.64 em wide
            half = em * (wide if place == 0 else 0.7)
            if all(abs(at - other) >= half + room for _, other, room in kept):
                kept.append((tick, at, half))
        return sorted(tick for tick, *_ in kept)


def set_scale(axis, ticks=None):
    """Ticks written out: 1-2-5 on a log axis, whole decades when it is long, ordinary steps when it
    is short."""
    low, high = sorted(axis.get_view_interval())
    decades = np.log10(high / low) if axis.get_scale() == "log" else 0
    if ticks is not None:
        axis.set_major_locator(Roomy(FixedLocator(list(ticks))))
    elif decades > 0.7:
        wanted = ((1,), (1,)) if decades > 3.5 else ((1, 2, 5), (1, 3), (1,))
        axis.set_major_locator(Roomy(*(LogLocator(subs=subs, numticks=20) for subs in wanted)))
    elif decades:
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(TickText())


def name_axes(ax, xlabel, ylabel, log=""):
    """The x label below, the y label lying above the axis; a log axis says so."""
    ax.set_xlabel(drawable(xlabel) + (" (log scale)" if "x" in log and "log" not in xlabel else ""))
    title = drawable(ylabel) + (" (log scale)" if "y" in log and "log" not in ylabel else "")
    ax.set_ylabel("")
    name_panel(ax, title)


def name_panel(ax, title, loc="left", panels=1):
    """A title above the axes, short enough for one of so many panels side by side."""
    text = drawable(title, 84 // panels - 2 * (panels > 1))
    ax.set_title(text, loc=loc, fontweight="normal", color=INK_2)


def hatch_beyond(ax, limit, side, vertical=False):
    """Hatches the region no measurement can reach: `side` "above" or "below" of `limit` (right or
    left if `vertical`)."""
    scale = (
        ax.transScale.transform
    )  # a strip of at least a tenth of the axis, so that the hatching is seen
    low, high = ax.get_xlim() if vertical else ax.get_ylim()
    a, b, c = (scale((v, v))[0 if vertical else 1] for v in (low, high, limit))
    if side == "above":
        high = ax.transScale.inverted().transform([max(b, c + (c - a) / 9)] * 2)[
            0 if vertical else 1
        ]
    else:
        low = ax.transScale.inverted().transform([min(a, c - (b - c) / 9)] * 2)[
            0 if vertical else 1
        ]
    span = (limit, high) if side == "above" else (low, limit)
    fill = dict(facecolor="white", edgecolor=HATCH, hatch="////", linewidth=0, zorder=0.5)
    (ax.axvspan if vertical else ax.axhspan)(*span, **fill)
    (ax.set_xlim if vertical else ax.set_ylim)(low, high)
