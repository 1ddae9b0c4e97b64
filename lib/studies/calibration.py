"""Better than rounding to nearest: clipping, GPTQ, AWQ, and what activations and outliers add."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn as nn

from minitransformer.checkpoint import load
from minitransformer.evaluate import token_losses
from minitransformer.quant import (
    QuantScheme,
    collect,
    computed_bytes,
    layer_output_errors,
    quantize,
    resident_bytes,
)

from .formats import formats
from .scores import Scores, losses
from .workers import at_once, side_by_side, ticks

METHODS = ("rtn", "mse", "gptq", "awq")
TITLES = {"rtn": "rounded", "mse": "clipped", "gptq": "GPTQ", "awq": "AWQ"}


def windows(ids, tokens: int, window: int) -> torch.Tensor:
    """The first whole windows of up to `tokens` ids as rows: (n, window)."""
    n = max(min(tokens, len(ids)) // window, 1)
    own = min(window, len(ids))
    return torch.from_numpy(np.ascontiguousarray(ids[: n * own], dtype=np.int64)).view(n, own)


def chosen_on(splits: dict):
    """The ids that choose among methods: validation text, training text where there is none."""
    return splits["valid"] if len(splits["valid"]) > 1 else splits["train"]


@dataclass(frozen=True)
class Trial:
    """A method at a width, on the model of a folder."""

    name: str
    folder: Path
    bits: int
    method: str

    def __str__(self):
        return f"{self.name}, int{self.bits} {self.method}"


def trials(starts: dict[str, Path], bits) -> list[Trial]:
    """Every method at every width, widest first, on each model."""
    every = product(starts.items(), sorted(bits, reverse=True), METHODS)
    return [Trial(name, folder, width, how) for (name, folder), width, how in every]


def tried(trial: Trial, texts: dict, tick: Callable[[int], None]) -> tuple[np.ndarray, float]:
    """Losses on the ids that judge, and the mean of those on the ids that choose. `texts` holds
    `fitting` (n, window), `chosen_on` (N,), and of each model `(ids, window)`."""
    ids, window = texts[trial.name]
    data = torch.from_numpy(texts["fitting"]) if trial.method in ("gptq", "awq") else None
    scheme = formats()[f"int{trial.bits} g32 asym"]
    own = quantize(load(trial.folder)[0], scheme, trial.method, data)
    found = losses(own, ids, window), losses(own, texts["chosen_on"], window).mean()
    tick(1)
    return found


def compare(
    starts: dict, scores: dict, bits, fitting, chosen_on, threads=1, progress=None
) -> pd.DataFrame:
    """Every method at every width, in groups of 32 with zero-points, on each model, by its name and
    folder: a row each; `threads` of them at once, see `side_by_side` and `ticks`.

    `fitting` (n, window) is what methods may watch; `chosen_on` are validation ids. The scores of
    each model must know `fp32`."""
    plan = trials(starts, bits)
    texts = {name: (own.ids, own.window) for name, own in scores.items()}
    texts |= {"fitting": fitting.numpy(), "chosen_on": chosen_on}
    workers, done = at_once(threads, len(plan)), ticks(progress, len(plan), "methods")
    found = side_by_side(tried, plan, texts, workers=workers, done=done)
    rows = []
    for trial, (nats, validation) in zip(plan, found, strict=True):
        own, name = scores[trial.name], f"int{trial.bits} {trial.method}"
        own.kept[name] = nats
        row = {"model": trial.name, "bits": trial.bits, "method": trial.method, **own.added(name)}
        row["validation_nats"] = validation
        rows.append(row | own.recovered(name, f"int{trial.bits} rtn"))
    return pd.DataFrame(rows)


def chosen(table: pd.DataFrame) -> pd.DataFrame:
    """For each model and width the calibrated method that validation chooses."""
    calibrated = table[table.method != "rtn"]
    best = calibrated.groupby(["model", "bits"]).validation_nats.idxmin()
    return calibrated.loc[best].reset_index(drop=True)


def output_errors(model, bits: int, fitting, watched) -> pd.DataFrame:
    """Relative error of each layer's outputs in per cent under each method, fed what it sees in
    FP32 of the `watched` windows: layers down, methods across."""
    scheme, rows = formats()[f"int{bits} g32 asym"], []
    for how in ("rtn", "mse", "gptq"):
        own = quantize(model, scheme, how, fitting if how == "gptq" else None)
        for row in layer_output_errors(model, own, watched):
            rows.append({"method": TITLES[how], **row})
    table = pd.DataFrame(rows)
    grid = table.pivot(index="layer", columns="method", values="relative_output_error")
    return 100 * grid.loc[table.layer.unique(), table.method.unique()]


def activations(model, scores: Scores, fitting) -> pd.DataFrame:
    """Int8 activations, a scale a token: what they add to FP32 and to weights rounded plainly."""
    weights = {
        "W8A8": (QuantScheme(8, activation_bits=8), "int8 channel"),
        "W4A8": (QuantScheme(4, "group", 32, activation_bits=8), "int4 g32"),
    }
    ways = [("W8A8", how) for how in ("rtn", "smoothquant", "llm.int8")]
    ways += [("W4A8", how) for how in ("rtn", "smoothquant")]
    rows = []
    for name, how in ways:
        scheme, plain = weights[name]
        own = quantize(model, scheme, how, None if how == "rtn" else fitting)
        scores.kept[f"{name}, {how}"] = token_losses(own, scores.ids, scores.window)
        alone = scores.added(f"{name}, {how}", plain)
        rows.append({"format": f"{name}, {how}", **scores.added(f"{name}, {how}")})
        rows[-1] |= {f"over_rounded_{key}": value for key, value in alone.items()}
        rows[-1]["times_smaller"] = computed_bytes(model.cfg) / resident_bytes(own)
    return pd.DataFrame(rows)


def outliers(model, fitting) -> pd.Series:
    """The largest peak of a channel over the median one, of what each linear layer reads."""
    linear = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    seen = collect(model, fitting, linear)
    return pd.Series({name: (m.peak.max() / m.peak.median()).item() for name, m in seen.items()})
