"""What the framework costs: the same weights and tokens in the native engine, beside eager PyTorch.

Without a C compiler there is nothing to measure, and `missing` says why.
"""

from functools import partial

import numpy as np
import pandas as pd

from minitransformer import bench
from minitransformer.checkpoint import load
from minitransformer.decode import certify_tokens, generate
from minitransformer.native import BuildError, NativeModel, library
from minitransformer.quant import QuantScheme, quantize

from .processes import over_processes, process_medians, speedup
from .texts import as_row

FORMATS = {
    "native FP32": None,
    "native int8": QuantScheme(8, activation_bits=8),
    "native int4": QuantScheme(4, "group", 32, activation_bits=8),
}
EAGER = "eager, static cache"


def missing() -> str:
    """Why the engine cannot be had here, in one line; "" where it can. Builds it on first use."""
    try:
        library()
    except BuildError as error:
        return str(error)
    return ""


def packed(model) -> dict:
    """The model in every format of the engine; weights are packed once."""
    return {
        name: NativeModel(model if scheme is None else quantize(model, scheme))
        for name, scheme in FORMATS.items()
    }


def measure(folder, prompt: np.ndarray, lengths, repeats: int) -> dict[str, pd.DataFrame]:
    """Samples of one process: `native`, loops of each length over a static cache, one thread."""
    model = load(folder / "model")[0]
    engines, ids, timed = packed(model), as_row(prompt), []
    for new in sorted(set(lengths)):
        ways = {EAGER: partial(generate, model, ids, new)}
        for name, engine in engines.items():
            ways[name] = partial(generate, engine, ids, new, backend="native")
        timed.append(bench.interleaved(ways, repeats, warmup=2).assign(tokens=new))
    return {"native": pd.concat(timed)}


def table(samples: pd.DataFrame) -> pd.DataFrame:
    """Microseconds a token, and how many times as fast as eager and as native FP32, over
    processes: a row a length and way."""
    rows = []
    for tokens, part in samples.groupby("tokens"):
        medians = process_medians(part)
        for name in (EAGER, *FORMATS):
            eager, own = speedup(part, EAGER, name), speedup(part, "native FP32", name)
            us = 1e6 * over_processes(medians[name])["estimate"] / tokens
            row = {"new_tokens": tokens, "loop": name, "us_per_token": us}
            row |= {"over_eager": eager["estimate"], "low": eager["low"], "high": eager["high"]}
            row |= {f"over_fp32_{key}": own[key] for key in ("estimate", "low", "high")}
            rows.append(row | {"spread": eager["spread"]})
    return pd.DataFrame(rows)


def gain(table: pd.DataFrame, name: str, tokens: int, over: str) -> tuple[float, tuple]:
    """How many times as fast `name` is at so many tokens, and its interval, over "eager" or
    "fp32"."""
    row = table[(table.loop == name) & (table.new_tokens == tokens)].iloc[0]
    if over == "eager":
        return row.over_eager, (row.low, row.high)
    return row.over_fp32_estimate, (row.over_fp32_low, row.over_fp32_high)


def certified(model, prompts, new: int) -> pd.DataFrame:
    """The engine's greedy tokens against recomputation by PyTorch: FP32, on text that every prompt
    begins."""
    engine = NativeModel(model)
    texts = [(generate(engine, p, new, backend="native"), p.shape[1]) for p in prompts]
    found = certify_tokens(model, texts, "native", subject="the native engine, FP32")
    return pd.DataFrame([found.row()])


def waterfall(latency: pd.DataFrame, native: pd.DataFrame, tokens: int) -> pd.DataFrame:
    """Microseconds a token from recomputing everything to int4 in the engine, at one length."""
    eager = latency[latency.new_tokens == tokens].set_index("loop").ms_per_token * 1e3
    steps = [("recompute all", eager["naive"]), ("growing cache", eager["dynamic cache"])]
    steps.append(("static cache", eager["static cache"]))
    own = native[native.new_tokens == tokens].set_index("loop").us_per_token
    steps += [(name, own[name]) for name in FORMATS]
    return pd.DataFrame(steps, columns=["step", "us_per_token"])


def same_tokens(certificates: pd.DataFrame) -> tuple[int, int]:
    """(steps with the oracle's token, steps)."""
    steps = int(certificates.steps.sum())
    return steps - int(certificates.mismatches.sum()), steps


def per_token(table: pd.DataFrame, tokens: int) -> dict[str, float]:
    """Microseconds a token of each way at one length."""
    own = table[table.new_tokens == tokens]
    return dict(zip(own.loop, own.us_per_token, strict=True))


def told(us: dict[str, float]) -> str:
    """The engine's part of the chapter's answer; "" where there is no engine."""
    if not us:
        return ""
    eager, best = us[EAGER], min(us, key=us.get)
    return (
        f" Without the framework ({best}) a token takes {us[best]:.0f} µs instead of {eager:.0f}."
    )
