"""What a quantized number is: the scheme, and the pure functions between floats, codes and bytes.

Every format here is affine: w ≈ (u - z) · s, with unsigned codes u of `bits` bits, one scale s and one zero-point z
for each tensor, channel (row) or group of columns. A symmetric scheme fixes z = 2^(bits-1) and stores none, so the
all-positive code is the same rule as the asymmetric one (Jacob et al. 2018, equation 1).

The arithmetic is `affine`. Letters: N rows (outputs, or words of an embedding), K columns, G groups in a row.
"""

import math
from dataclasses import dataclass

import torch

from ..affine import affine_grid, extremes, pack, to_codes, unpack

GRANULARITIES = ("tensor", "channel", "group")
SCALE_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class QuantScheme:
    """How weights, and optionally activations, are turned into integers.

    `group_size` columns share a scale when `granularity` is "group". `embeddings` False leaves `nn.Embedding` (and a head
    tied to it) in floating point. `activation_bits` fake-quantizes the input of every linear layer while running, with one
    scale for each token, or for the whole tensor. Raises ValueError naming the field, its value and the remedy.
    """

    bits: int = 8
    granularity: str = "channel"
    group_size: int | None = None
    symmetric: bool = True
    scale_dtype: str = "float16"
    activation_bits: int | None = None
    embeddings: bool = True
    activation_granularity: str = "token"
    activation_symmetric: bool = True

    def __post_init__(self):
        for name in ("bits", "activation_bits"):
            value = getattr(self, name)
            if value not in range(2, 9) and not (name == "activation_bits" and value is None):
                raise ValueError(f"{name} {value} is not supported: give 2 to 8")
        choices = {"granularity": GRANULARITIES, "scale_dtype": SCALE_DTYPES, "activation_granularity": ("tensor", "token")}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r} is unknown: choose one of {', '.join(known)}")
        if (self.granularity == "group") != (self.group_size is not None):
            raise ValueError(f"granularity {self.granularity!r} with group_size {self.group_size}: "
                             "group_size goes with granularity 'group', and only with it")
        if self.group_size is not None and self.group_size < 1:
            raise ValueError(f"group_size {self.group_size} is not positive: give at least 1, 32 or 128 are usual")

    def groups(self, columns: int) -> int:
        """Scales in a row of `columns` weights; the last group may be shorter."""
        return math.ceil(columns / self.group_size) if self.group_size else 1

    def __str__(self):
        per = f"group {self.group_size}" if self.group_size else self.granularity
        activations = f", int{self.activation_bits} activations" if self.activation_bits else ""
        return f"int{self.bits} {per} {'symmetric' if self.symmetric else 'asymmetric'}{activations}"


def quantize_tensor(weight: torch.Tensor, scheme: QuantScheme):
    """Round to nearest: (N, K) floats -> codes (N, bytes) uint8, scale (N or 1, G), zero-points packed (N or 1, bytes) or None.

    ValueError when a weight is not finite, or a scale overflows its type.
    """
    if not torch.isfinite(weight).all():
        raise ValueError("a weight is not finite: train again, or load the last good checkpoint")
    w, (N, K) = weight.detach().float(), weight.shape
    if scheme.granularity == "tensor":
        w = w.reshape(1, 1, N * K)
    else:
        size = scheme.group_size or K
        w = torch.nn.functional.pad(w, (0, -K % size)).unflatten(-1, (-1, size))  # (N, G, size); zeros widen no range
    scale, zero = affine_grid(*extremes(w), scheme.bits, scheme.symmetric, SCALE_DTYPES[scheme.scale_dtype])
    codes = to_codes(w, scale, zero, scheme.bits, scheme.symmetric).reshape(N, -1)[:, :K]
    zeros = None if scheme.symmetric else pack(zero.squeeze(-1), scheme.bits)
    return pack(codes, scheme.bits), scale.squeeze(-1), zeros


def dequantize_tensor(codes, scale, zeros, scheme: QuantScheme, columns: int) -> torch.Tensor:
    """(u - z) · s: codes (..., bytes), scale (..., G), zeros packed or None -> (..., columns), float32, or float64 like scale."""
    zero = 2 ** (scheme.bits - 1) if zeros is None else unpack(zeros, scheme.bits, scheme.groups(columns)).float()
    values = unpack(codes, scheme.bits, columns).float()
    if scheme.group_size is None:
        return (values - zero) * scale
    short = -columns % scheme.group_size  # the last group may be cut short
    values = torch.nn.functional.pad(values, (0, short)).unflatten(-1, (-1, scheme.group_size))  # (..., G, size)
    values = (values - (zero if zeros is None else zero[..., None])) * scale[..., None]
    return values.flatten(-2)[..., :columns]


def fake_quantize(x: torch.Tensor, bits: int, granularity: str = "token", symmetric: bool = True) -> torch.Tensor:
    """Activations rounded to `bits` with a scale made on the spot: (..., K) -> (..., K), values on the grid, still floats.

    A scale for each token looks at no other row, so batching and caching cannot change it; one for the tensor does.
    """
    rows = x.reshape(1, -1) if granularity == "tensor" else x
    scale, zero = affine_grid(*extremes(rows), bits, symmetric, x.dtype)
    return ((to_codes(rows, scale, zero, bits, symmetric) - zero) * scale).reshape(x.shape)
