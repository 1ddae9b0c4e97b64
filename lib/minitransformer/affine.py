"""Affine integer codes: x ≈ (u - z) · s with u of a few bits, and the bytes that hold them. A leaf:
it knows tensors only.

Weights (`quant`) and keys and values (`cache`) are stored by the same rules (Jacob et al. 2018,
equation 1)."""

import math
from functools import cache

import torch


class ScaleOverflow(ValueError):
    """A range is too wide for the type that its scale is stored in."""


def packed_bytes(n: int, bits: int) -> int:
    """Bytes that hold n codes of `bits` bits, one row: the last byte may be part empty."""
    return math.ceil(n * bits / 8)


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Unsigned codes below 2^bits, (..., n) -> bytes (..., ceil(n·bits / 8)) uint8, low bits first.

    At 8 bits a byte is a code; at 4 the even index is the low nibble. Codes are cut into fields of
    gcd(bits, 8) bits, so that one rule serves every width from 1 to 8."""
    width, codes = math.gcd(bits, 8), codes[..., None].to(torch.uint8)
    fields = (codes >> shifts(width, bits, codes.device)) & (2**width - 1)  # (..., n, bits/width)
    fields = fields.flatten(-2)
    short = -fields.shape[-1] % (8 // width)
    # (..., bytes, fields a byte)
    fields = torch.nn.functional.pad(fields, (0, short)).unflatten(-1, (-1, 8 // width))
    return sum(field << i * width for i, field in enumerate(fields.unbind(-1)))


def unpack(data: torch.Tensor, bits: int, n: int) -> torch.Tensor:
    """The first n codes of `pack`: bytes (..., ceil(n·bits / 8)) -> (..., n) uint8."""
    if bits == 8:
        return data
    width = math.gcd(bits, 8)
    # (..., bytes, fields a byte)
    fields = (data[..., None] >> shifts(width, 8, data.device)) & (2**width - 1)
    fields = fields.flatten(-2)[..., : n * (bits // width)]
    if width == bits:
        return fields
    fields = fields.unflatten(-1, (n, bits // width)) << shifts(width, bits, data.device)
    return fields.sum(-1, dtype=torch.uint8)


@cache
def shifts(step: int, stop: int, device) -> torch.Tensor:
    """0, step, 2·step, … below stop, as uint8."""
    return torch.arange(0, stop, step, dtype=torch.uint8, device=device)


def affine_grid(low, high, bits: int, symmetric: bool, dtype: torch.dtype):
    """Scale (in `dtype`) and zero-point of the smallest grid that covers [low, high], where low <=
    0 <= high.

    Symmetric codes are -Q … Q with Q = 2^(bits-1) - 1: one code of 2^bits stays unused, and zero is
    always exact. A range of nothing gets scale 1; one too small for `dtype` gets its smallest
    positive number; one too large raises."""
    levels = 2**bits - 1
    span = torch.maximum(-low, high) / (levels // 2) if symmetric else (high - low) / levels
    scale = stored_scale(span, dtype)
    if symmetric:
        return scale, torch.full_like(span, 2 ** (bits - 1))
    return scale, (-low / scale.to(span.dtype)).round().clamp(0, levels)


def stored_scale(span, dtype: torch.dtype):
    """The step `span` rounded to `dtype`: never zero (1 for a range of nothing), its sign kept;
    ScaleOverflow beyond its largest number."""
    scale = span.to(dtype)
    if not torch.isfinite(scale).all():
        kind, most = str(dtype).removeprefix("torch."), torch.finfo(dtype).max
        raise ScaleOverflow(
            f"a scale of {span.abs().max().item():.6g} overflows {kind} (at most {most:.6g}): "
            "give scale_dtype 'float32' or rescale the weights"
        )
    smallest = torch.finfo(dtype).tiny * torch.finfo(dtype).eps
    return torch.where(span == 0, 1.0, torch.copysign(scale.abs().clamp(min=smallest), scale))


def to_codes(x, scale, zero, bits: int, symmetric: bool):
    """Nearest codes (ties to even), clamped to the grid; computed with the rounded scale, which is
    the one that is stored."""
    return ((x / scale.to(x.dtype)).round() + zero).clamp(1 if symmetric else 0, 2**bits - 1)


def extremes(x):
    """Least and greatest of the last axis, widened to include zero: padding, masks and ReLU outputs
    stay exact."""
    return x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
