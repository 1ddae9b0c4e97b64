"""What a quantized number is: the scheme, and the pure functions between floats, codes and bytes.

Nearly every format is affine: w ≈ (u - z) · s, with unsigned codes u of `bits` bits, one scale s
and one zero-point z for each tensor, channel (row) or group of columns. A symmetric scheme fixes z
= 2^(bits-1) and stores none, so the all-positive code is the same rule as the asymmetric one (Jacob
et al. 2018, equation 1). A codebook replaces u - z by a table.

The arithmetic is `affine`. Letters: N rows (outputs, or words of an embedding), K columns, G groups
in a row."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import torch
import torch.nn.functional as F

from ..affine import affine_grid, extremes, pack, stored_scale, to_codes, unpack
from ..fields import choice, flag, settle, whole

SCALE_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
CHOICES = {
    "granularity": ("tensor", "channel", "group"),
    "scale_dtype": tuple(SCALE_DTYPES),
    "activation_granularity": ("tensor", "token"),
    "codebook": (None, "nf4"),
}
PIECE = 2**18  # weights rounded at once, so that what comes in between stays in the caches


@dataclass(frozen=True)
class QuantScheme:
    """How weights, and optionally activations, are turned into integers.

    `group_size` columns share a scale when `granularity` is "group". `embeddings` False leaves
    `nn.Embedding` (and a head tied to it) in floating point. `activation_bits` fake-quantizes the
    input of every linear layer while running, with one scale for each token, or for the whole
    tensor. `full_range` lets a symmetric grid be -2^(bits-1) … 2^(bits-1) - 1 with a scale of
    either sign, so that the weight farthest from zero gets the odd code (as llama.cpp's Q4_0).
    `codebook` "nf4" has the 16 levels of QLoRA times the largest magnitude. `outliers` columns are
    kept apart in FP32, which "llm.int8" decides. Raises ValueError naming the field, its value and
    the remedy."""

    bits: int = 8
    granularity: str = "channel"
    group_size: int | None = None
    symmetric: bool = True
    scale_dtype: str = "float16"
    activation_bits: int | None = None
    embeddings: bool = True
    activation_granularity: str = "token"
    activation_symmetric: bool = True
    full_range: bool = False
    codebook: str | None = None
    outliers: int = 0

    def __post_init__(self):
        settle(
            self, bits=whole("bits", self.bits, 2, 8), outliers=whole("outliers", self.outliers, 0)
        )
        if self.activation_bits is not None:
            settle(self, activation_bits=whole("activation_bits", self.activation_bits, 2, 8))
        if self.group_size is not None:
            settle(self, group_size=whole("group_size", self.group_size))
        for name in ("symmetric", "embeddings", "activation_symmetric", "full_range"):
            settle(self, **{name: flag(name, getattr(self, name))})
        for name, known in CHOICES.items():
            settle(self, **{name: choice(name, getattr(self, name), known)})
        self._fit()

    def _fit(self):
        """ValueError for fields that do not go together."""
        if self.codebook and (self.bits != 4 or not self.symmetric or self.full_range):
            raise ValueError(
                f"codebook {self.codebook!r} has 16 levels and no zero-point: "
                "give bits 4, symmetric True and "
                f"full_range False, not bits {self.bits}"
            )
        if self.full_range and not self.symmetric:
            raise ValueError(
                "full_range True with symmetric False: "
                "an asymmetric grid uses every code already, leave it False"
            )
        if (self.granularity == "group") != (self.group_size is not None):
            raise ValueError(
                f"granularity {self.granularity!r} with group_size {self.group_size}: "
                "group_size goes with granularity 'group', and only with it"
            )

    def groups(self, columns: int) -> int:
        """Scales in a row of `columns` weights; the last group may be shorter."""
        return math.ceil(columns / self.group_size) if self.group_size else 1

    def __str__(self):
        kind = "full-range" if self.full_range else "symmetric" if self.symmetric else "asymmetric"
        per = f"group {self.group_size}" if self.group_size else self.granularity
        name = f"{self.codebook} {per}" if self.codebook else f"int{self.bits} {per} {kind}"
        apart = f", {self.outliers} columns FP32" if self.outliers else ""
        return (
            name
            + (f", int{self.activation_bits} activations" if self.activation_bits else "")
            + apart
        )


@cache
def codebook(device=None) -> torch.Tensor:
    """NormalFloat4 (Dettmers et al. 2023): 8 quantiles of N(0, 1) above zero, 7 below, and zero,
    divided by the largest: (16,).

    The outermost lie at probability 1 - (1/30 + 1/32) / 2, so that the largest magnitude of a group
    is a level."""
    end, normal = 1 - (1 / 30 + 1 / 32) / 2, NormalDist()
    side = {n: [normal.inv_cdf(end + (0.5 - end) * i / n) for i in range(n)] for n in (7, 8)}
    levels = sorted([-x for x in side[7]] + [0.0] + side[8])
    return torch.tensor(levels, dtype=torch.float64).div(levels[-1]).float().to(device)


def grouped(weight: torch.Tensor, scheme: QuantScheme) -> torch.Tensor:
    """Weights that share a scale on the last axis: (N, K) -> (N, G, size), or (1, 1, N·K); zeros
    fill the last group."""
    if scheme.granularity == "tensor":
        return weight.reshape(1, 1, -1)
    size = scheme.group_size or weight.shape[1]
    # Zeros widen no range.
    return F.pad(weight, (0, -weight.shape[1] % size)).unflatten(-1, (-1, size))


def ungrouped(x: torch.Tensor, shape) -> torch.Tensor:
    """The inverse of `grouped`: (N, K) again, the last group cut where it was filled."""
    return x.reshape(shape[0], -1)[:, : shape[1]]


def fit_grid(w: torch.Tensor, scheme: QuantScheme, shrink: float = 1.0):
    """Scale (as stored) and zero-point of a grid over `shrink` times the range: (..., size) ->
    (..., 1) each.

    A full-range grid takes its sign from the weight farthest from zero, or from the other end when
    `shrink` is negative."""
    (low, high), dtype = extremes(w), SCALE_DTYPES[scheme.scale_dtype]
    if scheme.full_range:
        half = 2 ** (scheme.bits - 1)
        far = torch.where(-low > high, low, high)
        return stored_scale(far * (shrink / -half), dtype), torch.full_like(far, half)
    if scheme.codebook:
        return stored_scale(torch.maximum(-low, high) * shrink, dtype), torch.zeros_like(low)
    return affine_grid(low * shrink, high * shrink, scheme.bits, scheme.symmetric, dtype)


def encode(
    w: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, scheme: QuantScheme
) -> torch.Tensor:
    """The nearest code of each weight on a grid that broadcasts against it; whole numbers, still
    floats."""
    if scheme.codebook:
        levels = codebook(w.device).to(w.dtype)
        return torch.bucketize(w / scale.to(w.dtype), (levels[1:] + levels[:-1]) / 2).to(w.dtype)
    return to_codes(w, scale, zero, scheme.bits, scheme.symmetric and not scheme.full_range)


def decode(
    codes: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, scheme: QuantScheme
) -> torch.Tensor:
    """What codes on a grid stand for: (u - z) · s, or codebook[u] · s."""
    return (
        codebook(codes.device)[codes.long()] * scale if scheme.codebook else (codes - zero) * scale
    )


def store(codes: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, scheme: QuantScheme, shape):
    """Grouped codes and their grid -> what a `QuantWeight` holds: codes (N, bytes), scale (N or 1,
    G), zero-points or None."""
    zeros = None if scheme.symmetric else pack(zero.squeeze(-1), scheme.bits)
    return pack(ungrouped(codes, shape), scheme.bits), scale.squeeze(-1), zeros


def quantize_tensor(weight: torch.Tensor, scheme: QuantScheme):
    """Round to nearest: (N, K) floats -> codes (N, bytes) uint8, scale (N or 1, G), zero-points
    packed (N or 1, bytes) or None.

    ValueError when a weight is not finite, or a scale overflows its type."""
    if scheme.granularity != "tensor" and (rows := max(1, PIECE // weight.shape[1])) < len(weight):
        made = zip(*(quantize_tensor(part, scheme) for part in weight.split(rows)), strict=True)
        return tuple(None if part[0] is None else torch.cat(part) for part in made)
    w = grouped(finite(weight), scheme)
    scale, zero = fit_grid(w, scheme)
    return store(encode(w, scale, zero, scheme), scale, zero, scheme, weight.shape)


def finite(weight: torch.Tensor) -> torch.Tensor:
    """The weight as float32, apart from any graph; ValueError when one is not finite there."""
    weight = weight.detach().float()
    if weight.numel() and not torch.stack(weight.aminmax()).isfinite().all():  # NaN is both ends
        raise ValueError("a weight is not finite: train again, or load the last good checkpoint")
    return weight


def dequantize_tensor(codes, scale, zeros, scheme: QuantScheme, columns: int) -> torch.Tensor:
    """(u - z) · s: codes (..., bytes), scale (..., G), zeros packed or None -> (..., columns),
    float32, or float64 like scale."""
    zero = (
        2 ** (scheme.bits - 1)
        if zeros is None
        else unpack(zeros, scheme.bits, scheme.groups(columns)).float()
    )
    values = unpack(codes, scheme.bits, columns).float()
    if scheme.group_size is None:
        return decode(values, scale, zero, scheme)
    short = -columns % scheme.group_size  # the last group may be cut short
    values = F.pad(values, (0, short)).unflatten(-1, (-1, scheme.group_size))  # (..., G, size)
    values = decode(values, scale[..., None], zero if zeros is None else zero[..., None], scheme)
    return values.flatten(-2)[..., :columns]


def fake_quantize(
    x: torch.Tensor, bits: int, granularity: str = "token", symmetric: bool = True
) -> torch.Tensor:
    """Activations rounded to `bits` with a scale made on the spot: (..., K) -> (..., K), values on
    the grid, still floats.

    A scale for each token looks at no other row, so batching and caching cannot change it; one for
    the tensor does. Half-precision values are rounded in float32, and then to their own type."""
    rows = x.reshape(1, -1) if granularity == "tensor" else x
    rows = rows.float() if x.dtype.itemsize < 4 else rows
    scale, zero = affine_grid(*extremes(rows), bits, symmetric, rows.dtype)
    whole = (to_codes(rows, scale, zero, bits, symmetric) - zero) * scale
    return whole.reshape(x.shape).to(x.dtype)


def as_scheme(scheme):
    """One QuantScheme for a number of bits, a mapping with its values turned so, or the scheme
    itself; ValueError for anything else."""
    if isinstance(scheme, QuantScheme):
        return scheme
    if isinstance(scheme, Mapping):
        return {name: own if own is None else as_scheme(own) for name, own in scheme.items()}
    try:
        return QuantScheme(bits=scheme)
    except ValueError:
        raise ValueError(
            f"the scheme {scheme!r} is none: give a QuantScheme, 2 to 8 bits, "
            "or a mapping from every matrix to one"
        ) from None
