"""Two layers and the matrix they share: packed codes at rest, floats for the length of one
expression.

These are the reference: plain torch, every format, and slower than FP32 because each call unpacks.
`kernels` has the rest."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..affine import packed_bytes, unpack
from .schemes import SCALE_DTYPES, QuantScheme, dequantize_tensor, fake_quantize, quantize_tensor


class QuantWeight(nn.Module):
    """An (N, K) matrix as buffers: `codes` (N, bytes), `scale` (N or 1, G) and, when asymmetric,
    packed `zero`.

    A scheme with n `outliers` has `apart` (N, n), FP32 columns, and `index` (n,), where they
    belong; the codes are of the rest. A module of its own so that tied layers share one: it is
    quantized once, stored once, and follows `.to()` once: to another device as a whole, while a
    type changes only `dtype`, what the matrix reads as."""

    def __init__(self, rows: int, columns: int, scheme: QuantScheme, device=None):
        super().__init__()
        self.rows, self.columns, self.scheme = rows, columns, scheme
        if scheme.outliers > columns:
            raise ValueError(
                f"outliers {scheme.outliers} are more than the {columns} columns: "
                "give at most as many"
            )
        self.inner = columns - scheme.outliers  # columns that have codes
        self.dtype = torch.get_default_dtype()
        groups, sets = scheme.groups(self.inner), 1 if scheme.granularity == "tensor" else rows
        codes = torch.zeros(
            rows, packed_bytes(self.inner, scheme.bits), dtype=torch.uint8, device=device
        )
        self.register_buffer("codes", codes)
        self.register_buffer(
            "scale", torch.ones(sets, groups, dtype=SCALE_DTYPES[scheme.scale_dtype], device=device)
        )
        zero = torch.zeros(
            sets, packed_bytes(groups, scheme.bits), dtype=torch.uint8, device=device
        )
        self.register_buffer("zero", None if scheme.symmetric else zero)
        if scheme.outliers:
            self.register_buffer("apart", torch.zeros(rows, scheme.outliers, device=device))
            self.register_buffer(
                "index", torch.arange(scheme.outliers, dtype=torch.int32, device=device)
            )

    @classmethod
    def from_tensor(
        cls, weight: torch.Tensor, scheme: QuantScheme, encode=quantize_tensor, outliers=()
    ) -> "QuantWeight":
        """Quantize (N, K); `encode` has the signature of `quantize_tensor`, None makes the empty
        structure.

        `outliers` are the columns to keep apart, as many as the scheme says."""
        made = cls(*weight.shape, scheme, device=weight.device)
        made.dtype = weight.dtype
        if encode is not None and scheme.outliers != len(outliers):
            raise ValueError(
                f"the scheme keeps {scheme.outliers} columns apart and {len(outliers)} are "
                "chosen: leave "
                "outliers 0, and method 'llm.int8' will count them"
            )
        if encode is not None and scheme.outliers:
            made.index = torch.as_tensor(outliers, dtype=torch.int32, device=weight.device)
            made.apart, weight = weight.detach().float()[:, made.index], weight[:, made.kept()]
        if encode is not None and made.inner:
            made.codes, made.scale, made.zero = encode(weight, scheme)
        return made

    def _apply(self, fn, recurse=True):
        probe = torch.empty(0, dtype=self.dtype, device=self.codes.device)
        held = dict(self._buffers)
        super()._apply(fn, recurse)
        self.dtype = fn(probe).dtype
        for name, own in held.items():  # a scale rounded again would be another scale
            if own is not None and self._buffers[name].dtype != own.dtype:
                self._buffers[name] = own.to(self._buffers[name].device)
        return self

    def forward(self, ids: torch.Tensor | None = None) -> torch.Tensor:
        """The matrix (N, K) as floats of `dtype`, or only the rows asked for: (...) -> (..., K)."""
        parts = [self.codes, self.scale, self.zero, *([self.apart] if self.scheme.outliers else [])]
        if ids is not None:
            parts = [x if x is None or len(x) == 1 else F.embedding(ids, x) for x in parts]
        wide = torch.float64 if self.dtype == torch.float64 else torch.float32
        parts[1] = parts[1].to(wide)
        if not self.scheme.outliers:
            return dequantize_tensor(*parts, self.scheme, self.columns).to(self.dtype)
        whole = parts[1].new_empty(*parts[3].shape[:-1], self.columns)
        whole[..., self.index] = parts[3].to(wide)
        if self.inner:
            whole[..., self.kept()] = dequantize_tensor(*parts[:3], self.scheme, self.inner)
        return whole.to(self.dtype)

    def kept(self) -> torch.Tensor:
        """Columns that have codes, in order, (K - n,): all but the outliers."""
        coded = torch.ones(self.columns, dtype=torch.bool, device=self.index.device)
        coded[self.index] = False
        return coded.nonzero()[:, 0]

    def integers(self) -> torch.Tensor:
        """Unsigned codes, one an element: (N, K) uint8, without the columns kept apart."""
        return unpack(self.codes, self.scheme.bits, self.inner)

    def grid(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and zero-point of every weight that has a code, each (N, K); ValueError for a
        codebook, which is no grid."""
        s, groups = self.scheme, self.scheme.groups(self.inner)
        if s.codebook:
            raise ValueError(
                f"{s} is a codebook, not a grid of scale and zero-point: "
                "call the weight for its values"
            )
        zero = (
            torch.full_like(self.scale, 2 ** (s.bits - 1))
            if self.zero is None
            else unpack(self.zero, s.bits, groups)
        )
        spread = (
            x.float().repeat_interleave(s.group_size or self.inner, 1)[:, : self.inner]
            for x in (self.scale, zero)
        )
        return tuple(x.expand(self.rows, self.inner) for x in spread)

    def extra_repr(self):
        return f"{self.rows}, {self.columns}, {self.scheme}"


class QuantLinear(nn.Module):
    """y = x Ŵᵀ + b with Ŵ dequantized on the spot; the bias stays as it was. x (..., K) -> (...,
    N)."""

    def __init__(self, weight: QuantWeight, bias: nn.Parameter | None):
        super().__init__()
        self.weight, self.bias = weight, bias

    @classmethod
    def from_linear(cls, linear: nn.Linear, scheme: QuantScheme) -> "QuantLinear":
        return cls(QuantWeight.from_tensor(linear.weight, scheme), linear.bias)

    def forward(self, x):
        return F.linear(self.activation(x), self.weight(), self.bias)

    def activation(self, x):
        """The input itself, or its fake-quantized copy when the scheme says so, all but what meets
        the columns kept apart."""
        s = self.weight.scheme
        if not s.activation_bits or not self.weight.inner:
            return x
        form = s.activation_bits, s.activation_granularity, s.activation_symmetric
        if not s.outliers:
            return fake_quantize(x, *form)
        kept = self.weight.kept()
        return x.index_copy(-1, kept, fake_quantize(x[..., kept], *form))

    def extra_repr(self):
        w, s = self.weight, self.weight.scheme
        return f"in_features={w.columns}, out_features={w.rows}, {_grid_of(s)}"


def _grid_of(s):
    return f"bits={s.bits}, group={s.group_size or s.granularity}"


class QuantEmbedding(nn.Module):
    """Rows of Ê, only those asked for dequantized: ids (...) -> (..., K)."""

    def __init__(self, weight: QuantWeight):
        super().__init__()
        self.weight = weight

    def forward(self, ids):
        return self.weight(ids)

    def extra_repr(self):
        w, s = self.weight, self.weight.scheme
        return f"num_embeddings={w.rows}, embedding_dim={w.columns}, {_grid_of(s)}"
