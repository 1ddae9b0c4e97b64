"""From recomputing everything to few bits in the engine: what a token takes, what it must read, and
how much of this machine's speed that is, at the original's shape and at a larger one.

Weights are drawn at random: what is decoded plays no part. All on one thread.
"""

from dataclasses import replace
from functools import partial

import pandas as pd

from minitransformer import bench
from minitransformer.decode import generate
from minitransformer.model import Transformer
from minitransformer.native import NativeModel
from minitransformer.train import initialize

from .limits import SEED, ids_of, least, read_bytes
from .native import FORMATS, SHRUNK, packed
from .processes import over_processes, process_medians
from .seed_latency import AGAIN, GROWING, STATIC

# Shape -> its configuration and the tokens of a loop.
SHAPES = {
    "1 × 128": (SEED, 128),
    "8 × 512": (replace(SEED, vocab_size=4096, d_model=512, n_layers=8, n_heads=8), 12),
}
PROMPT = 8  # tokens before a loop
EAGER = {AGAIN: None, GROWING: "dynamic", STATIC: "static"}
FEW = "native int4"  # whose weights lie beside the int8 cache too


def measure(count: int, repeats: int, seed: int) -> dict[str, pd.DataFrame]:
    """Samples of one process: `falls`, whole loops of every way at the first `count` shapes, and
    `fall_floors`, the least seconds to read what a token of each must read, once for as much."""
    samples, floors = [], []
    for shape, (cfg, new) in list(SHAPES.items())[:count]:
        model = initialize(Transformer(cfg), "scaled", seed).eval()
        timed = bench.interleaved(ways(model, packed(model), new), repeats, warmup=0, before=1)
        samples.append(timed.assign(shape=shape, tokens=new))
        nbytes = pd.Series(bytes_of(cfg, new)).rename_axis("name")
        read = nbytes.map({n: bench.read_seconds(n) for n in nbytes.unique()})
        floors.append(read.reset_index(name="seconds").assign(shape=shape))
    return {"falls": pd.concat(samples), "fall_floors": pd.concat(floors)}


def ways(model, engines: dict[str, NativeModel], new: int) -> dict:
    """Every way of decoding so many tokens, slowest first."""
    ids = ids_of(model.cfg, PROMPT)
    found = {name: partial(generate, model, ids, new, cache=kind) for name, kind in EAGER.items()}
    for name, engine in engines.items():
        found[name] = partial(generate, engine, ids, new, backend="native")
    few = partial(generate, engines[FEW], ids, new, cache="int8", backend="native")
    return found | {SHRUNK: few}


def bytes_of(cfg, new: int) -> dict[str, int]:
    """What a token of each way must read, in the middle of a loop: the weights once and, but where
    all is recomputed, the cache."""
    cache = {kind: bench.kv_bytes(cfg, PROMPT + new // 2, kind=kind) for kind in ("static", "int8")}
    found = {name: read_bytes(cfg, None) + (cache["static"] if kind else 0)
             for name, kind in EAGER.items()}  # fmt: skip
    found |= {name: read_bytes(cfg, scheme) + cache["static"] for name, scheme in FORMATS.items()}
    return found | {SHRUNK: read_bytes(cfg, FORMATS[FEW]) + cache["int8"]}


def table(samples: pd.DataFrame, floors: pd.DataFrame) -> pd.DataFrame:
    """A row a shape and way: tokens of a loop, microseconds a token over processes, KiB it must
    read, the least microseconds of that, and the share of that speed reached, with interval."""
    rows = []
    for shape, part in samples.groupby("shape", sort=False):
        (cfg, new), each = SHAPES[shape], process_medians(part)
        each, read = each / new, bytes_of(cfg, new)
        falling = sorted(read, key=read.get, reverse=True)  # fewer bytes take no longer than more
        floor = least(floors, shape)[falling].cummin(axis="columns")
        for name, nbytes in read.items():
            share = over_processes(100 * floor[name] / each[name])
            rows.append(
                {"shape": shape, "tokens": new, "step": name,
                 "us_per_token": 1e6 * over_processes(each[name])["estimate"],
                 "KiB": nbytes / 1024, "least_us": 1e6 * over_processes(floor[name])["estimate"],
                 "reached_percent": share["estimate"], "low": share["low"], "high": share["high"]}
            )  # fmt: skip
    return pd.DataFrame(rows)


def largest(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the largest shape that was measured."""
    return table[table["shape"] == table["shape"].iloc[-1]]


def for_sentence(table: pd.DataFrame) -> dict:
    """Of the largest `shape`, in loops of `tokens`: how many times as fast as recomputing the last
    way is, and how much of that the cache, the engine and the bits give."""
    us = largest(table).set_index("step").us_per_token
    first, cached, fp32, last = us[AGAIN], us[STATIC], us["native FP32"], us.iloc[-1]
    where = {"shape": table["shape"].iloc[-1], "tokens": int(table.tokens.iloc[-1])}
    shares = {"cache": first / cached, "engine": cached / fp32, "bits": fp32 / last}
    return where | {"all": first / last} | shares
