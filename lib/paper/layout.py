"""What stands around the axes of a figure, and the room that it takes: ticks, names, limits.

The layout is computed once from measured texts (`arrange`): no layout engine runs, and the PNG and
the SVG of a figure hold the same places."""

from functools import cache

import numpy as np
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties

from .canvas import DPI, HATCH, INK_2
from .ticks import SIZE, Ticks
from .words import drawable

EDGE = 6  # pixels that stay free at the figure's border
GAP = 14  # pixels between panels


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


def hatch_beyond(ax, limit, side):
    """Hatches the region no measurement can reach: `side` "above" or "below" of the upright
    `limit`, its right or its left."""
    # a strip of at least a tenth of the axis, so that the hatching is seen
    scale, back = ax.transScale.transform, ax.transScale.inverted().transform
    low, high = ax.get_xlim()
    a, b, c = (scale((v, 1))[0] for v in (low, high, limit))
    if side == "above":
        high = back((max(b, c + (c - a) / 9), 0))[0]
    else:
        low = back((min(a, c - (b - c) / 9), 0))[0]
    span = (limit, high) if side == "above" else (low, limit)
    fill = dict(facecolor="white", edgecolor=HATCH, hatch="////", linewidth=0, zorder=0.5)
    ax.axvspan(*span, **fill)
    ax.set_xlim(low, high)
