"""The run in a few numbers: facts from its claims and metrics, the tiles and the abstract that
data/summary.toml makes of them, in English and in Spanish."""

import math
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from paper.bars import tally, unasked
from paper.claims import audited, seed_claims
from paper.marks import interval_text, stated, written
from paper.numerals import names, number
from paper.summary import audit_by_kind
from paper.words import literal

SUMMARY = Path(__file__).resolve().parents[2] / "data" / "summary.toml"
TILES = 5
SHORT = 50  # new tokens, as the original report generates
LONG = 5  # letters of a unit that is a word, such as "parameters"


@dataclass(frozen=True)
class Fact:
    """A measured number, for a template: "{x}" with its interval, "{x:value}" without, "{x:n}" the
    length it was measured at, "{x:seed}" what the original report states, "{x:ends}" the interval
    alone, "{x:times}" a ratio without its sign."""

    value: object
    unit: str = ""
    interval: tuple | None = None
    seed: object = None
    case: str = ""

    def __format__(self, spec):
        ends = interval_text(self.interval)
        unit = self.unit if len(self.unit) < LONG else ""  # a word stands in the sentence
        value = written(self.value, unit, self.interval)
        value = value.removesuffix("×") if spec == "times" else value
        if spec == "value":
            return value
        if spec == "n":
            return self.case.split(" ")[0]
        if spec == "seed":
            return stated(self.seed, unit)
        return ends if spec == "ends" else f"{value} {ends}".rstrip()


class Counts(dict):
    """Counts by name, for a template: "{x:pass}"."""

    def __format__(self, spec):
        return number(self[spec])


@cache
def summary(path: Path = SUMMARY) -> dict:
    """The tiles and sentences as data/summary.toml lists them."""
    return tomllib.loads(Path(path).read_text(encoding="utf-8"))


def facts(
    rows: list[dict], metrics: list[dict], corpus: dict, time_model: dict, budget=None, **more
) -> dict:
    """Everything that a template may name: claims and statements by id, `<id>:<verdict>` and
    `<id>:interval`, where the models stand, the first bar that fails, the roofline, the speed-up at
    the original's length (`short`, where that is not the longest), counts of verdicts and of
    statements by kind, and `more`.

    `rows` are those of claims.json, `metrics` of metrics.json, `budget` of figures/budget.csv, and
    so on."""
    found = {row["id"]: _fact(row) for row in rows if row["measured"] is not None}
    found |= {f"{row['id']}:{row['verdict']}": True for row in rows}
    found |= {f"{row['id']}:interval": True for row in rows if row["interval"]}
    found |= standing(metrics) | recovered(budget) | unmet(rows)
    length = format(found["speedup"], "n") if "speedup" in found else None
    for each in time_model.get("speedup", ()):
        if str(each["new_tokens"]) == length:
            found["roofline"] = Fact(each["roofline"], "×")
        if each["new_tokens"] == SHORT and each.get("measured") and length != str(SHORT):
            ends = (each["low"], each["high"])  # of a single process: None
            found["short"] = Fact(each["measured"], "×", None if None in ends else ends)
    found["floor" if "floor" in found else "no floor"] = found.get("floor", True)
    found |= tally([row for row in rows if not audited(row)])
    found |= {name: Counts(found[name]) for name in ("exact", "quantities")}
    ledger = seed_claims()
    if any(map(audited, rows)):
        kinds = audit_by_kind(rows, ledger).set_index("kind").to_dict("index")
        found |= {kind: Counts(counts) for kind, counts in kinds.items()}
        found |= {w: True for w in ("not comparable", "widely") if kinds["measurement"][w]}
    if left := len(unasked(rows)):
        found["unasked"] = Fact(left)
    found |= {"corpus": corpus, "statements": Fact(len(ledger))}
    return found | {name.replace("_", "-"): value for name, value in more.items()}


def _fact(row: dict) -> Fact:
    more = (row.get("unit") or "", row.get("interval"), row.get("seed_value"))
    return Fact(row["measured"], *more, row.get("case", ""))


def standing(metrics: list[dict]) -> dict:
    """Where the headline model stands on the test split, from metrics.json; {} where there is none.

    {perplexity, bits, ngram, ngram-bits, uniform, floor, gap}: of the model, of the n-gram whose
    order validation chose, of the uniform guess, and the share, in %, of the way from there to the
    floor, in nats; `floor` and `gap` only where the floor is known. And every other model's
    perplexity by its name."""
    found, of_role = {}, {row["role"]: row["system"] for row in metrics}
    for row in metrics:
        if row["measure"] in ("perplexity", "bits_per_byte"):
            known = (row["low"], row["high"]) if "low" in row else None
            found.setdefault(row["system"], {})[row["measure"]] = Fact(row["value"], "", known)
    if "headline" not in of_role:
        return {}
    at = {role: found[system] for role, system in of_role.items() if system in found}
    models = {row["system"] for row in metrics if row["role"] in ("model", "headline")}
    told = {name: found[name]["perplexity"] for name in models}
    told |= {
        "perplexity": at["headline"]["perplexity"],
        "ngram": Fact(at["n-gram"]["perplexity"].value),
        "uniform": Fact(at.get("uniform", at["n-gram"])["perplexity"].value),  # or that is it
        "bits": at["headline"].get("bits_per_byte"),
        "ngram-bits": at["n-gram"].get("bits_per_byte"),
    }
    if "floor" in at:
        top, low = told["uniform"].value, at["floor"]["perplexity"].value
        told |= {"floor": Fact(low), "gap": _gap(top, told["perplexity"], low)}
    return {name: fact for name, fact in told.items() if fact}


def unmet(rows: list[dict]) -> dict:
    """{unmet, unmet-bar, unmet-id, unmet-name}: what was measured of the first bar of ours that
    fails, what was asked, its id and its statement; {} where none does."""
    for row in rows:
        if row["verdict"] == "fail" and not audited(row):
            named = {"unmet-id": row["id"], "unmet-name": row["statement"]}
            return {"unmet": _fact(row), "unmet-bar": row["threshold"]} | named
    return {}


def recovered(budget) -> dict:
    """{"<kind> by <system>"}: the share of what a kind of token is worth that a system recovers,
    from figures/budget.csv; {} where that is not known."""
    if budget is None or "recovered_percent" not in budget:
        return {}
    return {
        f"{row.kind} by {row.system}": Fact(
            row.recovered_percent, "%", (row.recovered_low, row.recovered_high)
        )
        for row in budget.itertuples()
    }


def _gap(top: float, model: Fact, floor: float) -> Fact:
    """The share of the way from `top` to `floor` in nats, its interval that of the perplexity."""

    def share(value):
        return 100 * math.log(top / value) / math.log(top / floor)

    interval = tuple(map(share, reversed(model.interval))) if model.interval else None
    return Fact(share(model.value), "%", interval)


def nats_above(fact: Fact | None, base: float) -> tuple:
    """(log of a perplexity over `base`, its interval); (None, None) where it was not measured, and
    an interval of NaN where a single run gives none."""
    if fact is None:
        return None, None
    ends = tuple(math.log(x / base) for x in fact.interval or ())
    return math.log(fact.value / base), ends or (math.nan, math.nan)


def tiles(found: dict, rows: list[dict]) -> list[dict]:
    """At most five headline numbers, each of the claim that judges it, beside its limit and what
    the original report's own setting gives.

    A tile is {claim, label, value, unit, interval, bar, verdict, limit_text, seed_text, strip}, the
    last as `marks.strip` takes it."""
    claims = {row["id"]: row for row in rows}
    kept = [it for it in summary()["tile"] if it["fact"] in found and it["claim"] in claims]
    return [_tile(it, found, claims[it["claim"]]) for it in kept[:TILES]]


def _tile(it: dict, found: dict, claim: dict) -> dict:
    fact = found[it["fact"]]
    limit, start = (_value(it.get(end), found) for end in ("limit", "start"))
    known = found | {"threshold": claim["threshold"]}
    return {
        "claim": claim["id"],
        "label": said(it["label"], found),
        "value": fact.value,
        "unit": fact.unit,
        "interval": fact.interval,
        "bar": said(it.get("bar", ""), known) or claim["threshold"],
        "verdict": claim["verdict"],
        "limit_text": said(it.get("note", ""), found),
        "seed_text": said(it.get("seed", ""), found),
        "strip": {
            "value": fact.value,
            "interval": fact.interval,
            "limit": limit,
            "start": start if limit else None,
            "beyond": it.get("beyond") if limit else None,
            "log": True,
        },
    }


def _value(given, found: dict):
    """A number as data/summary.toml gives it, or that of the fact it names."""
    return found[given].value if given in found else None if isinstance(given, str) else given


def said(template: str, found: dict) -> str:
    """A template with its facts, "" where one was not measured."""
    return template.format_map(found) if names(template) <= set(found) else ""


def abstract(found: dict, language: str = "en") -> str:
    """The run in a few sentences of Markdown; only what it measured is mentioned."""
    kind = found["corpus"].get("kind", "uniform")
    name = literal(found["corpus"].get("name", ""))
    known = found | {"corpus": summary()["corpus"][kind][language].format(name=name)}
    if id := found.get("unmet-id"):
        words = summary()["unmet"].get(id, {}).get(language, found["unmet-name"])
        known["unmet-name"] = f"[{literal(words)}](#claim-{id})"
        known["unmet-bar"] = summary()["bar"].get(bar := found["unmet-bar"], {}).get(language, bar)
    paragraphs = [[]]
    for it in summary()["sentence"]:
        paragraphs += [[]] if it.get("break") else []
        if {*it.get("when", ())} <= set(known):
            paragraphs[-1].append(said(it.get(language, ""), known))
    return "\n\n".join(" ".join(filter(None, told)) for told in paragraphs if any(told))
