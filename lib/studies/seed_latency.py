"""The original's row of latencies: its loops, its 50 tokens, its 3 repeats, on its own model."""

import numpy as np
import pandas as pd

from .processes import one_more, over_processes, process_medians, speedup
from .words import with_interval

TOKENS, REPEATS = 50, 3
ALL, AGAIN = "the original's loop", "recomputing"  # logits of all positions, of the last one
GROWING, STATIC = "growing cache", "static cache"
MS = {ALL: 17.47, GROWING: 8.98}


def rows(samples: pd.DataFrame) -> pd.DataFrame:
    """The original report's two loops, and the two that compute no more logits than they need:
    milliseconds beside its figures, and how many times as fast as its loop, with where one
    more process would fall; `mean` is the same with the interval of the mean."""
    medians, found = process_medians(samples), []
    for name in (ALL, GROWING, AGAIN, STATIC):
        ms = over_processes(1e3 * medians[name])
        gain = speedup(samples, ALL, name)
        row = {"loop": name, "original_ms": MS.get(name, np.nan), "ms": ms["estimate"]}
        row |= dict(zip(("ms_low", "ms_high"), one_more(ms), strict=True))
        row |= {"speedup": gain["estimate"]}
        row |= dict(zip(("low", "high"), one_more(gain), strict=True)) | {"spread": gain["spread"]}
        mean = {"mean": gain["estimate"], "mean_low": gain["low"], "mean_high": gain["high"]}
        found.append(row | mean)
    return pd.DataFrame(found)


def setting(samples: pd.DataFrame) -> str:
    """Tokens and repeats a process of the original report's rows as they were timed here."""
    repeats = samples.groupby(["process", "name"]).size().unique()
    return f"{samples.tokens.iloc[0]} tokens, {', '.join(map(str, repeats))} repeats"


def stated(samples: pd.DataFrame) -> dict:
    """What the report states of its row, as it was measured here: its `setting`, and with where one
    more process would fall milliseconds of `slow` and `cached` and how many times as fast it is
    (`speedup`); `mean` is that with the interval of the mean, `fair` in words a static cache's over
    a loop without needless logits, `printed` the ratio of the report's own figures."""
    table = rows(samples).set_index("loop")
    slow, fast = (table.loc[name] for name in MS)
    fair = speedup(samples, AGAIN, STATIC)
    return {
        "setting": setting(samples),
        "slow": (slow.ms, (slow.ms_low, slow.ms_high)),
        "cached": (fast.ms, (fast.ms_low, fast.ms_high)),
        "speedup": (fast.speedup, (fast.low, fast.high)),
        "mean": (fast["mean"], (fast.mean_low, fast.mean_high)),
        "fair": with_interval(fair["estimate"], fair["low"], fair["high"], "×"),
        "printed": slow.original_ms / fast.original_ms,
    }
