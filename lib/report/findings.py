"""What the audit of the original report found, strongest first: each finding is told by the rows
that were measured, and left out where they are not there or say otherwise."""

import math

from paper.marks import interval_text, stated, written
from paper.numerals import number
from paper.statements import BETTER, FAILS, HOLDS, SLIP


def findings(rows: list[dict], ledger: dict) -> list[dict]:
    """[{title, sentence, id}], strongest first; `id` is the statement that the finding is about."""
    by = {row["id"]: row for row in rows if row["id"] in ledger}
    said = {id: row["seed_value"] for id, row in ledger.items()}
    found = [{"id": id, **(tell(by[id], by, said) or {})} for id, tell in TOLD.items() if id in by]
    return [one for one in found if "title" in one]


def listed(found: list[dict]) -> str:
    """Findings as a list of Markdown, each with a link to its statement."""
    lines = [
        f"- **{one['title']}.** {one['sentence']} ([{one['id']}](#claim-{one['id']}))"
        for one in found
    ]
    return "\n".join(lines) or "Nothing in this run."


def _above_uniform(row, by, said):
    """A loss above that of a uniform guess over the vocabulary."""
    words = said["S2-vocabulary"]
    excess = math.log(row["seed_value"] / words)
    if excess <= 0:
        return None
    here = ""
    if row["measured"] is not None:
        here = f" Its recipe, run here on independent uniform words, gives {_measured(row, '')}."
    return {
        "title": "A loss above a uniform guess",
        "sentence": f"Its perplexity of {stated(row['seed_value'])} lies {number(excess, 2)} nats "
        f"above that of a uniform guess over its {number(words)} tokens: what the model learnt "
        f"does not show in its loss, as on a text in which nothing can be learnt.{here}",
    }


def _parameters(row, by, said):
    """Another number of parameters than the described model has."""
    if row["verdict"] != SLIP:
        return None
    ratio = row["measured"] / row["seed_value"]
    outer = 2 * said["S2-vocabulary"] * said["S2-dim"]
    return {
        "title": f"{number(ratio, 2)} times the parameters",
        "sentence": f"The described model has {number(row['measured'])} parameters, "
        f"{number(ratio, 2)} times the {stated(row['seed_value'])} stated; the weights of its "
        f"embedding and of its head alone are {number(outer)}.",
    }


def _baseline(row, by, said):
    """Drops that are plausible, beside an FP32 row that does not fit them."""
    if row["verdict"] != SLIP:
        return None
    drops = [by.get(f"S1-{name}-degradation") for name in ("int8", "int4")]
    percents = [by.get(f"S32-{name}-percent") for name in ("int8", "int4")]
    plausible = all(drop and drop["verdict"] == HOLDS for drop in drops)
    told = ""
    if plausible:
        told = (
            f" Both are plausible: at its setting int8 adds {_measured(drops[0], '')} here and "
            f"int4 {_measured(drops[1], '')}."
        )
        if all(percent and percent["verdict"] == FAILS for percent in percents):
            told += " The percentages, taken from the row shown, are not."
    shown = [stated(said[f"S1-{name}-degradation"]) for name in ("int8", "int4")]
    beside = "plausible drops beside " if plausible else ""
    title = f"{beside}an FP32 row that does not fit"
    return {
        "title": title[0].upper() + title[1:],
        "sentence": f"The rises of perplexity, +{shown[0]} and +{shown[1]}, were taken from a "
        f"baseline of {stated(row['measured'])}; the FP32 row shown, "
        f"{stated(row['seed_value'])}, is another: of another run, or a slip.{told}",
    }


def _untrained(row, by, said):
    """Int4 is harmless at the original's setting and not on a model that has learnt."""
    if (row["verdict"], row["answer_verdict"]) != (HOLDS, FAILS):
        return None
    return {
        "title": "Int4 is harmless where nothing was learnt",
        "sentence": f"At its setting int4 adds {_measured(row)}, where {row['threshold']} is "
        f"stated; on {row['answered_at']} it adds {_answer(row)}.",
    }


def _stored(row, by, said):
    """Int4 codes kept in int8 cells."""
    if (row["verdict"], row["answer_verdict"]) != (HOLDS, BETTER):
        return None
    return {
        "title": "Int4 stored in int8",
        "sentence": f"Int4 is as large as int8 there, because every code of four bits is kept in a "
        f"byte: both are {stated(row['seed_value'], row['unit'])} smaller than FP32. With "
        f"{row['answered_at']}, its tensors are {_answer(row)} smaller. {row['note']}",
    }


def _unit(row, by, said):
    """Sizes in 2^20 bytes under the name of 10^6."""
    binary = round((row["measured"] or 0) * 1e6 / 2**20, 2)
    if row["verdict"] != SLIP or binary != row["seed_value"]:
        return None
    others = [by.get(f"S34-{name}-size") for name in ("int8", "int4")]
    same = all(other and other["verdict"] == HOLDS for other in others)
    return {
        "title": "MB for MiB",
        "sentence": f"FP32 takes {_measured(row)}, positions included; the "
        f"{stated(row['seed_value'])} stated is MiB{', as the other sizes are' if same else ''}.",
    }


def _operations(row, by, said):
    """A count of token passes given as a speed-up."""
    if (row["verdict"], row["answer_verdict"]) != (HOLDS, FAILS):
        return None
    return {
        "title": f"{stated(row['seed_value'], row['unit'])} is a count of token passes",
        "sentence": f"The theoretical {stated(row['seed_value'], row['unit'])} counts token "
        f"passes: without a cache there are {_measured(row)} as many. At the peak of this machine, "
        "with calls that cost nothing, times of its own two loops would differ "
        f"{_answer(row)}; the report itself measured "
        f"{stated(said['S1-cache-speedup'], row['unit'])}.",
    }


# The strongest first.
TOLD = {
    "S1-perplexity": _above_uniform,
    "S2-parameters": _parameters,
    "S34-fp32-row": _baseline,
    "S32-int4-acceptable": _untrained,
    "S1-int4-compression": _stored,
    "S2-fp32-size": _unit,
    "S33-theory": _operations,
}


def _measured(row, unit=None):
    return _text(row["measured"], row["unit"] if unit is None else unit, row["interval"])


def _answer(row):
    return _text(row["answer"], row["unit"], row["answer_interval"])


def _text(value, unit, interval):
    return f"{written(value, unit, interval)} {interval_text(interval)}".strip()
