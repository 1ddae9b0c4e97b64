"""Which kernel for which product: every number format beside FP32, at one token and at many, on the
machine at hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
import torch.nn as nn

from ..fields import whole
from ..model import ModelConfig, Transformer
from ..native import BuildError, NativeLinear, NativeModel
from ..quant import (
    KERNELS,
    TOLERANCE,
    KernelError,
    QuantLinear,
    QuantScheme,
    matrix_bytes,
    resident_bytes,
)
from ..quant.conformance import disagreement
from .timing import interleaved, ratio, read_seconds

RESIDENT = 1.1  # a format is small in memory if it holds at most this multiple of what it stores
NATIVE = "native"


def dispatch_table(
    widths, formats: dict[str, QuantScheme], tokens=(1, 64), repeats: int = 15, seed: int = 0
) -> pd.DataFrame:
    """Time y = x Wᵀ with square W of each width and x of each number of tokens: FP32, every format
    on every kernel, and all of them in the C engine, which rounds activations to eight bits
    where weights have codes. A kernel that is wrong is refused.

    A row each: width, tokens, format, kernel, `median_us`, `time_ratio` to FP32 with its interval
    `low`, `high`, `limit_us` (to read once the bytes the format stores), `resident_bytes`,
    `resident_of_disk`, `label` (see `labels`) and `reason`: why a kernel refused, else None. A
    refused row has no numbers. Threads are the caller's."""
    widths, tokens = (
        [whole(name, n) for n in own] for name, own in (("widths", widths), ("tokens", tokens))
    )
    if not widths or not tokens:
        raise ValueError(f"widths {widths} and tokens {tokens} make no table: give one of each")
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for width in widths:
        plain = nn.Linear(width, width, bias=False).requires_grad_(False)
        plain.weight.normal_(0, width**-0.5, generator=generator)
        layers, refused = {("fp32", "none"): plain}, []
        for name, scheme in formats.items():
            layer = QuantLinear.from_linear(plain, scheme)
            for kernel in KERNELS:
                try:
                    layers[name, kernel] = KERNELS[kernel](layer)
                except KernelError as error:
                    refused.append({"format": name, "kernel": kernel, "reason": str(error)})
        own, not_native = _natives(plain, formats)
        layers, refused = layers | own, refused + not_native
        for m in tokens:
            x = torch.randn(m, width, generator=generator)
            if not rows:  # what is timed first finds a machine that has rested: it is timed again
                list(_timed(layers, formats, x, repeats))
            found = [*_timed(layers, formats, x, repeats), *refused]
            rows += [{"width": width, "tokens": m, "reason": None, **row} for row in found]
    table = pd.DataFrame(rows)
    table["label"] = labels(table)
    return table


def labels(table: pd.DataFrame) -> np.ndarray:
    """What each row may be called: "fast" is surely not slower than FP32 (`high` <= 1) and resident
    within `RESIDENT` of disk.

    "fast, larger" is only not slower, "slower" the rest; "FP32-resident" was dequantized once;
    "refused" does not run here."""
    quick, small = table["high"] <= 1, table["resident_of_disk"] <= RESIDENT
    cases = {
        "refused": table["high"].isna(),
        "baseline": (table["format"] == "fp32") & (table["time_ratio"] == 1),  # over itself
        "FP32-resident": table["kernel"] == "dequantized",
        "fast": quick & small,
        "fast, larger": quick,
    }
    return np.select(list(cases.values()), list(cases), "slower")


def _natives(plain: nn.Linear, formats) -> tuple[dict, list]:
    """The layer in the engine, in FP32 and every format, by (format, kernel); and the rows of what
    is refused."""
    width = plain.in_features
    try:
        shape = {"n_heads": 1, "d_ff": 1, "context": 8, "position": "none"}
        host = NativeModel(Transformer(ModelConfig(vocab_size=2, d_model=width, **shape)))
    except BuildError as error:
        names = ("fp32", *formats)
        return {}, [{"format": n, "kernel": NATIVE, "reason": str(error)} for n in names]
    layers, refused = {("fp32", NATIVE): NativeLinear(plain, host)}, []
    for name, scheme in formats.items():
        layer = QuantLinear.from_linear(plain, replace(scheme, activation_bits=8))
        own = NativeLinear(layer, host)
        error, shown_by = disagreement(own, layer.weight)
        if error < TOLERANCE:
            layers[name, NATIVE] = own
        else:
            reason = f"relative error {error:.3g} on {shown_by}, at most {TOLERANCE} is allowed"
            refused.append({"format": name, "kernel": NATIVE, "reason": reason})
    return layers, refused


def _timed(layers, formats, x, repeats):
    """The rows of one product; small ones are called up to 50 times a sample."""
    width = x.shape[1]
    calls = max(1, min(50, int(3e7 / (width * width * len(x)))))
    runs = {
        key: lambda layer=layer: [layer(x) for _ in range(calls)] for key, layer in layers.items()
    }
    samples = interleaved(runs, repeats, warmup=2)
    samples["name"] = samples["name"].map(" ".join)
    stored = {name: matrix_bytes(width, width, formats.get(name)) for name, _ in layers}
    limits = {disk: read_seconds(disk, 5) for disk in {*stored.values()}}
    for (name, kernel), layer in layers.items():
        own = f"{name} {kernel}"
        time_ratio, low, high = ratio(samples, own, "fp32 none")
        disk = stored[name]
        held = layer.nbytes if kernel == NATIVE else resident_bytes(layer)
        yield {
            "format": name,
            "kernel": kernel,
            "median_us": 1e6 / calls * samples.seconds[samples.name == own].median(),
            "time_ratio": time_ratio,
            "low": low,
            "high": high,
            "limit_us": 1e6 * limits[disk],
            "resident_bytes": held,
            "resident_of_disk": held / disk,
        }
