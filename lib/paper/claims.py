"""Claims with verdicts: our own bars pass or fail, the seed report's figures are reproduced,
corrected or refuted.

A row is {id, statement, seed_value, measured, unit, interval, threshold, verdict, notebook,
cell_id}; rows of the audit also carry where the seed report says it (`section`), the right value
(`correct`) and a `note`."""

import difflib
import math
import tomllib
from pathlib import Path

from .bars import VERDICTS, Bar
from .files import plain, read_json, write_json

OWN, AUDIT = VERDICTS, ("reproduced", "corrected", "refuted")
# What the seed report states, in the checkout that this code is part of.
LEDGER = Path(__file__).resolve().parents[2] / "data" / "seed_claims.toml"


def seed_claims(path: Path = LEDGER) -> dict:
    """The seed report's claims by id, as the ledger's `[[claim]]` tables list them; ValueError
    names a repeated id."""
    rows = tomllib.loads(Path(path).read_text(encoding="utf-8"))["claim"]
    ledger = {row["id"]: row for row in rows}
    if len(ledger) < len(rows):
        ids = [row["id"] for row in rows]
        twice = next(i for i in ids if ids.count(i) > 1)
        raise ValueError(f"{Path(path).name} lists {twice!r} twice: give each claim its own id")
    return ledger


def bar_row(bar: Bar, measured, interval=None, of: str = "") -> dict:
    """A row for a bar of ours: its verdict is derived from what was measured, a number with its
    interval, or (count, total). `of` names the case that stands for all. An interval of NaN is
    not written."""
    verdict = bar.verdict(measured, interval)
    shown = "{:,}/{:,}".format(*measured) if bar.rule == "all" else measured
    statement = f"{bar.statement} ({of})" if of else bar.statement
    known = interval if interval is None or all(map(math.isfinite, interval)) else None
    row = _row(bar.id, statement, None, shown, bar.unit, known, bar.threshold, verdict)
    bound = {} if bar.rule == "all" else {"op": bar.op, "bound": bar.value}
    return {**row, "rule": bar.rule, **bound}


def table_cases(rows, value: str, case: str) -> dict:
    """{case: (measured, (low, high))} of a DataFrame with the columns low and high."""
    return {
        str(row[case]): (float(row[value]), (float(row["low"]), float(row["high"])))
        for row in rows.to_dict("records")
    }


def audit_row(
    ledger: dict, id, measured, *, unit=None, interval=None, verdict=None, correct=None, note=""
) -> dict:
    """A row about a claim of the seed report; without `verdict`, the rule of `judge`. ValueError
    names an unknown id."""
    if id not in ledger:
        near = difflib.get_close_matches(id, ledger, n=1, cutoff=0)[0]
        raise ValueError(f"audit {id!r} is not in {LEDGER.name}: did you mean {near!r}?")
    seed = ledger[id]
    value = seed.get("seed_value")
    chosen = verdict or judge(value, plain_value(measured), interval)
    row = _row(
        id,
        seed["statement"],
        value,
        measured,
        seed.get("unit", "") if unit is None else unit,
        interval,
        None,
        chosen,
    )
    about = {name: seed.get(name, "") for name in ("section", "quote", "kind")}
    return {**row, **about, "correct": plain_value(correct), "note": note}


def judge(seed_value, measured, interval=None) -> str:
    """`reproduced` if the seed's value lies in our interval, or equals ours where there is none;
    `corrected` otherwise.

    A decimal number equals ours if ours rounds to it at the digits the seed gives; a whole number
    only exactly."""
    if interval is not None:
        low, high = interval
        same = isinstance(seed_value, (int, float)) and low <= seed_value <= high
    elif isinstance(seed_value, float) and isinstance(measured, (int, float)):
        same = round(measured, len(repr(seed_value).partition(".")[2])) == seed_value
    else:
        same = seed_value == measured
    return "reproduced" if same else "corrected"


def _row(id, statement, seed_value, measured, unit, interval, threshold, verdict) -> dict:
    if verdict not in (*OWN, *AUDIT):
        raise ValueError(
            f"claim {id!r}: verdict {verdict!r} is unknown: choose one of "
            f"{', '.join((*OWN, *AUDIT))}"
        )
    if interval is not None:
        low, high = (plain_value(x) for x in interval)
        if not low <= high:
            raise ValueError(
                f"claim {id!r}: interval ({low}, {high}) is not ordered: give (low, high)"
            )
        interval = [low, high]
    return {
        "id": id,
        "statement": statement,
        "seed_value": plain_value(seed_value),
        "measured": plain_value(measured),
        "unit": unit,
        "interval": interval,
        "threshold": threshold,
        "verdict": verdict,
    }


def plain_value(value):
    """A scalar as JSON holds it; NumPy and torch scalars included."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else plain(value)


def merge(run_dir: Path, order) -> list[dict]:
    """claims/*.json of the notebooks in `order` as one list, written to claims.json; ValueError if
    an id occurs twice."""
    rows, seen = [], {}
    for name in order:
        path = Path(run_dir) / "claims" / f"{name}.json"
        for row in read_json(path) if path.is_file() else ():
            if row["id"] in seen:
                raise ValueError(
                    f"claim {row['id']!r} is in {seen[row['id']]} and in {name}: give each "
                    "claim its own id"
                )
            seen[row["id"]] = name
            rows.append(row)
    write_json(Path(run_dir) / "claims.json", rows)
    return rows
