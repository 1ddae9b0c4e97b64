"""The ledger of the audit: every number of the original report's results is in the words of some
row, every row is whole, and every verdict would change with its measurement."""

import re
import tomllib

import pytest

from paper import bars, claims, statements
from paper.project import Project
from paper.statements import (
    ANSWER_ONLY,
    BETTER,
    FAILS,
    HOLDS,
    INCOMPARABLE,
    SLIP,
    TIMES,
    UNEXAMINED,
)
from statement_values import failing, holding

ROWS = tomllib.loads(statements.LEDGER.read_text(encoding="utf-8"))["claim"]
LEDGER = statements.read()
CHAPTERS = {*Project.find().chapters, "report"}
OLD_WORDS = re.compile(r"\b(reproduced|corrected|refuted|correct figure)\b", re.I)

# The number tokens of §1-§4 of the original report, section by section. Names that hold digits
# (FP32, Int8, SHA-256, float32,
# the figure in a heading) are no numbers of its results.
NUMBERS = {
    "1": "1 1045.31 1.95x 1.88x +0.06 +2.32 97% 42",
    "2": "1 128 4 1004 512 2 ~149K 1.99 n^2 O(n) -128 127 127.0 -8 7 7.0",
    "3.1": (
        "50,000 1004 80% 20% 42 1a2b3c4d5e6f7890abcdef1234567890 0.001 10 100 4 64 1.0 7.21 "
        "6.96 0.25 3.5%"
    ),
    "3.2": "10,000 1045.31 1052.49 +0.06 +0.7% 1054.75 +2.32 +0.9% <1%",
    "3.3": "50 3 17.47 0.52 1.00x 8.98 0.43 1.95x O(n) 1 n/2 25x",
    "3.4": (
        "1.99 1.00x 1045.31 9.23 0.51 1.06 1.88x 1052.49 +0.06 22.68 0.59 1054.75 +2.32 22.74 "
        "0.64 4x 8x 1 <1% 2.5x"
    ),
    "4.1": "1045.31 6.95 ~1050 ~7.00 64 512",
    "4.2": "0",
    "4.3": "64 128 256 ~40K ~1100 ~149K 1045.31 ~570K ~1020",
}


def sections(row):
    return row.get("sections", [row["section"]])


def holds(quote, token):
    """Whether the token stands in the quote as a number of its own, not inside a longer one."""
    before = "" if token[0] in "+~<-" else r"(?<![\w.,])"
    after = "" if token[-1] in "%)" else r"(?![\d%]|[.,]\d)"
    return re.search(before + re.escape(token) + after, quote) is not None


@pytest.mark.parametrize(
    "section, token", [(s, token) for s, text in NUMBERS.items() for token in text.split()]
)
def test_every_number_of_the_seed_report_is_in_a_row(section, token):
    assert [row["id"] for row in ROWS if section in sections(row) and holds(row["quote"], token)]


def test_a_number_inside_a_longer_one_does_not_count():
    assert not holds("SEED=421, SALT=1a2b", "42")
    assert not holds("Perplexity: 1045.31", "1045")
    assert not holds("1052.49", "52.49")
    assert holds("Warmup steps: 10", "10") and not holds("Steps: 100", "10")


def test_ids_are_unique_and_say_their_section():
    ids = [row["id"] for row in ROWS]
    assert len(ids) == len(set(ids))
    for row in ROWS:
        assert re.fullmatch(r"S\d+(-[a-z0-9]+)+", row["id"]), row["id"]
        assert row["id"].split("-")[0] == "S" + row["section"].replace(".", ""), row["id"]


def test_rows_follow_the_order_of_the_report():
    order = [[int(part) for part in row["section"].split(".")] for row in ROWS]
    assert order == sorted(order)


def test_conclusions_and_limits_have_rows():
    places = [section for row in ROWS for section in sections(row)]
    assert places.count("5") >= 5 and places.count("6") >= 8 and places.count("7") >= 10


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_row_is_whole(row):
    assert all(row[key].strip() for key in ("quote", "statement", "how"))
    assert "\ufffd" not in row["quote"] and not OLD_WORDS.search(row["how"])
    assert row["notebook"] in CHAPTERS
    assert (
        "sections" not in row or row["section"] == row["sections"][0] and len(row["sections"]) > 1
    )
    assert LEDGER[row["id"]].kind == row["kind"]
    answered = "Answer:" in row["how"] or row["kind"] in ANSWER_ONLY
    assert bool(row.get("answered_at")) == answered, "how says what the answer is, and where"


@pytest.mark.parametrize("said", LEDGER.values(), ids=lambda said: said.id)
def test_every_verdict_changes_when_its_measurement_does(said):
    if said.decides == "machine" and said.unit in TIMES:  # no clock speaks of another machine's
        assert {said.verdict(*of(said)) for of in (holding, failing)} == {INCOMPARABLE}
        return
    otherwise = INCOMPARABLE if said.decides else FAILS
    if said.kind not in ANSWER_ONLY:
        wrong = SLIP if said.kind == "arithmetic" else otherwise
        assert said.verdict(*holding(said)) == HOLDS
        assert said.verdict(*failing(said)) == wrong
    assert said.verdict(None) == UNEXAMINED
    if said.answered_at:
        assert said.answer_verdict(*holding(said)) == HOLDS
        beyond = BETTER if said.better == "above" else otherwise  # `failing` goes up
        assert said.answer_verdict(*failing(said)) == beyond


def test_better_is_possible_on_one_side_and_in_an_answer_only():
    for said in filter(lambda said: said.better, LEDGER.values()):
        ends = (said.seed_value / 2, said.seed_value * 2)
        told = [said.answer_verdict(end) for end in ends]
        assert told == ([FAILS, BETTER] if said.better == "above" else [BETTER, FAILS])
        assert said.answer_verdict(said.seed_value) == HOLDS
        assert BETTER not in [said.verdict(end) for end in ends]
    assert sum(bool(said.better) for said in LEDGER.values()) == 3


def test_a_conclusion_that_the_machine_decides_is_told_with_the_originals_own_number():
    """Where a number of the report's own is what its conclusion is about: on another machine alone
    nothing follows."""
    ledger, told = claims.seed_claims(), {}
    for said in filter(lambda said: said.own, LEDGER.values()):
        assert isinstance(ledger[said.own]["seed_value"], float) and said.rule == "bar"
        told[said.id] = claims.audit_row(ledger, said.id, *holding(said), note="So.")["note"]
        assert LEDGER[said.own].decides == "machine"
    assert told == {
        "S6-inefficient": "So. Its own number, 2.5×, meets it.",
        "S7-cache-tradeoff": "So. Its own number, 1.95×, meets it.",
        "S7-cache-essential": "So. Its own number, 1.95×, misses it.",
    }
    about = {id for id, said in LEDGER.items() if said.kind == "conclusion" and said.threshold}
    times = {id for id in about if LEDGER[id].unit in ("×", "times the FP32 time")}
    # of these two the original gives no time: kernels, an equal comparison
    assert times - set(told) == {"S34-production", "S7-compression"}


def test_what_follows_from_printed_numbers_alone_is_said_to():
    own = {id for id, said in LEDGER.items() if said.printed}
    assert own == {"S31-improvement", "S33-ratio", "S34-fp32-row", "S41-rope-loss"}
    assert {id for id, said in LEDGER.items() if "its own numbers" in said.how} <= own


def test_what_explains_is_asked_for_more_than_half():
    own = [
        said for said in LEDGER.values() if said.unit.startswith(("% of the gap", "% of the ex"))
    ]
    assert {said.id for said in own} == {"S33-overhead", "S34-cause", "S34-scales"}
    assert {(said.op, said.value) for said in own} == {(">", 50)}


def test_a_size_is_quoted_in_the_unit_that_the_report_prints():
    for said in LEDGER.values():
        for unit in re.findall(r"\b(?:MB|MiB|KiB)\b", said.quote):
            assert unit == (said.seed_unit or said.unit), said.id
        if "iB" in said.unit:
            assert said.seed_unit, said.id


def test_no_unit_is_in_parentheses_because_it_stands_in_some():
    """ "(original report 2 as exponent of n)"."""
    for said in (*LEDGER.values(), *bars.read().values()):
        assert "(" not in said.unit + getattr(said, "seed_unit", ""), said.id


def test_one_question_of_two_rows_has_one_chapter_and_one_rule():
    """What is judged by the same quantity is judged by the same measurement."""
    rows = {}
    for said in LEDGER.values():
        if said.unit.startswith("nats, "):
            rows.setdefault((said.unit, said.answered_at), set()).add(said.notebook)
    assert all(len(chapters) == 1 for chapters in rows.values())
    assert LEDGER["S6-toy"].notebook == LEDGER["S6-scaling"].notebook


def test_only_measurements_and_conclusions_can_stay_undecided_and_only_arithmetic_slips():
    can = {said.kind: set() for said in LEDGER.values()}
    for said in LEDGER.values():
        if said.kind not in ANSWER_ONLY:
            can[said.kind] |= {said.verdict(*holding(said)), said.verdict(*failing(said))}
    assert can["setting"] == can["conclusion"] == {HOLDS, FAILS}
    assert can["arithmetic"] == {HOLDS, SLIP}
    assert can["measurement"] == {HOLDS, FAILS, INCOMPARABLE}
    assert {"process", "future"} <= set(can)


def test_every_chapter_has_something_to_audit():
    assert {row["notebook"] for row in ROWS} == CHAPTERS - {"A4-engine", "A6-gpu"}


def test_one_statement_has_one_row():
    said = [row["statement"] for row in ROWS]
    quoted = [(row["quote"], row["seed_value"]) for row in ROWS]
    assert len(set(said)) == len(said) and len(set(quoted)) == len(quoted)
