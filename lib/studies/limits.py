"""How near to what this machine allows does the native engine come, by shape, format and rows?

What a step must do at the least: read its weights and its cache once, at the speed at which this
machine reads that many bytes, and multiply at the speed of its best matrix product. Both are
measured in the same process, between the repeats of what they bound. One thread.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch

from minitransformer import bench
from minitransformer.cache import make_cache
from minitransformer.decode import generate
from minitransformer.model import ModelConfig, Transformer
from minitransformer.native import NativeModel
from minitransformer.quant import QuantWeight
from minitransformer.train import initialize

from .native import FORMATS, packed
from .processes import over_processes, process_medians

SEED = ModelConfig()
SHAPES = {
    "1 × 128": SEED,
    "6 × 384": replace(SEED, vocab_size=4096, d_model=384, n_layers=6, n_heads=6),
    "8 × 768": replace(SEED, vocab_size=4096, d_model=768, n_layers=8, n_heads=12),
    "12 × 768": replace(SEED, vocab_size=50257, d_model=768, n_layers=12, n_heads=12, tied=True),
}
ROWS = (1, 2, 4, 8, 16)
PROMPTS = (64, 128, 256, 512)
KINDS = ("static", "paged", "int8", "window")
CACHED, RECOMPUTED, NAIVE = "native, static cache", "native, recomputed", "eager, recomputed"
READ, PEAK, EAGER = "reading the weights", "matrix product", "eager"
PEAK_SIZE = 256  # rows and columns of the matrix product
WINDOW = 256  # tokens that a windowed cache keeps, its sinks apart


def measure(count: int, repeats: int, seed: int, deep: int) -> dict[str, pd.DataFrame]:
    """Samples of one process over the first `count` shapes: `steps`, `rows` and `prompts` of each,
    and of the first `kinds` at 512 and `deep` tokens and `loops` of 500."""
    found = {"steps": [], "rows": [], "prompts": []}
    for name in list(SHAPES)[:count]:
        model = initialize(Transformer(SHAPES[name]), "scaled", seed).eval()
        engines = packed(model)
        for table, samples in (
            ("steps", steps(model, engines, repeats)),
            ("rows", rows(engines, repeats)),
            ("prompts", prompts(model, engines["native FP32"], repeats)),
        ):
            found[table].append(samples.assign(shape=name))
    first = initialize(Transformer(SEED), "scaled", seed).eval()
    tables = {name: pd.concat(parts) for name, parts in found.items()}
    return tables | {"kinds": kinds(deep, repeats, seed), "loops": loops(first, repeats)}


def ids_of(cfg, tokens: int) -> torch.Tensor:
    """Drawn ids (1, tokens): what they are costs nothing."""
    draw = np.random.default_rng(tokens).integers(4, cfg.vocab_size, (1, tokens))
    return torch.from_numpy(draw)


def read_bytes(model, scheme) -> int:
    """Bytes of weights that one step reads: every matrix once, of the embedding one row."""
    cfg = model.cfg
    numbers = bench.weights_read(cfg)
    if scheme is None:
        return 4 * numbers
    share = QuantWeight(8, 256, scheme)
    held = share.codes.numel() + share.scale.numel() * share.scale.element_size()
    return int(numbers * held / (8 * 256))


def reader(nbytes: int):
    """Reads so many bytes of FP32 once."""
    return torch.ones(max(nbytes // 4, 1)).sum


def steps(model, engines, repeats: int) -> pd.DataFrame:
    """Decoding after a prompt of 8: every format, eager, and reading each format's weights."""
    cfg = model.cfg
    new = 48 if cfg.n_layers == 1 else 8
    ids, ways = ids_of(cfg, 8), {EAGER: partial(generate, model, ids_of(cfg, 8), new)}
    for name, scheme in FORMATS.items():
        ways[name] = partial(generate, engines[name], ids, new, backend="native")
        ways[f"{READ}, {name}"] = partial(again, reader(read_bytes(model, scheme)), new)
    return bench.interleaved(ways, repeats, warmup=1).assign(calls=new)


def again(function, times: int) -> None:
    for _ in range(times):
        function()


def rows(engines, repeats: int) -> pd.DataFrame:
    """One forward of several rows, their logits included, in every format; and a matrix product of
    the same process, for its peak."""
    samples = []
    for m in ROWS:
        own = {name: partial(engine, ids_of(engine.cfg, m)) for name, engine in engines.items()}
        samples.append(bench.interleaved(own, repeats, warmup=1).assign(rows=m))
    a = torch.rand(PEAK_SIZE, PEAK_SIZE)
    product = bench.interleaved({PEAK: partial(torch.mm, a, a)}, 5 * repeats, warmup=2)
    return pd.concat([*samples, product.assign(rows=0)])


def prompts(model, engine, repeats: int) -> pd.DataFrame:
    """A prompt's states, eager and native; the head is applied to the last position only."""
    samples = []
    for n in PROMPTS:
        ids = ids_of(model.cfg, n)
        ways = {EAGER: partial(model.hidden, ids), "native": partial(engine.hidden, ids)}
        samples.append(bench.interleaved(ways, repeats, warmup=1).assign(tokens=n))
    return pd.concat(samples)


def kinds(deep: int, repeats: int, seed: int) -> pd.DataFrame:
    """Whole loops in the engine over caches of several kinds, of 512 and of `deep` tokens."""
    cfg = replace(SEED, context=deep)
    engine = NativeModel(initialize(Transformer(cfg), "scaled", seed).eval())
    samples = []
    for tokens in (min(512, deep), deep):
        ways = {kind: partial(over, engine, kind, tokens) for kind in KINDS}
        samples.append(bench.interleaved(ways, repeats, warmup=1).assign(calls=tokens))
    return pd.concat(samples)


def over(engine, kind: str, tokens: int) -> None:
    """Decodes until the cache of this kind holds so many tokens."""
    options = {"window": min(WINDOW, engine.cfg.context // 2)} if kind == "window" else {}
    cache = make_cache(engine.cfg, kind, capacity=tokens, **options)
    generate(engine, ids_of(engine.cfg, 8), tokens - 8, cache=cache, backend="native")


def loops(model, repeats: int, new: int = 500) -> pd.DataFrame:
    """500 tokens with and without a cache in the engine, and recomputed eagerly."""
    engine, ids = NativeModel(model), ids_of(model.cfg, 8)
    ways = {
        CACHED: partial(generate, engine, ids, new, backend="native"),
        RECOMPUTED: partial(recompute, engine, ids, new),
        NAIVE: partial(generate, model, ids, new, cache=None),
    }
    samples = [bench.interleaved(ways, max(repeats // 2, 1), warmup=0)]
    # The least times seen: a limit is not what a call takes on average, its overhead included.
    read = {READ: 4 * bench.weights_read(model.cfg)}
    read["reading the cache"] = bench.kv_bytes(model.cfg, new // 2)
    least = {name: bench.read_seconds(nbytes) for name, nbytes in read.items()}
    least[PEAK] = 2 * PEAK_SIZE**3 / bench.matmul_flops_per_second(PEAK_SIZE, 20)
    samples.append(pd.DataFrame({"name": [*least], "repeat": 0, "seconds": [*least.values()]}))
    return pd.concat(samples)


def recompute(engine, ids, new: int) -> torch.Tensor:
    """Greedy decoding in the engine without a cache."""
    for _ in range(new):
        last = engine.head(engine.hidden(ids)[:, -1:])
        ids = torch.cat((ids, last.argmax(-1)), 1)
    return ids


# --- what the samples say


def step_table(samples: pd.DataFrame, peaks: pd.DataFrame) -> pd.DataFrame:
    """A row a shape and format: microseconds per token and the least that they could be, and over
    processes how many times that, and how many times as fast as eager and as the engine's FP32."""
    found = []
    for shape, part in samples.groupby("shape", sort=False):
        each, calls = process_medians(part), part.calls.iloc[0]
        work = 2 * bench.weights_read(SHAPES[shape]) / flops_of(peaks, shape)
        for name in FORMATS:
            own = each[name] / calls
            least = np.maximum(each[f"{READ}, {name}"] / calls, work)
            row = {"shape": shape, "format": name, "us": 1e6 * over_processes(own)["estimate"]}
            row["least_us"] = 1e6 * over_processes(least)["estimate"]
            row |= told("over_least", own / least)
            row |= told("over_fp32", each["native FP32"] / each[name])
            found.append(row | told("over_eager", each[EAGER] / each[name]))
    return pd.DataFrame(found)


def row_table(samples: pd.DataFrame, single: pd.DataFrame) -> pd.DataFrame:
    """A row a shape, format and number of rows of one forward: milliseconds, times T(1), and times
    the larger of one reading of the weights and the arithmetic at the machine's peak."""
    found = []
    for shape, part in samples.groupby("shape", sort=False):
        read = process_medians(single[single["shape"] == shape])
        read = read.div(single[single["shape"] == shape].calls.iloc[0])
        flops = 2 * bench.weights_read(SHAPES[shape]) / flops_of(samples, shape)
        one = process_medians(part[part.rows == 1])
        for m in ROWS:
            each = process_medians(part[part.rows == m])
            for name in FORMATS:
                least = np.maximum(read[f"{READ}, {name}"], m * flops)
                row = {"shape": shape, "format": name, "rows": m}
                row["ms"] = 1e3 * over_processes(each[name])["estimate"]
                row |= told("over_one", each[name] / one[name])
                found.append(row | told("over_least", each[name] / least))
    return pd.DataFrame(found)


def prompt_table(samples: pd.DataFrame) -> pd.DataFrame:
    """A row a shape and length of prompt: milliseconds of both, and how many times as fast as
    eager PyTorch the engine is."""
    found = []
    for (shape, tokens), part in samples.groupby(["shape", "tokens"], sort=False):
        each = process_medians(part)
        row = {"shape": shape, "tokens": tokens}
        for name in (EAGER, "native"):
            row[f"{name}_ms"] = 1e3 * over_processes(each[name])["estimate"]
        found.append(row | told("over_eager", each[EAGER] / each["native"]))
    return pd.DataFrame(found)


def kind_table(samples: pd.DataFrame) -> pd.DataFrame:
    """A row a cache kind and length: microseconds per token, how many times a static cache's, and
    times its own at the first length."""
    found, first = [], None
    for tokens, part in samples.groupby("calls"):
        each = process_medians(part) / tokens
        first = each if first is None else first
        for kind in KINDS:
            row = {"cache": kind, "tokens": tokens}
            row["us"] = 1e6 * over_processes(each[kind])["estimate"]
            row |= told("over_static", each[kind] / each["static"])
            found.append(row | told("over_first", each[kind] / first[kind]))
    return pd.DataFrame(found)


def worth(samples: pd.DataFrame, new: int = 500, prompt: int = 8) -> dict[str, dict]:
    """What a cache is worth where no framework hides it: times as fast as recomputing in the
    engine, the same by the roofline (bytes read once, arithmetic at the peak), the share of the
    roofline's speed at which the cached loop runs, in %, and times as fast as the seed's way,
    recomputing in eager PyTorch."""
    each = process_medians(samples)
    peak = 2 * PEAK_SIZE**3 / each[PEAK]
    lengths = np.arange(prompt, prompt + new)
    again = np.array([bench.flops(SEED, int(n)) for n in lengths])
    roof, reached = {}, {}
    for process, read in each[READ].items():
        once = bench.flops(SEED, 1) / peak[process]
        cached = new * max(read + each["reading the cache"][process], once)
        roof[process] = np.maximum(read, again / peak[process]).sum() / cached
        reached[process] = 100 * cached / each[CACHED][process]
    gain = each[RECOMPUTED] / each[CACHED]
    return {
        "speedup": over_processes(gain),
        "roofline": over_processes(pd.Series(roof)),
        "reached_percent": over_processes(pd.Series(reached)),
        "over_naive": over_processes(each[NAIVE] / each[CACHED]),
    }


def flops_of(samples: pd.DataFrame, shape: str) -> pd.Series:
    """FP32 operations a second of the matrix product, in each process."""
    own = samples[(samples["shape"] == shape) & (samples.name == PEAK)]
    return 2 * PEAK_SIZE**3 / own.groupby("process").seconds.median()


def told(name: str, values: pd.Series) -> dict[str, float]:
    """A ratio of every process as three columns: `name`, `name`_low, `name`_high."""
    over = over_processes(values)
    return {name: over["estimate"], f"{name}_low": over["low"], f"{name}_high": over["high"]}


def cases(table: pd.DataFrame, value: str, case: str) -> pd.DataFrame:
    """The columns that a bar over several cases reads: `case`, `value`, low and high."""
    bounds = {f"{value}_low": "low", f"{value}_high": "high"}
    return table[[case, value, *bounds]].rename(columns=bounds)


WORDS = {
    "shape": "model",
    "us": "µs per token",
    "least_us": "least, µs",
    "ms": "ms",
    "eager_ms": "eager, ms",
    "native_ms": "engine, ms",
    "over_least": "times the least",
    "over_fp32": "as fast as FP32, ×",
    "over_eager": "as fast as eager, ×",
    "over_one": "times one row",
    "over_static": "times static",
    "over_first": "times its shortest",
}


def worded(table: pd.DataFrame) -> pd.DataFrame:
    """A table's columns in words, each interval in one column behind its value."""
    found = {}
    for name in table:
        if name.endswith(("_low", "_high")):
            continue
        found[WORDS.get(name, name)] = table[name]
        if f"{name}_low" in table:
            bounds = zip(table[f"{name}_low"], table[f"{name}_high"], strict=True)
            texts = [f"[{low:.3g}, {high:.3g}]" if low == low else "–" for low, high in bounds]
            found[f"95 %, {WORDS[name]}"] = texts
    return pd.DataFrame(found)


WORTH = {
    "speedup": "cached over recomputed, both in the engine, ×",
    "roofline": "the same by the roofline, ×",
    "reached_percent": "the roofline's speed that the cached loop reaches, %",
    "over_naive": "cached in the engine over recomputed in eager PyTorch, ×",
}


def worth_table(found: dict[str, dict]) -> pd.DataFrame:
    """What `worth` found, a row a quantity."""
    rows = [{"quantity": WORTH[name], **over} for name, over in found.items()]
    columns = {"estimate": "value", "spread": "largest over smallest"}
    return pd.DataFrame(rows).rename(columns=columns).drop(columns="processes")


def summary(steps: pd.DataFrame, shapes: list[str]) -> str:
    """The engine's distance from its limit at the first and the last shape, in a sentence."""
    own = steps.set_index(["shape", "format"])
    parts = []
    for shape in dict.fromkeys((shapes[0], shapes[-1])):
        row, four = own.loc[(shape, "native FP32")], own.loc[(shape, "native int4")]
        parts.append(
            f"At {shape} a token takes **{row.us:,.0f} µs** in FP32, {row.over_least:.2f} times "
            f"the least, and {four.us:,.0f} µs in int4"
        )
    return "; ".join(parts).replace("; At", "; at") + "."
