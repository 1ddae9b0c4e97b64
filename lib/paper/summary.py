"""The audit in numbers: its verdicts by kind."""

import pandas as pd

from .claims import AUDIT, audited, widely
from .statements import ANSWER_ONLY, KINDS, SLIP, UNEXAMINED


def audit_by_kind(rows: list[dict], ledger: dict) -> pd.DataFrame:
    """One row a kind of statement: how many the ledger has, verdicts of this run at the original's
    own setting (of `process` and `future`: none), and those where the question can be answered; how
    many were `examined` at that setting, how many of those that hold do so "widely", and how many
    that have no such setting were "asked here"."""
    found = {row["id"]: row for row in rows if audited(row)}
    table = pd.DataFrame([_counted(said, found.get(id, {})) for id, said in ledger.items()])
    return table.groupby("kind").sum().reindex(KINDS).reset_index()


def _counted(said, row):
    own, answer = (row.get(name, UNEXAMINED) for name in ("verdict", "answer_verdict"))
    at_home, elsewhere = said["kind"] not in ANSWER_ONLY, bool(said["answered_at"])
    return {
        "kind": said["kind"],
        "statements": 1,
        "examined": int(at_home and own != UNEXAMINED),
        "widely": int(widely(said["kind"], own, row.get("interval"), said["unit"])),
        "asked here": int(not at_home and answer != UNEXAMINED),
        **{v: int(at_home and own == v) for v in AUDIT},
        **{f"answer {v}": int(elsewhere and answer == v) for v in AUDIT if v != SLIP},
    }
