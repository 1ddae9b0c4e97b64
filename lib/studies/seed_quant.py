"""The quantization chapter's own tables: several models together, and the seed report's rows."""

import numpy as np
import pandas as pd
import torch

from minitransformer.checkpoint import load
from minitransformer.evaluate import paired_difference, summary, token_losses
from minitransformer.model import ModelConfig
from minitransformer.quant import accelerate, computed_bytes, quantize, seed_bytes

from .calibration import TITLES, chosen
from .formats import formats, seed_rule
from .kernels import seed_models
from .processes import over_processes, process_medians, speedup
from .scores import Scores, percent

SEED = pd.DataFrame(
    {
        "format": ["fp32", "int8", "int4"],
        "seed_mb": [1.99, 1.06, 1.06],
        "seed_perplexity": [1045.31, 1052.49, 1054.75],
        "seed_drop": [0.0, 0.06, 2.32],
        "seed_ms": [9.23, 22.68, 22.74],
    }
)
DRAWN = (
    "int8 channel",
    "int4 tensor",
    "int4 g128",
    "int4 g32",
    "int4 g32 asym",
    "nf4 g64",
    "int3 g32 asym",
    "int2 g32 asym",
)  # the formats of the Pareto figure: of the rest each has a neighbour here
DRAWN_FROM = 0.01  # per cent: what costs less is drawn here, on a logarithmic axis


def cases(scores: dict[str, Scores], name: str) -> pd.DataFrame:
    """What a format adds on each model: model, added_percent, low, high."""
    rows = [{"model": model, **own.added(name)} for model, own in scores.items()]
    return pd.DataFrame(rows)


def recovery_cases(table: pd.DataFrame) -> pd.DataFrame:
    """The recovered share of each row with its interval under the names `low` and `high`."""
    own = table.drop(columns=["low", "high"])
    return own.rename(columns={"recovered_low": "low", "recovered_high": "high"})


def joined(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The tables of several models as one."""
    return pd.concat(tables.values(), ignore_index=True)


def teacher_cases(taught: pd.DataFrame) -> pd.DataFrame:
    """What learning from the control instead of the text changes: format, added_percent, low,
    high."""
    columns = {f"teacher_{name}": name for name in ("added_percent", "low", "high")}
    own = taught[taught.teacher_low.notna()]
    return own[["format", *columns]].rename(columns=columns)


def total(counts) -> tuple[int, int]:
    """(how many, of how many) added up."""
    counts = list(counts)
    return sum(count for count, _ in counts), sum(of for _, of in counts)


def front(sizes, costs, methods, qat, model: str = "1 block") -> pd.DataFrame:
    """Every format and method of one model: KiB of the file against perplexity added, with the
    columns that a logarithmic figure draws."""
    kib = sizes.set_index("format").file_bytes / 1024
    plain = costs[costs.format.isin(DRAWN)].assign(file_kib=lambda t: t.format.map(kib))
    best = chosen(methods[methods.model == model])
    best = best.assign(
        file_kib=best.bits.map(lambda b: kib[f"int{b} g32 asym"]),
        format=[f"int{row.bits} {TITLES[row.method]}" for row in best.itertuples()],
    )
    own = qat[qat.model == model]
    learned = own.assign(
        file_kib=own.bits.map(lambda b: kib[f"int{b} g32 asym"]),
        format=[f"int{bits} QAT" for bits in own.bits],
    )
    columns = ["format", "file_kib", "added_percent", "low", "high"]
    table = pd.concat([each[columns] for each in (plain, best, learned)], ignore_index=True)
    drawn = {"drawn": "added_percent", "drawn_low": "low", "drawn_high": "high"}
    return table.assign(**{new: table[old].clip(lower=DRAWN_FROM) for new, old in drawn.items()})


def exact(models: dict, folder, ids) -> pd.DataFrame:
    """Largest difference of logits between a packed model, its dequantized twin and the one read
    back from `folder`."""
    rows = []
    for name, target in (("int8 channel", "model-int8"), ("int4 g32", "model-int4")):
        with torch.no_grad():
            packed = models[name](ids)
            twins = {
                "dequantized": accelerate(models[name], "dequantized"),
                "read back": load(folder / target)[0],
            }
            for what, other in twins.items():
                gap = (packed - other(ids)).abs().max().item()
                rows.append((f"{name}, packed against {what}", gap))
    return pd.DataFrame(rows, columns=["what", "difference"])


def table(control, words, timings: pd.DataFrame) -> pd.DataFrame:
    """The seed's table beside the same setting here: sizes in MiB of its layout and packed,
    perplexity with its interval, what a format adds, paired, and time against FP32."""
    models = seed_models(control)
    stand = {"fp32": None, "int8": formats()["int8 channel"], "int4": formats()["int4 g32"]}
    losses = {
        name: token_losses(
            models[name] if name == "fp32" else accelerate(models[name], "dequantized"),
            words,
            64,
            64,
        )
        for name in stand
    }
    rows = []
    for name, bits in (("fp32", 32), ("int8", 8), ("int4", 4)):
        found = summary(losses[name])
        gap = percent(paired_difference(losses[name], losses["fp32"]))
        time = speedup(timings, name, "fp32")
        ms = over_processes(process_medians(timings)[name])["estimate"] * 1e3
        rows.append(
            {
                "format": name,
                "layout_mib": seed_bytes(ModelConfig(), bits) / 2**20,
                "packed_mib": computed_bytes(ModelConfig(), stand[name]) / 2**20,
                "perplexity": found.value,
                "perplexity_low": found.interval[0],
                "perplexity_high": found.interval[1],
                "added_percent": gap[0],
                "low": gap[1],
                "high": gap[2],
                "added_perplexity": gap[0] / 100 * summary(losses["fp32"]).value,
                "ms": ms,
                "time_ratio": time["estimate"],
                "time_low": time["low"],
                "time_high": time["high"],
                "processes": time["processes"],
            }
        )
    return SEED.merge(pd.DataFrame(rows), on="format")


def rule_on(model, bits: int, scores: Scores) -> dict[str, float]:
    """What the seed's rule costs on a trained model."""
    scores.add(f"seed int{bits}", quantize(model, seed_rule(bits)))
    return scores.added(f"seed int{bits}")


def implied_baselines() -> pd.Series:
    """The FP32 perplexity from which each of the seed's drops was taken: its row minus its drop."""
    own = SEED[SEED.format != "fp32"].set_index("format")
    return (own.seed_perplexity - own.seed_drop).round(2)


def own_differences() -> pd.Series:
    """What the seed's own rows say a format costs."""
    own = SEED.set_index("format").seed_perplexity
    return (own - own["fp32"]).drop("fp32").round(2)


def verdict_below(low: float, high: float, bound: float) -> str:
    """Of a statement that a cost is below a bound: decided by the whole interval."""
    return "reproduced" if high < bound else "refuted" if low > bound else "corrected"


def dequantizing_cost(timings: pd.DataFrame) -> dict[str, float]:
    """Time against FP32 of int8 unpacked once, and the share of int8's extra time that unpacking
    at each call takes, in per cent."""
    ms = process_medians(timings).median()
    once = speedup(timings, "int8 once", "fp32")
    share = 100 * (ms["int8"] - ms["int8 once"]) / (ms["int8"] - ms["fp32"])
    return {**once, "share_percent": float(share if np.isfinite(share) else np.nan)}


def fastest(speed: pd.DataFrame) -> str:
    """The quickest kernel of each width of codes against FP32, in words."""
    real = speed[(speed.format != "fp32") & (speed.kernel != "dequantized")]
    told = []
    for what in ("int8", "int4"):
        own = real[real.format.str.startswith(what)]
        if len(own):
            told.append(f"{what}: {own.time_ratio.min():.2f} of the FP32 step")
    return ", ".join(told) or "no kernel here"


def production(speed: pd.DataFrame) -> str:
    """Verdict on "int8 and int4 are faster than FP32", by whole intervals on this CPU."""
    real = speed[(speed.format != "fp32") & (speed.kernel != "dequantized")]
    surely = {
        what: (real.high[real.format.str.startswith(what)] < 1).any() for what in ("int8", "int4")
    }
    return "reproduced" if all(surely.values()) else "corrected"


def bench(costs, sizes, speed, window: int, seed: int) -> pd.DataFrame:
    """bench_quant.csv: a row a format and way to run it, units in the names."""
    steps = speed.rename(columns={"low": "time_low", "high": "time_high"})
    steps = steps.drop(columns=["resident_bytes"])
    table = costs.drop(columns="times_smaller").merge(sizes, on="format")
    return table.merge(steps, on="format", how="left").assign(window=window, seed=seed)


def smallest_free(scores: Scores, sizes: pd.DataFrame, bound: float = 1.0) -> pd.Series:
    """The row of the smallest file whose added perplexity surely stays below `bound` per cent."""
    highs = sizes.format.map(lambda name: scores.added(name)["high"])
    return sizes[(highs < bound) | (sizes.format == "fp32")].sort_values("file_bytes").iloc[0]


def one_more(row) -> tuple[float, float] | None:
    """Where the time ratio of one more process would fall; None for a single process."""
    if not np.isfinite(row.time_high):
        return None
    half = np.log(row.time_high / row.time_ratio) * np.sqrt(row.processes + 1)
    return (row.time_ratio / np.exp(half), row.time_ratio * np.exp(half))


def ends(ratio: dict) -> tuple[float, float] | None:
    """The interval of a ratio over processes; None for a single process."""
    return (ratio["low"], ratio["high"]) if np.isfinite(ratio["high"]) else None


def verdict_above(ratio: dict, bound: float) -> str:
    """Of a statement that a ratio is above a bound: decided by the whole interval."""
    low, high = ratio["low"], ratio["high"]
    return "reproduced" if low > bound else "refuted" if high < bound else "corrected"


def slower_with_zero_points(samples: pd.DataFrame) -> dict[str, float]:
    """Time to dequantize with zero-points over without, over processes."""
    return speedup(samples, "zero-points", "symmetric")


def unpacked_twice(model, ids) -> float:
    """Largest difference between dequantizing at each call and once."""
    with torch.no_grad():
        gap = model(ids) - accelerate(model, "dequantized")(ids)
    return gap.abs().max().item()
