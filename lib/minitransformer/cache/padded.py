"""Rows of unequal length in one rectangular cache: padded on the left, the padding hidden (what a
batch without pages does)."""

import torch

from .base import Cache


class PaddedCache(Cache):
    """Row b begins with `starts[b]` slots of padding: no token sees them, and its positions count
    from there.

    `starts` is None (no padding) or (B,) integers; `device` None is then theirs. A padding row
    attends to itself alone, so that it stays finite. ValueError for a count that is negative,
    leaves no room, or is not one a row."""

    options = ("starts",)

    def __init__(self, cfg, batch, capacity, *, dtype=None, device=None, starts=None):
        super().__init__(cfg, batch, capacity, dtype=dtype, device=device)
        self.starts = None
        if starts is not None:
            self.starts = torch.as_tensor(starts, device=device)
            self.device = self.starts.device
            if (
                self.starts.shape != (batch,)
                or self.starts.min() < 0
                or self.starts.max() >= capacity
            ):
                raise ValueError(
                    f"starts {self.starts.tolist()}: give a count from 0 to {capacity - 1} for each of {batch} rows"
                )

    def positions(self, T: int) -> torch.Tensor:
        """Positions of the next T tokens: (T,), or (B, T) with `starts`, padding at 0."""
        slots = super().positions(T)
        return slots if self.starts is None else (slots - self.starts[:, None]).clamp(min=0)

    def mask(self, T: int) -> torch.Tensor | None:
        """None, or with `starts` which keys each query sees: (B, 1, T, S)."""
        if self.starts is None:
            return None
        keys = torch.arange(self.pos + T, device=self.device)
        queries = keys[self.pos :, None]
        return ((keys >= self.starts[:, None, None, None]) & (keys <= queries)) | (keys == queries)

    def select(self, rows: torch.Tensor) -> None:
        super().select(rows)
        if self.starts is not None:
            self.starts = self.starts[rows]
