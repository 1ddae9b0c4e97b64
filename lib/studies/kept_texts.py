"""Long runs on real texts, kept with how each was made, for pages that do not run them.

Budgets of minutes need a machine for themselves, and may be run one at a time: what a run finds
takes the place of what was kept under the same names, and the rest stays."""

from math import exp
from pathlib import Path

import pandas as pd

from . import nanogpt, real_texts
from .apart import how_made
from .presets import BUDGETS, SHAKESPEARE
from .real_texts import reader_table

MADE = ["date", "commit", "cpu", "threads", "command"]  # columns of every table
NAMES = {"texts": "budget", "texts-curves": "who", "texts-rates": "who", "texts-costs": "size"}
COLUMNS = ["budget", "text", "parameters", "bar", "judged", "seconds", "allowed_seconds", "nats",
           "low", "high", "ngram_nats", "ngram"]  # fmt: skip
EMPTY = {
    "texts": COLUMNS,
    "texts-curves": ["who", "text", "seconds", "valid_nats"],
    "texts-rates": ["round", "who", "tokens_per_second"],
    "texts-costs": ["size", "low", "high"],
}


def keep(folder: Path, tables: dict[str, pd.DataFrame], made: dict) -> None:
    """Leaves results of long runs for a page that does not run them: tables by their names in
    `NAMES`, with how they were made. A row takes the place of those kept under its name."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = left(folder)
    for name, table in tables.items():
        if len(table):
            own = table.assign(**{column: made[column] for column in MADE})
            others = kept[name][~kept[name][NAMES[name]].isin(table[NAMES[name]])]
            whole = pd.concat([others, own]) if len(others) else own
            whole.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")


def left(folder: Path) -> dict[str, pd.DataFrame]:
    """What `keep` left; tables without a row where there is nothing."""
    places = {name: folder / f"{name}.csv" for name in NAMES}
    return {
        name: pd.read_csv(place) if place.is_file() else pd.DataFrame(columns=EMPTY[name] + MADE)
        for name, place in places.items()
    }


def figure_data(own: dict, kept: dict) -> pd.DataFrame:
    """The curves to draw, of this run's tables and, on Tiny Shakespeare, of those measured apart;
    at the end of each `whole_nats`, which it reached on the whole of its split."""
    apart = ended(kept).query("text == @SHAKESPEARE").assign(who=lambda t: t.who + ", apart")
    shown = pd.concat([table for table in (ended(own), apart) if len(table)] or [ended(own)])
    return shown[shown.seconds > 0].reset_index(drop=True)


def ended(tables: dict) -> pd.DataFrame:
    """Learning curves, which are of a part of a split, and what each reached on the whole."""
    curves, nats = tables["texts-curves"], tables["texts"].set_index("budget").nats
    budget = curves.who.str.removeprefix("ours, ").replace("nanoGPT", nanogpt.WHOLE)
    whole = budget.map(nats).where(~curves.who.duplicated(keep="last"))
    return curves[EMPTY["texts-curves"]].assign(whole_nats=whole)


def found(rows: list[dict], curves: list, beside: dict, costs: pd.DataFrame) -> dict:
    """What a run found, as the tables that `keep` takes."""
    none = {name: pd.DataFrame(columns=columns) for name, columns in EMPTY.items()}
    return none | {
        "texts": pd.DataFrame([*rows, *nanogpt.row(beside)], columns=None if rows else COLUMNS),
        "texts-curves": real_texts.joined(curves, nanogpt.drawn(beside)),
        "texts-rates": beside.get("rates", none["texts-rates"]),
        "texts-costs": costs.dropna(subset="low"),
    }


def judgements(own: dict[str, pd.DataFrame], kept: dict[str, pd.DataFrame]) -> list[tuple]:
    """What this run's tables say of the bars, and kept ones of the bars that this run did not
    measure: bar, measured, its interval or None, and of what."""
    here = _judged(own)
    done = {bar for bar, *_ in here}
    apart = [(*row, f"{of}, measured apart") for *row, of in _judged(kept) if row[0] not in done]
    return here + apart


def _judged(tables):
    found, rows = [], tables["texts"].fillna({"bar": "", "allowed_seconds": 0}).to_dict("records")
    for row in rows:
        if row["bar"] and real_texts.kept_time(row):
            found.append((row["bar"], row[row["judged"]], _ends(row), _told(row)))
        if row["bar"] == "texts-fifth":  # allowed a fifth of the recipe's time, it may take more
            share = row["seconds"] / row["allowed_seconds"] / 5
            found.append(("texts-fifth-time", share, None, _told(row)))
    if longest := _longest(rows):
        found.append(("texts-30", longest["nats"], _ends(longest), _told(longest)))
    in_time, rates = real_texts.in_time(rows), tables["texts-rates"]
    if in_time[1]:
        found.append(("texts-budgets", in_time, None, "real texts"))
    if rates["round"].nunique() > 1:  # one has no interval
        found.append(("texts-throughput", *nanogpt.times_as_fast(rates), "the same architecture"))
    return found


def _ends(row):
    """The interval of what a row's bar judges, its nats or its perplexity."""
    ends = (row["low"], row["high"])
    return tuple(map(exp, ends)) if row["judged"] == "perplexity" else ends


def _told(row):
    """A budget, and what it took: on a machine with other work that may be more."""
    return f"{row['budget']}: {row['seconds']:,.0f} s of training"


def _longest(rows):
    """The row of Tiny Shakespeare's longest budget up to 30 minutes, of models up to 11 M."""
    own = [row for row in rows if row["text"] == SHAKESPEARE and row["allowed_seconds"]
           and max(row["allowed_seconds"], row["seconds"]) <= 1800
           and row["parameters"] <= 11e6]  # fmt: skip
    return max(own, key=lambda row: row["allowed_seconds"], default=None)


def shown(kept: pd.DataFrame) -> pd.DataFrame:
    """What the budgets reached, and the day of each."""
    return reader_table(kept.to_dict("records")).assign(date=list(kept.date))


def dated(kept: pd.DataFrame) -> pd.DataFrame:
    """What was measured, and the day; no least time, which was not always by the same product."""
    return kept.drop(columns=[*MADE[1:], "least_seconds"], errors="ignore")


def together(own: pd.DataFrame, kept: pd.DataFrame) -> list[dict]:
    """Budgets of this run, and those that were kept of others; each has an n-gram beside it."""
    rest = kept[~kept.budget.isin(own.budget)]
    rows = pd.concat([table for table in (own, rest) if len(table)] or [own])
    return rows.dropna(subset="ngram_nats").to_dict("records")


def apart(kept: pd.DataFrame) -> str:
    """How kept results were made, in a sentence or two, and which took longer than they may."""
    if not len(kept):
        return "No long run has been kept yet: make texts PROFILE=full makes one."
    rows = kept.astype({"bar": object}).fillna({"bar": ""}).to_dict("records")
    said = [
        f"“{row['budget']}” took {row['seconds']:,.0f} s, more than its budget"
        f"{', which is asked no more' * (row['budget'] not in BUDGETS)}"
        f"{row['bar'] and ', so that ' + row['bar'] + ' is not judged'}."
        for row in rows
        if row["seconds"] > row["allowed_seconds"]
    ]
    for made, rows in kept.groupby(MADE, sort=False):
        how, names = dict(zip(MADE, made, strict=True)), ", ".join(f"“{n}”" for n in rows.budget)
        own = f"{how['threads']} thread{'s' * (how['threads'] > 1)}, by `{how['command']}`"
        said.append(f"{names}: measured apart {how_made(how)} with {own}.")
    return " ".join(said)
