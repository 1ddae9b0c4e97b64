"""What the framework costs: the same weights and tokens in the C engine, beside eager PyTorch.

Without a C compiler there is nothing to measure, and `missing` says why."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch

from minitransformer import bench
from minitransformer.checkpoint import load
from minitransformer.decode import certify_tokens, generate
from minitransformer.native import BuildError, NativeModel, library
from minitransformer.quant import QuantScheme, quantize

from .latency import roofline, speedups
from .processes import as_columns, over_processes, per_token, process_medians, speedup
from .seed_latency import AGAIN, GROWING, STATIC
from .texts import as_row
from .words import with_interval

FORMATS = {
    "native FP32": None,
    "native int8": QuantScheme(8, activation_bits=8),
    "native int4": QuantScheme(4, "group", 32, activation_bits=8),
}
# As files.
STORED = {"native FP32": "fp32", "native int8": "int8 channel", "native int4": "int4 g32"}
SHRUNK = "native int4, int8 cache"  # where nothing that is read is in full precision
EAGER, COMPILED = "eager, static cache", "torch.compile"
CACHED, RECOMPUTED = "engine, static cache", "engine, recomputing"
STEP_TOKENS = 64
WAYS = (EAGER, *FORMATS, SHRUNK)


def missing() -> str:
    """Why the engine cannot be had here, in one line; "" where it can. Builds it on first use."""
    try:
        library()
    except BuildError as error:
        return str(error)
    return ""


def packed(model, names=FORMATS) -> dict:
    """The model in every format of the engine, or in some; weights are packed once."""
    schemes = {name: FORMATS[name] for name in names}
    return {n: NativeModel(quantize(model, s) if s else model) for n, s in schemes.items()}


def measure(folder, text: np.ndarray, plan) -> dict[str, pd.DataFrame]:
    """Samples of one process, one thread: `native`, loops of two lengths of a `latency.Plan` over a
    static cache, each after one of its own kind; `native_loops`, those of all its lengths in FP32
    with and without a cache; and `native_least`, the seconds to `read` the weights and of one
    `operation` at the peak; {} where the engine cannot be had."""
    if missing():
        return {}
    torch.set_num_threads(1)
    model = load(folder / "model")[0]
    engines, ids, timed = packed(model), as_row(text[: plan.prompt_tokens]), []
    for new in sorted({plan.usual, max(plan.lengths)}):
        ways = {EAGER: partial(generate, model, ids, new)}
        for name, engine in engines.items():
            ways[name] = partial(generate, engine, ids, new, backend="native")
        ways[SHRUNK] = partial(generate, engine, ids, new, cache="int8", backend="native")
        samples = bench.interleaved(ways, plan.repeats + 1, warmup=0, before=1)
        timed.append(samples.assign(tokens=new))
    both = []
    for new in plan.lengths:
        ways = loops(engines["native FP32"], ids, new)
        both.append(bench.interleaved(ways, plan.repeats, warmup=0).assign(tokens=new))
    read = bench.read_seconds(4 * bench.weights_read(model.cfg))
    least = {"read": [read], "operation": [1 / bench.matmul_flops_per_second()]}
    own = {"native": pd.concat(timed), "native_loops": pd.concat(both)}
    return own | {"native_least": pd.DataFrame(least)}


def roofline_of_one(samples: dict[str, pd.DataFrame], law, cfg):
    """The `roofline` of one thread, by the least that any process saw."""
    least = samples["native_least"].min()
    return roofline(replace(law, weights=least["read"]), cfg, 1 / least["operation"])


def loops(engine, ids, new: int) -> dict:
    """Greedy decoding in the engine with and without a cache."""
    run = partial(generate, engine, ids, new, backend="native")
    return {CACHED: run, RECOMPUTED: partial(run, cache=None)}


def steps(model, repeats: int) -> dict[str, pd.DataFrame]:
    """Samples of one process: `native_steps`, the seconds of `STEP_TOKENS` decode steps, every
    format beside the engine's FP32, one thread: a loop of so many more tokens less one of a single
    token, and with it the call and the prompt; {} where the engine cannot be had."""
    if missing():
        return {}
    torch.set_num_threads(1)
    start, new = torch.zeros(1, 1, dtype=torch.long), min(STEP_TOKENS, model.cfg.context - 2)
    ways = {
        (name, tokens): partial(generate, engine, start, tokens, backend="native")
        for name, engine in packed(model).items()
        for tokens in (1, 1 + new)
    }
    samples = bench.interleaved(ways, repeats, warmup=2, before=1)
    samples["name"], samples["calls"] = zip(*samples.name, strict=True)
    wide = samples.pivot(index=["repeat", "name"], columns="calls", values="seconds")
    own = new * per_token(wide[1 + new], wide[1], 1 + new)
    return {"native_steps": own.rename("seconds").reset_index().assign(tokens=new)}


def table(samples: pd.DataFrame) -> pd.DataFrame:
    """A row a length and way: microseconds a token, and times as fast as eager, over processes."""
    rows = []
    for tokens, part in samples.groupby("tokens"):
        medians = process_medians(part)
        for name in WAYS:
            us = 1e6 * over_processes(medians[name])["estimate"] / tokens
            row = {"new_tokens": tokens, "loop": name, "us_per_token": us}
            rows.append(row | as_columns("over_eager", speedup(part, EAGER, name)))
    return pd.DataFrame(rows)


def worth(samples: dict[str, pd.DataFrame], gains: pd.DataFrame) -> pd.DataFrame:
    """The engine's loops with and without a cache as rows of `speedups`, and the eager ones' rows
    of `gains`."""
    eager = gains[gains.loop.isin([AGAIN, STATIC])]
    own = speedups(samples["native_loops"], RECOMPUTED)
    return pd.concat([own, eager.assign(loop="eager, " + eager.loop)])


def worth_for_sentence(loops: pd.DataFrame, roof, prompt: int) -> dict:
    """Of the longest of `worth`, `n` tokens, how many times as fast a cache makes the engine
    (`measured`, with its interval), it and `eager`, in words, and both loops at the peak of one
    thread (`roof`)."""
    top = loops[loops.new_tokens == loops.new_tokens.max()].set_index("loop")
    n = int(top.new_tokens.iloc[0])
    again, cached = roof.loops(prompt, n)
    own, eager = (top.loc[loop, ["speedup", "low", "high"]] for loop in (CACHED, EAGER))
    told = dict(engine=with_interval(*own), eager=with_interval(*eager))
    return told | dict(n=n, roof=again / cached, measured=(own.speedup, (own.low, own.high)))


def gain(table: pd.DataFrame, name: str, plan) -> tuple[float, tuple[float, float]]:
    """How many times as fast as eager `name` is at the plan's usual length, and its interval."""
    row = table[(table.loop == name) & (table.new_tokens == plan.usual)].iloc[0]
    return row.over_eager, (row.low, row.high)


def certified(model, prompts, new: int) -> pd.DataFrame:
    """The engine's greedy FP32 tokens after every prompt against recomputation by PyTorch."""
    engine = NativeModel(model)
    texts = [(generate(engine, p, new, backend="native"), p.shape[1]) for p in prompts]
    found = certify_tokens(model, texts, "native", subject="the C engine, FP32")
    return pd.DataFrame([found.row()])


def waterfall(
    latency: pd.DataFrame, native: pd.DataFrame, tokens: int, compiled: float = np.nan
) -> pd.DataFrame:
    """Microseconds a token from recomputing to int4 over an int8 cache, at one length;
    `compiled`: those of torch.compile, if it was timed, in a process of its own: `apart`."""
    eager = latency[latency.new_tokens == tokens].set_index("loop").ms_per_token * 1e3
    steps = [(name, eager[name]) for name in (AGAIN, GROWING, STATIC)]
    steps += [(COMPILED, compiled)] * bool(np.isfinite(compiled))
    own = native[native.new_tokens == tokens].set_index("loop").us_per_token
    steps += [(name, own[name]) for name in WAYS[1:]]
    fall = pd.DataFrame(steps, columns=["step", "us_per_token"])
    return fall.assign(apart=fall.step == COMPILED)


def same_tokens(certificates: pd.DataFrame) -> tuple[int, int]:
    """(steps with the oracle's token, steps)."""
    steps = int(certificates.steps.sum())
    return steps - int(certificates.mismatches.sum()), steps


def in_words(samples: dict[str, pd.DataFrame], tokens: int) -> str:
    """The engine's part of the chapter's answer; "" where there is no engine."""
    if "native" not in samples:
        return ""
    own, loops = table(samples["native"]), speedups(samples["native_loops"], RECOMPUTED)
    us = own[own.new_tokens == tokens].set_index("loop").us_per_token
    gain = loops[loops.new_tokens == tokens].set_index("loop").speedup[CACHED]
    fp32, eight, four = us[[*FORMATS]]
    return (
        f", and in the C engine **{gain:.0f} times**. With that cache a token takes {fp32:.0f} µs "
        f"there, in int8 {eight:.0f} and in int4 {four:.0f}, where eager PyTorch on one thread "
        f"takes {us[EAGER]:.0f}"
    )
