"""The seed report's cache: keys and values grow by concatenation, which copies everything at every
step."""

import torch

from .padded import PaddedCache


class DynamicLayer:
    def __init__(self, cache):
        self.cache = cache
        self.k = self.v = None

    def update(self, k, v):
        """Append (B, Hkv, T, D) and return all of it, (B, Hkv, S, D)."""
        self.cache.check(k)
        dtype = self.cache.dtype or k.dtype
        k, v = k.to(dtype), v.to(dtype)
        self.k = k if self.k is None else torch.cat((self.k, k), dim=2)
        self.v = v if self.v is None else torch.cat((self.v, v), dim=2)
        return self.k, self.v

    def truncate(self, pos):
        if self.k is not None:
            self.k, self.v = self.k[:, :, :pos], self.v[:, :, :pos]

    def select(self, rows):
        if self.k is not None:
            self.k, self.v = self.k[rows], self.v[rows]

    @property
    def nbytes(self):
        return 0 if self.k is None else self.k.nbytes + self.v.nbytes


class DynamicCache(PaddedCache):
    """Grows with `torch.cat`: O(S) bytes copied a step, so O(S²) over a generation."""

    layer = DynamicLayer
