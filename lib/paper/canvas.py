"""The canvas of every figure: style, palette, axes, and the PNG of what is drawn on them.

Every text is literal: a label that comes from data never reaches matplotlib's parser of TeX.

Figures are made without pyplot, so nothing is global and a notebook shows each exactly once."""

import io
import re
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import matplotlib as mpl
import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

STYLE = Path(__file__).with_name("figures.mplstyle")
INK, INK_2, HATCH = "#1a1d21", "#474e57", "#e1e4e7"
# Name -> (line and marker, text label). Vermilion is the original's, blue our main path's, grey
# the baseline's.
PALETTE = {
    "blue": ("#0b559f", "#0b559f"),
    "teal": ("#1a9e77", "#0b7457"),
    "plum": ("#6e2468", "#6e2468"),
    "ochre": ("#b98000", "#855a00"),
    "grey": ("#6b7280", "#474e57"),
    "vermilion": ("#b93a08", "#b93a08"),
}
ORIGINAL = re.compile("original('s|’s| report| recipe)", re.I)
ORDER = ("blue", "teal", "plum", "ochre", "grey")
DASHED = (0, (5, 2.6))
AGAIN = (0, (7, 1.6, 1.2, 1.6))  # of a line whose color another of the figure has
WIDE = 6.0  # inches: as wide as the text
WIDTH = ContextVar("width", default=WIDE)  # of a figure in inches
SEED_MARK = dict(
    marker="D", ls="", mfc="white", mec=PALETTE["vermilion"][0], mew=1.6, ms=6, zorder=5
)
DPI = 96  # of the layout: a pixel is a CSS pixel of the page


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

    It is drawn in the 256 colours that come nearest to all of its own: a third of the bytes, and no
    difference that an eye sees."""
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


def row_height(inches):
    """The height of a figure's row, closer where two figures stand beside each other."""
    return inches * (1 if WIDTH.get() >= WIDE else 0.7)


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
    """A palette name for each group: those given, else vermilion for the original's, else the
    order of the palette."""
    chosen = dict(colors or {})
    free = [name for name in ORDER if name not in chosen.values()] or list(ORDER)
    for group in groups:
        if group not in chosen:
            used = sum(g in groups and c != "vermilion" for g, c in chosen.items() if c in free)
            chosen[group] = "vermilion" if ORIGINAL.match(str(group)) else free[used % len(free)]
    unknown = [c for c in chosen.values() if c not in PALETTE]
    if unknown:
        raise ValueError(
            f"colour {unknown[0]!r} is not in the palette: choose one of {', '.join(PALETTE)}"
        )
    return chosen
