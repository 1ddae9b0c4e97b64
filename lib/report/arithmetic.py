"""The original report's own arithmetic: what follows from its printed numbers alone."""

import math

import pandas as pd

from paper.statements import Statement


def own_arithmetic(ledger: dict) -> pd.DataFrame:
    """What follows from the original report's own numbers alone: expression, value, what the report
    prints of it, and whether the two agree at the digits that it prints."""
    v = {id: row["seed_value"] for id, row in ledger.items()}
    base, int8, int4 = v["S1-perplexity"], v["S32-int8-perplexity"], v["S32-int4-perplexity"]
    fell = v["S31-loss-initial"] - v["S31-loss-final"]
    sinusoidal = math.log(v["S41-sinusoidal-perplexity"])
    faster = v["S33-naive-latency"] / v["S33-cached-latency"]
    approximate = "loss of the sinusoidal perplexity, both printed as approximate"
    held, floats = v["S2-fp32-size"], "parameters that 1.99 MiB hold in FP32, 4 bytes each"
    rows = [
        ("int8 perplexity − FP32 perplexity", int8 - base, "S1-int8-degradation"),
        ("int4 perplexity − FP32 perplexity", int4 - base, "S1-int4-degradation"),
        ("baseline implied by the int8 drop", int8 - v["S1-int8-degradation"], "S1-perplexity"),
        ("baseline implied by the int4 drop", int4 - v["S1-int4-degradation"], "S1-perplexity"),
        ("int8 rise in %", 100 * (int8 / base - 1), "S32-int8-percent"),
        ("int4 rise in %", 100 * (int4 / base - 1), "S32-int4-percent"),
        ("first loss − last loss", fell, "S31-improvement"),
        (approximate, sinusoidal, "S41-sinusoidal-loss"),
        ("latency ratio of the cache", faster, "S33-ratio"),
        ("latency ratio of int8", v["S34-int8-latency"] / v["S34-fp32-latency"], "S34-slower"),
        ("size ratio of int8", held / v["S34-int8-size"], "S1-int8-compression"),
        (floats, held * 2**20 / 4, "S2-parameters"),
    ]
    told = [(what, *_beside(ledger, id, follows)) for what, follows, id in rows]
    return pd.DataFrame(told, columns=["what", "follows", "printed", "agrees"])


def _beside(ledger: dict, id: str, follows: float) -> tuple[str, str, bool]:
    """What follows, what a statement prints, at its digits, and whether the two agree there."""
    said = Statement(**ledger[id])
    places = max(round(-math.log10(2 * said.half)), 0)
    found = f"{follows:,.{2 if places else 0}f}"
    return found, f"{said.seed_value:,.{places}f}", agree(ledger, id, follows)


def agree(ledger: dict, id: str, follows: float) -> bool:
    """Whether a value is the one that a statement prints, at its digits."""
    said = Statement(**ledger[id])
    return abs(follows - said.seed_value) <= said.half + 1e-9 * abs(said.seed_value)
