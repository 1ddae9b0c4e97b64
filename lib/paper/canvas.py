"""The canvas of every figure: style, palette, axes, ticks, limits, and the room that texts take.

Every text is literal: a label that comes from data never reaches matplotlib's parser of TeX.

Figures are made without pyplot, so nothing is global and a notebook shows each exactly once. Their
layout is computed once from measured texts (`arrange`), then drawn: no layout engine runs, and the
PNG and the SVG of a figure hold the same places.
"""

import io
import re
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import matplotlib as mpl
import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from PIL import Image

from .ticks import SIZE, Ticks
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
DPI = 96  # of the layout: a pixel is a CSS pixel of the page
EDGE = 6  # pixels that stay free at the figure's border
GAP = 14  # pixels between panels


@contextmanager
def styled():
    """The report's style, and nothing of the caller's, for as long as the block lasts."""
    with mpl.rc_context(_style()):
        yield


@cache
def _style() -> dict:
    with mpl.rc_context():
        matplotlib.style.use(["default", "seaborn-v0_8-white", STYLE])
        return {key: mpl.rcParams[key] for key in mpl.rcParams if key != "backend"}


class LiteralFigure(Figure):
    """A figure that is drawn in the report's style, all its texts literal, whoever draws it.

    `ticks` are those of the axes that hold numbers, chosen anew whenever the axes take their
    place."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.ticks = {}

    def draw(self, renderer):
        with styled():  # a caller may have added what makes its ticks while drawing
            for text in self.findobj(Text):
                text.set_parse_math(False)
            super().draw(renderer)


def png_bytes(fig) -> bytes:
    """The PNG of a figure at 192 dpi: the same bytes for the same figure, no software metadata,
    nothing cropped.

    Its colours are the 256 that stand for all best: a third of the bytes, and no difference that an
    eye sees."""
    image, file = _pixels(fig), io.BytesIO()
    some = image.resize((image.width // 3, image.height // 3), Image.Resampling.NEAREST)
    palette = some.quantize(256, dither=Image.Dither.NONE)  # of a ninth: ten times as fast
    few = image.quantize(palette=palette, dither=Image.Dither.NONE)
    colors, ground = few.getpalette(), few.getpixel((0, 0))
    colors[3 * ground : 3 * ground + 3] = image.getpixel((0, 0))  # the ground is no mean of others
    few.putpalette(colors)
    few.save(file, "PNG", dpi=(2 * DPI, 2 * DPI))
    return file.getvalue()


def _pixels(fig) -> Image.Image:
    """The figure drawn once at 192 dpi, on white; its own canvas and resolution stay."""
    dpi, canvas = fig.dpi, fig.canvas
    try:
        fig.set_dpi(2 * DPI)
        agg = FigureCanvasAgg(fig)
        with styled():
            agg.draw()
        drawn = Image.fromarray(np.asarray(agg.buffer_rgba()))
    finally:
        fig.set_dpi(dpi)
        fig.set_canvas(canvas)
    if fig.get_facecolor()[3] < 1:
        drawn = Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn)
    return drawn.convert("RGB")


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
    fig, ax = canvas(tall / DPI)
    ax.set_position((0, 0, 1, 1))
    ax.set(xlim=(0, fig.bbox.width), ylim=(tall, 0))
    ax.set_axis_off()
    return fig, ax


def canvas(height=3.5, columns=1, log=""):
    """An empty figure, 6 inches wide unless `narrow`, and its axes (an array of them for several
    columns); `log` "x", "y", "xy" or ""."""
    fig = LiteralFigure(figsize=(WIDTH.get(), height), dpi=DPI)
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


def set_scale(axis, ticks=None):
    """Ticks of an axis that holds numbers, written out; `ticks` are the values wanted."""
    axis.axes.figure.ticks[axis] = ticks = Ticks(ticks)
    ticks.fix(axis)


def name_axes(ax, xlabel, ylabel, log=""):
    """The x label below, the y label lying above the axis; a log axis says so."""
    ax.set_xlabel(drawable(_scaled(xlabel, "x" in log)))
    ax.set_ylabel("")
    name_figure(ax, _scaled(ylabel, "y" in log))


def _scaled(label, log):
    return str(label) + (" (log scale)" if log and "log" not in str(label) else "")


def name_figure(ax, title, pad=8):
    """What all of a figure's marks count, above it at its left edge."""
    most = int(14 * ax.figure.get_figwidth())  # characters
    ax.set_title(drawable(title, most), loc="center", ha="left", color=INK_2, pad=pad)


def name_panels(axes, names, counted):
    """Each panel's name above it, and above them what all of them count."""
    name_figure(axes[0], counted, pad=24)
    places = dict(xycoords="axes fraction", xytext=(0, 8), textcoords="offset points")
    for ax, name in zip(axes, names, strict=True):
        ax.annotate(drawable(name, 84 // len(axes) - 2), (0, 1), color=INK_2, **places)


@cache
def text_width(text) -> float:
    """Pixels that a text takes in a figure."""
    renderer, font = RendererAgg(1, 1, DPI), FontProperties(family="DejaVu Sans", size=SIZE)
    lines = text.splitlines() or [""]
    widest = max(renderer.get_text_width_height_descent(line, font, False)[0] for line in lines)
    return 1.02 * widest  # hinted for another resolution it is a little wider


def arrange(fig, right=0.0):
    """Gives the axes, side by side, all the room that the texts around them leave; `right` is what
    stands at the right of the last one, in pixels."""
    renderer = fig.canvas.get_renderer()
    for _ in range(2):  # the ticks of the second round fit the axes that the first has placed
        for axis, ticks in fig.ticks.items():
            ticks.fix(axis)
        out = np.array([_overhang(ax, renderer) for ax in fig.axes])
        left, bottom, over, top = out.T
        gaps = over[:-1] + left[1:] + GAP
        end = max(right, over[-1]) + EDGE
        width = (fig.bbox.width - left[0] - EDGE - end - gaps.sum()) / len(out)
        low, high = bottom.max() + EDGE, fig.bbox.height - top.max() - EDGE
        start = left[0] + EDGE + np.r_[0, np.cumsum(width + gaps)]
        for ax, x in zip(fig.axes, start, strict=True):
            box = np.array([x, low, max(width, 1), high - low])
            ax.set_position(box / np.tile(fig.bbox.size, 2))
    for axis, ticks in fig.ticks.items():
        ticks.fix(axis)
    first = fig.axes[0]
    first.title.set_x((EDGE - first.bbox.x0) / first.bbox.width)


def _overhang(ax, renderer):
    """Pixels that titles, labels and ticks take at the left, below, at the right and above."""
    parts = [ax.xaxis.get_tightbbox(renderer), ax.yaxis.get_tightbbox(renderer)]
    parts += [ax.title.get_window_extent(renderer)] if ax.get_title() else []
    boxes = np.array([part.extents for part in parts if part is not None] or [ax.bbox.extents])
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    title_free_right = max([p.x1 for p in parts[:2] if p is not None], default=ax.bbox.x1)
    right = max(title_free_right - ax.bbox.x1, 0)
    return *np.maximum(ax.bbox.min - low, 0), right, max(high[1] - ax.bbox.y1, 0)


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
