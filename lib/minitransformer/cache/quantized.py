"""Quantized caches: int8 a token and head, and KIVI's int4 and int2 (Liu et al. 2024,
arXiv:2402.02750).

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
    row 10      1    1   1    1 |  .    .   .  .  .  .   1  1  1
"""

import torch

from ..affine import affine_grid, extremes, pack, packed_bytes, to_codes, unpack
from .base import Cache, Layer, Tensors

SCALE = torch.float16  # of scales and minima


def quantized(x, bits: int, symmetric: bool):
    """Codes (..., n), scale and minimum (..., 1) in float16; the last axis shares a scale.
    Symmetric: around 0, minimum None.

    The minimum is rounded first and the scale covers what is left. ValueError for values beyond
    float16 scales, or not finite."""
    try:
        if symmetric:
            scale, zero = affine_grid(*extremes(x), bits, True, SCALE)
            return to_codes(x, scale, zero, bits, True).to(torch.uint8), scale, None
        most = torch.finfo(SCALE).max
        low = x.amin(-1, keepdim=True).clamp(-most, most).to(SCALE)
        x = x - low.to(x.dtype)
        scale, zero = affine_grid(torch.zeros_like(x[..., :1]), extremes(x)[1], bits, False, SCALE)
        return to_codes(x, scale, zero, bits, False).to(torch.uint8), scale, low
    except ValueError:
        raise ValueError(
            f"keys or values up to {x.abs().max().item():.6g} do not fit {bits}-bit codes with float16 scales: "
            "use the static cache"
        ) from None


def encode(x, bits: int):
    """Rows (..., D) as bytes (..., `encoded_bytes`): packed codes, then the float16 scale, and
    below 8 bits the minimum."""
    codes, *affine = quantized(x, bits, symmetric=bits == 8)
    return torch.cat(
        (pack(codes, bits), *(a.view(torch.uint8) for a in affine if a is not None)), dim=-1
    )


def decode(rows, bits: int, D: int, dtype):
    """What `encode` made of rows (..., D), as `dtype`."""
    n = packed_bytes(D, bits)
    codes, affine = (
        unpack(rows[..., :n], bits, D).to(dtype),
        rows[..., n:].contiguous().view(SCALE).to(dtype),
    )  # (..., 1 or 2)
    return (
        codes.sub_(128).mul_(affine)
        if bits == 8
        else codes.mul_(affine[..., :1]).add_(affine[..., 1:])
    )


def encoded_bytes(D: int, bits: int) -> int:
    """Bytes of one encoded row of D numbers."""
    return packed_bytes(D, bits) + SCALE.itemsize * (1 if bits == 8 else 2)


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
        return (
            room,
            *(torch.zeros(*shape, 1, dtype=SCALE, device=device) for _ in range(numbers)),
        )


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
        codes[:, :, :, new], scales[:, :, :, new], _ = quantized(
            torch.stack((k, v), dim=2), 8, symmetric=True
        )
        seen = codes[:, :, :, : step.end].to(cache.dtype or k.dtype)
        return seen.sub_(128).mul_(scales[:, :, :, : step.end]).unbind(2)


class Int8Cache(Cache):
    """Symmetric int8 with a float16 scale for each token and head: 8 + 16/D bits a number, reserved
    for the capacity."""

    layer = Int8Layer


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

        n numbers share a scale: the tokens of a group in one channel, or channels of one token.
        """
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
        for name, value, least in (
            ("residual", residual, 0),
            ("group", group, 1),
            ("rollback", rollback, 0),
        ):
            if value < least:
                raise ValueError(f"{name} {value} is too few: give at least {least}")
        self.residual, self.group, self.rollback = residual, group, rollback
        self.channels = group if cfg.head_dim % group == 0 else cfg.head_dim

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
        edges = torch.tensor([self.finished(i + 1) for i in range(pos, end)], device=self.device)
        edges = edges[:, None]
        rows, packed, full = (
            torch.arange(a, b, device=self.device)
            for a, b in ((pos, end), (0, after), (first, end))
        )
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
