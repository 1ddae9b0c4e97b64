"""Where labels stand: the places that each can take, what a place costs alone and beside the other
labels, and the search for what is best for all."""

import numpy as np

from . import boxes

BESIDE = 12  # points: within them a label stands beside its mark, beyond them a line joins the two
MARGIN = 1.0  # pixels that stay free around a label
TRIED = 16  # places of a label that is badly placed
ALOOF = 65  # points: a label that stands further away has found no room
# Of a label's place: a pixel outside the axes; a text, a point or a bar covered; a text on its line
# to the mark; a point of a line covered; one that is touched; another thing nearer than its own; a
# line covered at all, or another's mark on its line to its own; a point of distance.
OUTSIDE, TEXT, MARK, CROSSED = 60.0, 6000.0, 3000.0, 2000.0
LINE, CLOSE, NEARER, PASSED, DISTANCE = 80.0, 2.0, 160.0, 300.0, 1.0


class Board:
    """Which place each of several labels takes, by what it costs alone and beside the others."""

    def __init__(self, labels):
        self.labels, self.at, self.parts = labels, [0] * len(labels), []
        self.boxes = np.empty((0, 4))
        if not labels:
            return
        ends = np.cumsum([0, *(len(label.static) for label in labels)])
        self.parts = [slice(*ends[i : i + 2]) for i in range(len(labels))]
        self.alone = np.concatenate([label.static for label in labels])
        self.boxes = found = np.vstack([label.boxes for label in labels])
        paths = np.vstack([label.paths for label in labels])
        distant = np.concatenate([label.distant for label in labels])
        hit = np.zeros((len(found), len(found)), bool)  # which box, whose line to its mark
        far = paths[distant]
        crossing = boxes.within(far.reshape(-1, 2), _grown(found))
        hit[:, distant] = crossing.reshape(len(found), *far.shape[:2]).any(axis=2)
        self.beside = TEXT * boxes.meeting(_apart(found), found) + CROSSED * (hit | hit.T)

    def settled(self) -> list[int]:
        """The place of each label: the best for it where the others stand. A label that ends up
        badly is tried at each of its better places, with the others making room."""
        self.relax()
        for _ in range(3 if self.labels else 0):
            before = self.total()
            for which in range(len(self.labels)):
                if self.costs(which)[self.at[which]] > 4:
                    self.kick(which)
            if self.total() == before:
                break
        return self.at

    def costs(self, which):
        """What each place of a label costs where the others stand."""
        own = self.parts[which]
        others = [part.start + at for part, at in zip(self.parts, self.at, strict=True)]
        del others[which]
        return self.alone[own] + self.beside[own, others].sum(axis=1)

    def relax(self, held=None):
        """Moves label after label to its best place until none moves, but for the one `held`."""
        for _ in range(8):
            before = list(self.at)
            for which in range(len(self.at)):
                if which != held:
                    self.at[which] = int(np.argmin(self.costs(which)))
            if before == self.at:
                break

    def kick(self, which):
        """Holds a label at its better places in turn, the others moving; keeps the first that is
        better for all."""
        before, goal = list(self.at), self.total()
        cost = self.costs(which)[self.at[which]]
        for place in np.flatnonzero(self.labels[which].static < cost)[:TRIED]:
            self.at[which] = int(place)
            self.relax(held=which)
            if self.total() < goal:
                return
            self.at = list(before)

    def clear(self) -> bool:
        """Whether every label has found room: none covers anything or stands far off."""
        places = [part.start + at for part, at in zip(self.parts, self.at, strict=True)]
        meeting = np.triu(boxes.meeting(self.boxes[places], self.boxes[places]), 1)
        standing = list(zip(self.labels, self.at, strict=True))
        covering = any(label.covers[at] for label, at in standing)
        away = max((label.away[at] for label, at in standing), default=0)
        return not meeting.any() and not covering and away < ALOOF

    def total(self):
        return sum(self.costs(which)[at] for which, at in enumerate(self.at))


class Label:
    """A text and the places it can take: a box, a path to the mark and a cost of each."""

    def __init__(self, text, places, coords, size, scale):
        self.text, self.places, self.coords, self.scale = text, places, coords, scale
        anchors = coords.transform([place[0] for place in places])
        offsets = np.array([place[1] for place in places], float)
        side = np.array([place[2:] for place in places])  # -1, 0, 1: where the text lies
        low = anchors + offsets * scale + (side - 1) / 2 * size
        self.boxes = np.hstack([low, low + size])
        self.away = np.maximum(np.hypot(*offsets.T) - BESIDE, 0)
        self.distant = self.away > 2
        ends = np.clip(anchors, self.boxes[:, :2], self.boxes[:, 2:])
        steps = np.linspace(0, 1, 17)[:, None]
        self.paths = anchors[:, None] + steps * (ends - anchors)[:, None]

    def judge(self, frame, ink, fixed, rivals, radius):
        """What each place costs, other labels aside; `radius` is that of the label's own mark."""
        grown = _grown(self.boxes)
        crossing = boxes.within(ink.lines, self.boxes).sum(axis=1)
        covered = LINE * crossing + PASSED * (crossing > 0)
        covered += TEXT * boxes.meeting(_apart(self.boxes), fixed).sum(axis=1)
        covered += MARK * boxes.within(ink.discs, grown, ink.discs[:, 2]).sum(axis=1)
        covered += MARK * boxes.meeting(grown, ink.bars).sum(axis=1)
        self.covers = covered > 0
        self.static = covered + DISTANCE * self.away + _outside(self.boxes, frame)
        self.static += CLOSE * boxes.within(ink.lines, self.boxes, 2.0).sum(axis=1)
        others = rivals if len(rivals) else ink.discs
        along = self.paths[:, 1:-1].reshape(-1, 2)
        near = np.hypot(*(along[:, None] - others[None, :, :2]).transpose(2, 0, 1))
        crossed = (near < others[:, 2]).reshape(len(self.boxes), -1).any(axis=1)
        self.static += PASSED * (crossed & self.distant)
        if len(rivals):
            gap = np.maximum(_gaps(self.boxes, rivals[:, :2]) - rivals[:, 2], 0).min(axis=1)
            own = np.hypot(*(self.paths[:, -1] - self.paths[:, 0]).T) - radius
            self.static += NEARER * (gap < own - 1) + NEARER / 4 * (gap < own + 4)
        self._narrow(48)

    def choices(self) -> int:
        """How many places cover nothing that cannot move."""
        return int((self.static < MARK / 2).sum())

    def _narrow(self, most):
        """Forgets all places but the cheapest, in their order of preference."""
        kept = np.sort(np.argsort(self.static, kind="stable")[:most])
        self.places = [self.places[i] for i in kept]
        for name in ("static", "covers", "boxes", "paths", "away", "distant"):
            setattr(self, name, getattr(self, name)[kept])

    def show(self, at):
        xy, offset, right, up = self.places[at]
        self.text.xy, self.text.xyann = xy, offset
        self.text.set_horizontalalignment(("right", "center", "left")[int(right) + 1])
        self.text.set_verticalalignment(("top", "center", "bottom")[int(up) + 1])

    def leader(self, at):
        """The ends of the line from the mark to the label, in points from the mark."""
        along = (self.paths[at][-1] - self.paths[at][0]) / self.scale
        return along * 5 / np.hypot(*along), along * (1 - 1.5 / np.hypot(*along))


def _grown(found):
    return found + MARGIN * np.array([-1, -1, 1, 1])


def _apart(found):
    """Boxes as far as no other text may come: side by side two would be read as one."""
    return found + np.array([-5, -1, 5, 1])


def _outside(found, frame):
    """What it costs boxes to leave the frame, 4 pixels at its right aside, or to touch its foot,
    where an axis is."""
    low = np.maximum(frame.min + (0, 3) - found[:, :2], 0).sum(axis=1)
    high = np.maximum(found[:, 2:] - frame.max - (4, 0), 0).sum(axis=1)
    return OUTSIDE * (low + high)


def _gaps(found, points):
    """The distance of each point (columns) from each box (rows)."""
    x, y = points[:, 0], points[:, 1]
    x0, y0, x1, y1 = (found[:, [i]] for i in range(4))
    return np.hypot(
        np.maximum(np.maximum(x0 - x, x - x1), 0), np.maximum(np.maximum(y0 - y, y - y1), 0)
    )
