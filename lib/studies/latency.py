"""How much faster is decoding with a cache, and what bounds it?

`measure` runs in a fresh process (`processes.Processes`) and times everything that the chapter
compares, interleaved; the other functions read its samples."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch

from minitransformer import bench
from minitransformer.cache import KINDS
from minitransformer.checkpoint import load
from minitransformer.decode import generate, generate_all_positions
from minitransformer.model import ModelConfig, Transformer
from minitransformer.train import initialize

from . import seed_latency
from .processes import as_columns, over_processes, percent_off, process_medians, speedup
from .seed_latency import AGAIN, ALL, GROWING, STATIC
from .words import CACHES

WIDTHS = (1, 2, 4, 8, 16, 32, 64, 128)  # tokens or sequences of one forward
LOOPS = (ALL, AGAIN, GROWING, STATIC)


@dataclass(frozen=True)
class Plan:
    """What one process times."""

    lengths: tuple[int, ...]  # new tokens of the loops
    repeats: int  # of each loop
    step_repeats: int  # of each single forward, at every length
    prompt_tokens: int
    larger: ModelConfig | None = None  # a model with random weights, for `larger`

    @property
    def usual(self) -> int:
        """New tokens where one length must do: 50, or the longest."""
        return min(50, max(self.lengths))

    def grid(self) -> list[int]:
        """Lengths of the single forwards that are recomputed, or cached before one token."""
        most = max(self.lengths) + self.prompt_tokens - 1
        return [int(n) for n in np.unique(np.geomspace(1, most, 12).round())]

    def widths(self, context: int) -> list[int]:
        return [w for w in WIDTHS if self.prompt_tokens + w <= context]


def loops(model, prompt, new: int, names=LOOPS) -> dict:
    """The loops that generate `new` tokens after a prompt, by name."""
    ways = {
        ALL: partial(generate_all_positions, model, prompt, new),
        AGAIN: partial(generate, model, prompt, new, cache=None),
        GROWING: partial(generate, model, prompt, new, cache="dynamic"),
        STATIC: partial(generate, model, prompt, new, cache="static"),
    }
    return {name: ways[name] for name in names}


def measure(folder, text: np.ndarray, plan: Plan, kinds) -> dict[str, pd.DataFrame]:
    """Samples of one process: `loops`, `steps`, `kinds` and `seed`.

    `folder` holds the models; `text` are ids, the prompt first."""
    model, seed_model = (load(folder / name)[0] for name in ("model", "model-control"))
    ids = torch.from_numpy(np.asarray(text, dtype=np.int64))[None]
    prompt = ids[:, : plan.prompt_tokens]
    at = (plan.grid(), plan.widths(model.cfg.context), plan.prompt_tokens)
    timed, steps = [], []
    for new in plan.lengths:
        ways, cold = loops(model, prompt, new, LOOPS[1:]), not timed  # then all has been called
        timed.append(bench.interleaved(ways, plan.repeats, warmup=int(cold)).assign(tokens=new))
        steps.append(bench.step_times(model, ids, *at, plan.step_repeats))
    # up to the full context, where caches hold what the table says they hold
    before = ids[:, : model.cfg.context - plan.usual]
    ways = {kind: partial(generate, model, before, plan.usual, cache=kind) for kind in kinds}
    seed = loops(seed_model, torch.full((1, 1), 5), seed_latency.TOKENS)
    return {
        "loops": pd.concat(timed),
        "steps": pd.concat(steps),
        "kinds": bench.interleaved(ways, 3 * plan.repeats),
        "seed": bench.interleaved(seed, seed_latency.REPEATS).assign(tokens=seed_latency.TOKENS),
    }


def larger_config(vocab_size: int, width: int, layers: int) -> ModelConfig:
    """A larger model with heads of 64 channels and a tied head."""
    return ModelConfig(vocab_size, width, layers, n_heads=max(width // 64, 1), tied=True)


def larger(plan: Plan, seed: int) -> dict[str, pd.DataFrame]:
    """Loops of 50 tokens and single steps of a model whose weights do not fit a small cache."""
    model = initialize(Transformer(plan.larger), "scaled", seed).eval()
    n = plan.prompt_tokens + 51
    ids = torch.from_numpy(np.random.default_rng(seed).integers(0, plan.larger.vocab_size, (1, n)))
    lengths = [int(t) for t in np.unique(np.geomspace(1, n - 2, 8).round())]
    prompt, names = ids[:, : plan.prompt_tokens], (AGAIN, STATIC)
    for brief in loops(model, prompt, 2, names).values():
        brief()  # the first call of all
    own = loops(model, prompt, 50, names)
    repeats = 2 * max(plan.step_repeats, 5)
    return {
        "larger_loops": bench.interleaved(own, plan.repeats, warmup=0),
        "larger_steps": bench.step_times(model, ids, lengths, [1, 5], plan.prompt_tokens, repeats),
    }


def speedups(samples: pd.DataFrame, slow: str = AGAIN) -> pd.DataFrame:
    """Each loop at each length: milliseconds, and times as fast as `slow`, over processes."""
    rows = []
    for tokens, part in samples.groupby("tokens"):
        medians = process_medians(part)
        for name in medians.columns:
            gain = speedup(part, slow, name)
            ms = 1e3 * over_processes(medians[name])["estimate"]
            rows.append({"new_tokens": tokens, "loop": name, "ms": ms, "ms_per_token": ms / tokens})
            rows[-1] |= as_columns("speedup", gain) | {"processes": gain["processes"]}
    return pd.DataFrame(rows)


def step_medians(steps: pd.DataFrame) -> pd.DataFrame:
    """Microseconds of single forwards by phase and tokens: the mean of the processes' medians with
    its interval, and `quiet`, their lower decile, which other work on the machine raises least."""
    by = ["phase", "tokens"]
    medians = steps.groupby([*by, "process"]).seconds.median()
    rows = medians.groupby(by).apply(lambda s: pd.Series(over_processes(1e6 * s))).unstack()
    return rows.assign(quiet=1e6 * steps.groupby(by).seconds.quantile(0.1)).reset_index()


def time_model(steps: pd.DataFrame, cfg: ModelConfig) -> bench.TimeModel:
    """The time model, fitted to the lower deciles of single steps."""
    quiet = steps.groupby(["phase", "tokens"]).seconds.quantile(0.1)
    past, cached = quiet["recompute"], quiet["cached"]
    weights = bench.read_seconds(4 * bench.weights_read(cfg))
    return bench.fit(past.index, past, cached.index, cached, weights)


def work(cfg: ModelConfig) -> tuple[int, int]:
    """Operations of a token in the blocks, and of the head at one position."""
    blocks = bench.flops(cfg, 1, head_positions=0)
    return blocks, bench.flops(cfg, 1) - blocks


def roofline(model: bench.TimeModel, cfg: ModelConfig, peak: float = 0.0) -> bench.TimeModel:
    """The same weights with no overhead, at the machine's `peak`, the head once a forward."""
    blocks, head = work(cfg)
    return model.without_overhead(blocks, peak or bench.matmul_flops_per_second(), head)


def everywhere(roof: bench.TimeModel) -> bench.TimeModel:
    """The same with the head at every position of a forward, as in the original's loop."""
    return replace(roof, compute=roof.compute + roof.head, head=0.0)


def predictions(gains: pd.DataFrame, model, roof, cfg, prompt_tokens: int) -> pd.DataFrame:
    """Measured speed-ups of the static cache beside what the time model, the machine without
    overhead and a count of operations give; shares in per cent."""
    own = gains[gains.loop == STATIC].rename(columns={"speedup": "measured"})
    table = own[["new_tokens", "measured", "low", "high", "spread"]].reset_index(drop=True)
    counted = partial(bench.flop_speedup, cfg)
    told = {"time_model": model.speedup, "roofline": roof.speedup, "operations": counted}
    for name, of in told.items():
        table[name] = [of(prompt_tokens, int(n)) for n in table.new_tokens]
    model_share, roof_share = (100 * table.measured / table[name] for name in [*told][:2])
    return table.assign(of_model_percent=model_share, of_roofline_percent=roof_share)


def measured(row) -> tuple[float, tuple[float, float]]:
    """The speed-up in a row of `predictions`, with its interval."""
    return row.measured, (row.low, row.high)


def measured_at(compared: pd.DataFrame, tokens: int) -> tuple:
    """The same for so many new tokens; (None, None) where they were not timed."""
    own = compared[compared.new_tokens == tokens]
    return measured(own.iloc[0]) if len(own) else (None, None)


def misses(compared: pd.DataFrame) -> pd.DataFrame:
    """By how many per cent the time model misses each measured speed-up of `predictions`: case,
    off_percent, low, high, the ends as the ends of the measurement give them."""
    ends = [compared[end] / compared.time_model for end in ("measured", "low", "high")]
    return percent_off(compared.new_tokens.map("{:,.0f} tokens".format), *ends)


def times_off(gains: pd.DataFrame, model, prompt: int, new: int) -> dict[str, float]:
    """By how many per cent the measured times of `speedups` for `new` tokens lie off the model's:
    `again` when all is recomputed, and `cached` by the static cache; a ratio hides what both share.
    And `fixed_in_words` of the last step."""
    told = dict(zip((AGAIN, STATIC), model.loops(prompt, new), strict=True))
    ms = gains[gains.new_tokens == new].set_index("loop").ms
    off = {name: float(100 * (ms[name] / (1e3 * seconds) - 1)) for name, seconds in told.items()}
    return {"again": off[AGAIN], "cached": off[STATIC], "fixed": fixed_in_words(model, int(new))}


def cached(gains: pd.DataFrame) -> pd.DataFrame:
    """The loops with a cache, of `speedups`."""
    return gains[gains.loop.isin([GROWING, STATIC])]


def limit_curves(model, roof, cfg, plan: Plan, points: int = 30) -> list:
    """Speed-up over new tokens by roofline, time model and count of operations, as a figure's
    limits: ((tokens, speed-ups), name)."""
    tokens = np.unique(np.geomspace(2, max(plan.lengths), points).astype(int))
    of = {"roofline: no overhead": roof.speedup, "time model": model.speedup}
    of["ratio of operations"] = partial(bench.flop_speedup, cfg)
    prompt = plan.prompt_tokens
    return [((tokens, [curve(prompt, int(n)) for n in tokens]), name) for name, curve in of.items()]


def least_curves(roof, plan: Plan) -> list:
    """Microseconds a token over new tokens that both loops take at the machine's peak, as a
    figure's limits."""
    both = np.array([roof.loops(plan.prompt_tokens, n) for n in plan.lengths]).T
    us, names = 1e6 * both / plan.lengths, ("recomputing at the peak", "a cache at the peak")
    return [((plan.lengths, own), name) for own, name in zip(us, names, strict=True)]


def kinds_of(cfg) -> list[str]:
    """Kinds of cache that the model can use: absolute positions cannot slide."""
    return [kind for kind in KINDS if kind != "window" or cfg.position != "sinusoidal"]


def kind_costs(samples: pd.DataFrame, quality: pd.DataFrame, cfg, kinds) -> pd.DataFrame:
    """Each cache at the full context: bytes, the perplexity that it adds to the model whose
    interval reaches highest, and time against the static one over processes."""
    full, rows = bench.kv_bytes(cfg, cfg.context), []
    worst = quality.loc[quality.groupby("cache").high.idxmax()].set_index("cache")
    for kind in kinds:
        held, time = bench.kv_bytes(cfg, cfg.context, kind=kind), speedup(samples, kind, "static")
        row = {"cache": CACHES.get(kind, kind), "bytes": held, "times_smaller": full / held}
        same = kind.replace("paged-int8", "int8")  # rounds as the other does
        for column in ("added_percent", "low", "high"):
            exact = 0.0 if kind in ("dynamic", "static", "paged") else np.nan
            row[column] = worst[column].get(same, exact)
        row |= {"time_ratio": time["estimate"], "time_low": time["low"], "time_high": time["high"]}
        rows.append(row | {"spread": time["spread"]})
    return pd.DataFrame(rows)


def text_needed(plan: Plan, context: int) -> int:
    """Tokens of text that `measure` reads."""
    return max(max(plan.grid()) + 1, plan.prompt_tokens + max(plan.widths(context)), context)


def constants(model: bench.TimeModel, roof: bench.TimeModel, cfg) -> pd.DataFrame:
    """The constants in readable units, the one that has an interval with it."""
    read, hidden = 4 * bench.weights_read(cfg), ", not resolvable"
    square = f"attention, times the square of the tokens{'' if model.attention else hidden}"
    resolved = "" if model.kappa_resolvable else hidden
    rows = [
        ("o", "fixed cost of an uncached forward", 1e6 * model.overhead, "µs"),
        ("o'", "fixed cost of a cached step", 1e6 * model.cached_overhead, "µs"),
        ("w", f"reading {read:,} bytes of weights", 1e6 * model.weights, "µs"),
        ("c", "compute of one token", 1e6 * model.compute, "µs"),
        ("a", square, 1e9 * model.attention, "ns"),
        ("κ", f"what one more cached token adds to a step{resolved}", 1e9 * model.kappa, "ns"),
        ("t*", "knee, (o + w) / c", model.knee, "tokens"),
        ("β", "read bandwidth at this size", read / model.weights / 1e9, "GB/s"),
        ("F", "matrix product, peak", work(cfg)[0] / roof.compute / 1e9, "GFLOP/s"),
    ]
    table = pd.DataFrame(rows, columns=["symbol", "what", "value", "unit"])
    for place, (name, end) in enumerate(zip(("low", "high"), model.kappa_interval, strict=True)):
        table.insert(3 + place, name, np.where(table.symbol == "κ", 1e9 * end, np.nan))
    return table


def step_limits(model: bench.TimeModel, steps: pd.DataFrame) -> list:
    """What a figure of single forwards draws beside them: the model's curve, and w."""
    tokens = np.geomspace(1, steps.tokens.max(), 80)
    curve = (tokens, 1e6 * model.uncached(tokens))
    return [(curve, "model"), (1e6 * model.weights, "weights read once")]


def held_kib(cfg, tokens: int) -> dict[str, float]:
    """KiB of a cache of so many tokens, and of all weights."""
    weights = 4 * sum(bench.parameters(cfg).values())
    return {"cache": bench.kv_bytes(cfg, tokens) / 1024, "weights": weights / 1024}


def fixed_in_words(model: bench.TimeModel, past: int) -> str:
    """The share of a cached step after `past` tokens that it costs whatever is computed; "" where
    what it reads of its cache does not show above the noise."""
    share = 100 * (model.cached_overhead + model.weights) / float(model.cached(past))
    told = f"; of a cached step {share:.0f} % is what it costs before it reads a cache"
    return told if model.kappa_resolvable else ""


def explained_percent(measured: float, without: float, counted: float) -> float:
    """How much of the way from a measured speed-up to the `counted` one is gone `without` what a
    call costs, in logarithms, in per cent."""
    return float(100 * np.log(without / measured) / np.log(counted / measured))


def at_the_knee(steps: pd.DataFrame, knee: float) -> float:
    """A forward over t* tokens over one of a single token, as `step_medians` found them: between
    the lengths that were timed, the lower deciles are joined by lines."""
    past = steps[steps.phase == "recompute"].sort_values("tokens")
    return float(np.interp(knee, past.tokens, past.quiet) / past.quiet.iloc[0])


def raw(samples: pd.DataFrame, prompt_tokens: int, seed: int, threads: int) -> pd.DataFrame:
    """The samples of the loops as bench.csv holds them: one row one measurement."""
    named = samples.rename(columns={"name": "loop", "tokens": "new_tokens"})
    named = named.assign(latency_ms=1e3 * named.seconds, prompt_tokens=prompt_tokens)
    columns = ["loop", "new_tokens", "process", "repeat", "latency_ms", "prompt_tokens"]
    return named[columns].assign(seed=seed, threads=threads)


def widths(cfg: ModelConfig) -> list[dict]:
    """What a step reads, computes of a token in the blocks and of the head once, at half the width
    and up to 16 times as much, of the same architecture with as many heads."""
    rows = []
    for width in (cfg.d_model * times // 2 for times in (1, 2, 4, 8, 16, 32)):
        if width % (2 * cfg.n_heads) == 0:
            other = replace(cfg, d_model=width, d_ff=cfg.ffn_dim * width // cfg.d_model)
            blocks, head = work(other)
            row = {"width": width, "read_bytes": 4 * bench.weights_read(other)}
            rows.append(row | {"flops": blocks, "head_flops": head})
    return rows


def summary(model, roof, compared: pd.DataFrame, cfg, prompt_tokens: int) -> dict:
    """timemodel.json: the constants, the machine's two limits, the predictions, and what other
    widths read and compute."""
    return vars(model) | {
        "knee_tokens": model.knee,
        "bandwidth_bytes_per_second": 4 * bench.weights_read(cfg) / model.weights,
        "peak_flops_per_second": work(cfg)[0] / roof.compute,
        "speedup": compared.astype(object).where(compared.notna(), None).to_dict("records"),
        "prompt_tokens": prompt_tokens,
        "width": cfg.d_model,
        "widths": widths(cfg),
    }


def larger_row(loops: pd.DataFrame, model: bench.TimeModel, cfg, prompt_tokens: int):
    """The larger model in one row: its constants, 50 tokens end to end, and their prediction."""
    row = {
        "model": f"{cfg.n_layers} × {cfg.d_model}",
        "parameters": sum(bench.parameters(cfg).values()),
        "overhead_ms": 1e3 * model.overhead,
        "weights_ms": 1e3 * model.weights,
        "compute_ms": 1e3 * model.compute,
        "knee_tokens": model.knee,
        **as_columns("measured_speedup", speedup(loops, AGAIN, STATIC)),
        "predicted_speedup": model.speedup(prompt_tokens, 50),
    }
    return pd.DataFrame([row])


def larger_miss(row: pd.DataFrame) -> tuple[float, tuple[float, float]]:
    """By how many per cent the prediction in `larger_row` is missed, with its interval."""
    names = {"measured_speedup": "measured", "predicted_speedup": "time_model"}
    found = misses(row.rename(columns=names).assign(new_tokens=50)).iloc[0]
    return found.off_percent, (found.low, found.high)
