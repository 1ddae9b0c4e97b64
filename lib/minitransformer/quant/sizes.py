"""What a format costs and what it loses: bytes computed from the configuration, bytes measured,
error of every matrix."""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn as nn

from ..affine import packed_bytes
from ..model import ModelConfig
from .layers import QuantWeight
from .schemes import SCALE_DTYPES, QuantScheme, as_scheme


def matrices(cfg: ModelConfig) -> dict[str, tuple[int, int]]:
    """Name -> (rows, columns) of every matrix a scheme may quantize; a tied head is the embedding
    and not listed twice."""
    C, D, F = cfg.d_model, cfg.head_dim, cfg.ffn_dim
    block = {"attention.q": (cfg.n_heads * D, C), "attention.k": (cfg.kv_heads * D, C)}
    block |= {"attention.v": (cfg.kv_heads * D, C), "attention.out": (C, cfg.n_heads * D)}
    block |= ({"ffn.gate": (F, C)} if cfg.ffn == "swiglu" else {}) | {
        "ffn.up": (F, C),
        "ffn.down": (C, F),
    }
    found = {"embedding": (cfg.vocab_size, C)}
    found |= {
        f"blocks.{i}.{name}": shape for i in range(cfg.n_layers) for name, shape in block.items()
    }
    return found if cfg.tied else found | {"head": (cfg.vocab_size, C)}


def vectors(cfg: ModelConfig) -> int:
    """Numbers outside the matrices: biases and norms, which stay in FP32."""
    norm = cfg.d_model * (2 if cfg.norm == "layernorm" else 1)
    norms = (2 * cfg.n_layers + 1) * norm + (2 * cfg.n_layers * cfg.head_dim if cfg.qk_norm else 0)
    biased = [rows for name, (rows, _) in matrices(cfg).items() if name != "embedding"] + [
        cfg.vocab_size
    ] * cfg.tied
    return norms + (sum(biased) if cfg.bias else 0)


def matrix_bytes(rows: int, columns: int, scheme: QuantScheme | None) -> int:
    """Codes, scales, zero-points, and FP32 columns with their positions, of one matrix; None is
    FP32."""
    if scheme is None:
        return 4 * rows * columns
    apart, columns = 4 * (rows + 1) * scheme.outliers, columns - scheme.outliers
    sets, groups = 1 if scheme.granularity == "tensor" else rows, scheme.groups(columns)
    zeros = 0 if scheme.symmetric else sets * packed_bytes(groups, scheme.bits)
    return (
        rows * packed_bytes(columns, scheme.bits)
        + sets * groups * SCALE_DTYPES[scheme.scale_dtype].itemsize
        + zeros
        + apart
    )


def computed_bytes(
    cfg: ModelConfig, scheme: QuantScheme | Mapping[str, QuantScheme | None] | None = None
) -> int:
    """Bytes of a model's tensors from its configuration alone: matrices, scales, zero-points,
    biases and norms.

    `scheme` is one for all, or one for each matrix by name (None: FP32), as `quantize` takes it."""
    shapes, scheme = matrices(cfg), None if scheme is None else as_scheme(scheme)
    if not isinstance(scheme, Mapping):
        kept = scheme is not None and not scheme.embeddings
        scheme = {name: None if kept and name == "embedding" else scheme for name in shapes}
    return sum(matrix_bytes(*shape, scheme[name]) for name, shape in shapes.items()) + 4 * vectors(
        cfg
    )


def seed_bytes(cfg: ModelConfig, bits: int) -> int:
    """Bytes of the original's model file: FP32 embedding, one FP32 scale a matrix, a byte a code
    even for int4, and a saved (context, C) FP32 position table."""
    scheme = (
        None
        if bits == 32
        else QuantScheme(bits=8, granularity="tensor", scale_dtype="float32", embeddings=False)
    )
    return computed_bytes(cfg, scheme) + 4 * cfg.context * cfg.d_model


def resident_bytes(model: nn.Module) -> int:
    """Bytes held in memory by parameters and buffers, each storage once, whole even where a tensor
    is a view into it; without the position table, a constant of the architecture (no weight, never
    saved)."""
    tensors = [*model.parameters(), *(b for name, b in model.named_buffers() if name != "table")]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values()) + sum(getattr(m, "opaque_bytes", 0) for m in model.modules())


def file_bytes(path) -> tuple[int, int]:
    """Size of a safetensors file and of its tensors: the difference is the header, which names
    them."""
    total = Path(path).stat().st_size
    with open(path, "rb") as file:
        return total, total - 8 - int.from_bytes(file.read(8), "little")


def layer_errors(model: nn.Module, quantized: nn.Module) -> list[dict]:
    """One row a quantized matrix: name, weights, relative RMS error, signal-to-noise ratio in dB,
    codes used and code range."""
    rows = []
    for name, module in quantized.named_modules():
        if isinstance(module, QuantWeight):
            layer = name.removesuffix(".weight")
            reference = model.get_submodule(layer).weight.detach()
            error, codes = module().double() - reference.double(), module.integers().int()
            signed = module.scheme.symmetric and not module.scheme.codebook
            if signed:  # as numbers around zero
                codes = codes - 2 ** (module.scheme.bits - 1)
            relative = (error.norm() / reference.double().norm().clamp(min=1e-300)).item()
            rows.append(
                {
                    "layer": layer,
                    "weights": reference.numel(),
                    "relative_error": relative,
                    "snr_db": -20
                    * torch.tensor(max(relative, 1e-16), dtype=torch.float64).log10().item(),
                    "max_error": error.abs().max().item(),
                    "lowest_code": int(codes.min()),
                    "highest_code": int(codes.max()),
                    "codes_used": codes.unique().numel(),
                }
            )
    return rows
