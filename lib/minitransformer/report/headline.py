"""The headline numbers of a run, each a claim beside its limit, and the abstract made of them."""

import math
import re

from .claims import AUDIT, OWN
from .marks import interval_text, stated, written
from .numerals import number

# claim (its group is n), what the tile says, the seed report's row, where nothing can lie; the first five found are shown
HEADLINES = (
    (r"report-perplexity", "Test perplexity", "S1-perplexity", "below"),
    (r"kv-speedup-(\d+)", "Cache speed-up", "S1-cache-speedup", "above"),
    (r"quant-ratio-int8", "Smaller in int8", "S1-int8-compression", "above"),
    (r"quant-ratio-int4-g32", "Smaller in int4", "S1-int4-compression", "above"),
    (r"report-gap", "Gap to the floor closed", None, "above"),
    (r"kv-time-per-token", "Time per token", None, None),
)


def standing(metrics: list[dict]) -> dict:
    """Where the headline model stands: {model, twin, gram, floor, gap, gap_of_gram} from metrics.json, {} where there is none.

    `model`, `twin` and `gram` (the n-gram order chosen on validation) are rows {system, value, low, high} of test perplexity;
    `gap` is the share, in %, of the way from the uniform guess to the floor, in nats, None without a floor.
    """
    found = {row["system"]: row for row in metrics if row["measure"] == "perplexity"}
    names = [name for name in found if not name.startswith("floor")]
    if len(names) < 3:
        return {}
    gram = next(name for name in names if "best on validation" in name)
    floor = next((row["value"] for name, row in found.items() if name.startswith("floor")), None)
    top = math.log(found[names[0]]["value"])
    gaps = [100 * (top - math.log(found[name]["value"])) / (top - math.log(floor)) if floor else None
            for name in (names[-2], gram)]
    return {"model": found[names[-2]], "twin": found[names[-1]], "gram": found[gram], "floor": floor,
            "gap": gaps[0], "gap_of_gram": gaps[1]}


def headlines(rows: list[dict], ledger: dict, limits: dict) -> list[dict]:
    """At most five tiles, each the claim of a chapter beside its limit and the seed report's number; the longest n is taken.

    `limits` maps a claim id to (limit, what sets it). A tile is {claim, label, value, unit, interval, threshold, verdict,
    limit_text, seed_text, strip}, the last as `marks.strip` takes it.
    """
    found = []
    for pattern, label, seed, beyond in HEADLINES:
        matches = [(match, row) for row in rows if (match := re.fullmatch(pattern, row["id"]))]
        if not matches:
            continue
        match, row = max(matches, key=lambda pair: int(pair[0][1]) if pair[0].groups() else 0)
        limit, setter = limits.get(row["id"], (None, ""))
        said = ledger[seed]["seed_value"] if seed in ledger else None
        reached = f", {number(100 * row['measured'] / limit, 2)} % reached" if limit and beyond == "above" else ""
        found.append({
            "claim": row["id"], "label": f"{label}, n = {match[1]}" if match.groups() else label,
            **{key: row[key] for key in ("unit", "interval", "threshold", "verdict")}, "value": row["measured"],
            "limit_text": f"{setter} {written(limit, _unit(row))}{reached}" if limit else "",
            "seed_text": "" if said is None else "seed report: " + stated(said, _unit(row)),
            "strip": {"value": row["measured"], "interval": row["interval"], "limit": limit, "seed": said,
                      "beyond": beyond if limit else None, "log": None}})
    return found[:5]


def limits(floor: float | None, time_model: dict) -> dict:
    """What sets the limit of each headline claim: the source's floor, 32 bits over the width, the fitted time model."""
    found = {"quant-ratio-int8": (4.0, "limit"), "quant-ratio-int4-g32": (8.0, "limit")}
    if floor:
        found["report-perplexity"] = (floor, "floor")
    return found | {f"kv-speedup-{n}": (value, "time model") for n, value in time_model.items()}


def abstract(tiles: list[dict], rows: list[dict], corpus: dict, ledger: dict) -> str:
    """The run in a paragraph of Markdown; only what it measured is mentioned."""
    by = {re.sub("^(report|kv|quant-ratio)-", "", tile["claim"]).split("-")[0]: tile for tile in tiles}
    parts = [f"We train a decoder-only transformer on {_text(corpus)}, decode it with and without a key-value cache, and shrink "
             "it to eight and four bits."]
    if tile := by.get("perplexity"):
        limit = tile["strip"]["limit"]
        ratio = number(tile["value"] / limit, 3) if limit else ""
        floor = f", {ratio} times the floor of {number(limit)} that no predictor can pass" if limit else ""
        parts.append(f"Its test perplexity is **{measured(tile)}**{floor}.")
    if tile := by.get("gap"):
        parts.append(f"It closes **{measured(tile)}** of the gap between a uniform guess and that floor.")
    if tile := by.get("speedup"):
        n, limit = tile["claim"].rsplit("-", 1)[1], tile["strip"]["limit"]
        share = f", {number(100 * tile['value'] / limit, 2)} % of what the fitted time model allows" if limit else ""
        parts.append(f"A cache makes decoding **{measured(tile)}** faster at {n} tokens{share}.")
    sizes = [f"**{measured(by[kind])}** in {kind}" for kind in ("int8", "int4") if kind in by]
    if sizes:
        parts.append(f"Its weights shrink {' and '.join(sizes)}, counted in bytes with all scales.")
    if tile := by.get("time"):
        parts.append(f"A token takes **{measured(tile)}**.")
    return " ".join(parts + [_verdicts([row["verdict"] for row in rows], ledger)])


def _text(corpus: dict) -> str:
    if corpus.get("kind") == "text":
        return f"the text *{corpus.get('name', 'given')}*"
    if corpus.get("kind") == "uniform":
        return "independent uniform words, in which there is nothing to learn"
    return "a synthetic language whose entropy rate is known in closed form"


def measured(tile: dict) -> str:
    """A headline's value with unit and interval, for running text."""
    return f"{written(tile['value'], _unit(tile), tile['interval'])} {interval_text(tile['interval'])}".strip()


def _unit(tile: dict) -> str:
    return "" if tile["unit"] == "perplexity" else tile["unit"]


def _verdicts(verdicts: list[str], ledger: dict) -> str:
    count = {verdict: verdicts.count(verdict) for verdict in (*OWN, *AUDIT)}
    done, own = sum(count[v] for v in AUDIT), sum(count[v] for v in OWN)
    audit = (f"Of the {len(ledger)} statements in the ledger of the seed report, {done} were examined in this run: "
             f"{count['reproduced']} reproduced, {count['corrected']} corrected, {count['refuted']} refuted.")
    return f"{audit} Of {own} bars of our own, {count['pass']} hold." if own else audit
