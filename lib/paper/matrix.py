"""Matrices as shaded cells: one hue from the page's own colour to full, two where a centre parts
the values. The shade is an opacity, so that it stands on a light and on a dark page alike."""

import numpy as np
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from . import alt
from .alt import described
from .canvas import INK_2, canvas, styled
from .layout import arrange, name_figure, name_panels, text_width
from .numerals import column, number
from .ticks import written
from .words import drawable
from .words import label as short

ABOVE, BELOW = "#0a549e", "#9c4a00"  # full shade, above and below the centre
FAINT = 0.05  # the least shade: a cell that holds a number is seen
ROW, BAR, ASIDE = 26, 12, 14  # pixels: a row's height, the scale's width, and its distance


@described(alt.matrix)
def heatmap(frames, *, label, xlabel="", ylabel="", annotate=False, center=None, height=None):
    """A matrix (DataFrame: index down, columns across), or {title: DataFrame} side by side on one
    scale.

    `annotate` writes the numbers into the cells, which then need no colour scale. `center` is the
    value where one hue turns into the other, such as 1 for ratios; the scale spans the values and
    it, or zero."""
    panels = frames if isinstance(frames, dict) else {"": frames}
    values = np.concatenate([frame.to_numpy(float).ravel() for frame in panels.values()])
    shade = _Shade(values, center)
    with styled():
        fig, axes = canvas(height or 3, len(panels))
        axes = np.atleast_1d(axes)
        for ax, frame in zip(axes, panels.values(), strict=True):
            ax.set(xlabel=drawable(xlabel), xlim=(-0.5, frame.shape[1] - 0.5))
            ax.set_yticks(range(len(frame)), [short(name, 30) for name in frame.index])
            ax.set_ylim(len(frame) - 0.5, -0.5)
            ax.tick_params(length=0)
            ax.spines[:].set_visible(False)
            ax.grid(False)
        for ax in axes[1:]:
            ax.set_yticks([])
        texts = _numbers(panels.values()) if annotate else {}
        beside = max(text_width(text.get_text()) for text in axes[0].get_yticklabels())
        wide = (fig.bbox.width - beside - 40) / sum(f.shape[1] for f in panels.values())
        annotate = annotate and max(map(text_width, texts.values())) + 4 < wide  # else they touch
        _name(axes, panels, label, ylabel, annotate)
        ticks = [] if annotate else shade.ticks(len(axes[0].get_yticks()) * ROW / 30)
        marks = written(ticks, linear=True)
        room = 0 if annotate else ASIDE + BAR + 6 + max(map(text_width, marks), default=0)
        _arranged(fig, axes, panels, room, fixed=height)
        for ax, frame in zip(axes, panels.values(), strict=True):
            _cells(ax, frame, shade, inset=0.015 if annotate else 0)
            if annotate:
                _write(ax, frame, shade, texts)
        if not annotate:
            _scale(axes[-1], shade, ticks, marks)
    return fig


def _arranged(fig, axes, panels, right, fixed):
    """Gives the axes their places and the columns their names, and the figure its height, unless
    that is fixed."""
    width = 440 / sum(frame.shape[1] for frame in panels.values())
    for _ in range(2):  # the names of the second round fit the cells that the first has made
        for ax, frame in zip(axes, panels.values(), strict=True):
            names, turn = _fitting(frame.columns, width)
            ax.set_xticks(range(len(names)), names, rotation=turn)
        arrange(fig, right)
        if not fixed:
            rows = min(max(ROW * len(axes[0].get_yticks()), 60), 430)
            fig.set_figheight((fig.bbox.height + rows - axes[0].bbox.height) / fig.dpi)
            arrange(fig, right)
        width = min(ax.bbox.width / f.shape[1] for ax, f in zip(axes, panels.values(), strict=True))


def _name(axes, panels, label, ylabel, annotate):
    """What the shades and the rows are, above the axes; beside a scale its name stands over it."""
    rows = f"; rows: {ylabel}" if ylabel else ""
    if len(axes) > 1:
        name_panels(axes, list(panels), label + rows)
    elif annotate or not ylabel or text_width(ylabel + label) > axes[0].figure.bbox.width - 80:
        name_figure(axes[0], label + rows)
    else:
        name_figure(axes[0], ylabel)
        axes[0].set_title(drawable(label), loc="right", color=INK_2)


def _numbers(frames):
    """The text of every number in the matrices, all with one count of decimals, or as many more as
    tell it from zero."""
    values = np.concatenate([frame.to_numpy(float).ravel() for frame in frames])
    texts = dict(zip(values, column(values), strict=True))
    return {x: number(x, 1) if x and not text.strip("0.") else text for x, text in texts.items()}


class _Shade:
    """From values to colours with an opacity."""

    def __init__(self, values, center):
        known = values[np.isfinite(values)]
        spanned = [*known, 0 if center is None else center]
        self.low, self.high = min(spanned), max(spanned)
        self.base = self.low if center is None else center
        self.span = max(self.high - self.base, self.base - self.low) or 1.0

    def __call__(self, values):
        away = (np.asarray(values, float) - self.base) / self.span
        hue = np.where((away < 0)[..., None], to_rgb(BELOW), to_rgb(ABOVE))
        depth = FAINT + (1 - FAINT) * np.clip(np.abs(away), 0, 1)
        return np.concatenate([hue, np.where(np.isnan(depth), 0, depth)[..., None]], axis=-1)

    def ticks(self, most):
        locator = MaxNLocator(int(np.clip(most, 1, 5)), steps=[1, 2, 5, 10])
        found = locator.tick_values(self.low, self.high)
        return [value for value in found if self.low <= value <= self.high]


def _cells(ax, frame, shade, inset):
    """The cells that hold a number, as rectangles about whole numbers."""
    values = frame.to_numpy(float)
    rows, columns = np.nonzero(np.isfinite(values))
    half = 0.5 - inset
    corners = np.array([(-half, -half), (half, -half), (half, half), (-half, half)])
    _paint(ax, np.column_stack([columns, rows])[:, None] + corners, shade(values[rows, columns]))


def _paint(ax, polygons, colors, **options):
    """Polygons filled with their colours, those of one colour as one shape."""
    colors[:, 3] = colors[:, 3].round(2)
    found, which = np.unique(colors, axis=0, return_inverse=True)
    shapes = [
        Path.make_compound_path(*(Path([*p, p[0]], closed=True) for p in polygons[which == i]))
        for i in range(len(found))
    ]
    paint = dict(facecolors=found, edgecolors="none", antialiaseds=False, **options)
    ax.add_collection(PathCollection(shapes, **paint), autolim=False)


def _write(ax, frame, shade, texts):
    """Each cell's number in black or white, whichever stands out more: 4.5:1 or better."""
    values = frame.to_numpy(float)
    for row, place in np.argwhere(np.isfinite(values)):
        *hue, depth = shade(values[row, place])
        color = "black" if luminance(over(hue, depth, (1, 1, 1))) > 0.179 else "white"
        ax.text(
            place, row, texts[values[row, place]], color=color, ha="center", va="center_baseline"
        )


def over(hue, depth, page):
    """A hue of this opacity on a page's colour."""
    return np.asarray(hue) * depth + np.asarray(page) * (1 - depth)


def luminance(rgb):
    """The relative luminance of a colour (WCAG 2)."""
    rgb = np.asarray(rgb)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


def _fitting(names, width):
    """The names of columns so wide, and how far they are turned: broken at a space where they would
    touch, else upright; of numbers only every so many."""
    names = [short(name if isinstance(name, str) else number(name), 16) for name in names]
    most = max(map(text_width, names)) + 6
    if most <= width:
        return names, 0
    if all(name.replace(",", "").isdecimal() for name in names):
        each = int(np.ceil(most / width))
        return [name if place % each == 0 else "" for place, name in enumerate(names)], 0
    broken = [_broken(name) for name in names]
    return (broken, 0) if max(map(text_width, broken)) + 6 <= width else (names, 90)


def _broken(name):
    """The name on two lines, broken at the space nearest to its middle."""
    spaces = [i for i, mark in enumerate(name) if mark == " "]
    if not spaces:
        return name
    at = min(spaces, key=lambda i: abs(i - len(name) / 2))
    return f"{name[:at]}\n{name[at + 1 :]}"


def _scale(ax, shade, ticks, texts):
    """The colour scale at the right of the axes."""
    pixel = 1 / ax.bbox.width
    left, right = 1 + ASIDE * pixel, 1 + (ASIDE + BAR) * pixel
    edges = np.linspace(0, 1, 41)
    pairs = zip(edges[:-1], edges[1:], strict=True)
    steps = np.array([[(left, a), (right, a), (right, b), (left, b)] for a, b in pairs])
    middle = shade.low + (shade.high - shade.low) * (edges[:-1] + edges[1:]) / 2
    _paint(ax, steps, shade(middle), transform=ax.transAxes, clip_on=False)
    for tick, text in zip(ticks, texts, strict=True):
        at = (tick - shade.low) / (shade.high - shade.low or 1)
        ax.text(right + 6 * pixel, at, text, transform=ax.transAxes, va="center", color=INK_2)
