"""The rule that judges a statement of the original report, and what is refused."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paper import statements
from paper.bars import OPERATORS
from paper.statements import (
    FAILS,
    HOLDS,
    INCOMPARABLE,
    SLIP,
    UNDECIDED,
    UNEXAMINED,
    WITHIN,
    Statement,
)
from statement_values import failing, holding

NAN = math.nan
FINITE = st.floats(-1e6, 1e6)
FIELDS = {
    "id": "S1-x",
    "section": "1",
    "quote": "1.88x",
    "statement": "It is 1.88 times smaller.",
    "seed_value": 1.88,
    "unit": "×",
    "notebook": "01-data",
    "kind": "arithmetic",
    "how": "Bytes.",
}


def said(**fields):
    return Statement(**{**FIELDS, **fields})


def bar(op="<", value=1, **fields):
    return said(kind="conclusion", op=op, value=value, seed_value="little", **fields)


@pytest.mark.parametrize(
    "statement, measured, verdict",
    [
        (said(), 1.8806, HOLDS),
        (said(), 1.8851, SLIP),
        (said(kind="setting"), 1.88, HOLDS),
        (said(kind="setting"), 1.8806, FAILS),
        (said(seed_value=1), 1, HOLDS),
        (said(seed_value=1), 1.01, SLIP),
        (said(seed_value=149000), 149400, SLIP),
        (said(seed_value=149000, step=1000), 149400, HOLDS),
        (said(seed_value=149000, step=1000), 149600, SLIP),
        (said(seed_value=7.0, step=0.01), 7.02, SLIP),
        (said(seed_value="rope", kind="setting"), "rope", HOLDS),
        (said(seed_value="rope", kind="setting"), "none", FAILS),
    ],
)
def test_equal_is_equal_at_the_digits_stated(statement, measured, verdict):
    assert statement.verdict(measured) == verdict
    assert statement.verdict(None) == UNEXAMINED


@pytest.mark.parametrize(
    "interval, verdict",
    [((1.5, 2.5), HOLDS), ((1.9, 2.1), FAILS), ((1.884, 2.1), HOLDS), ((NAN, NAN), UNDECIDED)],
)
def test_a_measurement_holds_where_its_interval_meets_the_digits_stated(interval, verdict):
    statement = said(kind="measurement")
    assert statement.verdict(2.0, interval) == verdict
    decided = replace(statement, decides="machine").verdict(2.0, interval)
    assert decided == (INCOMPARABLE if verdict == FAILS else verdict)


@pytest.mark.parametrize("interval", [(1.5, 2.5), (1.9, 2.1), (NAN, NAN)])
def test_a_time_of_another_machine_is_not_met_by_chance(interval):
    time = said(kind="measurement", decides="machine", unit="ms")
    assert time.verdict(2.0, interval) == INCOMPARABLE and time.verdict(None) == UNEXAMINED
    assert replace(time, decides="").verdict(2.0, (1.5, 2.5)) == HOLDS


@pytest.mark.parametrize("op", [*OPERATORS, WITHIN])
@given(value=st.floats(-50, 50), ends=st.tuples(FINITE, FINITE).map(sorted), at=st.floats(0, 1))
def test_a_bar_is_judged_by_every_point_of_the_interval(op, value, ends, at):
    value = abs(value) if op == WITHIN else value
    low, high = ends
    right = (lambda x: abs(x) <= value) if op == WITHIN else lambda x: OPERATORS[op](x, value)
    points = {right(x) for x in (low, high, min(max(0.0, low), high))}
    told = {frozenset({True}): HOLDS, frozenset({False}): FAILS}.get(frozenset(points), UNDECIDED)
    measured = min(max(low + at * (high - low), low), high)
    assert bar(op, value).verdict(measured, (low, high)) == told
    assert bar(op, value).verdict(measured) == (HOLDS if right(measured) else FAILS)


@given(seed=FINITE, ends=st.tuples(FINITE, FINITE).map(sorted))
def test_an_interval_that_holds_the_stated_value_never_fails(seed, ends):
    low, high = ends
    statement = said(kind="measurement", seed_value=seed)
    assert statement.verdict(low, (min(low, seed), max(high, seed))) == HOLDS
    apart = low - seed > 2 * statement.half + 1e-6 * abs(seed)
    assert not apart or statement.verdict(low, (low, high)) == FAILS


def test_the_answer_is_judged_by_the_same_rule_and_is_no_slip():
    statement = said(answered_at="packed")
    assert statement.answer_verdict(7.1) == FAILS and statement.answer_verdict(1.88) == HOLDS
    assert statement.verdict(7.1) == SLIP and statement.answer_verdict(None) == UNEXAMINED
    trained = bar(answered_at="trained")
    assert trained.answer_verdict(0.5, (0.4, 0.6)) == HOLDS
    assert trained.answer_verdict(0.9, (0.4, 1.6)) == UNDECIDED
    assert trained.answer_verdict(0.9, (NAN, NAN)) == UNDECIDED


@pytest.mark.parametrize("kind", ["process", "future"])
def test_what_was_not_there_to_measure_has_only_an_answer(kind):
    statement = said(kind=kind, op="<=", value=0, answered_at="here", seed_value=42)
    assert statement.verdict(None) == UNEXAMINED
    assert [statement.answer_verdict(n) for n in (0, 1)] == [HOLDS, FAILS]
    with pytest.raises(ValueError, match=rf"is of kind '{kind}' .* give 0 as answer="):
        statement.verdict(0)


@pytest.mark.parametrize(
    "statement, measured, interval, message",
    [
        (said(), "two", None, "was measured as 'two': give a number"),
        (said(), True, None, "was measured as True: give a number"),
        (said(seed_value="rope", kind="setting"), 2, None, "states 'rope': give words"),
        (said(), NAN, None, "was measured as nan: give a finite number, or None"),
        (bar(), math.inf, None, "was measured as inf: give a finite number"),
        (said(), 1.88, (1, 2), "is compared exactly and takes no interval"),
        (said(kind="measurement"), 1.9, None, r"by an interval and has none: give \(low, high\)"),
        (
            said(kind="measurement", rule="bar", op="<", value=2),
            1.9,
            None,
            "judged by an interval and has none",
        ),
        (bar(), 0.5, (0.6, 0.7), "0.5 lies outside it"),
        (bar(), 0.5, (0.7, 0.4), "lies outside it"),
        (bar(), 0.5, (0.4, math.inf), r"interval \(0.4, inf\) is not finite"),
        (bar(), 0.5, (NAN, 1), "is not finite"),
        (bar(), None, (0, 1), "was measured as None: give a number"),
    ],
)
def test_a_wrong_call_is_refused_in_one_line(statement, measured, interval, message):
    with pytest.raises(ValueError, match=message) as error:
        statement.verdict(measured, interval)
    assert "\n" not in str(error.value) and str(error.value).startswith("audit 'S1-x'")


def test_an_answer_that_the_ledger_does_not_ask_for_is_refused():
    with pytest.raises(ValueError, match=r"takes no answer: .* \(answered_at\)"):
        said().answer_verdict(2)
    with pytest.raises(ValueError, match="'S2' is not in seed_claims.toml: did you mean 'S1'"):
        statements.find({"S1": 1}, "S2")


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"kind": "count"}, "kind 'count' is not one of setting, arithmetic, measurement"),
        ({"rule": "near"}, "rule 'near' is not one of equal, interval, bar"),
        ({"kind": "conclusion"}, "rule 'bar' with op '' and value None"),
        ({"op": "<", "value": 1}, "rule 'equal' with op '<' and value 1"),
        ({"kind": "conclusion", "op": "~", "value": 1}, "rule 'bar' with op '~'"),
        ({"kind": "conclusion", "op": "<", "value": math.inf}, "with op '<' and value inf"),
        ({"kind": "measurement", "seed_value": "much"}, "'much' is no number"),
        ({"decides": "machine"}, "decides 'machine': only of measurements"),
        ({"kind": "measurement", "decides": "moon"}, "decides 'moon'"),
        ({"kind": "measurement", "printed": True}, "printed: of kind arithmetic alone"),
        ({"kind": "process", "op": "<", "value": 1}, "needs answered_at"),
    ],
)
def test_a_ledger_row_that_is_not_whole_is_refused(fields, message):
    with pytest.raises(ValueError, match=f"seed_claims.toml: 'S1-x': .*{message}"):
        said(**fields)


def test_a_bar_is_told_with_a_symbol_or_alone():
    assert bar("<", 1, unit="% of perplexity").threshold == "< 1 %"
    assert bar(">=", -128, unit="lowest code").threshold == "≥ −128"
    assert bar(WITHIN, 0.05, unit="nats, a minus b").threshold == "within ±0.05 nats"
    assert bar(">=", 2, unit="×").threshold == "≥ 2×" and said().threshold is None


@pytest.mark.parametrize("kind", statements.KINDS)
@pytest.mark.parametrize("op", [*OPERATORS, WITHIN])
def test_the_values_of_the_mutation_test_are_on_either_side(kind, op):
    statement = said(kind=kind, rule="bar", op=op, value=0.5, answered_at="here")
    assert statement.answer_verdict(*holding(statement)) == HOLDS
    assert statement.answer_verdict(*failing(statement)) == FAILS
