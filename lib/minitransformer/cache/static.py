"""The preallocated cache: room for `capacity` tokens from the start, written in place, returned as
views."""

import torch

from .padded import PaddedCache


class StaticLayer:
    def __init__(self, cache):
        self.cache = cache
        self.k = self.v = None

    def update(self, k, v):
        """Write (B, Hkv, T, D) at the cursor and return the filled part, views (B, Hkv, S, D)."""
        self.cache.check(k)
        if self.k is None:
            B, Hkv, _, D = k.shape
            like = {"dtype": self.cache.dtype or k.dtype, "device": self.cache.device or k.device}
            self.k = torch.zeros(B, Hkv, self.cache.capacity, D, **like)
            self.v = torch.zeros(B, Hkv, self.cache.capacity, D, **like)
        end = self.cache.pos + k.shape[2]
        self.k[:, :, self.cache.pos : end] = k
        self.v[:, :, self.cache.pos : end] = v
        return self.k[:, :, :end], self.v[:, :, :end]

    def truncate(self, pos):
        """Nothing to do: what lies behind the cursor is never read and will be overwritten."""

    def select(self, rows):
        if self.k is not None:
            self.k, self.v = self.k[rows], self.v[rows]

    @property
    def nbytes(self):
        return 0 if self.k is None else self.k.nbytes + self.v.nbytes


class StaticCache(PaddedCache):
    """Constant memory 2·L·B·Hkv·capacity·D elements, O(1) bytes written a step."""

    layer = StaticLayer
