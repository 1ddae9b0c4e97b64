"""What is drawn where, in pixels: the marks of axes, the boxes of texts, and which of them meet."""

from dataclasses import dataclass

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation, Text

STEP = 4  # pixels between the points that stand for a line
SLACK = 1.5  # pixels of a text's box that hold no ink


@dataclass
class Ink:
    """The marks of axes: `discs` as rows (x, y, radius), `bars` as rows (x0, y0, x1, y1), `lines`
    as rows (x, y, which line), a point every few pixels."""

    discs: np.ndarray
    bars: np.ndarray
    lines: np.ndarray


def ink(ax) -> Ink:
    """The marks of axes that are seen; grids, bands and hatching are no marks, nor is what lies
    behind a filled box."""
    discs, lines = [np.empty((0, 3))], []
    scale = ax.figure.dpi / 72
    for line in ax.lines:
        xy = np.column_stack([np.asarray(v, float) for v in line.get_data(orig=False)])
        xy = line.get_transform().transform(xy)
        if line.get_linestyle() != "None":
            lines.append((line.zorder, xy))
        if line.get_marker() not in ("None", "", None):
            radius = scale * (line.get_markersize() + line.get_markeredgewidth()) / 2
            discs.append(np.column_stack([xy, np.full(len(xy), radius)]))
    for group in ax.collections:
        if isinstance(group, LineCollection):
            parts = [np.reshape(part, (-1, 2)) for part in group.get_segments()]
            lines += [(group.zorder, group.get_transform().transform(part)) for part in parts]
        elif len(sizes := getattr(group, "get_sizes", tuple)()):
            xy = group.get_offset_transform().transform(group.get_offsets())
            radius = scale * np.sqrt(np.max(sizes)) / 2
            discs.append(np.column_stack([xy, np.full(len(xy), radius)]))
    patches = [patch for patch in ax.patches if not patch.get_hatch()]
    boxes = [patch for patch in patches if isinstance(patch, Rectangle)]
    for patch in (patch for patch in patches if patch not in boxes):
        shapes = patch.get_path().to_polygons(patch.get_transform(), closed_only=False)
        lines += [(patch.zorder, shape) for shape in shapes]
    bars = np.array([box.get_window_extent().extents for box in boxes]).reshape(-1, 4)
    filled = [(box.zorder, bar) for box, bar in zip(boxes, bars, strict=True) if box.get_fill()]
    found = [np.empty((0, 3))]
    for i, (above, xy) in enumerate(lines):
        hides = np.array([bar for zorder, bar in filled if zorder > above]).reshape(-1, 4)
        points = dense(xy)
        seen = points[~within(points, hides).any(axis=0)]
        found.append(np.column_stack([seen, np.full(len(seen), i)]))
    return Ink(np.vstack(discs), bars, np.vstack(found))


def dense(xy) -> np.ndarray:
    """The polyline through `xy` as points a few pixels apart, from one finite point to the next."""
    xy = xy[np.isfinite(xy).all(axis=1)]
    pairs = zip(xy[:-1], xy[1:], strict=True)
    pieces = [np.linspace(a, b, max(int(np.hypot(*(b - a)) / STEP), 2)) for a, b in pairs]
    return np.concatenate(pieces) if pieces else np.empty((0, 2))


def texts(fig) -> list[Text]:
    """The texts of a figure that are seen, the names of its axes moved to where they are drawn."""
    for ax in fig.axes:
        for axis in (ax.xaxis, ax.yaxis):
            axis.get_tightbbox(fig.canvas.get_renderer())
    hidden = [axis for ax in fig.axes if not ax.axison for axis in (ax.xaxis, ax.yaxis)]
    off = {id(text) for axis in hidden for text in axis.findobj(Text)}
    found = [t for t in fig.findobj(Text) if t.get_visible() and t.get_text().strip()]
    return [text for text in found if id(text) not in off]


def extents(found, renderer) -> np.ndarray:
    """The boxes of texts as rows (x0, y0, x1, y1), of an annotation without its line."""
    for text in found:
        if isinstance(text, Annotation):
            text.update_positions(renderer)
    boxes = [Text.get_window_extent(text, renderer).extents for text in found]
    return np.array(boxes).reshape(-1, 4)


def within(points, boxes, margin=0.0) -> np.ndarray:
    """Which points (columns) lie in which boxes (rows), grown by a margin of each point's own."""
    x, y = points[:, 0], points[:, 1]
    x0, y0, x1, y1 = (boxes[:, [i]] for i in range(4))
    return (x > x0 - margin) & (x < x1 + margin) & (y > y0 - margin) & (y < y1 + margin)


def meeting(boxes, others) -> np.ndarray:
    """Which of the boxes (rows) meet which of the others (columns)."""
    a, b = boxes[:, None, :], others[None, :, :]
    return (a[..., :2] < b[..., 2:]).all(axis=-1) & (b[..., :2] < a[..., 2:]).all(axis=-1)


def _inside(boxes, others) -> np.ndarray:
    """Which of the boxes (rows) lie within which of the others (columns): written into them."""
    a, b = boxes[:, None, :], others[None, :, :]
    return (a[..., :2] >= b[..., :2]).all(axis=-1) & (a[..., 2:] <= b[..., 2:]).all(axis=-1)


def overlaps(fig) -> list[str]:
    """What the texts of a figure cover, one sentence each, nothing where all is well: another text,
    a point, a line, a bar, the figure's edge."""
    found = texts(fig)
    boxes = extents(found, fig.canvas.get_renderer())
    boxes = boxes + SLACK * np.array([1, 1, -1, -1])
    names = [text.get_text().replace("\n", " ") for text in found]
    pairs = np.argwhere(np.triu(meeting(boxes, boxes), 1))
    told = [f"{names[i]!r} covers {names[j]!r}" for i, j in pairs]
    for part in map(ink, fig.axes):
        kinds = {
            "a point": within(part.discs, boxes, part.discs[:, 2]),
            "a line": within(part.lines, boxes),
            "a bar": meeting(boxes, part.bars) & ~_inside(boxes, part.bars),
        }
        for what, hit in kinds.items():
            told += [f"{names[i]!r} covers {what}" for i in np.flatnonzero(hit.any(axis=1))]
    out = (boxes[:, :2] < 0).any(axis=1) | (boxes[:, 2:] > fig.bbox.size).any(axis=1)
    return told + [f"{names[i]!r} leaves the figure" for i in np.flatnonzero(out)]
