"""The headline numbers of a run, each a claim beside its limit, and the abstract made of them."""

import math
import re

from .findings import findings
from .marks import interval_text, stated, written
from .numerals import number
from .statements import HOLDS, INCOMPARABLE
from .summary import audit_by_kind, counts
from .words import literal

# claim, what the tile says, the seed report's row, where nothing can lie; the first five that a run
# holds are shown
HEADLINES = (
    ("report-perplexity", "Test perplexity", "S1-perplexity", "below"),
    ("speedup", "Cache speed-up", "S1-cache-speedup", "above"),
    ("quant-ratio-int8", "Smaller in int8", "S1-int8-compression", "above"),
    ("quant-ratio-int4-g32", "Smaller in int4", "S1-int4-compression", "above"),
    ("report-gap", "Gap to the floor closed", None, None),
    ("report-bits-per-byte", "Bits per byte", None, None),
)


def standing(metrics: list[dict]) -> dict:
    """Where the headline model stands: {model, twin, gram, floor, gap, gap_of_gram} from
    metrics.json, {} where there is none.

    `model`, `twin` and `gram` (the n-gram order chosen on validation) are {system, perplexity, low,
    high, bits_per_byte} on the test split; `gap` is the share, in %, of the way from the uniform
    guess to the floor, in nats, None without a floor."""
    found = {}
    for row in metrics:
        if row["measure"] in ("perplexity", "bits_per_byte"):
            bounds = {key: row[key] for key in ("low", "high") if key in row}
            found.setdefault(row["system"], {"system": row["system"]}).update(
                {row["measure"]: row["value"]} | bounds
            )
    names = [name for name in found if not name.startswith("floor")]
    if len(names) < 3:
        return {}
    gram = next(name for name in names if "best on validation" in name)
    floor = next(
        (row["perplexity"] for name, row in found.items() if name.startswith("floor")), None
    )
    top = math.log(found[names[0]]["perplexity"])
    gaps = [
        100 * (top - math.log(found[name]["perplexity"])) / (top - math.log(floor))
        if floor
        else None
        for name in (names[-2], gram)
    ]
    return {
        "model": found[names[-2]],
        "twin": found[names[-1]],
        "gram": found[gram],
        "floor": floor,
        "gap": gaps[0],
        "gap_of_gram": gaps[1],
    }


def headlines(rows: list[dict], ledger: dict, limits: dict) -> list[dict]:
    """At most five tiles, each the claim of a chapter beside its limit and the seed report's
    number.

    `limits` maps a claim id to (limit, what sets it). A tile is {claim, label, value, unit,
    interval, threshold, verdict, limit_text, seed_text, strip}, the last as `marks.strip` takes it.
    """
    claims, found = {row["id"]: row for row in rows}, []
    for id, label, seed, beyond in HEADLINES:
        if id not in claims:
            continue
        row = claims[id]
        limit, setter = limits.get(id, (None, ""))
        said = ledger[seed]["seed_value"] if seed in ledger else None
        reached = (
            f", {number(100 * row['measured'] / limit, 2)} % reached"
            if limit and beyond == "above"
            else ""
        )
        length = re.search(r"(\d+) new tokens", row["statement"])
        found.append(
            {
                "claim": id,
                "label": f"{label}, n = {length[1]}" if length else label,
                "value": row["measured"],
                **{key: row[key] for key in ("unit", "interval", "threshold", "verdict")},
                "limit_text": f"{setter} {written(limit, row['unit'])}{reached}" if limit else "",
                "seed_text": "" if said is None else "seed report: " + stated(said, row["unit"]),
                "strip": {
                    "value": row["measured"],
                    "interval": row["interval"],
                    "limit": limit,
                    "seed": said,
                    "beyond": beyond if limit else None,
                    "log": True,
                },
            }
        )
    return found[:5]


def limits(floor: float | None, time_model: dict) -> dict:
    """What sets the limit of each headline claim: the source's floor, 32 bits over the width, the
    roofline of timemodel.json."""
    found = {"quant-ratio-int8": (4.0, "limit"), "quant-ratio-int4-g32": (8.0, "limit")}
    if floor:
        found["report-perplexity"] = (floor, "floor")
    if time_model.get("speedup"):
        found["speedup"] = (time_model["speedup"][-1]["roofline"], "roofline")
    return found


def abstract(tiles: list[dict], rows: list[dict], corpus: dict, ledger: dict) -> str:
    """The run in a paragraph of Markdown; only what it measured is mentioned."""
    by = {tile["claim"]: tile for tile in tiles}
    parts = [
        f"We train a decoder-only transformer on {_text(corpus)}, decode it with and without "
        "a key-value cache, and shrink "
        "it to eight and four bits."
    ]
    if tile := by.get("report-perplexity"):
        limit = tile["strip"]["limit"]
        ratio = number(tile["value"] / limit, 3) if limit else ""
        floor = (
            f", {ratio} times the floor of {number(limit)} that no predictor can pass"
            if limit
            else ""
        )
        parts.append(f"Its test perplexity is **{measured(tile)}**{floor}.")
    if tile := by.get("report-gap"):
        parts.append(
            f"It closes **{measured(tile)}** of the gap between a uniform guess and that floor."
        )
    if tile := by.get("report-bits-per-byte"):
        parts.append(f"That is **{measured(tile)}** bits per byte.")
    if tile := by.get("speedup"):
        limit, length = tile["strip"]["limit"], tile["label"].partition("n = ")[2]
        share = (
            f", {number(100 * tile['value'] / limit, 2)} % of what this machine would allow "
            "without overhead"
            if limit
            else ""
        )
        parts.append(
            f"A cache makes decoding **{measured(tile)}** "
            f"faster{f' at {length} tokens' if length else ''}{share}."
        )
    sizes = [
        f"**{measured(by[id])}** in {kind}"
        for kind, id in (("int8", "quant-ratio-int8"), ("int4", "quant-ratio-int4-g32"))
        if id in by
    ]
    if sizes:
        parts.append(f"Its weights shrink {' and '.join(sizes)}, counted in bytes with all scales.")
    return " ".join([*parts, _verdicts(rows, ledger)])


def _text(corpus: dict) -> str:
    if corpus.get("kind") == "text":
        return f"the text *{literal(corpus.get('name', 'given'))}*"
    if corpus.get("kind") == "uniform":
        return "independent uniform words, in which there is nothing to learn"
    return "a synthetic language whose entropy rate is known in closed form"


def measured(tile: dict) -> str:
    """A headline's value with unit and interval, for running text."""
    value = written(tile["value"], tile["unit"], tile["interval"])
    return f"{value} {interval_text(tile['interval'])}".strip()


def _verdicts(rows: list[dict], ledger: dict) -> str:
    """The audit and our own bars in three sentences."""
    own = counts(rows)
    told = [_audit(audit_by_kind(rows, ledger).set_index("kind"), len(ledger))]
    if strongest := [one["title"] for one in findings(rows, ledger)[:3]]:
        titles = "; ".join(title[0].lower() + title[1:] for title in strongest)
        told.append(f"Its strongest findings: {titles}.")
    if total := sum(own.values()):
        told.append(f"Of {total} bars of our own, {own['pass']} hold.")
    return " ".join(told)


def _audit(kinds, statements: int) -> str:
    """How many statements of each kind hold at the original's own setting; settings apart."""
    all_of, hold = kinds["statements"], kinds[HOLDS]
    return (
        f"We audit the {statements} statements of the original report, each first at its own "
        f"setting. Of {all_of['arithmetic']} counts and calculations {hold['arithmetic']} hold, "
        f"of {all_of['measurement']} measured numbers {hold['measurement']} "
        f"({kinds.loc['measurement', INCOMPARABLE]} cannot be compared: another machine or text "
        f"decides them), of {all_of['conclusion']} conclusions {hold['conclusion']}; "
        f"{all_of['setting']} settings are only copied."
    )
