"""Number formats: their bytes, their errors, and what they cost in perplexity."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch

from minitransformer.affine import pack, unpack
from minitransformer.checkpoint import save
from minitransformer.model import ModelConfig, Transformer
from minitransformer.quant import (
    QuantScheme,
    QuantWeight,
    computed_bytes,
    file_bytes,
    layer_errors,
    quantize,
    resident_bytes,
    seed_bytes,
)

GRAINS = {"tensor": ("tensor", None), "channel": ("channel", None)}
GRAINS |= {f"g{size}": ("group", size) for size in (128, 32)}


def formats() -> dict[str, QuantScheme | None]:
    """Every format of the chapter by name: bits, what shares a scale, and `asym` with zero-points;
    nf4 has QLoRA's 16 levels."""
    named = {"fp32": None}
    for bits in (8, 4):
        for grain, how in GRAINS.items():
            named[f"int{bits} {grain}"] = QuantScheme(bits, *how)
            named[f"int{bits} {grain} asym"] = QuantScheme(bits, *how, symmetric=False)
    for bits in (3, 2):
        named[f"int{bits} g32"] = QuantScheme(bits, "group", 32)
        named[f"int{bits} g32 asym"] = QuantScheme(bits, "group", 32, symmetric=False)
    return named | {"nf4 g64": QuantScheme(4, "group", 64, codebook="nf4")}


def seed_rule(bits: int) -> QuantScheme:
    """The original report's: linear layers only, one FP32 scale a tensor."""
    return QuantScheme(bits, "tensor", scale_dtype="float32", embeddings=False)


def made(model, names) -> dict:
    """The model in each named format, rounded to nearest."""
    schemes = formats()
    return {n: model if schemes[n] is None else quantize(model, schemes[n]) for n in names}


def round_trips() -> pd.DataFrame:
    """Every code of every width packed and unpacked: bytes, and whether they come back."""
    rows = []
    for width in range(2, 9):
        codes = torch.arange(2**width, dtype=torch.uint8)
        packed = pack(codes, width)
        back = torch.equal(unpack(packed, width, len(codes)), codes)
        rows.append((width, len(codes), len(packed), back))
    return pd.DataFrame(rows, columns=["bits", "codes", "bytes", "back_exactly"])


def sizes(models: dict) -> pd.DataFrame:
    """Bytes of each model on disk, of its tensors there, in memory and computed; `fp32` first."""
    schemes, rows = formats(), []
    with TemporaryDirectory() as folder:
        for name, model in models.items():
            total, tensors = file_bytes(save(model, Path(folder, name)) / "model.safetensors")
            computed = computed_bytes(model.cfg, schemes[name])
            rows.append((name, total, tensors, resident_bytes(model), computed))
    columns = ["format", "file_bytes", "tensor_bytes", "resident_bytes", "computed_bytes"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(times_smaller=table.file_bytes[0] / table.file_bytes)


def agreeing(table: pd.DataFrame) -> int:
    """In how many formats the three counts of bytes are equal."""
    stored = table.tensor_bytes == table.resident_bytes
    return int((stored & (table.resident_bytes == table.computed_bytes)).sum())


BARRED = {"int8 channel": "int8", "int4 g32": "int4-g32", "int4 g128": "int4-g128"}
BARRED |= {"int3 g32": "int3-g32", "int2 g32": "int2-g32"}


def codes_alone(bits: int) -> float:
    """FP32 bytes of the seed model's linear weights over those of their packed codes: the limit
    that scales keep from being reached."""
    shrunk = quantize(Transformer(ModelConfig()), seed_rule(bits))
    inside = [m for m in shrunk.modules() if isinstance(m, QuantWeight)]
    return 4 * sum(m.rows * m.columns for m in inside) / sum(m.codes.nbytes for m in inside)


def default_ratios() -> pd.DataFrame:
    """How many times smaller the original's model is in the formats that have a bar, on disk and
    in memory; the smaller of the two counts."""
    table = sizes(made(Transformer(ModelConfig()), ["fp32", *BARRED])).set_index("format")
    memory = table.resident_bytes["fp32"] / table.resident_bytes
    times = pd.DataFrame({"on_disk": table.times_smaller, "in_memory": memory})
    return times.assign(times=times.min(axis=1)).loc[list(BARRED)].reset_index()


def matrix_errors(model, models: dict) -> pd.DataFrame:
    """Signal-to-noise ratio and relative error of every matrix in every format."""
    tables = [pd.DataFrame(layer_errors(model, q)).assign(format=n) for n, q in models.items()]
    return pd.concat(tables, ignore_index=True)


def snr_grid(errors: pd.DataFrame) -> pd.DataFrame:
    """dB: matrices down, formats across."""
    grid = errors.pivot(index="layer", columns="format", values="snr_db")
    return grid.loc[errors.layer.unique(), errors.format.unique()]


def off_the_step(errors: pd.DataFrame) -> float:
    """dB by which int8 over int4 per channel misses 20·log10(127 / 7), in the mean of matrices."""
    grid = snr_grid(errors)
    return abs((grid["int8 channel"] - grid["int4 channel"]).mean() - 20 * np.log10(127 / 7))


def zero_points(model, scores) -> pd.DataFrame:
    """Symmetric, symmetric with a signed scale that reaches every code (full range), and with
    zero-points: perplexity added, the paired gap to zero-points, and the bytes these add."""
    schemes, rows = formats(), []
    for name in ("int8 channel", "int4 channel", "int4 g32", "int3 g32", "int2 g32"):
        full = f"{name} full range"
        scores.add(full, quantize(model, replace(schemes[name], full_range=True)))
        gap = scores.added(f"{name} asym", name)
        more = computed_bytes(model.cfg, schemes[f"{name} asym"])
        ways = {"symmetric": name, "full_range": full, "zero_points": f"{name} asym"}
        row = {f"{way}_percent": scores.added(own)["added_percent"] for way, own in ways.items()}
        row |= {"gap_percent": gap["added_percent"], "low": gap["low"], "high": gap["high"]}
        row["more_bytes_percent"] = 100 * (more / computed_bytes(model.cfg, schemes[name]) - 1)
        rows.append({"format": name} | row)
    return pd.DataFrame(rows)


def signed_gap(row) -> float:
    """Of a row of `zero_points`: how a signed scale changes the symmetric rule's perplexity, %."""
    return 100 * ((100 + row.full_range_percent) / (100 + row.symmetric_percent) - 1)


def off_centre(model) -> float:
    """The greatest |mean| over standard deviation of a matrix."""
    matrices = [p.detach() for p in model.parameters() if p.ndim == 2]
    return max((p.mean() / p.std()).abs().item() for p in matrices)


def seed_layout() -> pd.DataFrame:
    """Where the original's int8 bytes are: a byte a code, an FP32 embedding and positions."""
    cfg = ModelConfig()
    shrunk = quantize(Transformer(cfg), seed_rule(8))
    inside = [m for m in shrunk.modules() if isinstance(m, QuantWeight)]
    parts = {
        "codes, a byte each": sum(m.codes.nbytes for m in inside),
        "scales": sum(m.scale.nbytes for m in inside),
        "embedding, FP32": 4 * cfg.vocab_size * cfg.d_model,
        "position table, FP32": 4 * cfg.context * cfg.d_model,
    }
    whole = seed_bytes(cfg, 8)
    parts["biases and norms, FP32"] = whole - sum(parts.values())
    table = pd.DataFrame({"part": list(parts), "bytes": list(parts.values())})
    return table.assign(share_percent=100 * table.bytes / whole)
