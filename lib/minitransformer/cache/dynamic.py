"""The original's cache: keys and values grow by concatenation, which copies everything at every
step."""

import torch

from .base import Pair
from .padded import PaddedCache


class DynamicLayer(Pair):
    def update(self, k, v):
        """Append (B, Hkv, T, D) and return all of it, (B, Hkv, S, D)."""
        cache, step = self.cache, self.cache.step(k.shape[2])
        cache.check(k)
        k = cache.without_padding(k)
        dtype, store = cache.dtype or k.dtype, self.store
        k, v = k.to(dtype), v.to(dtype)
        if store:
            k, v = torch.cat((store[0], k), dim=2), torch.cat((store[1], v), dim=2)
        step.stores[self.index] = k, v
        return k, v

    def truncate(self, pos):
        return tuple(x[:, :, :pos] for x in self.store)


class DynamicCache(PaddedCache):
    """Grows with `torch.cat`: O(S) bytes copied a step, so O(S²) over a generation."""

    layer = DynamicLayer
