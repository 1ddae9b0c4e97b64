"""Layers that store codes, and int8 with a scale for each token and head.

Everything is dequantized on read; the returned tensors are temporary."""

import torch

from .base import Cache, Layer
from .codes import SCALE, quantized
from .step import Tensors


class QuantizedLayer(Layer):
    """A store of `parts`, made by the first step: codes, scales and minima, reserved for the
    capacity; behind them, in kinds that keep one, the `tail` in full precision."""

    coded: int  # how many tensors are parts

    @property
    def parts(self) -> Tensors:
        return self.store[: self.coded]

    @property
    def tail(self) -> Tensors:
        return self.store[self.coded :]

    def reserve(self, k, rows, codes, numbers) -> Tensors:
        """Room for (B, Hkv, *rows) rows of `codes` bytes and `numbers` float16 numbers."""
        shape, device = (*k.shape[:2], *rows), self.cache.device or k.device
        room = torch.zeros(*shape, codes, dtype=torch.uint8, device=device)
        return (room, *(torch.zeros(*shape, 1, dtype=SCALE, device=device) for _ in range(numbers)))


class Int8Layer(QuantizedLayer):
    coded = 2

    def update(self, k, v):
        """Write the codes of (B, Hkv, T, D) behind the cursor and return the filled part,
        dequantized, (B, Hkv, S, D)."""
        cache, step = self.cache, self.cache.step(k.shape[2])
        cache.check(k)
        if not step.stores[self.index]:  # keys and values side by side
            rows = (2, cache.capacity)
            step.stores[self.index] = self.reserve(k, rows, codes=k.shape[3], numbers=1)
        codes, scales = step.stores[self.index]
        new = slice(step.before.pos, step.end)
        both = torch.stack((k, v), dim=2)
        codes[:, :, :, new], scales[:, :, :, new], _ = quantized(both, 8, symmetric=True)
        seen = codes[:, :, :, : step.end].to(cache.dtype or k.dtype)
        return seen.sub_(128).mul_(scales[:, :, :, : step.end]).unbind(2)


class Int8Cache(Cache):
    """Symmetric int8 with a float16 scale for each token and head: 8 + 16/D bits a number, reserved
    for the capacity."""

    layer = Int8Layer
