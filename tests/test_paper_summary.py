"""The audit in numbers, and the original report's own arithmetic."""

from paper import statements, summary
from paper.claims import audit_row, seed_claims
from report import arithmetic

LEDGER = seed_claims()


def of(kind):
    return sum(row["kind"] == kind for row in LEDGER.values())


def test_the_audit_by_kind_counts_verdicts_at_both_settings():
    rows = [
        audit_row(LEDGER, "S1-perplexity", 1060.0, (1000.0, 1120.0)),
        audit_row(LEDGER, "S1-blocks", 1),
        audit_row(LEDGER, "S33-cached-latency", 4.0, (3.9, 4.1)),
        audit_row(LEDGER, "S1-tests", answer=0),
    ]
    table = summary.audit_by_kind(rows, LEDGER).set_index("kind")
    assert list(table.index) == list(statements.KINDS)
    assert [table.loc[kind, "statements"] for kind in table.index] == list(map(of, table.index))
    at_home = table[list(statements.VERDICTS)].sum(axis=1)
    assert (at_home == table["statements"].where(~table.index.isin(["process", "future"]), 0)).all()
    assert table.loc["measurement", ["holds", "not comparable"]].tolist() == [1, 1]
    assert table.loc["process", ["answer holds", "answer not examined"]].tolist() == [
        1, of("process") - 1
    ]  # fmt: skip
    assert table.loc["setting", "holds"] == 1 and "answer arithmetic slip" not in table


def test_the_seed_reports_own_arithmetic():
    table = arithmetic.own_arithmetic(LEDGER).set_index("what")
    assert table["follows"].tolist() == [
        7.18,
        9.44,
        1052.43,
        1052.43,
        0.7,
        0.9,
        0.25,
        7.0,
        1.95,
        2.5,
        1.88,
        13.4,
    ]
    agrees = [False] * 4 + [True] * 7 + [False]
    assert table["agrees"].tolist() == agrees
