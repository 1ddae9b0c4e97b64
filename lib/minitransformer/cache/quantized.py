"""Quantized caches: int8 a token and head, and KIVI's int4 and int2 (Liu et al. 2024,
arXiv:2402.02750).

Codes are made from what arrived, once: what a query sees depends on its own position alone, so
every split of the tokens gives the same logits but for rounding (a key that differs in its last bit
may cross to the next code: rarely in float32, practically never in float64). Everything is
dequantized on read; the returned tensors are temporary."""

import torch

from ..affine import affine_grid, extremes, pack, packed_bytes, to_codes, unpack
from .base import Cache

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


class QuantizedLayer:
    """Storage as flat lists of tensors with the batch first, made at the first update."""

    def __init__(self, cache):
        self.cache = cache
        self.parts = []  # codes, scales and minima, reserved for the capacity
        self.tail = []  # keys and values still in full precision

    def reserve(self, k, rows, codes, numbers):
        """Append room for (B, Hkv, *rows) rows of `codes` bytes and `numbers` float16 numbers."""
        shape, device = (*k.shape[:2], *rows), self.cache.device or k.device
        self.parts.append(torch.zeros(*shape, codes, dtype=torch.uint8, device=device))
        self.parts += [torch.zeros(*shape, 1, dtype=SCALE, device=device) for _ in range(numbers)]

    def truncate(self, pos):
        """Only of the tail: codes behind the cursor are never read and will be overwritten."""
        self.tail = [x[:, :, : max(0, pos - self.cache.held)] for x in self.tail]

    def select(self, rows):
        self.parts, self.tail = [p[rows] for p in self.parts], [x[rows] for x in self.tail]

    @property
    def nbytes(self):
        return sum(x.nbytes for x in self.parts + self.tail)


class Int8Layer(QuantizedLayer):
    def update(self, k, v):
        """Write the codes of (B, Hkv, T, D) at the cursor and return the filled part, dequantized,
        (B, Hkv, S, D)."""
        self.cache.check(k)
        if not self.parts:
            self.reserve(
                k, (2, self.cache.capacity), codes=k.shape[3], numbers=1
            )  # keys and values side by side
        pos, end = self.cache.pos, self.cache.pos + k.shape[2]
        codes, scales = self.parts
        codes[:, :, :, pos:end], scales[:, :, :, pos:end], _ = quantized(
            torch.stack((k, v), dim=2), 8, symmetric=True
        )
        seen = (
            codes[:, :, :, :end]
            .to(self.cache.dtype or k.dtype)
            .sub_(128)
            .mul_(scales[:, :, :, :end])
        )
        return seen.unbind(2)


class Int8Cache(Cache):
    """Symmetric int8 with a float16 scale for each token and head: 8 + 16/D bits a number, reserved
    for the capacity."""

    layer = Int8Layer


class KiviLayer(QuantizedLayer):
    def update(self, k, v):
        """Append (B, Hkv, T, D), pack the groups that it finishes, and return what these rows see,
        (B, Hkv, S, D).

        First the finished tokens, dequantized; then, in full precision, every token that the first
        row sees so."""
        cache = self.cache
        cache.check(k)
        if not self.parts:
            for n in (cache.group, cache.channels):
                rows = (
                    cache.finished(cache.capacity) // cache.group,
                    cache.group * k.shape[3] // n,
                )
                self.reserve(k, rows, codes=packed_bytes(n, cache.bits), numbers=2)
        new = [x.to(cache.dtype or x.dtype) for x in (k, v)]
        full = (
            [torch.cat(pair, dim=2) for pair in zip(self.tail, new, strict=True)]
            if self.tail
            else new
        )  # from token `held` on
        end = cache.pos + k.shape[2]
        self.tail = [
            x[:, :, cache.hold(end) - cache.held :].clone() for x in full
        ]  # a view would keep all of it alive
        return (
            self.exchange(full[0], self.parts[:3], end, cache.group, per_channel=True),
            self.exchange(full[1], self.parts[3:], end, cache.channels, per_channel=False),
        )

    def exchange(self, full, parts, end, n, per_channel):
        """Pack the groups finished before `end`; return all finished ones, then `full` from the
        first row's edge on.

        n numbers share a scale: the tokens of a group in one channel, or channels of one token.
        """
        cache = self.cache
        g, D, before, after = (
            cache.group,
            full.shape[3],
            cache.finished(cache.pos),
            cache.finished(end),
        )
        if after > before:
            x = full[:, :, before - cache.held : after - cache.held].unflatten(
                2, (-1, g)
            )  # (B, Hkv, G, g, D)
            x = (x.mT if per_channel else x).reshape(*x.shape[:3], -1, n)  # (B, Hkv, G, g·D/n, n)
            codes, *affine = quantized(x, cache.bits, symmetric=False)
            for part, made in zip(parts, (pack(codes, cache.bits), *affine), strict=True):
                part[:, :, before // g : after // g] = made
        codes, scale, low = (part[:, :, : after // g] for part in parts)
        x = unpack(codes, cache.bits, n).to(full.dtype) * scale.to(full.dtype) + low.to(full.dtype)
        x = x.reshape(*x.shape[:3], D, g).mT if per_channel else x.reshape(*x.shape[:3], g, D)
        return torch.cat(
            (x.flatten(2, 3), full[:, :, cache.finished(cache.pos + 1) - cache.held :]), dim=2
        )


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
        self.held = 0  # tokens from here on are held in full precision

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
        edges = torch.tensor([self.finished(i + 1) for i in range(pos, end)], device=self.device)[
            :, None
        ]
        rows, packed, full = (
            torch.arange(a, b, device=self.device)
            for a, b in ((pos, end), (0, after), (first, end))
        )
        return torch.cat((packed < edges, (full >= edges) & (full <= rows[:, None])), dim=1)

    def advance(self, T):
        self.held = self.hold(self.pos + T)
        super().advance(T)

    def truncate(self, pos):
        """Forget everything from `pos` on. ValueError also when a token that becomes full precision
        again is packed."""
        if self.finished(pos) < min(pos, self.held):
            raise ValueError(
                f"cannot truncate to {pos}: token {self.finished(pos)} is in a finished group: "
                f"make_cache(..., rollback={self.pos - pos})"
            )
        super().truncate(pos)
        self.held = min(self.held, pos)


class Int4Cache(KiviCache):
    """KIVI with 4 bits a number."""

    bits = 4


class Int2Cache(KiviCache):
    """KIVI with 2 bits a number."""

    bits = 2
