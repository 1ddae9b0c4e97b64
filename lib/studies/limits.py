"""How near to what this machine reads and multiplies does the engine come, by shape, format, rows?

The mark beside a step is the larger of two times: to read its weights once, a loop its cache too,
as fast as PyTorch sums that many bytes, without its call, and to multiply at the speed of its best
product in FP32. Both are the least seen in the same process, because noise can only raise them. One
thread, and steps on two as well, against what two can read and multiply. A step that takes less
than reading shows that the machine reads faster than a sum; than the product, integers may be.

Calls of heavy shapes are long, and what disturbs them is small beside them: they have half of the
repeats, and steps no rounds that only warm up, as the calls before each timed one do. All processes
have them, so intervals over processes are those of every shape. Where two shapes differ in their
head alone, prompts are timed for the first.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch

from minitransformer import bench
from minitransformer.cache import make_cache
from minitransformer.checkpoint.tensors import Undrawn
from minitransformer.decode import generate
from minitransformer.model import ModelConfig, Transformer
from minitransformer.native import NativeModel, pays_above
from minitransformer.quant import QuantWeight
from minitransformer.train import initialize

from .native import CACHED, FORMATS, RECOMPUTED, packed
from .native import loops as both
from .processes import average, over_processes, per_token, process_medians

SEED = ModelConfig()
LARGEST = replace(SEED, vocab_size=50257, d_model=768, n_layers=12, n_heads=12)
SHAPES = {
    "1 × 128": SEED,
    "6 × 384": replace(SEED, vocab_size=4096, d_model=384, n_layers=6, n_heads=6),
    "8 × 768": replace(SEED, vocab_size=4096, d_model=768, n_layers=8, n_heads=12),
    "12 × 768 (124M)": replace(LARGEST, tied=True),
    "12 × 768, untied (162M)": LARGEST,
}
ROWS = (1, 2, 4, 8, 16)
PROMPTS = (64, 128, 256, 512)
KINDS = ("static", "paged", "int8", "window")
NAIVE = "eager, recomputed"
EAGER, CACHE, OPERATION = "eager", "reading the cache", "one operation"
TWO = ", 2 threads"  # ends the names of what runs on them
READ, PRODUCT = "reading", "the product"  # what a mark is
LOOP = 500  # tokens of a loop with and without a cache
HEAVY = 2**28  # bytes of FP32 weights: beyond them calls are so long that half of them must do
PARTS = {"head and choice": {"vocab_size": 16}, "feed-forward": {"d_ff": 8}}  # what leaves each out
WHOLE, REST = "a whole step", "attention, norms, the loop"
WINDOW = 256  # tokens that a windowed cache keeps, its sinks apart


def measure(count: int, repeats: int, seed: int, deep: int) -> dict[str, pd.DataFrame]:
    """Samples of one process: what `of_shape` has of the first `count` shapes; of the first of them
    `kinds`, at 512 and `deep` tokens, `loops` and `parts`; and `threads`: the bytes of a product
    from which on a second thread pays."""
    found, names = {}, list(SHAPES)[:count]
    for name in names:
        for table, samples in of_shape(SHAPES[name], repeats, seed, name in unlike(names)).items():
            found.setdefault(table, []).append(samples.assign(shape=name))
    first = initialize(Transformer(SEED), "scaled", seed).eval()
    tables = {name: pd.concat(parts) for name, parts in found.items()}
    tables |= {"kinds": kinds(deep, repeats, seed), "loops": loops(first, repeats)}
    tables["threads"] = pd.DataFrame({"bytes": [pays_above() or np.inf]})
    return tables | {"parts": parts(repeats, seed)}


def of_shape(cfg: ModelConfig, repeats: int, seed: int, prompted: bool) -> dict[str, pd.DataFrame]:
    """Samples of one shape: `steps`, `rows`, `floors` and, where it is `prompted`, `prompts`."""
    with Undrawn():
        model = Transformer(cfg)
    engines = packed(initialize(model, "scaled", seed).eval())
    times, warmup, most = fewer(cfg, repeats), int(not heavy(cfg)), 49 if cfg.n_layers == 1 else 9
    shared = {f"{name}{TWO}": engine.with_threads(2) for name, engine in engines.items()}
    found = {
        "steps": steps({EAGER: model} | engines | shared, times, most, warmup),
        "rows": rows(engines, times, warmup),
        "floors": pd.concat([floors(cfg, 2), floors(cfg)]),  # one thread again for what follows
    }
    if prompted:
        found["prompts"] = prompts(model, engines["native FP32"], times)
    return found


def unlike(names: list[str]) -> list[str]:
    """The shapes that are more than an earlier one with a head of its own: a prompt's states need
    no head, and are the same work."""
    bodies = {}
    for name in names:
        bodies.setdefault(replace(SHAPES[name], tied=False), name)
    return list(bodies.values())


def ids_of(cfg, tokens: int) -> torch.Tensor:
    """Drawn ids (1, tokens): what they are costs nothing."""
    return torch.from_numpy(np.random.default_rng(tokens).integers(4, cfg.vocab_size, (1, tokens)))


def read_bytes(cfg: ModelConfig, scheme) -> int:
    """Bytes of weights that one step reads: every matrix once, of the embedding one row."""
    numbers = bench.weights_read(cfg)
    if scheme is None:
        return 4 * numbers
    share = QuantWeight(8, 256, scheme)
    held = share.codes.numel() + share.scale.numel() * share.scale.element_size()
    return int(numbers * held / (8 * 256))


def heavy(cfg: ModelConfig) -> bool:
    """Whether a step reads more than `HEAVY` in FP32."""
    return read_bytes(cfg, None) > HEAVY


def fewer(cfg: ModelConfig, count: int) -> int:
    """Half of `count` for a heavy model, and never none."""
    return -(-count // 2) if heavy(cfg) else count


def floors(cfg: ModelConfig, threads: int = 1) -> pd.DataFrame:
    """The least seconds seen, by name: reading the weights of each format once, reading the cache
    at the middle of a loop, and one operation of a large FP32 matrix product; on 1 thread or 2."""
    torch.set_num_threads(threads)
    nbytes = {name: read_bytes(cfg, scheme) for name, scheme in FORMATS.items()}
    nbytes[CACHE] = bench.kv_bytes(cfg, LOOP // 2)
    least = {name: bench.read_seconds(n, fewer(cfg, 20)) for name, n in nbytes.items()}
    least[OPERATION] = 1 / bench.matmul_flops_per_second()
    names = [name + TWO * (threads - 1) for name in least]
    return pd.DataFrame({"name": names, "seconds": [*least.values()]})


def steps(models: dict, repeats: int, most: int, warmup: int = 1) -> pd.DataFrame:
    """Decoding of one token after a prompt of 8, and of `most`, so that their difference is steps
    alone. Each call follows one of its own kind, as a step follows a step."""
    samples = []
    for new in (1, most):
        ways = {name: decoding(model, new) for name, model in models.items()}
        samples.append(bench.interleaved(ways, repeats, warmup, before=1).assign(calls=new))
    return pd.concat(samples)


def decoding(model, new: int) -> partial:
    """Greedy decoding after a prompt of 8, in the engine where the model is its own."""
    backend = "native" if isinstance(model, NativeModel) else "eager"
    return partial(generate, model, ids_of(model.cfg, 8), new, backend=backend)


def rows(engines, repeats: int, warmup: int) -> pd.DataFrame:
    """One forward of several rows, their logits included, in every format, after others like it."""
    samples = []
    for m in ROWS:
        own = {name: partial(engine, ids_of(engine.cfg, m)) for name, engine in engines.items()}
        samples.append(bench.interleaved(own, repeats, warmup, before=2).assign(rows=m))
    return pd.concat(samples)


def parts(repeats: int, seed: int) -> pd.DataFrame:
    """Steps in every format at the original's shape, whole and with one part left out: what that
    saves is what the part costs, where nothing can be timed inside."""
    engines = {}
    for part, change in {WHOLE: {}, **PARTS}.items():
        model = initialize(Transformer(replace(SEED, **change)), "scaled", seed).eval()
        engines |= {f"{part}, {name}": engine for name, engine in packed(model).items()}
    return steps(engines, 2 * repeats, 49)


def prompts(model, engine, repeats: int) -> pd.DataFrame:
    """A prompt's states, eager and native; the head is applied to the last position only. Calls of
    larger models are long and find nothing of theirs in the caches: fewer of them will do."""
    samples, before = [], int(model.cfg.n_layers == 1)
    repeats = repeats if before else -(-repeats // 2)
    for n in PROMPTS:
        ids = ids_of(model.cfg, n)
        ways = {EAGER: partial(model.hidden, ids), "native": partial(engine.hidden, ids)}
        own = bench.interleaved(ways, repeats, warmup=int(not samples), before=before)
        samples.append(own.assign(tokens=n))
    return pd.concat(samples)


def kinds(deep: int, repeats: int, seed: int) -> pd.DataFrame:
    """Whole loops in the engine over caches of several kinds, of 512 and of `deep` tokens."""
    cfg = replace(SEED, context=deep)
    engine = NativeModel(initialize(Transformer(cfg), "scaled", seed).eval())
    samples = []
    for tokens in (min(512, deep), deep):
        ways = {kind: partial(over, engine, kind, tokens) for kind in KINDS}
        cold = int(not samples)  # what the first call finds is not what the next ones do
        samples.append(bench.interleaved(ways, repeats, warmup=cold).assign(calls=tokens))
    return pd.concat(samples)


def over(engine, kind: str, tokens: int) -> None:
    """Decodes until the cache of this kind holds so many tokens."""
    options = {"window": min(WINDOW, engine.cfg.context // 2)} if kind == "window" else {}
    cache = make_cache(engine.cfg, kind, capacity=tokens, **options)
    generate(engine, ids_of(engine.cfg, 8), tokens - 8, cache=cache, backend="native")


def loops(model, repeats: int) -> pd.DataFrame:
    """`LOOP` tokens with and without a cache in the engine, and recomputed eagerly."""
    engine, ids = NativeModel(model), ids_of(model.cfg, 8)
    ways = both(engine, ids, LOOP) | {NAIVE: partial(generate, model, ids, LOOP, cache=None)}
    return bench.interleaved(ways, max(repeats // 2, 1), warmup=0)


# --- what the samples say


def least(floors: pd.DataFrame, shape: str) -> pd.DataFrame:
    """The floors of a shape: a row a process, a column a name."""
    return floors[floors["shape"] == shape].pivot(index="process", columns="name", values="seconds")


def step_table(samples: pd.DataFrame, floors: pd.DataFrame, threads: str = "") -> pd.DataFrame:
    """A row a shape and format: microseconds of a step and of its mark, what that is, and over
    processes how many times it a step takes, and how many times as fast as the engine's FP32 and as
    eager; or all of it on `TWO` threads, and how many times as fast as on one."""
    found, fp32 = [], f"native FP32{threads}"
    for shape, part in samples.groupby("shape", sort=False):
        each, floor = per_step(part), least(floors, shape)
        work = 2 * bench.weights_read(SHAPES[shape]) * floor[OPERATION + threads]
        for name in FORMATS:
            own, bound = each[name + threads], np.maximum(floor[name + threads], work)
            row = {"shape": shape, "format": name}
            row["us"] = 1e6 * over_processes(own)["estimate"]
            row["least_us"] = 1e6 * over_processes(bound)["estimate"]
            row["mark"] = PRODUCT if (bound == work).mean() > 0.5 else READ  # in most processes
            row |= ratio_columns("over_least", own / bound)
            row |= ratio_columns("over_fp32", each[fp32] / own)
            other = ("over_alone", name) if threads else ("over_eager", EAGER)
            found.append(row | ratio_columns(other[0], each[other[1]] / own))
    return pd.DataFrame(found)


def per_step(samples: pd.DataFrame) -> pd.DataFrame:
    """Seconds of a step, a row a process, a column a way."""
    one, more = samples.calls.min(), samples.calls.max()
    short, whole = (process_medians(samples[samples.calls == n]) for n in (one, more))
    return per_token(whole, short, more, one)


def part_table(samples: pd.DataFrame, floors: pd.DataFrame) -> pd.DataFrame:
    """A row a format and part of its step, and the whole: microseconds, KiB of weights that it
    reads, the time to read those at the speed of all, and how many times that it is: the ratio of
    the two columns, with the interval of what it leaves of each process. They are plain means: a
    part is a difference, which noise can make negative, and the parts add up to the whole."""
    steps, floor, found = per_step(samples), least(floors, next(iter(SHAPES))), []
    for name, scheme in FORMATS.items():
        each = {part: steps[f"{part}, {name}"] for part in (WHOLE, *PARTS)}
        whole = read_bytes(SEED, scheme)
        shares = {p: 1 - read_bytes(replace(SEED, **c), scheme) / whole for p, c in PARTS.items()}
        costs = {part: each[WHOLE] - each[part] for part in PARTS}
        shares |= {REST: 1 - sum(shares.values()), WHOLE: 1.0}
        costs |= {REST: each[WHOLE] - sum(costs.values()), WHOLE: each[WHOLE]}
        for part, cost in costs.items():
            bound, row = shares[part] * floor[name], {"format": name, "part": part}
            row |= ratio_columns("us", 1e6 * cost, average)
            row |= {"KiB": shares[part] * whole / 1024, "least_us": 1e6 * bound.mean()}
            over = cost.mean() / bound.mean()
            left = (cost - over * bound) / bound.mean()
            found.append(row | ratio_columns("over_least", over + left, average))
    return pd.DataFrame(found)


def row_table(samples: pd.DataFrame, floors: pd.DataFrame) -> pd.DataFrame:
    """A row a shape, format and number of rows of one forward: milliseconds, times T(1), and times
    the larger of one reading of the weights and the arithmetic at the machine's peak."""
    found = []
    for shape, part in samples.groupby("shape", sort=False):
        floor, one = least(floors, shape), process_medians(part[part.rows == 1])
        work = 2 * bench.weights_read(SHAPES[shape]) * floor[OPERATION]
        for m in ROWS:
            each = process_medians(part[part.rows == m])
            for name in FORMATS:
                row = {"shape": shape, "format": name, "rows": m}
                row["ms"] = 1e3 * over_processes(each[name])["estimate"]
                row |= ratio_columns("over_one", each[name] / one[name])
                bound = np.maximum(floor[name], m * work)
                found.append(row | ratio_columns("over_least", each[name] / bound))
    return pd.DataFrame(found)


def prompt_table(samples: pd.DataFrame, floors: pd.DataFrame) -> pd.DataFrame:
    """A row a shape and length of prompt: milliseconds of both, the share of the peak of a product
    that each reaches, and how many times as fast as eager PyTorch the engine is."""
    found = []
    for (shape, tokens), part in samples.groupby(["shape", "tokens"], sort=False):
        each, operation = process_medians(part), least(floors, shape)[OPERATION]
        work = bench.flops(SHAPES[shape], int(tokens), head_positions=0) * operation
        row = {"shape": shape, "tokens": tokens}
        for name in (EAGER, "native"):
            row[f"{name}_ms"] = 1e3 * over_processes(each[name])["estimate"]
            row[f"{name}_peak"] = 100 * over_processes(work / each[name])["estimate"]
        found.append(row | ratio_columns("over_eager", each[EAGER] / each["native"]))
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
            row["us_per_token"] = 1e6 * over_processes(each[kind])["estimate"]
            row |= ratio_columns("over_static", each[kind] / each["static"])
            found.append(row | ratio_columns("over_first", each[kind] / first[kind]))
    return pd.DataFrame(found)


def worth(samples: pd.DataFrame, floors: pd.DataFrame, prompt: int = 8) -> dict[str, dict]:
    """What a cache is worth where no framework hides it: times as fast as recomputing in the
    engine, the same by the roofline (bytes read once, arithmetic at the peak), the share of the
    roofline's speed at which the cached loop runs, in %, and times as fast as the original's way,
    recomputing in eager PyTorch."""
    each, floor = process_medians(samples), least(floors, next(iter(SHAPES)))
    read, operation = floor["native FP32"], floor[OPERATION]
    cached = LOOP * np.maximum(read + floor[CACHE], bench.flops(SEED, 1) * operation)
    again = sum(np.maximum(read, bench.flops(SEED, prompt + n) * operation) for n in range(LOOP))
    return {
        "speedup": over_processes(each[RECOMPUTED] / each[CACHED]),
        "roofline": over_processes(again / cached),
        "reached_percent": over_processes(100 * cached / each[CACHED]),
        "over_naive": over_processes(each[NAIVE] / each[CACHED]),
    }


def ratio_columns(name: str, values: pd.Series, mean=over_processes) -> dict[str, float]:
    """A ratio of every process as columns: `name`, its _low, its _high, its _spread if any."""
    over = mean(values)
    ends = {f"{name}_{key}": over[key] for key in ("low", "high", "spread") if key in over}
    return {name: over["estimate"]} | ends


def stored(shapes: list[str]) -> pd.DataFrame:
    """What one step reads of each shape's weights in each format, in KiB, scales included."""
    rows = [
        {"model": shape, "format": name, "KiB": round(read_bytes(SHAPES[shape], scheme) / 1024)}
        for shape in shapes
        for name, scheme in FORMATS.items()
    ]
    return pd.DataFrame(rows)
