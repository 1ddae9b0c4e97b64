"""Two layers and the matrix they share: packed codes at rest, floats for the length of one expression.

These are the reference: plain torch, every format, and slower than FP32 because each call unpacks. `kernels` has the rest.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..affine import packed_bytes, unpack
from .schemes import SCALE_DTYPES, QuantScheme, dequantize_tensor, fake_quantize, quantize_tensor


class QuantWeight(nn.Module):
    """An (N, K) matrix as buffers: `codes` (N, bytes), `scale` (N or 1, G) and, when asymmetric, packed `zero`.

    A module of its own so that tied layers share one: it is quantized once, stored once, and follows `.to()` once.
    """

    def __init__(self, rows: int, columns: int, scheme: QuantScheme, device=None):
        super().__init__()
        self.rows, self.columns, self.scheme = rows, columns, scheme
        groups, sets = scheme.groups(columns), 1 if scheme.granularity == "tensor" else rows
        self.register_buffer("codes", torch.zeros(rows, packed_bytes(columns, scheme.bits), dtype=torch.uint8, device=device))
        self.register_buffer("scale", torch.ones(sets, groups, dtype=SCALE_DTYPES[scheme.scale_dtype], device=device))
        zero = torch.zeros(sets, packed_bytes(groups, scheme.bits), dtype=torch.uint8, device=device)
        self.register_buffer("zero", None if scheme.symmetric else zero)

    @classmethod
    def from_tensor(cls, weight: torch.Tensor, scheme: QuantScheme, encode=quantize_tensor) -> "QuantWeight":
        """Quantize (N, K); `encode` has the signature of `quantize_tensor`, None makes the empty structure."""
        made = cls(*weight.shape, scheme, device=weight.device)
        if encode is not None:
            made.codes, made.scale, made.zero = encode(weight, scheme)
        return made

    def forward(self, ids: torch.Tensor | None = None) -> torch.Tensor:
        """The matrix (N, K) as floats, or only the rows asked for: (...) -> (..., K)."""
        parts = (self.codes, self.scale, self.zero)
        if ids is not None:
            parts = [x if x is None or len(x) == 1 else F.embedding(ids, x) for x in parts]
        return dequantize_tensor(*parts, self.scheme, self.columns)

    def integers(self) -> torch.Tensor:
        """Unsigned codes, one an element: (N, K) uint8."""
        return unpack(self.codes, self.scheme.bits, self.columns)

    def grid(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and zero-point of every weight, each (N, K)."""
        s, groups = self.scheme, self.scheme.groups(self.columns)
        zero = torch.full_like(self.scale, 2 ** (s.bits - 1)) if self.zero is None else unpack(self.zero, s.bits, groups)
        spread = (x.float().repeat_interleave(s.group_size or self.columns, 1)[:, : self.columns] for x in (self.scale, zero))
        return tuple(x.expand(self.rows, self.columns) for x in spread)

    def extra_repr(self):
        return f"{self.rows}, {self.columns}, {self.scheme}"


class QuantLinear(nn.Module):
    """y = x Ŵᵀ + b with Ŵ dequantized on the spot; the bias stays as it was. x (..., K) -> (..., N)."""

    def __init__(self, weight: QuantWeight, bias: nn.Parameter | None):
        super().__init__()
        self.weight, self.bias = weight, bias

    @classmethod
    def from_linear(cls, linear: nn.Linear, scheme: QuantScheme) -> "QuantLinear":
        return cls(QuantWeight.from_tensor(linear.weight, scheme), linear.bias)

    def forward(self, x):
        return F.linear(self.activation(x), self.weight(), self.bias)

    def activation(self, x):
        """The input itself, or its fake-quantized copy when the scheme says so."""
        s = self.weight.scheme
        return fake_quantize(x, s.activation_bits, s.activation_granularity, s.activation_symmetric) if s.activation_bits else x

    def extra_repr(self):
        w, s = self.weight, self.weight.scheme
        return f"in_features={w.columns}, out_features={w.rows}, bits={s.bits}, group={s.group_size or s.granularity}"


class QuantEmbedding(nn.Module):
    """Rows of Ê, only those asked for dequantized: ids (...) -> (..., K)."""

    def __init__(self, weight: QuantWeight):
        super().__init__()
        self.weight = weight

    @classmethod
    def from_embedding(cls, embedding: nn.Embedding, scheme: QuantScheme) -> "QuantEmbedding":
        return cls(QuantWeight.from_tensor(embedding.weight, scheme))

    def forward(self, ids):
        return self.weight(ids)

    def extra_repr(self):
        w, s = self.weight, self.weight.scheme
        return f"num_embeddings={w.rows}, embedding_dim={w.columns}, bits={s.bits}, group={s.group_size or s.granularity}"
