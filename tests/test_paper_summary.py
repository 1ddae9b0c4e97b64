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
    assert table.loc["measurement", "examined"] == 2 and table.loc["process", "examined"] == 0
    assert table["asked here"].tolist() == [0, 0, 0, 0, 1, 0]
    assert table.loc["setting", "holds"] == 1 and "answer arithmetic slip" not in table


def test_the_seed_reports_own_arithmetic():
    table = arithmetic.own_arithmetic(LEDGER).set_index("what")
    told = "7.18 9.44 1,052.43 1,052.43 0.69 0.90 0.25 6.96 1.95 2.46 1.88 521,667"
    assert table["follows"].tolist() == told.split()
    printed = "0.06 2.32 1,045.31 1,045.31 0.7 0.9 0.25 7.00 1.95 2.5 1.88 149,000"
    assert table["printed"].tolist() == printed.split()  # at its digits, and no more
    agrees = [False] * 4 + [True] * 3 + [False] + [True] * 3 + [False]
    assert table["agrees"].tolist() == agrees


def test_numbers_agree_at_the_digits_that_are_printed():
    assert arithmetic.agree(LEDGER, "S34-slower", 2.549) and not arithmetic.agree(
        LEDGER, "S34-slower", 2.56
    )
    assert not arithmetic.agree(LEDGER, "S41-sinusoidal-loss", 6.99)  # "~7.00"
    assert arithmetic.agree(LEDGER, "S2-parameters", 149_400)  # "~149K"
