"""A learning curve while a model trains: validation loss, as a whole and by group, at chosen
steps."""

import numpy as np

from ..fields import whole
from .losses import token_losses


class Monitor:
    """Called with a training row, returns the columns to add: `valid_nats` and, for each group,
    `excess_<name>_nats` (of a group that occurs).

    `ids` (N,) are scored in windows of `window`; `groups` (N,) holds the index into `names` of each
    token's group and `oracle` (N,) the log-probability in nats that the best predictor gives it:
    the excess is what is left to learn."""

    def __init__(self, model, ids, window: int, steps, *, names=(), groups=None, oracle=None):
        self.model, self.ids, self.window = model, ids, window
        self.steps = frozenset(int(s) for s in steps)
        self.names, self.groups, self.oracle = names, groups, oracle

    def __call__(self, row: dict) -> dict:
        if row["step"] not in self.steps:
            return {}
        losses = token_losses(self.model, self.ids, self.window, self.window)
        found = {"valid_nats": float(losses.mean())}
        if self.oracle is not None:
            excess = losses + self.oracle[1:]
            for i, name in enumerate(self.names):
                inside = self.groups[1:] == i
                if inside.any():
                    found[f"excess_{name}_nats"] = float(excess[inside].mean())
        return found


def log_steps(last: int, count: int = 24) -> list[int]:
    """About `count` steps, log-spaced from 1 to `last`, both included."""
    last, count = whole("last", last), whole("count", count)
    return sorted({int(round(s)) for s in np.geomspace(1, last, count)})
