"""The memory of the process while it generates: which caches are constant?"""

from dataclasses import replace
from functools import partial

import pandas as pd

from minitransformer import bench
from minitransformer.cache import make_cache
from minitransformer.decode import stream
from minitransformer.model import Transformer

from .texts import as_row
from .words import CACHES

KINDS = ("static", "paged", "window", "dynamic")


def growth(model, prompt, new: int, window: int, kinds=KINDS) -> pd.DataFrame:
    """KiB that the process adds over the tokens after a prompt (T,), for each kind, once warm."""
    far = Transformer(replace(model.cfg, context=len(prompt) + new)).eval()
    far.load_state_dict(model.state_dict())
    tables = []
    for kind in kinds:
        if kind == "window" and model.cfg.position == "sinusoidal":
            continue  # absolute positions cannot slide
        own, options = (model, {"window": window - 4}) if kind == "window" else (far, {})
        # what the first call of a process leaves in it is no cache's
        list(run(own, prompt, 2, kind, options))
        table = bench.process_growth(partial(run, own, prompt, new, kind, options), new)
        tables.append(table.assign(cache=CACHES.get(kind, kind)))
    return pd.concat(tables, ignore_index=True).eval("process_kib = process_bytes / 1024")


def run(model, prompt, new, kind, options):
    """The stream whose memory is looked at; its cache is made inside."""
    cache = make_cache(model.cfg, kind, capacity=len(prompt) + new, **options)
    return stream(model, as_row(prompt), new, cache=cache)


def settled(grown: pd.DataFrame, cfg) -> dict:
    """After a quarter of the text: KiB that the process has added at most with the `kinds` of cache
    that should not grow (`kib`), with the `growing` one, the first in per cent of the second, and
    KiB that the growing cache `holds` more."""
    late = grown[grown.tokens > grown.tokens.max() / 4]
    added = late.groupby("cache", sort=False).process_bytes.agg(lambda b: b.max() - b.iloc[0])
    steady = added[[kind for kind in ("static", "paged", "window") if kind in added]]
    return {
        "kinds": ", ".join(steady.index),
        "kib": steady.max() / 1024,
        "growing": added["growing"] / 1024,
        "percent": 100 * steady.max() / max(added["growing"], 1),
        "holds": bench.kv_bytes(cfg, int(late.tokens.max() - late.tokens.min())) / 1024,
    }
