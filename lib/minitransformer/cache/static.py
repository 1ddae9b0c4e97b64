"""The preallocated cache: room for `capacity` tokens from the start, written in place, returned as
views."""

from .base import Pair
from .padded import PaddedCache


class StaticLayer(Pair):
    def update(self, k, v):
        """Write (B, Hkv, T, D) behind the cursor and return the filled part, views (B, Hkv, S,
        D)."""
        cache, step = self.cache, self.cache.step(k.shape[2])
        cache.check(k)
        k = cache.without_padding(k)
        pos, end = step.before.pos, step.end
        keys, values = self.room(step, k, cache.capacity)
        keys[:, :, pos:end] = k
        values[:, :, pos:end] = v
        return keys[:, :, :end], values[:, :, :end]


class StaticCache(PaddedCache):
    """Constant memory 2·L·B·Hkv·capacity·D elements, O(1) bytes written a step."""

    layer = StaticLayer
