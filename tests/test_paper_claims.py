"""Claims, verdicts, and merging them."""

from dataclasses import asdict

import numpy as np
import pytest

from paper import claims, statements
from paper.bars import Bar
from paper.files import read_json, write_json
from paper.statements import Statement

LEDGER = {
    "S1": asdict(
        Statement(
            id="S1",
            section="1",
            quote="1.88x",
            statement="It is 1.88 times smaller.",
            seed_value=1.88,
            unit="×",
            notebook="05-quant-bench",
            kind="arithmetic",
            how="Bytes.",
            answered_at="codes packed",
        )
    )
}


def test_a_bar_is_judged_by_what_was_measured():
    bar = Bar("int8-size", "Smaller in int8", "interval", "2026-11-25", ">=", 3.7, "×")
    row = claims.bar_row(bar, np.float64(3.8), (np.float32(3.75), 4))
    assert row["verdict"] == "pass" and row["measured"] == 3.8 and row["interval"] == [3.75, 4]
    assert row["seed_value"] is None and row["threshold"] == "≥ 3.7×"
    assert claims.bar_row(bar, 3.8, (3.5, 4))["verdict"] == "undecided"
    assert claims.bar_row(bar, 3.0, (2.5, 3.5))["verdict"] == "fail"


def test_an_audit_row_takes_statement_value_and_unit_from_the_ledger():
    row = claims.audit_row(LEDGER, "S1", np.float32(1.875), answer=np.float64(7.1), note="n")
    assert row == {
        "id": "S1",
        "statement": "It is 1.88 times smaller.",
        "seed_value": 1.88,
        "measured": 1.875,
        "unit": "×",
        "interval": None,
        "threshold": None,
        "verdict": "holds",
        "kind": "arithmetic",
        "section": "1",
        "quote": "1.88x",
        "decides": "",
        "answered_at": "codes packed",
        "printed": False,
        "answer": 7.1,
        "answer_interval": None,
        "answer_verdict": "does not hold",
        "seed_unit": "×",
        "note": "n",
    }
    assert type(row["measured"]) is type(row["answer"]) is float
    assert claims.audit_row(LEDGER, "S1", 2)["verdict"] == "arithmetic slip"
    assert claims.audit_row(LEDGER, "S1")["verdict"] == "not examined"
    with pytest.raises(ValueError, match="'S2' is not in seed_claims.toml: did you mean 'S1'"):
        claims.audit_row(LEDGER, "S2", 1)


def test_the_interval_of_a_single_run_is_not_written():
    ledger = {"S1": {**LEDGER["S1"], "kind": "measurement", "rule": ""}}
    alone = claims.audit_row(ledger, "S1", 2, (np.nan, np.nan))
    assert (alone["verdict"], alone["interval"]) == ("undecided", None)
    row = claims.audit_row(ledger, "S1", 2, np.array([1.8, 2.2]))
    assert (row["verdict"], row["interval"]) == ("holds", [1.8, 2.2])


def test_the_verdict_that_counts_is_the_answers_where_nothing_else_was_there():
    row = {"verdict": "not examined", "answer_verdict": "holds"}
    assert claims.settled({**row, "kind": "process"}) == "holds"
    assert claims.settled({**row, "kind": "conclusion"}) == "not examined"
    assert claims.settled({**row, "kind": "setting", "verdict": "holds"}) == "copied"
    assert claims.settled({**row, "kind": "setting", "verdict": "does not hold"}) == "does not hold"
    assert claims.settled({"verdict": "pass"}) == "pass"
    assert claims.audited({**row, "kind": "process"}) and not claims.audited({"verdict": "pass"})


def test_the_ledger_loads_and_refuses_a_repeated_id(tmp_path):
    assert len(claims.seed_claims()) > 40
    held = {row["section"] for row in claims.seed_claims().values()}
    assert held == {*statements.sections()}
    path = tmp_path / "x.toml"
    whole = claims.LEDGER.read_text(encoding="utf-8")
    first = whole[whole.index("[[claim]]") :].split("\n\n")[0]
    path.write_text(f"{first}\n\n{first}\n")
    with pytest.raises(ValueError, match="lists 'S1-blocks' twice"):
        claims.seed_claims(path)


def test_merging_keeps_the_order_and_refuses_one_id_in_two_chapters(tmp_path):
    write_json(tmp_path / "claims" / "01-data.json", [{"id": "b"}, {"id": "a"}])
    write_json(tmp_path / "claims" / "03-eval.json", [{"id": "c"}])
    assert [row["id"] for row in claims.merge(tmp_path, ["01-data", "02-train", "03-eval"])] == [
        "b",
        "a",
        "c",
    ]
    assert len(read_json(tmp_path / "claims.json")) == 3
    write_json(tmp_path / "claims" / "03-eval.json", [{"id": "a"}])
    with pytest.raises(ValueError, match="'a' is in 01-data and in 03-eval"):
        claims.merge(tmp_path, ["01-data", "03-eval"])


@pytest.mark.parametrize(
    ("interval", "told"),
    [((0.9, 2.2), "From 0.90 to 2.2"), ((1.2, 2.2), ""), ((-1.9, 2.0), "From −1.9 to 2.0")],
)
def test_to_hold_by_a_wide_interval_or_one_about_zero_says_little(interval, told):
    ledger = claims.seed_claims()
    row = claims.audit_row(ledger, "S1-cache-speedup", 1.5, interval)
    assert row["verdict"] == "holds"
    assert row["note"].startswith(told) and ("says little" in row["note"]) == bool(told)
    there = {"answer": 1.5, "answer_interval": interval}
    row = claims.audit_row(ledger, "S1-cache-speedup", 3, (2.9, 3.1), **there)
    assert (row["verdict"], row["answer_verdict"]) == ("not comparable", "holds")
    assert row["note"].startswith(told) and ("says little" in row["note"]) == bool(told)


def test_nats_are_wide_as_what_they_are_logarithms_of():
    assert claims.widely("measurement", "holds", (6.1, 7.6), "nats")
    assert not claims.widely("measurement", "holds", (6.8, 7.3), "nats")
    assert not claims.widely("measurement", "holds", (6.1, 7.6), "seconds")
