"""The audit in numbers: its verdicts by kind, and the original report's own arithmetic."""

import math

import pandas as pd

from .claims import AUDIT, audited
from .statements import ANSWER_ONLY, KINDS, SLIP, UNEXAMINED


def audit_by_kind(rows: list[dict], ledger: dict) -> pd.DataFrame:
    """One row a kind of statement: how many the ledger has, verdicts of this run at the original's
    own setting (of `process` and `future`: none), and those where the question can be answered."""
    found = {row["id"]: row for row in rows if audited(row)}
    table = pd.DataFrame([_counted(said, found.get(id, {})) for id, said in ledger.items()])
    return table.groupby("kind").sum().reindex(KINDS).reset_index()


def _counted(said, row):
    own, answer = (row.get(name, UNEXAMINED) for name in ("verdict", "answer_verdict"))
    at_home, elsewhere = said["kind"] not in ANSWER_ONLY, bool(said["answered_at"])
    return {
        "kind": said["kind"],
        "statements": 1,
        **{v: int(at_home and own == v) for v in AUDIT},
        **{f"answer {v}": int(elsewhere and answer == v) for v in AUDIT if v != SLIP},
    }


def own_arithmetic(ledger: dict) -> pd.DataFrame:
    """What follows from the original report's own numbers alone: expression, value, what the report
    prints."""
    v = {id: row["seed_value"] for id, row in ledger.items()}
    base, int8, int4 = v["S1-perplexity"], v["S32-int8-perplexity"], v["S32-int4-perplexity"]
    rows = [
        ("int8 perplexity − FP32 perplexity", round(int8 - base, 2), v["S1-int8-degradation"]),
        ("int4 perplexity − FP32 perplexity", round(int4 - base, 2), v["S1-int4-degradation"]),
        ("baseline implied by the int8 drop", round(int8 - v["S1-int8-degradation"], 2), base),
        ("baseline implied by the int4 drop", round(int4 - v["S1-int4-degradation"], 2), base),
        ("int8 rise in %", round(100 * (int8 / base - 1), 1), v["S32-int8-percent"]),
        ("int4 rise in %", round(100 * (int4 / base - 1), 1), v["S32-int4-percent"]),
        (
            "first loss − last loss",
            round(v["S31-loss-initial"] - v["S31-loss-final"], 2),
            v["S31-improvement"],
        ),
        (
            "loss of the sinusoidal perplexity, both printed as approximate",
            round(math.log(v["S41-sinusoidal-perplexity"]), 1),
            round(v["S41-sinusoidal-loss"], 1),
        ),
        (
            "latency ratio of the cache",
            round(v["S33-naive-latency"] / v["S33-cached-latency"], 2),
            v["S33-ratio"],
        ),
        (
            "latency ratio of int8",
            round(v["S34-int8-latency"] / v["S34-fp32-latency"], 1),
            v["S34-slower"],
        ),
        (
            "size ratio of int8",
            round(v["S2-fp32-size"] / v["S34-int8-size"], 2),
            v["S1-int8-compression"],
        ),
        (
            "bytes a parameter, 1.99 MB over ~149K",
            round(v["S2-fp32-size"] * 1e6 / v["S2-parameters"], 1),
            4.0,
        ),
    ]
    table = pd.DataFrame(rows, columns=["what", "follows", "printed"])
    return table.assign(agrees=table["follows"] == table["printed"])
