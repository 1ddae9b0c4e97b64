"""Long arms that were kept: what a run leaves in its folder, and what a page reads of it.
`long_arms` makes them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from minitransformer.corpus import MECHANISMS

from . import ablation, apart, seeds
from .words import minus, with_interval

TUNED = 41  # the seed that chooses learning rates, and takes part in nothing else
EXCESS = [f"excess_{name}_nats" for name in MECHANISMS]
LOOKS = ["run", "seed", "lr", "step", "tokens", "seconds", "valid_nats", *EXCESS]
LOSSES = ["arm", "seed", "lr", "parameters", "tokens", "step_ms", "evaluated_window", "nats",
          *EXCESS]  # fmt: skip
# what else this page says of a change, of each trained once
ELSEWHERE = {"2 blocks": " On the page's own corpus chapter 3 has one longer training of each."}
FILES = {"losses": "{}.csv", "looks": "{}-looks.csv", "made": "{}.json"}


class Kept(NamedTuple):
    """A row a scored run and window, a row a look at validation text, and how they were made."""

    losses: pd.DataFrame
    looks: pd.DataFrame
    made: dict


def place(folder: Path, family: str, what: str) -> Path:
    """The file that keeps one of FILES of a family of choices."""
    return folder / FILES[what].format(family)


def left(folder: Path, family: str) -> Kept | None:
    """What was kept; None where nothing was. A run that was killed between its two tables and made
    again counts once."""
    if not place(folder, family, "made").is_file():
        return None
    losses, looks = (pd.read_csv(place(folder, family, what)) for what in ("losses", "looks"))
    losses = losses.drop_duplicates(["arm", "seed", "evaluated_window"])
    looks = looks.drop_duplicates(["run", "seed", "lr", "step"])
    return Kept(losses, looks, apart.read(place(folder, family, "made")))


def compared(folder: Path, family: str) -> Kept | None:
    """What was kept of at least two whole seeds; None where less was."""
    kept = left(folder, family)
    return kept if kept and len(home(kept)) > 1 else None


def home(kept: Kept, column: str = "nats") -> pd.DataFrame:
    """Test loss at the training window, or another column, a row a seed, a column a choice, of the
    seeds from which all of them were trained."""
    return every(kept, column).dropna()


def every(kept: Kept, column: str = "nats") -> pd.DataFrame:
    """The same of every seed from which the default was trained; NaN where time was over."""
    own = kept.losses[kept.losses.evaluated_window == kept.made["window"]]
    wide = own.pivot(index="seed", columns="arm", values=column)
    wide = wide.reindex(columns=kept.made["choices"])
    return wide.dropna(subset=wide.columns[:1]).rename_axis(columns="arm")


def chosen(looks: pd.DataFrame) -> dict[str, float]:
    """Choice -> the learning rate that ends lowest on validation text."""
    ends = looks[looks.seed == TUNED].groupby(["run", "lr"], sort=False).valid_nats.last()
    ends = ends.reset_index().sort_values("valid_nats", kind="stable")
    return dict(ends.drop_duplicates("run")[["run", "lr"]].itertuples(index=False))


def at_an_end(looks: pd.DataFrame) -> list[str]:
    """Choices whose best learning rate is the lowest or the highest that was tried."""
    tried = looks[looks.seed == TUNED].groupby("run").lr
    best, lowest, highest = chosen(looks), tried.min(), tried.max()
    return [name for name, lr in best.items() if lr in (lowest[name], highest[name])]


def how_made(kept: Kept | None) -> str:
    """How kept results were made, in a sentence."""
    if kept is None:
        return "None have been kept yet: python -m studies makes them."
    made, sittings = kept.made, kept.made["sittings"]
    commits = dict.fromkeys(sitting["commit"][:12] for sitting in sittings)
    minutes = sum(sitting["seconds"] for sitting in sittings) / 60
    return (
        f"Measured apart on {sittings[0]['began'][:10]} at commit {' and '.join(commits)}, on "
        f"{made['cpu']} with {sittings[0]['workers']} processes of one thread (torch "
        f"{made['torch']}), in {minutes:.0f} minutes{_shared(sittings)}: {made['steps']:,} steps "
        f"of {made['batch_size']} × {made['window']} tokens, {made['tuned_steps']:,} to choose a "
        "learning rate."
    )


def _shared(sittings):
    """How much of the time the processes had a core, where that was kept."""
    if not all("core_seconds" in sitting for sitting in sittings):
        return ""
    had = sum(sitting["core_seconds"] for sitting in sittings)
    asked = sum(sitting["seconds"] * sitting["workers"] for sitting in sittings)
    return f" of which each process had a core for {100 * had / asked:.0f} %"


# the ablations


def effects(kept: Kept) -> pd.DataFrame:
    """What each arm changes, see `seeds.effects`."""
    return seeds.effects(home(kept))


def above_floor(kept: Kept) -> pd.DataFrame:
    """What is left to learn on validation text by tokens seen, of each size: means over seeds."""
    own = kept.looks[kept.looks.seed.isin(home(kept).index)]
    own = own[own.run.isin(["default", "2 blocks"]) | own.run.str.startswith("width ")]
    table = own.groupby(["run", "tokens"], sort=False).valid_nats.mean().reset_index()
    what = table.run.replace({"default": ablation.SIZES["default"]})
    return table.assign(what=what, excess_nats=table.valid_nats - kept.made["floor_nats"])


def by_mechanism(kept: Kept) -> pd.DataFrame:
    """What each arm changes on the tokens of each mechanism: one family over all of them, named
    "arm on mechanism". Seeds that learnt a mechanism late do not hide what happens to another."""
    wide = {}
    for mechanism in (m for m in MECHANISMS if kept.made["worth_nats"][m] > 0):
        excess = home(kept, f"excess_{mechanism}_nats")
        for name in excess.columns[1:]:
            wide[f"{name} on {mechanism}"] = excess[name] - excess["default"]
    return seeds.effects(pd.DataFrame(wide).assign(default=0.0))


def learnt(kept: Kept) -> pd.DataFrame:
    """By mechanism what it is worth, the share of that in % which is within the default's reach
    (`reach_percent` of how it was made) and which it recovers on the test split (the mean, the
    least and the most over seeds), from how many seeds that is over half of what is within reach,
    and the step after which validation text says so from every seed; NaN where it never does."""
    own, worth = home(kept).index, kept.made["worth_nats"]
    looks = kept.looks[(kept.looks.run == "default") & kept.looks.seed.isin(own)]
    rows = []
    for name in (m for m in MECHANISMS if worth[m] > 0):
        reach, column = kept.made["reach_percent"][name], f"excess_{name}_nats"
        share = 100 * (1 - home(kept, column)["default"] / worth[name])
        late = looks[100 * (1 - looks[column] / worth[name]) > reach / 2]
        row = {"mechanism": name, "worth_nats": worth[name], "reach_percent": reach}
        row |= {"recovered_percent": share.mean(), "least_percent": share.min()}
        row |= {"most_percent": share.max(), "seeds": len(share)}
        row |= {"learnt_from": int((share > reach / 2).sum())}
        first = late.groupby("seed").step.min().reindex(own)
        rows.append(row | {"by_step": first.max(skipna=False)})
    return pd.DataFrame(rows)


def lengths(kept: Kept) -> pd.DataFrame:
    """Loss of each position encoding by evaluated window, see `ablation.by_length`."""
    return ablation.by_length(kept.losses[kept.losses.seed.isin(home(kept).index)])


def in_words(kept: Kept) -> str:
    """What is decided, what the default does not learn from every seed, what changes on which
    mechanism, what longer windows than the trained one do to each position encoding, and whether
    the grid of rates was wide enough."""
    whole, apart, ends = effects(kept), by_mechanism(kept), at_an_end(kept.looks)
    late = learnt(kept).query("learnt_from < seeds")
    some = [f"{row.mechanism} ({row.learnt_from} of {row.seeds})" for row in late.itertuples()]
    return (
        f"Decided by the long arms: {seeds.listed(whole)}"
        f"{by_holm_alone(whole)}. No evidence "
        f"of a difference: {seeds.listed(whole, seeds.UNCLEAR)}. Not learnt by the default from "
        f"every seed: {', '.join(some) or 'none'}. By mechanism, "
        f"over {len(apart)} comparisons: {seeds.listed(apart, seeds.BETTER)} better; "
        f"{seeds.listed(apart, seeds.WORSE)} worse. {_found(kept)}{_beyond(kept)}For {len(ends)} "
        f"of {len(kept.made['choices'])} arms the best learning rate is the lowest or the highest "
        "that was tried."
    )


def settled(kept: Kept) -> list[str]:
    """The changes that the long arms decide, on the whole text or on the tokens of a mechanism."""
    decided = pd.concat([effects(kept), by_mechanism(kept)]).query("reading != @seeds.UNCLEAR")
    return list(dict.fromkeys(decided.change.str.split(" on ").str[0]))


def _found(kept):
    """From how many seeds arms recover more of induction than one look finds."""
    worth, reach = kept.made["worth_nats"]["induction"], kept.made["reach_percent"]["induction"]
    found = home(kept, "excess_induction_nats") < worth * (1 - reach / 100)
    each = [f"{name} from {n} of {len(found)} seeds" for name, n in found.sum().items() if n]
    return f"More of induction than one look finds ({reach:.0f} %): {', '.join(each) or 'no arm'}. "


def by_holm_alone(table):
    """Which changes Holm's correction decides and whose interval, Bonferroni's, holds 0."""
    found = table[(table.reading != seeds.UNCLEAR) & (table.low <= 0) & (table.high >= 0)]
    names = " and ".join(found.change)
    return f" ({names} by Holm's correction; Bonferroni's interval holds 0)" if names else ""


def _beyond(kept):
    """What the longest window changes against the trained one, by position encoding."""
    wide = lengths(kept).pivot(index="evaluated_window", columns="positions", values="nats")
    if wide.index.max() <= kept.made["window"]:
        return ""
    change = wide.loc[wide.index.max()] - wide.loc[kept.made["window"]]
    names = [name for name in ablation.POSITIONS.values() if name in change]
    each = [f"{name} {minus(f'{change[name]:+.3f}')} nats" for name in names]
    return (
        f"Read in windows of {wide.index.max():,} tokens instead of the trained "
        f"{kept.made['window']}, on average: {', '.join(each)}; the figure has their intervals. "
    )


# what the arms answer of the original report: the long ones, where they hold what is asked


def change(kept: Kept | None, short: pd.DataFrame, tokens: int, name: str) -> dict:
    """What a row about one arm takes, {answer, note}: its change by the long arms, with that by the
    `short` ones, their `seeds.effects`, in the remark; by the short ones where it was not kept."""
    brief, of, more = seeds.of(short, name), f"of {tokens:,} tokens", ELSEWHERE.get(name, "")
    if kept is None:
        return {"answer": brief, "note": f"By the short arms, {of}.{more}"}
    far, long = effects(kept), f"of {kept.losses.tokens.max():,}"
    if name not in set(far.change):
        kin = far.change.str.extract(rf"^{name.rpartition(' ')[0]} (\d+)$")[0].dropna()
        near = far.change[kin.astype(int).idxmax()] if len(kin) else ""
        beside = near and f"; {near} by the longer ones, {long}, {_told(seeds.of(far, near))}"
        return {"answer": brief, "note": f"By the short arms, {of}{beside}.{more}"}
    note = f"By the longer arms, {long} tokens; by the short ones, {of}, {_told(brief)}.{more}"
    return {"answer": seeds.of(far, name), "note": note}


def rotary(kept: Kept | None, losses: pd.DataFrame, level: float) -> dict[str, dict]:
    """What rows about rotary less sinusoidal positions take, {answer, note} as of `change`: at the
    trained length ("home"), at the longest ("beyond") and at the longest above 512 tokens ("past
    512"). `losses` and `level` are those of the short arms."""
    short, long = _gains(losses, level), {}
    if kept is not None:
        whole = kept.losses[kept.losses.seed.isin(home(kept).index)]
        long = _gains(whole, seeds.family_level(len(effects(kept))))
    return {name: _rotary(short, long, name) for name in ("home", "beyond", "past 512")}


def _gains(losses, level):
    """Evaluated window -> rotary less sinusoidal, from the trained one up."""
    windows = sorted(losses.evaluated_window.unique())
    return {w: ablation.rotary_gain(losses, w, level) for w in windows}


def _rotary(short, long, name):
    """One of the rows of `rotary`."""
    gains, lengths, brief = long or short, _lengths(long or short, name), _lengths(short, name)
    if not lengths:
        return {"answer": seeds.Estimate()}
    at, trained = lengths[-1], min(gains)
    note = f"At {at:,} tokens" + (f", trained on {trained:,}" if at > trained else "")
    note += ", by the longer arms" if long else ", by the short arms"
    between = [f"at {w:,} {_told(gains[w])}" for w in lengths[:-1]]
    note += f" ({', '.join(between)})" if between else ""
    if long and brief:
        other = f" at {brief[-1]:,}" if brief[-1] != at else ""
        note += f"; by the short ones{other} {_told(short[brief[-1]])}"
    return {"answer": gains[at], "note": f"{note}."}


def _lengths(gains, name):
    """The evaluated windows that speak to a row, the last of which answers it."""
    trained = min(gains)
    above = {"home": 0, "beyond": trained, "past 512": 512}[name]
    return [trained] if name == "home" else [w for w in gains if w > above]


def _told(found):
    """An estimate with its interval, in words."""
    return with_interval(found.value, *found.interval, sign="+")


def answer(kept: Kept | None, short: pd.DataFrame) -> str:
    """What the long arms decide, and what they make of the `short` ones, in a sentence or two."""
    found = seeds.listed(effects(kept)) if kept else "not measured"
    told = confirmed(kept, short) if kept else ""
    return f"Decided by the longer arms, measured apart: **{found}**.{told}"


def confirmed(kept: Kept, short: pd.DataFrame) -> str:
    """Which of the changes that the `short` arms' effects decide the long arms decide in the same
    way, in a sentence; "" where the short ones decide none."""
    own, far = (table.set_index("change").reading for table in (short, effects(kept)))
    own = own[own != seeds.UNCLEAR]
    same = [name for name in own.index if far.get(name) == own[name]]
    other = [name for name in own.index if name in far and name not in same]
    told = f"confirm {' and '.join(same)}" if same else "confirm none"
    told += f", not {' nor '.join(other)}" if other else ""
    absent = [name for name in own.index if name not in far]
    told += f", and hold no {' nor '.join(absent)}" if absent else ""
    return f" Of the short arms' changes the longer ones {told}." if len(own) else ""


# the recipes


def tried(kept: Kept, ruler: str = "AdamW") -> pd.DataFrame:
    """What each recipe changes over the seeds that it has, which are fewer where time was over and
    not for its loss, Holm's correction over all of them; with its learning rate, and the share of
    the ruler's tokens and seconds after which it is as good as the ruler ends, over the seeds that
    all have."""
    found = to_quality(kept.looks[kept.looks.seed.isin(home(kept).index)], ruler)
    wide = every(kept)
    table = seeds.effects(wide).rename(columns={"change": "recipe"})
    first = {"recipe": "default", "pairs": len(wide), "difference_nats": 0.0, "reading": ""}
    table = pd.concat([pd.DataFrame([first]), table], ignore_index=True)
    table.insert(1, "lr", table.recipe.map(chosen(kept.looks)))
    table = table.merge(found, "left", left_on="recipe", right_index=True)
    return table.sort_values("difference_nats", kind="stable", ignore_index=True)


def to_quality(looks: pd.DataFrame, ruler: str) -> pd.DataFrame:
    """By run the tokens and seconds until it is as good on validation text as the ruler ends with
    the same seed, in % of the ruler's: means over seeds, NaN where one of them never is."""
    rows = []
    for _, own in looks.groupby("seed"):
        last = own[own.run == ruler].iloc[-1]
        for name, curve in own.groupby("run"):
            at = reached(curve, last.valid_nats)
            shares = {f"{c}_percent": 100 * at[c] / last[c] for c in ("tokens", "seconds")}
            rows.append({"run": name} | shares)
    table = pd.DataFrame(rows, columns=["run", "tokens_percent", "seconds_percent"])
    return table.groupby("run").agg(lambda part: part.mean(skipna=False))


def reached(curve: pd.DataFrame, nats: float) -> dict[str, float]:
    """Tokens and seconds after which the loss is first down to `nats`, on straight lines between
    looks; NaN where it never is."""
    good = np.flatnonzero(curve.valid_nats.to_numpy() <= nats)
    if not len(good):
        return {"tokens": np.nan, "seconds": np.nan}
    i = good[0]
    after, before = curve.iloc[i], curve.iloc[max(i - 1, 0)]
    drop = before.valid_nats - after.valid_nats
    share = (before.valid_nats - nats) / drop if drop > 0 else 1.0
    return {c: before[c] + share * (after[c] - before[c]) for c in ("tokens", "seconds")}


def shown(kept: Kept) -> pd.DataFrame:
    """`tried`, for readers."""
    own = tried(kept).drop(columns=["p", "low", "high"]).rename(columns={"p_holm": "p after Holm"})
    return own.round({"tokens_percent": 0, "seconds_percent": 0}).round(4)


def recipes_said(kept: Kept) -> str:
    """Which recipes help, what Muon is worth in tokens and in seconds, and whether the grid of
    rates was wide enough."""
    table, ends = tried(kept).rename(columns={"recipe": "change"}), at_an_end(kept.looks)
    own, whole = table.set_index("change").loc["default"], seeds.effects(home(kept))
    return (
        f"Better than the default: {seeds.listed(table, seeds.BETTER)}; worse: "
        f"{seeds.listed(table, seeds.WORSE)}; each over the seeds that it has. Over the "
        f"{whole.pairs.max()} that all have: better: {seeds.listed(whole, seeds.BETTER)}; worse: "
        f"{seeds.listed(whole, seeds.WORSE)}; and the default is where AdamW ends after "
        f"{own.tokens_percent:.0f} % of its tokens and {own.seconds_percent:.0f} % of its seconds. "
        "The best "
        f"learning rate is the lowest or the highest that was tried for {len(ends)} of "
        f"{len(kept.made['choices'])} recipes."
    )
