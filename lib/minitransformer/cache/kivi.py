"""KIVI: int4 and int2, keys per channel and values per token (Liu et al. 2024, arXiv:2402.02750).

Codes are made from what arrived, once: what a query sees depends on its own position alone, so
every split of the tokens gives the same logits but for rounding (a key that differs in its last bit
may cross to the next code: rarely in float32, practically never in float64). Everything is
dequantized on read; the returned tensors are temporary.

KIVI's time line, with groups of g = 4 and a residual of r = 3 tokens; q is a token that the query
sees in codes, f one in full precision. A group is exchanged by the step that brings the first query
with r tokens, itself among them, behind it; in the tail it stays while `rollback` may need it.

    token      0  1  2  3   4  5  6  7   8  9 10
    query 5  [ f  f  f  f   f  f ]                       finished(6) = 0
    query 6  [ q  q  q  q | f  f  f ]                    finished(7) = 4: group 0 is exchanged
    query 9  [ q  q  q  q | f  f  f  f   f  f ]          finished(10) = 4
    query 10 [ q  q  q  q   q  q  q  q | f  f  f ]       finished(11) = 8: group 1 is exchanged

One step of the tokens 5 to 10 has rows on either side of both exchanges. It returns every finished
token in codes and, behind them, every token that its first row sees in full precision, 0 to 7 in
both versions; the mask lets each row see one of the two:

    returned   q0 … q3  q4 … q7 | f0 … f3  f4 f5 f6 f7  f8 f9 f10
    row 5       .    .   .    . |  1    1   1  1  .  .   .  .  .
    row 6       1    1   .    . |  .    .   1  1  1  .   .  .  .
    row 10      1    1   1    1 |  .    .   .  .  .  .   1  1  1"""

import torch

from ..affine import pack, packed_bytes, unpack
from ..fields import whole
from .base import Cache
from .codes import quantized
from .quantized import QuantizedLayer
from .step import Tensors


class KiviLayer(QuantizedLayer):
    coded = 6

    def update(self, k, v):
        """Append (B, Hkv, T, D), pack the groups that it finishes, and return what these rows see,
        (B, Hkv, S, D).

        First the finished tokens, dequantized; then, in full precision, every token that the first
        row sees so."""
        cache, step = self.cache, self.cache.step(k.shape[2])
        cache.check(k)
        parts = step.stores[self.index][:6] or self.rooms(k)
        full = [x.to(cache.dtype or x.dtype) for x in (k, v)]
        if self.tail:  # full precision from token `held` on
            full = [torch.cat(pair, dim=2) for pair in zip(self.tail, full, strict=True)]
        gone = cache.hold(step.end) - cache.held
        tail = [x[:, :, gone:].clone() for x in full]  # a view would keep all of it alive
        step.stores[self.index] = (*parts, *tail)
        return (
            self.exchange(full[0], parts[:3], step, cache.group, per_channel=True),
            self.exchange(full[1], parts[3:], step, cache.channels, per_channel=False),
        )

    def rooms(self, k) -> Tensors:
        """Room for the codes of keys, then of values: n numbers share a scale."""
        cache, parts = self.cache, ()
        for n in (cache.group, cache.channels):
            rows = (cache.finished(cache.capacity) // cache.group, cache.group * k.shape[3] // n)
            parts += self.reserve(k, rows, codes=packed_bytes(n, cache.bits), numbers=2)
        return parts

    def exchange(self, full, parts, step, n, per_channel):
        """Pack the groups finished by this step; return all finished ones, then `full` from the
        first row's edge on.

        n numbers share a scale: the tokens of a group in one channel, or channels of one token."""
        cache, pos = self.cache, step.before.pos
        g, D, held = cache.group, full.shape[3], cache.held
        before, after = cache.finished(pos), cache.finished(step.end)
        if after > before:
            x = full[:, :, before - held : after - held].unflatten(2, (-1, g))  # (B, Hkv, G, g, D)
            x = (x.mT if per_channel else x).reshape(*x.shape[:3], -1, n)  # (B, Hkv, G, g·D/n, n)
            codes, *affine = quantized(x, cache.bits, symmetric=False)
            for part, made in zip(parts, (pack(codes, cache.bits), *affine), strict=True):
                part[:, :, before // g : after // g] = made
        codes, scale, low = (part[:, :, : after // g] for part in parts)
        x = unpack(codes, cache.bits, n).to(full.dtype) * scale.to(full.dtype) + low.to(full.dtype)
        x = x.reshape(*x.shape[:3], D, g).mT if per_channel else x.reshape(*x.shape[:3], g, D)
        return torch.cat((x.flatten(2, 3), full[:, :, cache.finished(pos + 1) - held :]), dim=2)

    def truncate(self, pos):
        """Only the tail is cut: codes behind the cursor are never read."""
        return (*self.parts, *(x[:, :, : max(0, pos - self.cache.held)] for x in self.tail))


class KiviCache(Cache):
    """Asymmetric codes with float16 scales and minima: keys per channel over `group` tokens, values
    per token over channels.

    A query sees at least the last `residual` tokens, itself included, in full precision; tokens
    before them are packed in whole groups, where values share a scale over `group` channels if that
    divides D, else over all D. Codes are reserved for the capacity; full precision is held for what
    is not packed, residual + group - 1 tokens at most, and for what `rollback` tokens of `truncate`
    may bring back."""

    layer = KiviLayer
    options = ("residual", "group", "rollback")
    bits: int

    def __init__(self, cfg, batch, capacity, *, residual=32, group=32, rollback=0, **where):
        super().__init__(cfg, batch, capacity, **where)
        if cfg.smeared_keys:
            raise ValueError(
                "smeared keys mix each key with the one before it, of which a KIVI cache of "
                f"{self.bits} bits holds two versions: use int8 or paged-int4, or a model with "
                "smeared_keys False"
            )
        self.residual, self.group = whole("residual", residual, 0), whole("group", group)
        self.rollback = whole("rollback", rollback, 0)
        self.channels = cfg.head_dim if cfg.head_dim % self.group else self.group

    @property
    def held(self) -> int:
        """Tokens from here on are held in full precision."""
        return self.state.first

    def finished(self, tokens: int) -> int:
        """How many of the first tokens the last of `tokens` sees quantized."""
        return self.group * (max(0, tokens - self.residual) // self.group)

    def hold(self, tokens: int) -> int:
        """The first token held in full precision after `tokens`."""
        return max(self.held, self.finished(max(0, tokens - self.rollback)))

    def mask(self, T):
        """None while every row sees the same tokens quantized; else (T, S) chooses for each row
        between two versions."""
        pos, end = self.pos, self.pos + T
        first, after = self.finished(pos + 1), self.finished(end)
        if first == after:
            return None
        edges = torch.tensor([[self.finished(i + 1)] for i in range(pos, end)], device=self.device)
        spans = (pos, end), (0, after), (first, end)
        rows, packed, full = (torch.arange(*span, device=self.device) for span in spans)
        return torch.cat((packed < edges, (full >= edges) & (full <= rows[:, None])), dim=1)

    def truncate(self, pos):
        """Forget everything from `pos` on. ValueError also when a token that becomes full precision
        again is packed."""
        if self.finished(pos) < min(pos, self.held):
            raise ValueError(
                f"cannot truncate to {pos}: token {self.finished(pos)} is in a finished group: "
                f"make_cache(..., rollback={self.pos - pos})"
            )
        super().truncate(pos)


class Int4Cache(KiviCache):
    """KIVI with 4 bits a number."""

    bits = 4


class Int2Cache(KiviCache):
    """KIVI with 2 bits a number."""

    bits = 2
