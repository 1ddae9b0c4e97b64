"""The canvas of every figure: style, palette, axes, ticks, limits, and direct labels that do not
cover anything.

Figures are made without pyplot, so nothing is global and a notebook shows each exactly once.
"""

import io
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, Formatter, LogLocator, MaxNLocator, NullLocator
from PIL import Image

from .numerals import number

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
ORDER = ("blue", "teal", "plum", "ochre", "grey")
DASHED = (0, (5, 2.6))
SEED_MARK = dict(
    marker="D", ls="", mfc="white", mec=PALETTE["vermilion"][0], mew=1.6, ms=6, zorder=5
)


@contextmanager
def styled():
    """The report's style, and nothing of the caller's, for as long as the block lasts."""
    with mpl.rc_context(), matplotlib.style.context(["default", "seaborn-v0_8-white", STYLE]):
        yield


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


def canvas(height=3.5, columns=1, log=""):
    """An empty figure, 6 inches wide, and its axes (an array of them for several columns); `log`
    "x", "y", "xy" or ""."""
    fig = Figure(figsize=(6.0, height), layout="constrained")
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
            chosen[group] = (
                "vermilion" if str(group).lower().startswith("seed") else free[used % len(free)]
            )
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


def set_scale(axis, ticks=None):
    """Ticks written out: 1-2-5 on a log axis, whole decades when it is long, ordinary steps when it
    is short."""
    low, high = sorted(axis.get_view_interval())
    decades = np.log10(high / low) if axis.get_scale() == "log" else 0
    if ticks is not None:
        axis.set_major_locator(FixedLocator(list(ticks)))
    elif decades > 0.7:
        axis.set_major_locator(LogLocator(subs=(1,) if decades > 3.5 else (1, 2, 5), numticks=20))
    elif decades:
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(TickText())


def name_axes(ax, xlabel, ylabel, log=""):
    """The x label below, the y label lying above the axis; a log axis says so."""
    ax.set_xlabel(xlabel + (" (log scale)" if "x" in log and "log" not in xlabel else ""))
    title = ylabel + (" (log scale)" if "y" in log and "log" not in ylabel else "")
    ax.set_ylabel("")
    ax.set_title(title, loc="left", fontweight="normal", color=INK_2)


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


class Labels:
    """Places texts beside what they name, away from the marks and from each other; use after all
    marks are drawn."""

    def __init__(self, ax):
        self.ax, self.fig = ax, ax.figure
        self.boxes = []  # of the texts placed so far, in pixels
        self.fig.canvas.draw()
        self.marks = self._pixels()

    def ends(self, entries):
        """One label at the right end of each line: `entries` of (y, text, colour), spread so that
        none overlap."""
        if not entries:
            return
        renderer = self.fig.canvas.get_renderer()
        texts = [
            self.ax.annotate(
                text,
                (1, y),
                xycoords=("axes fraction", "data"),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                color=color,
                annotation_clip=False,
            )
            for y, text, color in entries
        ]
        for text in texts:
            text.set_in_layout(False)
        sizes = [text.get_window_extent(renderer) for text in texts]
        room = (max(box.width for box in sizes) + 14) / self.fig.bbox.width
        self.fig.get_layout_engine().set(rect=(0, 0, 1 - room, 1))
        self.fig.canvas.draw()
        self.marks = self._pixels()
        wanted = [self.ax.transData.transform((self.ax.get_xlim()[1], y))[1] for y, *_ in entries]
        heights = [box.height + 2 for box in sizes]
        for text, at, y in zip(
            texts, wanted, spread(wanted, heights, *self.ax.bbox.intervaly), strict=True
        ):
            text.xyann = (6, (y - at) * 72 / self.fig.dpi)
            self.boxes.append(text.get_window_extent(renderer))

    def beside(self, x, y, text, color, style="normal"):
        """A label beside the point (x, y), on the side where it covers least."""
        sides = (
            (7, 0, "left", "center"),
            (0, 7, "center", "bottom"),
            (0, -7, "center", "top"),
            (-7, 0, "right", "center"),
            (6, 6, "left", "bottom"),
            (6, -6, "left", "top"),
            (-6, 6, "right", "bottom"),
            (-6, -6, "right", "top"),
            (0, 18, "center", "bottom"),
            (0, -18, "center", "top"),
        )
        self._best([((x, y), (dx, dy), ha, va) for dx, dy, ha, va in sides], text, color, style)

    def on_line(self, xs, ys, text):
        """A limit's name in italics along its line, wherever it covers least."""
        path = _dense(self.ax.transData.transform(np.column_stack([xs, ys])))
        anchors = self.ax.transData.inverted().transform(
            path[np.linspace(0, len(path) - 1, 13).round().astype(int)]
        )
        sides = [
            (3, 3, "left", "bottom"),
            (3, -3, "left", "top"),
            (-3, 3, "right", "bottom"),
            (-3, -3, "right", "top"),
        ]
        places = [
            (tuple(xy), (dx, dy), ha, va)
            for xy in (*anchors[::-1][:4], *anchors)
            for dx, dy, ha, va in sides
        ]
        self._best(places, text, INK, "italic")

    def on_upright(self, x, text):
        """A vertical limit's name in italics: at its top, to the right or left of the line."""
        heights = (0.95, 0.05, 0.8, 0.2, 0.65, 0.35, 0.5)
        places = [
            ((x, h), (dx, 0), ha, "center")
            for h in heights
            for dx, ha in ((4, "left"), (-4, "right"))
        ]
        self._best(places, text, INK, "italic", coords=self.ax.get_xaxis_transform())

    def _best(self, places, text, color, style, coords="data"):
        renderer = self.fig.canvas.get_renderer()
        label = self.ax.annotate(
            text,
            places[0][0],
            xycoords=coords,
            textcoords="offset points",
            xytext=(0, 0),
            color=color,
            fontstyle=style,
            zorder=6,
            bbox=dict(facecolor="white", edgecolor="none", pad=0.8, alpha=0.85),
        )
        label.set_in_layout(False)
        scored = []
        for place in places:
            self._move(label, place)
            scored.append((self._cost(label.get_window_extent(renderer)), place))
        self._move(label, min(scored, key=lambda pair: pair[0])[1])
        self.boxes.append(label.get_window_extent(renderer))

    @staticmethod
    def _move(label, place):
        label.xy, label.xyann = place[0], place[1]
        label.set(ha=place[2], va=place[3])

    def _cost(self, box):
        frame = self.ax.bbox
        outside = (
            max(frame.x0 - box.x0, 0)
            + max(box.x1 - frame.x1 - 4, 0)
            + max(frame.y0 - box.y0, 0)
            + max(box.y1 - frame.y1, 0)
        )
        texts = sum(box.overlaps(other) for other in self.boxes)
        inside = (self.marks > (box.x0 - 2, box.y0 - 2)) & (self.marks < (box.x1 + 2, box.y1 + 2))
        return outside * 50 + texts * 2000 + inside.all(axis=1).sum()

    def _pixels(self):
        """Every few pixels of what is drawn in data coordinates, as (n, 2) display coordinates."""
        points = [np.empty((0, 2))]
        for line in self.ax.lines:
            if line.get_transform() == self.ax.transData:
                xy = self.ax.transData.transform(
                    np.column_stack([np.asarray(v, float) for v in line.get_data()])
                )
                points += [xy, _dense(xy)] if line.get_linestyle() != "None" else [xy]
        for group in self.ax.collections:
            points.append(group.get_offset_transform().transform(group.get_offsets()))
        for patch in self.ax.patches:
            if patch.get_hatch() is None:
                points.append(_dense(patch.get_window_extent().corners()[[0, 1, 3, 2, 0]]))
        return np.concatenate(points)


def _dense(xy):
    """The polyline through `xy` sampled about every 4 pixels, from one finite point to the next."""
    xy = xy[np.isfinite(xy).all(axis=1)]
    pieces = [
        np.linspace(a, b, max(int(np.hypot(*(b - a)) / 4), 2))
        for a, b in zip(xy[:-1], xy[1:], strict=True)
    ]
    return np.concatenate(pieces) if pieces else np.empty((0, 2))


def spread(wanted, heights, low, high):
    """Positions near `wanted`, in the same order, no closer than their `heights` allow, within
    [low, high] if they fit."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed, floor = {}, low - np.inf
    for i in order:  # upwards: push each above the one below
        placed[i] = max(wanted[i], floor + heights[i] / 2, low + heights[i] / 2)
        floor = placed[i] + heights[i] / 2
    ceiling = max(high, low + sum(heights))
    for i in reversed(order):  # downwards: bring back what left the frame, then centre clusters
        placed[i] = min(placed[i], ceiling - heights[i] / 2)
        ceiling = placed[i] - heights[i] / 2
    return [placed[i] for i in range(len(wanted))]
