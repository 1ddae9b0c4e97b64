"""Direct labels: each stands beside what it names and covers neither a mark nor another label.

Every label has a list of places in order of preference. The best is taken, and once all are placed
each is placed again in view of the others, until none moves. Nothing is random: equal data give
equal places."""

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.transforms import Affine2D, Bbox, ScaledTranslation
from scipy.optimize import isotonic_regression

from . import boxes
from .canvas import INK
from .layout import arrange, text_width
from .places import Board, Label
from .words import label as short

NEAR = 7  # points between a mark and its label
# where there is no room near by, with a thin line back to the mark
FAR = (12, 18, 30, 42, 56, 72, 92, 116)
SIDE, ASIDE = 6, 16  # points between the axes and the labels of lines, straight or joined
BEFORE = 48  # pixels that a vertical limit's name may begin left of the axes


class Labels:
    """Places texts beside what they name; use after `arrange`, `settle` at the end."""

    def __init__(self, ax):
        self.ax, self.fig = ax, ax.figure
        self.renderer = self.fig.canvas.get_renderer()
        self.ink = boxes.ink(ax)
        self.fixed = boxes.extents(boxes.texts(self.fig), self.renderer)
        self.placed, self.drawn = [], []

    def ends(self, entries):
        """A label for each line at its right end: `entries` of (x, y, text, colour[, style]). Those
        that end at the right edge stand outside it, spread so that none overlap; where one had to
        move, a thin line joins each to its end."""
        edge = [entry for entry in entries if at_edge(self.ax, *entry[:2])]
        data = self.ax.transData
        wanted = [data.transform((x, y))[1] for x, y, *_ in edge]
        texts = [self._text(short(entry[2]), *entry[3:]) for entry in edge]
        heights = [box[3] - box[1] + 2 for box in boxes.extents(texts, self.renderer)]
        found = placed_apart(wanted, heights, *self.ax.bbox.intervaly)
        moved = any(abs(at - y) > 5 for at, y in zip(found, wanted, strict=True))
        pixel = 72 / self.fig.dpi
        for text, at, y, entry in zip(texts, found, wanted, edge, strict=True):
            text.set(ha="left", va="center")
            text.xycoords, text.xy = ("axes fraction", "data"), (1, entry[1])
            text.xyann = (ASIDE if moved else SIDE, (at - y) * pixel)
            if moved:
                far = (self.ax.bbox.x1 - data.transform(entry[:2])[0]) * pixel + ASIDE
                origin = ScaledTranslation(*entry[:2], data)
                self._join(origin, (4, 0), (far - 2, text.xyann[1]), entry[3])
        self.fixed = np.vstack([self.fixed, boxes.extents(texts, self.renderer)])
        self.ink = boxes.ink(self.ax)
        for entry in entries:
            if entry not in edge:
                self.beside(*entry[:4])

    def beside(self, x, y, text, color):
        """A label beside the point (x, y); where all is full, at a distance with a line to it."""
        near = [(1, 0), (0, 1), (0, -1), (-1, 0), (1, 0.8), (1, -0.8), (-1, 0.8), (-1, -0.8)]
        places = [_place((x, y), NEAR, *direction) for direction in near]
        places += [((x, y), (NEAR * side, up), side, 0) for side in (1, -1) for up in (4, -4)]
        around = [(np.cos(turn), np.sin(turn)) for turn in np.linspace(0, 2 * np.pi, 17)[:-1]]
        places += [_place((x, y), far, *direction) for far in FAR for direction in around]
        away = np.hypot(*(self.ink.discs[:, :2] - self.ax.transData.transform((x, y))).T)
        radius = self.ink.discs[away <= 1, 2].max(initial=0)
        self._add(places, text, color, rivals=self.ink.discs[away > 1], radius=radius)

    def on_line(self, xs, ys, text):
        """A limit's name in italics along its line, wherever it covers least."""
        path = boxes.dense(self.ax.transData.transform(np.column_stack([xs, ys])))
        x, y = path.T
        inside = self.ax.bbox.shrunk(1.001, 1.001)
        path = path[(x >= inside.x0 - 1) & (x <= inside.x1 + 1) & (y > inside.y0) & (y < inside.y1)]
        if not len(path):
            return
        at = path[np.linspace(0, len(path) - 1, 25).round().astype(int)]
        anchors = self.ax.transData.inverted().transform(at)
        sides = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
        places = [
            (tuple(xy), (off * dx, off * dy), dx, dy)
            for xy in (*anchors[::-1][:4], *anchors)
            for off in (3, 8)
            for dx, dy in sides
        ]
        lines = self.ink.lines * (1, 1, 0)
        away = np.hypot(*(lines[:, None, :2] - path[None]).transpose(2, 0, 1)).min(axis=1)
        self._add(places, text, INK, "italic", rivals=lines[away > 2 * boxes.STEP])

    def on_upright(self, x, text):
        """A vertical limit's name in italics: at its top, to the right or left of the line; near
        the left edge it may begin outside the axes, where nothing else stands."""
        places = [
            ((x, h), (4 * side, up), side, 0)
            for h, up in ((1, -8), (0, 8), (0.8, 0), (0.2, 0), (0.65, 0), (0.35, 0), (0.5, 0))
            for side in (1, -1)
        ]
        places += [
            ((x, h), (side * far, 0), side, 0)
            for far in (20, 40, 60, 90)
            for h in (0.95, 0.8, 0.65, 0.5, 0.35, 0.2)
            for side in (1, -1)
        ]
        x0, y0, x1, y1 = self.ax.bbox.extents
        frame = Bbox.from_extents(max(x0 - BEFORE, 0), y0, x1, y1)
        self._add(places, text, INK, "italic", self.ax.get_xaxis_transform(), frame=frame)

    def settle(self) -> bool:
        """Places every label, the hardest first, and joins the distant ones to what they name;
        whether none of them covers anything."""
        self.placed.sort(key=Label.choices)
        board = Board(self.placed)
        for label, at in zip(self.placed, board.settled(), strict=True):
            label.show(at)
            if label.distant[at]:
                start, end = label.leader(at)
                to = ScaledTranslation(*label.text.xy, label.coords)
                self._join(to, start, end, label.text.get_color())
        return board.clear()

    def clear(self):
        """Takes all labels away again."""
        for artist in self.drawn:
            artist.remove()

    def _text(self, text, color, style="normal"):
        text = self.ax.annotate(
            text, (0, 0), textcoords="offset points", xytext=(0, 0), color=color, fontstyle=style
        )
        text.set(zorder=6, annotation_clip=False)
        text.set_in_layout(False)
        self.drawn.append(text)
        return text

    def _add(
        self, places, text, color, style="normal", coords=None, rivals=(), radius=0.0, frame=None
    ):
        text = self._text(short(text), color, style)
        text.set_bbox(dict(facecolor="white", edgecolor="none", pad=0.8, alpha=0.85, gid="halo"))
        if coords is not None:
            text.xycoords = coords
        size = np.diff(boxes.extents([text], self.renderer).reshape(2, 2), axis=0)[0]
        label = Label(text, places, coords or self.ax.transData, size, self.fig.dpi / 72)
        label.judge(frame or self.ax.bbox, self.ink, self.fixed, rivals, radius)
        self.placed.append(label)

    def _join(self, origin, start, end, color):
        """A thin line, its ends in points from an origin."""
        scale = Affine2D().scale(1 / 72) + self.fig.dpi_scale_trans + origin
        x, y = zip(start, end, strict=True)
        line = Line2D(x, y, lw=0.6, color=color, alpha=0.6, zorder=2, transform=scale)
        line.set(clip_on=False, in_layout=False)
        self.drawn.append(self.ax.add_artist(line))


def _place(xy, far, dx, dy):
    """A place `far` points from xy in the direction (dx, dy)."""
    side = [0 if abs(d) < 0.4 else int(np.sign(d)) for d in (dx, dy)]
    return xy, (far * dx, far * dy), *side


def placed_apart(wanted, heights, low, high):
    """Positions as near to those `wanted` as their `heights` allow, by least squares and in the
    same order; within [low, high] if they fit."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    edges = np.cumsum([0, *(heights[i] for i in order)])
    pairs = zip(order, edges[:-1], strict=True)
    starts = isotonic_regression([wanted[i] - heights[i] / 2 - edge for i, edge in pairs]).x
    starts = np.maximum(np.minimum(starts, high - edges[-1]), low) + edges[:-1]
    return [starts[order.index(i)] + heights[i] / 2 for i in range(len(wanted))]


def name_marks(ax, say, right=0.0):
    """Arranges the figure and calls `say` with the labels of its axes; where they find no room the
    figure becomes taller, twice at most."""
    for more in (0.5, 0.5, 0):
        arrange(ax.figure, right)
        labels = Labels(ax)
        say(labels)
        if labels.settle() or not more:
            break
        labels.clear()
        ax.figure.set_figheight(ax.figure.get_figheight() + more)


def room(ax, ends) -> float:
    """Pixels that the labels of lines ending at the right edge take beside the axes."""
    widths = [text_width(short(entry[2])) for entry in ends if at_edge(ax, *entry[:2])]
    return ASIDE * ax.figure.dpi / 72 + max(widths) if widths else 0.0


def at_edge(ax, x, y) -> bool:
    """Whether a line that ends at (x, y) ends at the right edge of the axes."""
    along, up = ax.transAxes.inverted().transform(ax.transData.transform((x, y)))
    return along > 0.94 and -0.01 < up < 1.01
