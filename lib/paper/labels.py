"""Direct labels: each stands beside what it names and covers neither a mark nor another label.

Every label has a list of places in order of preference. The best is taken, and once all are placed
each is placed again in view of the others. Nothing is random: equal data give equal places."""

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.transforms import Bbox

from .words import label as short

INK = "#1a1d21"
NEAR = 7  # points between a mark and its label
FAR = (12, 20, 30, 42, 56, 72)  # where there is no room near by, with a thin line back to the mark
COSTS = dict(outside=60.0, text=6000.0, mark=3000.0, line=1.0, point=0.6)


class Labels:
    """Places texts beside what they name; use after all marks are drawn, `settle` at the end."""

    def __init__(self, ax):
        self.ax, self.fig = ax, ax.figure
        self.boxes = []  # of the texts placed so far, in pixels
        self.placed = []  # (place in boxes, label, places), for settle
        self.fig.canvas.draw()
        self._survey()

    def ends(self, entries):
        """One label at the right end of each line: `entries` of (y, text, colour), spread so that
        none overlap."""
        if not entries:
            return
        texts = [
            self.ax.annotate(
                short(text),
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
        renderer = self.fig.canvas.get_renderer()
        sizes = [text.get_window_extent(renderer) for text in texts]
        room = (max(box.width for box in sizes) + 14) / self.fig.bbox.width
        self.fig.get_layout_engine().set(rect=(0, 0, 1 - room, 1))
        self.fig.canvas.draw()
        self._survey()
        wanted = [self.ax.transData.transform((self.ax.get_xlim()[1], y))[1] for y, *_ in entries]
        heights = [box.height + 2 for box in sizes]
        for text, at, y in zip(
            texts, wanted, spread(wanted, heights, *self.ax.bbox.intervaly), strict=True
        ):
            text.xyann = (6, (y - at) * 72 / self.fig.dpi)
            self.boxes.append(text.get_window_extent(renderer))

    def beside(self, x, y, text, color):
        """A label beside the point (x, y); where all is full, at a distance with a line to it."""
        near = [(1, 0), (0, 1), (0, -1), (-1, 0), (1, 0.8), (1, -0.8), (-1, 0.8), (-1, -0.8)]
        places = [_place((x, y), NEAR, *direction) for direction in near]
        around = [(np.cos(turn), np.sin(turn)) for turn in np.linspace(0, 2 * np.pi, 17)[:-1]]
        places += [_place((x, y), far, *direction) for far in FAR for direction in around]
        self._best(places, text, color)

    def on_line(self, xs, ys, text):
        """A limit's name in italics along its line, wherever it covers least."""
        path = _dense(self.ax.transData.transform(np.column_stack([xs, ys])))
        at = path[np.linspace(0, len(path) - 1, 13).round().astype(int)]
        anchors = self.ax.transData.inverted().transform(at)
        sides = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
        places = [
            (tuple(xy), (off * dx, off * dy), "left" if dx > 0 else "right", _va(dy))
            for xy in (*anchors[::-1][:4], *anchors)
            for off in (3, 8)
            for dx, dy in sides
        ]
        self._best(places, text, INK, "italic")

    def on_upright(self, x, text):
        """A vertical limit's name in italics: at its top, to the right or left of the line."""
        places = [
            ((x, h), (dx, 0), ha, "center")
            for h in (0.95, 0.05, 0.8, 0.2, 0.65, 0.35, 0.5)
            for dx, ha in ((4, "left"), (-4, "right"))
        ]
        self._best(places, text, INK, "italic", self.ax.get_xaxis_transform())

    def settle(self):
        """Places every label again in view of all the others, then joins the distant ones."""
        for _ in range(2):
            for index, text, places in self.placed:
                self.boxes[index] = None
                self._put(index, text, places)
        for _, text, _ in self.placed:
            if text.get_gid() == "far":
                self._join(text)

    def _best(self, places, text, color, style="normal", coords="data"):
        text = self.ax.annotate(
            short(text),
            places[0][0],
            xycoords=coords,
            textcoords="offset points",
            xytext=(0, 0),
            color=color,
            fontstyle=style,
            zorder=6,
            bbox=dict(facecolor="white", edgecolor="none", pad=0.8, alpha=0.85),
        )
        text.set_in_layout(False)
        self.boxes.append(None)
        self.placed.append((len(self.boxes) - 1, text, places))
        self._put(*self.placed[-1])

    def _put(self, index, text, places):
        size = text.get_window_extent(self.fig.canvas.get_renderer()).size
        coords = self.ax.transData if text.xycoords == "data" else text.xycoords
        boxes = [self._box(coords, place, size) for place in places]
        costs = [
            self._cost(box) + COSTS["point"] * max(np.hypot(*place[1]) - NEAR, 0)
            for box, place in zip(boxes, places, strict=True)
        ]
        best = int(np.argmin(costs))
        (text.xy, text.xyann), (ha, va) = places[best][:2], places[best][2:]
        text.set(ha=ha, va=va, gid="far" if np.hypot(*text.xyann) > 2 * NEAR else None)
        self.boxes[index] = boxes[best]

    def _box(self, coords, place, size):
        """The pixels that a label of this size takes at `place`."""
        x, y = coords.transform(place[0]) + np.multiply(place[1], self.fig.dpi / 72)
        x -= {"left": 0, "center": 0.5, "right": 1}[place[2]] * size[0]
        y -= {"bottom": 0, "center": 0.5, "top": 1}[place[3]] * size[1]
        return Bbox.from_bounds(x, y, *size)

    def _join(self, text):
        line = dict(arrowstyle="-", lw=0.6, color=text.get_color(), alpha=0.6, shrinkA=0, shrinkB=4)
        self.ax.annotate(
            "", text.xy, text.xyann, "data", "offset points", line, zorder=2
        ).set_in_layout(False)

    def _cost(self, box):
        frame = self.ax.bbox
        outside = (
            max(frame.x0 - box.x0, 0)
            + max(box.x1 - frame.x1 - 4, 0)
            + max(frame.y0 - box.y0, 0)
            + max(box.y1 - frame.y1, 0)
        )
        texts = sum(box.overlaps(other) for other in self.boxes if other is not None)
        return (
            COSTS["outside"] * outside
            + COSTS["text"] * texts
            + COSTS["mark"] * _within(self.marks[:, :2], box, self.marks[:, 2:]).sum()
            + COSTS["line"] * _within(self.lines, box, 2).sum()
        )

    def _survey(self):
        """What is drawn, in pixels: `marks` as (x, y, radius), `lines` as points every few
        pixels."""
        points, marks, scale = [np.empty((0, 2))], [np.empty((0, 3))], self.fig.dpi / 72
        for line in self.ax.lines:
            xy = line.get_transform().transform(
                np.column_stack([np.asarray(v, float) for v in line.get_data(orig=False)])
            )
            if line.get_linestyle() != "None":
                points.append(_dense(xy))
            if line.get_marker() not in ("None", "", None):
                radius = scale * (line.get_markersize() + line.get_markeredgewidth()) / 2
                marks.append(np.column_stack([xy, np.full(len(xy), radius)]))
        for group in self.ax.collections:
            if isinstance(group, LineCollection):
                for segment in group.get_segments():
                    xy = self.ax.transData.transform(np.reshape(segment, (-1, 2)))
                    points.append(_dense(xy))
            elif (sizes := getattr(group, "get_sizes", lambda: ())()) is not None and len(sizes):
                xy = group.get_offset_transform().transform(group.get_offsets())
                radius = scale * np.sqrt(np.max(sizes)) / 2
                marks.append(np.column_stack([xy, np.full(len(xy), radius)]))
        for patch in self.ax.patches:
            if patch.get_hatch() is None:
                points.append(_dense(patch.get_window_extent().corners()[[0, 1, 3, 2, 0]]))
        self.lines, self.marks = np.concatenate(points), np.concatenate(marks)


def _place(xy, far, dx, dy):
    """A place `far` points from xy in the direction (dx, dy)."""
    ha = "center" if abs(dx) < 0.4 else "left" if dx > 0 else "right"
    return xy, (far * dx, far * dy), ha, "center" if abs(dy) < 0.4 else _va(dy)


def _va(dy):
    return "bottom" if dy > 0 else "top"


def _within(xy, box, margin):
    """Which of the points lie within `margin` of the box."""
    low, high = np.array([box.x0, box.y0]), np.array([box.x1, box.y1])
    return ((xy > low - margin) & (xy < high + margin)).all(axis=1)


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
