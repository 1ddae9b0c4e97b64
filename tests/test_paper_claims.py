"""Claims, verdicts, and merging them."""

import numpy as np
import pytest

from paper import claims
from paper.bars import Bar
from paper.files import read_json, write_json

LEDGER = {
    "S1": {
        "id": "S1",
        "statement": "It is 1.88 times smaller.",
        "seed_value": 1.88,
        "unit": "×",
        "section": "1",
        "quote": "1.88x",
    }
}


@pytest.mark.parametrize(
    "seed, measured, interval, verdict",
    [
        (1045.31, 1012.0, (1000.0, 1050.0), "reproduced"),
        (1045.31, 1012.0, (1000.0, 1020.0), "corrected"),
        ("25x", 3.0, (1.0, 4.0), "corrected"),
        (1, 1, None, "reproduced"),
        (149000, 456556, None, "corrected"),
        (1.88, 1.8806, None, "reproduced"),
        (1.88, 1.8851, None, "corrected"),
        (1.9, "two", None, "corrected"),
        ("yes", "yes", None, "reproduced"),
    ],
)
def test_the_verdict_rule(seed, measured, interval, verdict):
    assert claims.judge(seed, measured, interval) == verdict


def test_a_bar_is_judged_by_what_was_measured():
    bar = Bar("int8-size", "Smaller in int8", "interval", "2026-11-25", ">=", 3.7, "×")
    row = claims.bar_row(bar, np.float64(3.8), (np.float32(3.75), 4))
    assert row["verdict"] == "pass" and row["measured"] == 3.8 and row["interval"] == [3.75, 4]
    assert row["seed_value"] is None and row["threshold"] == "≥ 3.7×"
    assert claims.bar_row(bar, 3.8, (3.5, 4))["verdict"] == "undecided"
    assert claims.bar_row(bar, 3.0, (2.5, 3.5))["verdict"] == "fail"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"verdict": "great"}, "verdict 'great' is unknown: choose one of pass, fail, undecided,"),
        ({"interval": (2, 1)}, r"interval \(2, 1\) is not ordered"),
        ({"interval": (float("nan"), 1)}, "is not ordered"),
    ],
)
def test_a_claim_that_cannot_be_judged_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        claims.audit_row(LEDGER, "S1", 1, **options)


def test_an_audit_row_takes_statement_value_and_unit_from_the_ledger():
    row = claims.audit_row(LEDGER, "S1", 3.9, correct=3.9, note="n")
    assert (
        row["verdict"] == "corrected"
        and row["seed_value"] == 1.88
        and row["unit"] == "×"
        and row["correct"] == 3.9
    )
    assert (
        row["section"] == "1"
        and row["quote"] == "1.88x"
        and row["note"] == "n"
        and row["statement"].startswith("It is")
    )
    assert claims.audit_row(LEDGER, "S1", 2, unit="x", verdict="refuted")["unit"] == "x"
    with pytest.raises(ValueError, match="'S2' is not in seed_claims.toml: did you mean 'S1'"):
        claims.audit_row(LEDGER, "S2", 1)


def test_the_ledger_loads_and_refuses_a_repeated_id(tmp_path):
    assert len(claims.seed_claims()) > 40
    path = tmp_path / "x.toml"
    path.write_text('[[claim]]\nid = "a"\n[[claim]]\nid = "b"\n[[claim]]\nid = "a"\n')
    with pytest.raises(ValueError, match="lists 'a' twice"):
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
