"""The original report's quantization at its own setting: its recipe on the control, its rule, its
layout; and what its own rows say of one another."""

import numpy as np
import pandas as pd
import torch
import torch.nn as nn

from minitransformer.checkpoint import load
from minitransformer.evaluate import token_losses
from minitransformer.model import ModelConfig
from minitransformer.quant import accelerate, computed_bytes, layer_errors, quantize, seed_bytes
from minitransformer.quant.layers import QuantEmbedding, QuantWeight

from . import seeds
from .formats import formats, seed_layout, seed_rule
from .kernels import seed_models
from .processes import one_more, over_processes, process_medians, process_ratios, speedup
from .scores import Scores, estimate
from .words import with_interval

SEED = pd.DataFrame(
    {
        "format": ["fp32", "int8", "int4"],
        "seed_perplexity": [1045.31, 1052.49, 1054.75],
        "seed_drop": [0.0, 0.06, 2.32],
        "seed_percent": [0.0, 0.7, 0.9],
        "seed_ms": [9.23, 22.68, 22.74],
    }
)
WINDOW = 64  # tokens, as the original report trains
NOWHERE = (np.nan, np.nan)


def controls(folder) -> list:
    """The models of the original report's recipe on the control, an initialisation each."""
    return [load(path)[0] for path in sorted(folder.glob("model-control*"))]


def drops(models: list, words) -> pd.DataFrame:
    """What the original's rules cost each control on the same words: a row a run and format."""
    rows = []
    for run, model in enumerate(models):
        whole = float(np.exp(token_losses(model, words, WINDOW, WINDOW).mean()))
        rows.append((run, "fp32", whole, 0.0, 0.0))
        for bits in (8, 4):
            rounded = accelerate(quantize(model, seed_rule(bits)), "dequantized")
            own = float(np.exp(token_losses(rounded, words, WINDOW, WINDOW).mean()))
            rows.append((run, f"int{bits}", own, own - whole, 100 * (own / whole - 1)))
    columns = ["run", "format", "perplexity", "added_perplexity", "added_percent"]
    return pd.DataFrame(rows, columns=columns)


def further_run(values, of=seeds.one_more) -> seeds.Estimate:
    """Of one value a run, where one further run would fall at 95 %; NaN where one has no spread."""
    return of(values) if len(values) > 1 else seeds.Estimate(float(np.mean(values)), NOWHERE)


def further_perplexity(values) -> seeds.Estimate:
    """The same of perplexities, with mean and interval made in nats."""
    return further_run(values, lambda own: seeds.one_more_perplexity(np.log(own)))


def beside(runs: pd.DataFrame, timings: pd.DataFrame) -> pd.DataFrame:
    """The original's numbers and the same here: a row a format and quantity (perplexity; drop, what
    is added to FP32's; percent, the same; ms; times FP32's ms), with the interval in which one
    further run, or one further process, would fall."""
    rows, seed = [], SEED.set_index("format")
    columns = {"perplexity": "perplexity", "drop": "added_perplexity", "percent": "added_percent"}
    for name, own in runs.groupby("format", sort=False):
        for quantity, column in columns.items():
            of = further_perplexity if quantity == "perplexity" else further_run
            if name != "fp32" or quantity == "perplexity":
                rows.append((name, quantity, seed[f"seed_{quantity}"][name], *of(own[column])))
    for name, ms in (1e3 * process_medians(timings)[list(seed.index)]).items():
        found = over_processes(ms)
        rows.append((name, "ms", seed.seed_ms[name], found["estimate"], one_more(found)))
    for name in ("int8", "int4"):
        found, printed = speedup(timings, name, "fp32"), seed.seed_ms[name] / seed.seed_ms["fp32"]
        rows.append((name, "times", round(printed, 2), found["estimate"], one_more(found)))
    table = pd.DataFrame(rows, columns=["format", "quantity", "original", "here", "ends"])
    low, high = zip(*table.pop("ends"), strict=True)
    return table.assign(low=low, high=high)


def stated(table: pd.DataFrame) -> dict:
    """ "format quantity" -> (value, interval) of `beside`."""
    return {f"{r.format} {r.quantity}": (r.here, (r.low, r.high)) for r in table.itertuples()}


def drops_for_sentence(runs: pd.DataFrame, found: dict) -> dict:
    """Of `drops` and `stated`: how many runs (`n`), what int8 (`eight`) and int4 (`four`) add, with
    intervals, and what the report prints (`its_eight`, `its_four`), how far FP32 differs between
    the runs (`spread`), and how far its row lies off (`gap`)."""
    printed = SEED.set_index("format").seed_drop
    return {
        "n": runs.run.nunique(), "spread": initialisations_apart(runs), "gap": row_off(),
        "eight": told(found, "int8 drop"), "its_eight": printed["int8"],
        "four": told(found, "int4 drop"), "its_four": printed["int4"],
    }  # fmt: skip


def told(found: dict, of: str, unit: str = "") -> str:
    """A rise of perplexity, of `stated`, with its interval."""
    value, ends = found[of]
    return with_interval(value, *ends, unit, "+")


def rule_on(model, bits: int, scores: Scores) -> tuple[float, tuple[float, float]]:
    """Perplexity, in %, that the original's rule adds to a model, with its paired interval."""
    scores.add(f"seed int{bits}", quantize(model, seed_rule(bits)))
    return estimate(scores.added(f"seed int{bits}"))


def unpacked_once(timings: pd.DataFrame) -> dict:
    """Of what int8 unpacked at every call takes beyond FP32's time the % that is gone unpacked
    once, over processes with its interval (`measured`), and its time then over FP32's (`x`)."""
    each, once = (process_ratios(timings, name, "fp32") for name in ("int8", "int8 once"))
    share = further_run(100 * (each - once) / (each - 1), seeds.mean)
    return {"measured": share, "x": speedup(timings, "int8 once", "fp32")["estimate"]}


def apart(one, other) -> tuple[float, tuple[float, float]]:
    """One (value, interval) minus another, with the widest interval that the two allow."""
    (a, (a_low, a_high)), (b, (b_low, b_high)) = one, other
    return a - b, (a_low - b_high, a_high - b_low)


def implied_baselines() -> pd.Series:
    """The FP32 perplexity from which each of the original's drops was taken: row minus drop."""
    own = SEED[SEED.format != "fp32"].set_index("format")
    return (own.seed_perplexity - own.seed_drop).round(2)


def own_differences() -> pd.Series:
    """What the original's own rows say a format costs."""
    own = SEED.set_index("format").seed_perplexity
    return (own - own["fp32"]).drop("fp32").round(2)


def row_off() -> float:
    """By how much the FP32 row lies below the baseline that the drops imply."""
    return float(implied_baselines()["int8"] - SEED.seed_perplexity[0])


def initialisations_apart(runs: pd.DataFrame) -> float:
    """The largest distance of FP32 perplexities between two runs."""
    own = runs[runs.format == "fp32"].perplexity
    return float(own.max() - own.min())


def layout() -> pd.DataFrame:
    """Bytes of the original's model by format: in its layout, an int4 code in a byte; and every
    matrix quantized and packed, with no table of positions, or, in `kept_times`, with its own."""
    stored = {"fp32": None, "int8": formats()["int8 channel"], "int4": formats()["int4 g32"]}
    rows = [
        (name, seed_bytes(ModelConfig(), bits), computed_bytes(ModelConfig(), stored[name]))
        for name, bits in (("fp32", 32), ("int8", 8), ("int4", 4))
    ]
    table = pd.DataFrame(rows, columns=["format", "layout_bytes", "packed_bytes"])
    whole = table.iloc[0]
    positions = whole.layout_bytes - whole.packed_bytes
    return table.assign(
        layout_mib=table.layout_bytes / 2**20,
        packed_mib=table.packed_bytes / 2**20,
        layout_times=whole.layout_bytes / table.layout_bytes,
        packed_times=whole.packed_bytes / table.packed_bytes,
        kept_times=whole.layout_bytes / (table.packed_bytes + positions),
    ).set_index("format")


def named_percent(bits: int) -> float:
    """Of what the original's file of this width holds beyond FP32 · bits / 32, the share of the
    parts that it names: all scales, and of the embedding, norms and biases what lies beyond as
    much of them."""
    parts, whole = seed_layout().set_index("part").bytes, seed_bytes(ModelConfig(), 32)
    floats = parts["embedding, FP32"] + parts["biases and norms, FP32"]
    named = parts["scales"] + floats * (1 - bits / 32)
    return 100 * named / (parts.sum() - whole * bits / 32)


def compression(table: pd.DataFrame, bound: float = 1.0) -> tuple:
    """The greatest compression of the original's layouts whose rise of perplexity on the control
    surely stays below `bound` per cent, of `beside`; without an interval nothing is sure."""
    own, times = table[table.quantity == "percent"], layout().layout_times
    if own.high.isna().any():
        return times[own.format].max(), NOWHERE
    return times[[*own.format[own.high < bound], "fp32"]].max(), None


def rule_facts(model) -> dict[str, float]:
    """What the original's rule does to a model: the lowest code of each width, the bits that an
    int4 weight takes, zero-points, layers treated otherwise than the report says, and the largest
    difference of logits between unpacking at each call and once."""
    eight, four = (quantize(model, seed_rule(bits)) for bits in (8, 4))
    held = [m for m in seed_models(model)["int4"].modules() if isinstance(m, QuantWeight)]
    bits = 8 * sum(m.codes.nbytes for m in held) / sum(m.rows * m.columns for m in held)
    otherwise = [m for m in eight.modules() if isinstance(m, nn.Linear | QuantEmbedding)]
    ids = torch.arange(min(WINDOW, model.cfg.context, model.cfg.vocab_size))[None]
    with torch.no_grad():
        gap = eight(ids) - accelerate(eight, "dequantized")(ids)
    return {
        "lowest int8": min(row["lowest_code"] for row in layer_errors(model, eight)),
        "lowest int4": min(row["lowest_code"] for row in layer_errors(model, four)),
        "bits of int4": bits,
        "zero-points": sum(m.zero.numel() for m in held if m.zero is not None),
        "treated otherwise": len(otherwise),
        "difference": gap.abs().max().item(),
    }
