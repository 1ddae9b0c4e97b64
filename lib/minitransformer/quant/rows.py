"""Rows of a quantized embedding in as few calls as torch allows, for the formats that kernels
know."""

import torch
import torch.nn as nn

from .layers import QuantEmbedding, QuantWeight
from .packed import KernelError, Packed


def lookup(layer: QuantEmbedding) -> nn.Module:
    """The same rows in fewer calls, for the symmetric formats that kernels know; any other stays as
    it is."""
    scheme = layer.weight.scheme
    if scheme.symmetric and scheme.bits == 8 and scheme.group_size is None:
        return Int8Rows(layer.weight)
    K = layer.weight.columns
    whole = K % 2 == 0 and K % (scheme.group_size or 1) == 0  # no byte and no group is part empty
    affine = scheme.symmetric and scheme.bits == 4 and not scheme.codebook
    return Int4Rows(layer.weight) if affine and whole else layer


def signed_rows(weight: QuantWeight) -> tuple[torch.Tensor, torch.Tensor]:
    """Signed int8 codes (N, K) and FP32 scales (N,) of a symmetric 8-bit matrix without groups."""
    return (weight.integers().int() - 128).to(torch.int8), weight.scale.float().expand(
        weight.rows, 1
    ).squeeze(1).contiguous()


def int8_rows(weight: QuantWeight, multiple: int = 1):
    """Signed int8 codes (N, K) and FP32 scales (N,), for the kernels that know one symmetric scale
    a row."""
    scheme = weight.scheme
    if scheme.bits != 8 or scheme.granularity == "group" or not scheme.symmetric or scheme.outliers:
        raise KernelError(
            f"the kernel takes int8 symmetric, per tensor or per channel, not {scheme}"
        )
    if weight.columns % multiple:
        raise KernelError(
            f"{weight.columns} columns are not a multiple of {multiple}, and the kernel would "
            "read past them"
        )
    return signed_rows(weight)


class Int8Rows(Packed):
    """Rows of signed codes times rows of FP32 scales: ids (...) -> (..., K)."""

    def __init__(self, weight: QuantWeight):
        super().__init__()
        self.dtype = weight.dtype
        codes, scale = signed_rows(weight)
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale[:, None])
        self.held = self.codes, self.scale

    def forward(self, ids):
        codes, scale = self.held
        return self.answer(torch.embedding(codes, ids) * torch.embedding(scale, ids))


class Int4Rows(Packed):
    """Rows of bytes, each looked up in a table of the two numbers it holds, times their scales: ids
    (...) -> (..., K)."""

    def __init__(self, weight: QuantWeight):
        super().__init__()
        self.dtype = weight.dtype
        self.groups = weight.scheme.groups(weight.columns)
        byte = torch.arange(256)
        self.register_buffer("codes", weight.codes)
        self.register_buffer("scale", weight.scale.expand(weight.rows, self.groups).contiguous())
        self.register_buffer("table", torch.stack((byte % 16, byte // 16), -1) - 8.0)
        self.held = self.codes, self.scale, self.table

    def forward(self, ids):
        codes, scale, table = self.held
        values = torch.embedding(table, torch.embedding(codes, ids).int()).view(
            *ids.shape, self.groups, -1
        )  # (..., G, size)
        return self.answer((values * torch.embedding(scale, ids)[..., None]).flatten(-2))
