"""Verdicts are derived from a bar and a measurement by one rule."""

import math
import re
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paper import bars, claims
from paper.files import read_json

NUMBER = st.floats(-1e6, 1e6)
AT_MOST = bars.Bar("b", "s", "interval", "2026-11-25", "<=", 1.0, "%")


@pytest.mark.parametrize(
    ("op", "interval", "verdict"),
    [
        ("<=", (0.5, 1.0), "pass"),
        ("<", (0.5, 1.0), "undecided"),
        ("<", (0.2, 0.9), "pass"),
        ("<=", (0.9, 1.1), "undecided"),
        ("<=", (1.1, 1.3), "fail"),
        (">=", (1.0, 2.0), "pass"),
        (">", (1.0, 2.0), "undecided"),
        (">", (0.1, 0.9), "fail"),
    ],
)
def test_the_whole_interval_decides(op, interval, verdict):
    bar = bars.Bar("b", "s", "interval", "2026-11-25", op, 1.0)
    assert bar.verdict(sum(interval) / 2, interval) == verdict


@given(NUMBER, NUMBER, NUMBER, st.sampled_from(sorted(bars.OPERATORS)))
def test_pass_and_fail_exclude_each_other_and_narrowing_never_turns_them(a, b, bound, op):
    low, high = sorted((a, b))
    bar = bars.Bar("b", "s", "interval", "2026-11-25", op, bound)
    wide = bar.verdict(low, (low, high))
    for end in (low, high):
        narrow = bar.verdict(end, (end, end))
        assert narrow in ("pass", "fail") and (wide == "undecided" or narrow == wide)
    exact = bars.Bar("b", "s", "exact", "2026-11-25", op, bound)
    assert (exact.verdict(low) == "pass") is bars.OPERATORS[op](low, bound)


@given(st.floats(1e-20, 1e20), st.sampled_from(sorted(bars.OPERATORS)))
def test_a_threshold_in_words_says_what_is_asked(value, op):
    bar = bars.Bar("b", "s", "exact", "2026-11-25", op, value)
    sign, said = bar.threshold.split(" ")
    assert "e" not in said and sign == bars.SIGNS[op]
    powers = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    plain = said.replace(",", "").replace("·10", "e").translate(powers)
    assert float(plain) == float(f"{value:g}")


@given(st.integers(0, 50), st.integers(1, 50))
def test_all_means_all(count, total):
    bar = bars.Bar("b", "s", "all", "2026-11-25")
    if count > total:
        with pytest.raises(ValueError, match="is no share"):
            bar.verdict((count, total))
    else:
        assert bar.verdict((count, total)) == ("pass" if count == total else "fail")


def test_the_hardest_case_stands_for_all():
    cases = {"a": (0.2, (0.1, 0.3)), "b": (0.9, (0.7, 1.1)), "c": (0.5, (0.4, 0.6))}
    assert AT_MOST.worst(cases) == "b"
    assert AT_MOST.worst({**cases, "d": (2.0, (1.5, 2.5))}) == "d"
    at_least = bars.Bar("b", "s", "interval", "2026-11-25", ">=", 0.0)
    assert at_least.worst(cases) == "a"
    near = {"far": (1.03, (0.87, 1.21)), "near": (0.99, (0.96, 1.02))}  # reaches lowest; is lowest
    assert at_least.worst(near) == "far" and at_least.told_worse(near, "near") == ""
    alike = {"far": (1.2301, (0.96, 1.58)), "near": (1.2299, (0.97, 1.56))}
    assert at_least.told_worse(alike, "far") == ""  # both are written 1.23
    page = {"far": (1.0440, (1.016, 1.072)), "near": (1.0391, (1.028, 1.050))}  # four digits each
    assert at_least.told_worse(page, "far") == "the worst estimate, 1.039, is that of near"
    said = at_least.told_worse(near, "far")
    row = claims.bar_row(at_least, *near["far"], "far", said)
    assert row["statement"].endswith(" (far; the worst estimate, 0.990, is that of near)")
    assert row["case"] == "far"


@pytest.mark.parametrize(
    ("measured", "interval", "message"),
    [
        (0.5, None, "needs its 95 % interval"),
        (math.nan, (0, 1), "measured as nan"),
        (3.0, (0, 1), "lies outside its own interval"),
        (0.5, (1, 0), "lies outside its own interval"),
    ],
)
def test_what_cannot_be_judged_is_refused(measured, interval, message):
    with pytest.raises(ValueError, match=message):
        AT_MOST.verdict(measured, interval)
    with pytest.raises(ValueError, match="takes no interval"):
        bars.Bar("b", "s", "exact", "2026-11-25", "<", 1).verdict(0.5, (0, 1))
    with pytest.raises(ValueError, match="is no share"):
        bars.Bar("b", "s", "all", "2026-11-25").verdict((0, 0))


@pytest.mark.parametrize(
    "field",
    [
        {"rule": "often"},
        {"op": "=="},
        {"value": math.inf},
        {"changes": ({"was": 1},)},
        {"changes": ({"date": "d", "was": "a", "why": "b"},)},
        {"changes": ({"date": "d", "was": "a", "why": "b", "kind": "better"},)},
    ],
)
def test_a_bar_that_is_not_whole_is_refused(field):
    whole = {"id": "b", "statement": "s", "rule": "exact", "written": "d", "op": "<", "value": 1}
    with pytest.raises(ValueError, match="bar 'b'"):
        bars.Bar(**{**whole, **field})


def test_the_file_of_bars_is_whole(tmp_path):
    found = bars.read()
    assert len(found) > 40
    for bar in found.values():
        dates = [bar.written, *(change["date"] for change in bar.changes)]
        assert dates == sorted(dates) and all(c["was"] and c["why"] for c in bar.changes)
        assert (
            (bar.against or bar.threshold)
            and bar.statement[0].isupper()
            and not bar.statement.endswith(".")
        )
    with pytest.raises(ValueError, match="did you mean 'speedup'"):
        bars.find(found, "sped-up")
    twice = tmp_path / "bars.toml"
    row = '[[bar]]\nid = "a"\nstatement = "S"\nrule = "all"\nwritten = 2026-11-25\n'
    twice.write_text(row + row)
    with pytest.raises(ValueError, match="lists 'a' twice"):
        bars.read(twice)


def test_changes_are_counted_and_grouped_by_kind():
    rows = [{"id": id} for id in ("time-model", "data-oracle", "data-pinned", "not-here")]
    found = bars.changed(rows)
    assert (found["bars"], found["changes"]) == (2, 8)
    told = {name: [bar.id for bar, _, _ in its] for name, its in found["kinds"]}
    assert told == {
        bars.CHANGES["looser"]: ["time-model"] * 2,
        bars.CHANGES["stricter rule"]: ["time-model"] * 2,
        bars.CHANGES["tighter"]: ["time-model"],
        bars.CHANGES["timed otherwise"]: ["time-model"],
        bars.CHANGES["words"]: ["time-model", "data-oracle"],
    }
    assert [*told] == [name for name in bars.CHANGES.values() if name in told]
    every = {change["kind"] for bar in bars.read().values() for change in bar.changes}
    assert every == {*bars.CHANGES}
    assert bars.changed([{"id": "data-pinned"}]) == {"bars": 0, "changes": 0, "kinds": []}


def test_bars_that_are_asked_no_more_are_listed_with_their_day_and_reason(tmp_path):
    asked, gone = bars.read(), bars.dropped()
    assert gone and len({bar.id for bar in gone} - {*asked}) == len(gone)
    for bar in gone:
        assert bar.written <= bar.dropped and all((bar.statement, bar.bound, bar.why))
        assert not bar.why.endswith(".") and "(" not in bar.bound + bar.statement
    assert [bar.dropped for bar in gone] == sorted(bar.dropped for bar in gone)
    path = tmp_path / "bars.toml"
    path.write_text(
        '[[bar]]\nid = "a"\nstatement = "S"\nrule = "all"\nwritten = 2026-11-25\n'
        '[[dropped]]\nid = "b"\nstatement = "S"\nbound = "< 1"\nwritten = 2026-11-25\n'
    )
    with pytest.raises(TypeError, match="dropped"):
        bars.dropped(path)


def test_what_the_committed_page_judged_is_asked_still_or_listed_as_dropped():
    """So no bar goes without a word, from one rendering to the next."""
    known = {*bars.read(), *(bar.id for bar in bars.dropped())}
    rows = read_json(bars.BARS.parents[1] / "reports" / "reference" / "claims.json")
    own = {row["id"] for row in rows if not claims.audited(row)}
    assert own and own <= known


def test_a_row_says_what_decided():
    row = claims.bar_row(AT_MOST, 0.5, (0.4, 0.6), "2 blocks")
    assert row["verdict"] == "pass" and row["statement"] == "s (2 blocks)"
    named = claims.bar_row(AT_MOST, 0.5, (0.4, 0.6), "bigram (best)")
    assert named["statement"] == "s: bigram (best)"
    assert (row["op"], row["bound"], row["threshold"]) == ("<=", 1.0, "≤ 1 %")
    whole = claims.bar_row(bars.Bar("b", "s", "all", "2026-11-25"), (1200, 1200))
    assert (whole["measured"], whole["threshold"], whole["interval"]) == (
        "1,200/1,200",
        "all",
        None,
    )
    one = claims.bar_row(AT_MOST, 0.5, (math.nan, math.nan))  # a single process
    assert one["verdict"] == "undecided" and one["interval"] is None


def test_what_was_tried_is_told_where_a_bar_is_not_met():
    tried = replace(AT_MOST, tried="Bound by reading. Tried: less of it.")
    assert "tried" not in claims.bar_row(tried, 0.5, (0.4, 0.6))
    assert "tried" not in claims.bar_row(AT_MOST, 1.5, (0.4, 1.6))
    for ends in ((1.4, 1.6), (0.4, 1.6), None):
        found = claims.bar_row(tried, 1.5, ends or (math.nan, math.nan))
        assert found["tried"] == tried.tried and found["verdict"] != "pass"


def row(measured, interval, verdict, op="<=", bound=2.0, **more):
    asked = {"id": "b", "unit": "%", "threshold": f"{bars.SIGNS.get(op)} {bound:g} %", "op": op}
    return asked | dict(measured=measured, interval=interval, verdict=verdict, bound=bound) | more


def test_why_a_bar_is_not_met_is_told_by_its_numbers():
    rows = [
        row(1.0, (0.5, 1.5), "pass"),
        row(2.2, (2.1, 2.3), "fail", case="1 block"),
        row(1.9, (1.7, 2.2), "undecided"),
        row(2.1, (1.7, 2.2), "undecided"),
        row(2.2, (1.2, 4.0), "undecided", op=">="),
        row(1.9, (1.75, 2.05), "undecided", case="b", also="the worst estimate is that of a"),
        row(0.013, (-0.026, 0.04), "undecided", op=">", bound=0.0),
        row(0.0, (0.0, 0.0), "fail", op="<", bound=0.0),
        row(1.0, (math.nan, math.nan), "undecided"),
        row(1.0, None, "undecided"),  # the same as it is kept
        claims.bar_row(replace(AT_MOST, rule="all"), (3, 4), None),
    ]
    told = bars.told(rows)
    narrower = "; an interval {} times narrower would decide it."
    assert told[0] == (
        "[`b`](#claim-b), fail (1 block): 2.20\u202f% [2.10, 2.30], asked ≤ 2 %. "
        "The estimate misses it by 10 % of the bar, and so does the whole interval."
    )
    assert [line.split("%. ", 1)[1] for line in told[1:-1]] == [
        "The estimate meets it by 5.0 % of the bar" + narrower.format(3.0),
        "The estimate misses it by 5.0 % of the bar" + narrower.format(4.0),
        "The estimate meets it by 10 % of the bar" + narrower.format(5.0),
        "The estimate meets it by 5.0 % of the bar; an interval 33 % narrower would decide this "
        "case.",
        "The estimate meets it by 0.013 %" + narrower.format(3.0),
        "The estimate is the bar itself.",
        "There is no spread to make an interval of.",
        "There is no spread to make an interval of.",
    ]
    assert "undecided (b; the worst estimate is that of a): " in told[4]
    assert told[-1].endswith("Not all of them hold.")
    audited = {**rows[0], "kind": "setting"}
    listed = bars.unmet([*rows, audited]).splitlines()
    assert [line.removeprefix("- ") for line in listed[2:]] == told and listed[1] == ""
    assert bars.unmet([audited]) == "Every bar is met."


def test_what_is_timed_is_no_identity():
    timed = ("quickest", "fast", "times", "seconds", "speed")
    for bar in bars.read().values():
        told = re.findall(r"\w+", bar.statement.lower())
        assert bar.sort != "identity" or not {*timed} & {*told}, bar.id


def test_identities_and_sizes_are_counted_apart():
    size = bars.Bar("a", "s", "exact", "2026-11-25", ">=", 3.7, "×", sort="size")
    same = bars.Bar("b", "s", "all", "2026-11-25")
    assert (size.sort, same.sort, AT_MOST.sort) == ("size", "identity", "quantity")
    with pytest.raises(ValueError, match="bar 'a': sort 'bytes' is not one of quantity, size"):
        bars.Bar("a", "s", "all", "2026-11-25", sort="bytes")
    rows = [
        claims.bar_row(size, 3.8),
        claims.bar_row(same, (3, 3)),
        claims.bar_row(same, (2, 3)),
        claims.bar_row(AT_MOST, 0.5, (0.4, 0.6), "2 blocks"),
        claims.bar_row(AT_MOST, 0.5, (0.4, 1.6)),
    ]
    assert [row["sort"] for row in rows] == ["size", *["identity"] * 2, *["quantity"] * 2]
    assert [row["case"] for row in rows[3:]] == ["2 blocks", ""]
    assert bars.tally(rows) == {
        "exact": {"pass": 2, "fail": 1, "undecided": 0, "total": 3},
        "quantities": {"pass": 1, "fail": 0, "undecided": 1, "total": 2},
    }


def test_rows_of_a_table_are_cases():
    table = pd.DataFrame({"m": ["a", "b"], "x": [1, 2], "low": [0, 1], "high": [2, 3]})
    assert claims.table_cases(table, "x", "m") == {"a": (1.0, (0.0, 2.0)), "b": (2.0, (1.0, 3.0))}


def test_a_bound_that_is_measured_is_given_with_the_measurement():
    bar = bars.Bar("b", "s", "interval", "2026-11-25", "<", unit="nats", against="the n-gram's")
    assert bar.at(3.0).verdict(2.0, (1.5, 2.5)) == "pass"
    assert bar.at(2.0).verdict(2.0, (1.5, 2.5)) == "undecided"
    assert bar.at(3.0).threshold == "< 3 nats, the n-gram's"
    with pytest.raises(ValueError, match="is held against the n-gram's: give it"):
        bar.at(None)
    with pytest.raises(ValueError, match="has its own bound"):
        AT_MOST.at(3.0)
