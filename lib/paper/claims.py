"""Claims with verdicts: our own bars pass, fail or stay undecided, and the original report's
statements are judged at its own setting and where they can be answered.

A row is {id, statement, seed_value, measured, unit, interval, threshold, verdict, notebook,
cell_id}; rows of the audit also carry kind, quote, section, decides, answered_at, printed,
answer, answer_interval, answer_verdict, `seed_unit` and a `note`."""

import math
from dataclasses import asdict
from pathlib import Path

from . import statements
from .bars import PASS, VERDICTS, Bar
from .files import plain, read_json, write_json
from .marks import stated
from .numerals import number
from .statements import ANSWER_ONLY, HOLDS, LEDGER, UNEXAMINED, Statement

OWN, AUDIT = VERDICTS, statements.VERDICTS
COPIED, ASKED = "copied", "asked here instead"


def seed_claims(path: Path = LEDGER) -> dict[str, dict]:
    """What the original report states, by id, each row whole; ValueError as `statements.read`."""
    return {id: asdict(statement) for id, statement in statements.read(path).items()}


def audited(row: dict) -> bool:
    """Whether a row is about the original report."""
    return "kind" in row


def settled(row: dict) -> str:
    """The word that counts: of a bar its verdict; of a statement that at the original's own
    setting, or, where it has none, the answer's. A setting that is as stated was only copied."""
    if row.get("kind") == "setting" and row["verdict"] == HOLDS:
        return COPIED
    return row["answer_verdict" if row.get("kind") in ANSWER_ONLY else "verdict"]


def counted(row: dict) -> str:
    """The word by which a statement is counted: `settled`, but what has no setting of the
    original's own, and was answered, says nothing of it, and was asked here instead."""
    elsewhere = row.get("kind") in ANSWER_ONLY and settled(row) != UNEXAMINED
    return ASKED if elsewhere else settled(row)


def bar_row(bar: Bar, measured, interval=None, of: str = "", also: str = "") -> dict:
    """A row for a bar of ours: its verdict is derived from what was measured, a number with its
    interval, or (count, total). `of` names the case that stands for all; `also` what its
    name leaves out. An interval of NaN is not written."""
    verdict = bar.verdict(measured, interval)
    shown = "{:,}/{:,}".format(*measured) if bar.rule == "all" else measured
    said = f"{of}; {also}" if also else of
    case = f": {said}" if "(" in of else f" ({said})"  # in no second parentheses
    statement = f"{bar.statement}{case}" if of else bar.statement
    ends = known(interval)
    row = _row(bar.id, statement, None, shown, bar.unit, ends, bar.threshold, verdict)
    bound = {} if bar.rule == "all" else {"op": bar.op, "bound": bar.value}
    more = {"also": also} if also else {}
    more |= {"tried": bar.tried} if bar.tried and verdict != PASS else {}
    return {**row, "rule": bar.rule, "sort": bar.sort, "case": of, **more, **bound}


def table_cases(rows, value: str, case: str) -> dict:
    """{case: (measured, (low, high))} of a DataFrame with the columns low and high."""
    return {
        str(row[case]): (float(row[value]), (float(row["low"]), float(row["high"])))
        for row in rows.to_dict("records")
    }


def audit_row(
    ledger: dict, id, measured=None, interval=None, *, answer=None, answer_interval=None, note=""
) -> dict:
    """A row about a statement of the original report: `measured` at its own setting, `answer`
    where the question can be answered, None what was not examined. ValueError names an unknown
    id, or a call that does not suit the statement's kind and rule."""
    said = Statement(**statements.find(ledger, id))
    measured, interval = plain_value(measured), plain_interval(interval)
    answer, answer_interval = plain_value(answer), plain_interval(answer_interval)
    verdict = said.verdict(measured, interval)
    about = ("kind", "section", "quote", "decides", "answered_at", "printed")
    answer_verdict = said.answer_verdict(answer, answer_interval)
    ends, answer_ends = known(interval), known(answer_interval)
    wide = says_little(said, verdict, ends), says_little(said, answer_verdict, answer_ends)
    remarks = (note, own_number(ledger, said), *wide)
    return {
        **_row(
            id, said.statement, said.seed_value, measured, said.unit, ends, said.threshold, verdict
        ),
        **{name: getattr(said, name) for name in about},
        "answer": answer,
        "answer_interval": answer_ends,
        "answer_verdict": answer_verdict,
        "seed_unit": said.seed_unit or said.unit,
        "note": " ".join(filter(None, remarks)),
    }


def says_little(said: Statement, verdict: str, interval) -> str:
    """A warning, in words, where a measurement holds by a wide interval; "" elsewhere."""
    if not widely(said.kind, verdict, interval, said.unit):
        return ""
    low, high = (number(end, 2) for end in interval)
    return f"From {low} to {high}: to lie in it says little."


def widely(kind: str, verdict: str, interval, unit: str = "") -> bool:
    """Whether a measurement holds by an interval whose ends lie more than a factor of two apart, or
    on both sides of zero. Nats are logarithms: of what they are logarithms of."""
    if (kind, verdict) != ("measurement", HOLDS) or not interval:
        return False
    if unit.startswith("nats"):
        return interval[1] - interval[0] > math.log(2)
    near, far = sorted(map(abs, interval))
    return far > 2 * near or interval[0] < 0 < interval[1]


def own_number(ledger: dict, said: Statement) -> str:
    """Whether the original's own number meets the bar of one of its conclusions, in words; "" where
    the ledger names none."""
    if not said.own:
        return ""
    row = statements.find(ledger, said.own)
    shown = stated(row["seed_value"], row["unit"])
    return f"Its own number, {shown}, {'meets' if said.met_by(row['seed_value']) else 'misses'} it."


def known(interval):
    """The interval as it is written down: None for one of NaN, which a single run gives."""
    return interval if interval is None or all(map(math.isfinite, interval)) else None


def _row(id, statement, seed_value, measured, unit, interval, threshold, verdict) -> dict:
    return {
        "id": id,
        "statement": statement,
        "seed_value": plain_value(seed_value),
        "measured": plain_value(measured),
        "unit": unit,
        "interval": plain_interval(interval),
        "threshold": threshold,
        "verdict": verdict,
    }


def plain_interval(interval):
    """(low, high) as JSON holds it; None stays."""
    return interval if interval is None else [plain_value(end) for end in interval]


def plain_value(value):
    """A scalar as JSON holds it; NumPy and torch scalars included."""
    known = value is None or isinstance(value, (bool, int, float, str))
    return value if known and not hasattr(value, "tolist") else plain(value)


def merge(run_dir: Path, order) -> list[dict]:
    """claims/*.json of the notebooks in `order` as one list, written to claims.json; ValueError if
    an id occurs twice."""
    rows, seen = [], {}
    for name in order:
        for row in read_json(Path(run_dir) / "claims" / f"{name}.json", ()):
            if row["id"] in seen:
                raise ValueError(
                    f"claim {row['id']!r} is in {seen[row['id']]} and in {name}: give each "
                    "claim its own id"
                )
            seen[row["id"]] = name
            rows.append(row)
    write_json(Path(run_dir) / "claims.json", rows)
    return rows
