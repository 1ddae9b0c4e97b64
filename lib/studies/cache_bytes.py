"""What a cache holds, in bytes: computed from the configuration and measured in the objects."""

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import torch

from minitransformer.bench import kv_bytes
from minitransformer.cache import make_cache

FORMATS = {"FP32": ("static", "paged")} | {b: (b, f"paged-{b}") for b in ("int8", "int4")}
KINDS = [kind for pair in FORMATS.values() for kind in pair] + ["int2"]


def full(cfg, kind: str, tokens: int, chunk: int = 512):
    """A cache of `kind` filled with `tokens` tokens of ones."""
    cache = make_cache(cfg, kind, capacity=tokens)
    k = torch.ones(1, cfg.kv_heads, chunk, cfg.head_dim)
    for begin in range(0, tokens, chunk):
        n = min(chunk, tokens - begin)
        cache.positions(n)
        cache.mask(n)
        for layer in cache.layers:
            layer.update(k[:, :, :n], k[:, :, :n])
        cache.advance(n)
    return cache


def heads(cfg) -> dict[str, int]:
    """Key-value heads of multi-head, grouped-query and multi-query attention."""
    return {"MHA": cfg.n_heads, "GQA": max(cfg.n_heads // 2, 1), "MQA": 1}


def measured_and_computed(cfg, kinds, tokens) -> pd.DataFrame:
    """Bytes of a full cache of each kind and length, as the object counts and as computed."""
    rows = [
        (kind, n, full(cfg, kind, n).nbytes, kv_bytes(cfg, n, kind=kind))
        for kind, n in product(kinds, tokens)
    ]
    return pd.DataFrame(rows, columns=["cache", "tokens", "measured_bytes", "computed_bytes"])


def formats(cfg, tokens: int = 8192, filled: int = 1024) -> pd.DataFrame:
    """Heads x formats: bytes of one sequence, how much smaller than FP32 with the same heads
    (`times`) and with all of them (`times_all`), and whether a cache of `filled` tokens holds as
    many as are computed."""
    far = replace(cfg, context=tokens)
    rows = []
    for name, n in heads(cfg).items():
        own = replace(far, n_kv_heads=n)
        for kind in KINDS:
            held = kv_bytes(own, tokens, kind=kind)
            times = kv_bytes(own, tokens) / held, kv_bytes(far, tokens) / held
            measured = full(own, kind, filled).nbytes == kv_bytes(own, filled, kind=kind)
            rows.append((name, kind, held, *times, measured))
    columns = ["heads", "cache", "bytes", "times", "times_all", "measured"]
    return pd.DataFrame(rows, columns=columns)


def per_token(cfg, n_kv_heads: int | None = None) -> float:
    """Numbers that a filled static cache holds for each token and layer."""
    own = replace(cfg, n_kv_heads=n_kv_heads)
    return full(own, "static", own.context).nbytes / 4 / own.context / own.n_layers


def in_use(cfg, room: int = 8192, points: int = 60) -> pd.DataFrame:
    """KiB of a static cache with `room` and of a paged one, over the tokens in use."""
    tokens = np.unique(np.geomspace(16, room, points).round().astype(int))
    rows = []
    for name, n in heads(cfg).items():
        own = replace(cfg, n_kv_heads=n)
        label = f"{name}, {n} head{'s' * (n > 1)}"
        for kind in ("FP32", "int8", "int4"):
            whole, paged = FORMATS[kind]
            static = kv_bytes(own, room, kind=whole) / 1024
            for t in map(int, tokens):
                rows.append((label, kind, t, static, kv_bytes(own, t, kind=paged) / 1024))
    return pd.DataFrame(rows, columns=["heads", "format", "tokens", "static_kib", "paged_kib"])


def waste(cfg, room: int, blocks=(64, 16)) -> pd.DataFrame:
    """Bytes reserved for each byte in use, over the tokens in use: static, and blocks of a pool."""
    used = np.arange(1, room + 1)
    needed = np.array([kv_bytes(cfg, int(t)) for t in used])
    held = {f"static, room for {room}": np.full(room, kv_bytes(cfg, room))}
    for size in blocks:
        paged = [kv_bytes(cfg, int(t), kind="paged", block_size=size) for t in used]
        held[f"paged, blocks of {size}"] = np.array(paged)
    share = pd.DataFrame({name: bytes_ / needed for name, bytes_ in held.items()})
    table = share.assign(tokens=used).melt("tokens", var_name="cache", value_name="reserved_share")
    return table[["cache", "tokens", "reserved_share"]]


def idle(waste: pd.DataFrame) -> pd.Series:
    """Per cent of the reserved bytes that hold nothing, of one text of every length, by cache."""
    wide = waste.pivot(index="tokens", columns="cache", values="reserved_share")
    return 100 * (1 - wide.index.to_series().sum() / wide.mul(wide.index, axis=0).sum())
