"""On which kinds of token does a system lose, and what has it learnt of each?"""

import math

import numpy as np
import pandas as pd

from minitransformer.corpus import MECHANISMS, Language, entropy, hidden_bits
from minitransformer.evaluate import block_bootstrap, by_group

from .seeds import Estimate
from .standing import oracle
from .words import minus

ENDS = {  # of the chapter's answer, by the kind of corpus
    "text": "; how low it can go, nobody knows.",
    "language": "; the oracle scores {floor:.2f} on the same words. Recovered of induction's "
    "worth: {recovered}; without matching the key {bound:.0f} % can be had.",
}
BOUNDS = (1, 10, 100, 1_000, 10_000, 100_000)


def kinds(data) -> tuple[np.ndarray, list[str]]:
    """The kind of each test token but the first, as an index into names: the mechanism of a
    language, or how often the token stands in a text's training split."""
    if data.kind == "language":
        return data.mechanism["test"][1:].astype(int), list(MECHANISMS)
    count = np.bincount(data.splits["train"], minlength=data.vocab_size)[data.splits["test"][1:]]
    between = [f"{a:,} to {b - 1:,}" for a, b in zip(BOUNDS[:-1], BOUNDS[1:], strict=True)]
    return np.digitize(count, BOUNDS), ["never", *between, f"{BOUNDS[-1]:,} or more"]


def worth(data, names: list[str]) -> dict[str, float]:
    """Nats to be gained on a token of each kind: what an ideal predictor loses when only the kind's
    mechanism is hidden from it; of a text, what a uniform guess loses."""
    if data.kind != "language":
        return dict.fromkeys(names, math.log(data.vocab_size))
    spec, hidden = data.language.spec, hidden_bits(data.language)
    return {m: math.log(2) * (hidden[m] - entropy(spec.ranks(m))) for m in hidden}


def table(data, reports: dict) -> pd.DataFrame:
    """A row a kind and system, and `all`: nats lost above the oracle (of a text, in all) with their
    interval, and the share in % that is recovered of what the kind is worth."""
    kind, names = kinds(data)
    floor = oracle(data)
    floor = np.zeros(len(kind)) if floor is None else floor
    known = by_group(floor, kind, names).set_index("group")["mean"]
    gains, parts = worth(data, names), []
    for name, report in reports.items():
        excess = report.nll - floor
        part = by_group(excess, kind, names).rename(columns={"group": "kind", "mean": "nats"})
        part.loc[len(part)] = ("all", len(excess), 1.0, excess.mean(), *block_bootstrap(excess))
        parts.append(part.assign(system=name))
    rows = pd.concat(parts, ignore_index=True)
    rows["floor_nats"] = rows["kind"].map(known).fillna(floor.mean())
    rows["worth_nats"] = rows["kind"].map(gains)
    worth_of = rows.worth_nats.where(rows.worth_nats > 0)
    rows["recovered_percent"] = 100 * (1 - rows.nats / worth_of)
    rows["recovered_low"] = 100 * (1 - rows.high / worth_of)
    rows["recovered_high"] = 100 * (1 - rows.low / worth_of)
    rows["share_percent"] = 100 * rows.pop("share")
    return rows.rename(columns={"nats": "excess_nats"})


def recovered(budget: pd.DataFrame) -> pd.DataFrame:
    """`table` wide, a row a kind: its share, floor and worth, and what each system recovers, %."""
    rows = budget[budget["kind"] != "all"]
    wide = rows.pivot(index="kind", columns="system", values="recovered_percent")
    heads = rows[["kind", "share_percent", "floor_nats", "worth_nats"]].drop_duplicates("kind")
    own = wide[list(dict.fromkeys(rows.system))].add_suffix(", %")
    return heads.merge(own.reset_index(), on="kind")


def drawn(budget: pd.DataFrame, by: str) -> pd.DataFrame:
    """The kinds to draw, those on which the system `by` loses most first."""
    rows = budget[budget["kind"] != "all"]
    most = rows[rows.system == by].sort_values("excess_nats", ascending=False)["kind"]
    place = {kind: i for i, kind in enumerate(most)}
    return rows.sort_values("kind", key=lambda k: k.map(place), kind="stable", ignore_index=True)


def apart(budget: pd.DataFrame, one: str, other: str) -> dict:
    """Between two systems: which is the `worse`, by how many `nats` per token, and in words on
    which kinds (`most`): those whose tokens make the largest parts of that, as far as three
    decimals tell, or, where it gains on others, those on which it loses most."""
    wide = budget.pivot(index="kind", columns="system", values="excess_nats")
    one, other = (one, other) if wide[one]["all"] <= wide[other]["all"] else (other, one)
    share = budget.drop_duplicates("kind").set_index("kind").share_percent / 100
    parts = (wide[other] - wide[one]) * share
    kinds = parts.drop("all").sort_values(ascending=False, kind="stable")
    first = kinds[kinds.round(3) == kinds.round(3).iloc[0]]
    most = " and ".join(f"**{kind}** ({part:.3f})" for kind, part in first.items())
    if first.iloc[0] > parts["all"]:
        most = f"most on {most}, while it gains on others"
    else:
        most = f"the largest part of it on {most}"
    return {"better": one, "worse": other, "nats": parts["all"], "most": most}


def without_key(language: Language) -> float:
    """Share in % of what induction is worth that a predictor recovers which knows every value in
    memory and not which key it belongs to: one look finds the values, the key asks for a second.

    Memories walk uniformly and apart, so the mean is over all values that two or more of them can
    hold; the word is then a draw from the mixture of their distributions. ValueError for a language
    whose memories hold more than values."""
    spec = language.spec
    if spec.recall != "value":
        raise ValueError(f"recall {spec.recall!r} has no values to count over: give 'value'")
    stay = np.array(spec.stay) / sum(spec.stay)
    turned = np.stack([np.roll(stay, spec.unit * v) for v in range(spec.values)])  # (values, words)
    held = np.stack(np.meshgrid(*[np.arange(spec.values)] * spec.keys), -1).reshape(-1, spec.keys)
    p = turned[held].mean(1)  # (values^keys, words)
    left = -(p * np.log2(p)).sum(1).mean()
    hidden, known = hidden_bits(language)["induction"], entropy(spec.stay)
    return 100 * (hidden - left) / (hidden - known)


def induction(data, budget: pd.DataFrame, reports: dict) -> pd.DataFrame:
    """Whether models have found induction, a row a model: what it recovers of induction's worth
    beside what can be had `without_key`, judged by the whole interval. No row for a text: no
    mechanism of its tokens is known."""
    if data.kind != "language":
        return pd.DataFrame()
    columns = ["system", "recovered_percent", "recovered_low", "recovered_high"]
    rows = budget[(budget["kind"] == "induction") & budget.system.isin(reports)][columns]
    bound = without_key(data.language)
    above, below = rows.recovered_low > bound, rows.recovered_high < bound
    verdict = np.select([above, below], ["found", "not found"], "undecided")
    return rows.assign(without_key_percent=bound, verdict=verdict)


def in_words(rows: pd.DataFrame) -> str:
    """The share that each model of `induction` recovers, and its verdict, in words."""
    return ", ".join(
        minus(f"{row.recovered_percent:.0f}") + f" % by the {row.system} ({row.verdict})"
        for row in rows.itertuples()
    )


def last(rows: pd.DataFrame) -> Estimate:
    """What the last model of `induction` recovers, in %; nothing where there is none."""
    if rows.empty:
        return Estimate()
    row = rows.iloc[-1]
    return Estimate(row.recovered_percent, (row.recovered_low, row.recovered_high))


def bound(rows: pd.DataFrame) -> float | None:
    """The share in % that can be had without the key, by `induction`; None where nobody knows."""
    return rows.without_key_percent.iloc[0] if len(rows) else None
