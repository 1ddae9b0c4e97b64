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
        if starts is None:
            return
        starts = torch.as_tensor(starts, device=device)
        self.device = starts.device
        if starts.shape != (batch,) or starts.min() < 0 or starts.max() >= capacity:
            raise ValueError(
                f"starts {starts.tolist()}: give a count from 0 to {capacity - 1} "
                f"for each of {batch} rows"
            )
        self.state = self.state._replace(starts=starts)

    @property
    def starts(self) -> torch.Tensor | None:
        return self.state.starts

    def positions(self, T: int) -> torch.Tensor:
        """Positions of the next T tokens: (T,), or (B, T) with `starts`, padding at 0."""
        slots, starts = super().positions(T), self.state.starts
        return slots if starts is None else (slots - starts[:, None]).clamp(min=0)

    def reach(self, T: int) -> int:
        end, starts = super().reach(T), self.state.starts
        # Asked of the tensor only where it decides: an answer from an accelerator takes time.
        if starts is None or end <= self.cfg.context:
            return end
        return end - int(starts.min())

    def without_padding(self, k: torch.Tensor) -> torch.Tensor:
        """The step's keys (B, Hkv, T, D) with zeros for the padding: the first token has no key
        before its own, and a padding row sees itself alone, whatever its key."""
        pos, starts = self.state.pos, self.state.starts
        if starts is None:
            return k
        slots = torch.arange(pos, pos + k.shape[2], device=starts.device)
        return k.masked_fill((slots < starts[:, None])[:, None, :, None], 0)

    def mask(self, T: int) -> torch.Tensor | None:
        """None, or with `starts` which keys each query sees: (B, 1, T, S)."""
        pos, starts = self.state.pos, self.state.starts
        if starts is None:
            return None
        keys = torch.arange(pos + T, device=starts.device)
        queries = keys[pos:, None]
        return ((keys >= starts[:, None, None, None]) & (keys <= queries)) | (keys == queries)
