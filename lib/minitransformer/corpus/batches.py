"""Batches for training: windows at offsets that depend on nothing but the seed and the step."""

import numpy as np
import torch

from ..fields import whole
from .store import Store
from .streams import draw


class Batches:
    """Random windows of a token array; batch(step) is a pure function of (seed, step), the same on
    every machine.

    So a run resumes by its step alone. The first `short_steps` steps hold the same number of tokens
    in windows of `short_window` (sequence-length warm-up, Li et al. 2022). Of the array, which may
    be mapped or a `Store`, only the windows are read. ValueError when it is shorter than one window
    and its next token."""

    def __init__(
        self,
        ids: np.ndarray | Store,
        batch_size: int,
        window: int,
        seed: int,
        short_window: int = 0,
        short_steps: int = 0,
    ):
        batch_size, window = whole("batch_size", batch_size), whole("window", window)
        if len(ids) <= window:
            raise ValueError(
                f"window {window} is longer than the split ({len(ids)} tokens): lower it or"
                " give more text"
            )
        if short_steps and not 1 <= short_window <= window:
            raise ValueError(
                f"short_window {short_window} does not fit window {window}: give 1 to {window}, or"
                " short_steps 0"
            )
        self.ids, self.seed = ids if isinstance(ids, Store) else np.asanyarray(ids), seed
        self.batch_size, self.window = batch_size, window
        self.short_window, self.short_steps = short_window, short_steps

    def batch(self, step: int) -> torch.Tensor:
        """(rows, window + 1) token ids, inputs and, one place on, targets: batch_size rows once the
        warm-up is over."""
        window = self.short_window if step < self.short_steps else self.window
        rows = self.batch_size * self.window // window
        draws = draw(f"batches/v1|{self.seed}|{step}".encode(), rows)
        starts = (draws % np.uint64(len(self.ids) - window)).tolist()
        windows = np.stack([self.ids[start : start + window + 1] for start in starts])
        return torch.from_numpy(windows.astype(np.int64))
