"""Numbers as codes with float16 scales and minima: what the quantized caches store."""

import torch

from ..affine import affine_grid, extremes, pack, packed_bytes, to_codes, unpack

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
            f"keys or values up to {x.abs().max().item():.6g} do not fit {bits}-bit codes "
            "with float16 scales: use the static cache"
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
    codes = unpack(rows[..., :n], bits, D).to(dtype)
    affine = rows[..., n:].contiguous().view(SCALE).to(dtype)  # (..., 1 or 2)
    if bits == 8:
        return codes.sub_(128).mul_(affine)
    return codes.mul_(affine[..., :1]).add_(affine[..., 1:])


def encoded_bytes(D: int, bits: int) -> int:
    """Bytes of one encoded row of D numbers."""
    return packed_bytes(D, bits) + SCALE.itemsize * (1 if bits == 8 else 2)
