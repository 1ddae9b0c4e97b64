"""The original report's own arithmetic: what follows from its printed numbers alone."""

import math

import pandas as pd


def own_arithmetic(ledger: dict) -> pd.DataFrame:
    """What follows from the original report's own numbers alone: expression, value, what the report
    prints."""
    v = {id: row["seed_value"] for id, row in ledger.items()}
    base, int8, int4 = v["S1-perplexity"], v["S32-int8-perplexity"], v["S32-int4-perplexity"]
    drop8, drop4 = v["S1-int8-degradation"], v["S1-int4-degradation"]
    fell = v["S31-loss-initial"] - v["S31-loss-final"]
    sinusoidal = math.log(v["S41-sinusoidal-perplexity"])
    faster = v["S33-naive-latency"] / v["S33-cached-latency"]
    slower = v["S34-int8-latency"] / v["S34-fp32-latency"]
    smaller = v["S2-fp32-size"] / v["S34-int8-size"]
    each = v["S2-fp32-size"] * 1e6 / v["S2-parameters"]
    approximate = "loss of the sinusoidal perplexity, both printed as approximate"
    rows = [
        ("int8 perplexity − FP32 perplexity", round(int8 - base, 2), drop8),
        ("int4 perplexity − FP32 perplexity", round(int4 - base, 2), drop4),
        ("baseline implied by the int8 drop", round(int8 - drop8, 2), base),
        ("baseline implied by the int4 drop", round(int4 - drop4, 2), base),
        ("int8 rise in %", round(100 * (int8 / base - 1), 1), v["S32-int8-percent"]),
        ("int4 rise in %", round(100 * (int4 / base - 1), 1), v["S32-int4-percent"]),
        ("first loss − last loss", round(fell, 2), v["S31-improvement"]),
        (approximate, round(sinusoidal, 1), round(v["S41-sinusoidal-loss"], 1)),
        ("latency ratio of the cache", round(faster, 2), v["S33-ratio"]),
        ("latency ratio of int8", round(slower, 1), v["S34-slower"]),
        ("size ratio of int8", round(smaller, 2), v["S1-int8-compression"]),
        ("bytes a parameter, 1.99 MB over ~149K", round(each, 1), 4.0),
    ]
    table = pd.DataFrame(rows, columns=["what", "follows", "printed"])
    return table.assign(agrees=table["follows"] == table["printed"])
