"""The arms of the ablations, and recipes, longer than a page can take: run once, on many cores,
kept, and read from there.

Every choice is first tried at three learning rates, from a seed of its own, on validation text. At
the best of them it is trained from each seed of the comparison and scored on the test split, which
chooses nothing. How many steps a run has follows from the minutes given and the pace of the
machine, before any loss is seen; one seed is done after another, so that all choices have as many
when the time is over.
"""

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from minitransformer.corpus import MECHANISMS, SMALL, Corpus, language_corpus
from minitransformer.model import ModelConfig
from minitransformer.train import GOOD, NonFiniteError

from . import ablation, error_budget, recipes, seeds
from .arms import Arm, Text, fit
from .workers import side_by_side

SEED, SALT = 42, "1a2b3c4d5e6f7890abcdef1234567890"  # of the language; the first of the comparison
TUNED = SEED - 1  # the seed that chooses learning rates, and takes part in nothing else
PACED, SETTLED = 24, 6  # steps that tell the pace, and those of them that are left out
FILLED = 0.8  # of the cores' time, in the plan
BESIDE = 1.2  # seconds of a run over those of its steps: looks, and the test split
LEAST, MOST_STEPS = (
    (5, 3),
    4000,
)  # seeds of the arms, and of the recipes, that the plan has time for
LOOKS = ["run", "seed", "lr", "step", "tokens", "seconds", "valid_nats"]
LOSSES = ["arm", "seed", "lr", "parameters", "tokens", "step_ms", "evaluated_window", "nats",
          *(f"excess_{name}_nats" for name in MECHANISMS)]  # fmt: skip
FILES = {"losses": "arms.csv", "looks": "arms-looks.csv", "made": "arms.json"}


@dataclass(frozen=True)
class Design:
    """What all runs share: the sizes of the splits and of a step, the default's width, the middle
    one of its learning rates, how often the validation split is looked at, and the most seeds."""

    train_tokens: int = 2_000_000
    valid_tokens: int = 8_192
    test_tokens: int = 40_000
    batch_size: int = 4
    window: int = 128
    width: int = 128
    lr: float = 8e-3  # about where this recipe's short runs on validation text say
    looks: int = 14
    seeds: int = 8


class Shared(NamedTuple):
    """What every job is given: texts by name, where results go, the clock's time at which it ends,
    the seconds that a run of each choice takes, and how often the validation split is scored."""

    texts: dict[str, Text]
    folder: Path
    until: float
    seconds: dict[str, float]
    looks: int


class Kept(NamedTuple):
    """Results: a row a scored run and window, a row a look at validation text, and how they were
    made."""

    losses: pd.DataFrame
    looks: pd.DataFrame
    made: dict


class Late(Exception):
    """Ends a run that time has run out on."""


# running


def language(design: Design) -> Corpus:
    """The small language, whose mechanisms are learnt in few steps."""
    sizes = design.train_tokens, design.valid_tokens, design.test_tokens
    return language_corpus(SEED, SALT, SMALL, *sizes)


def choices(design: Design, vocab_size: int, steps: int) -> tuple[dict, dict]:
    """The arms of the ablations with their default, and recipes that differ from it in one thing:
    name -> (model, recipe). The recipe is the training chapter's on smaller steps."""
    short = {"short_window": min(32, design.window), "short_steps": steps // 6}
    size = {"batch_size": design.batch_size, "window": design.window, "lr": design.lr}
    base = replace(GOOD, steps=steps, warmup=max(steps // 20, 1), **size, **short)
    cfg = ModelConfig(vocab_size=vocab_size, d_model=design.width, context=1024)
    return ablation.changes(cfg, base), recipes.varied(cfg, base)


def run(
    folder: Path,
    minutes: float,
    workers: int,
    design: Design | None = None,
    steps: int | None = None,
    done=None,
    **about,
) -> Kept:
    """Everything, on so many processes, over after so many minutes; `done(stage, steps, of)` is
    told of progress, and `about` says how it was made. What ends is in `folder` at once."""
    began, design, done = time.time(), design or Design(), done or _nobody
    words = language(design)
    texts = {name: Text.of(words, name, design.window) for name in ("valid", "test")}
    shared = Shared(texts, folder, began + 60 * minutes, {}, design.looks)
    few = [
        Arm(name, *what, TUNED)
        for group in choices(design, words.vocab_size, PACED)
        for name, what in group.items()
    ]
    taken = _side_by_side(paced, 2 * few, shared, workers, done)  # the last ones run beside fewer
    paces = {arm.name: max(taken[i], taken[i + len(few)]) for i, arm in enumerate(few)}
    pace = [sum(paces[n] for n in group) for group in choices(design, words.vocab_size, PACED)]
    steps = steps or planned(shared.until - time.time(), workers, pace)
    shared = shared._replace(seconds={n: BESIDE * steps * s for n, s in paces.items()})
    groups = choices(design, words.vocab_size, steps)
    made = asdict(design) | described(words, groups) | about
    made |= {"steps": steps, "minutes": minutes, "workers": workers}
    begin(folder, made)
    tune = [arm for group in groups for arm in at_rates(group)]
    tune.sort(key=lambda arm: -paces[arm.name])
    _side_by_side(trained, tune, shared, workers, done)
    best = chosen(left(folder).looks)
    last = [
        arm
        for which, i in in_turn(design.seeds)
        for arm in sorted(at_best(groups[which], best, SEED + i), key=lambda arm: -paces[arm.name])
    ]
    _side_by_side(trained, last, shared, workers, done)
    _write(folder, made | {"seconds": round(time.time() - began)})
    return left(folder)


def planned(seconds: float, workers: int, paces: list[float]) -> int:
    """Steps of a run, so that all rates and the least seeds fill `FILLED` of the workers' time;
    `paces` are the seconds of one step of all arms together, and of all recipes."""
    runs = [(len(recipes.RATES) + least) * pace for least, pace in zip(LEAST, paces, strict=True)]
    steps = int(FILLED * seconds * workers / (BESIDE * sum(runs)))
    return min(max(steps, 1), MOST_STEPS)


def in_turn(count: int) -> list[tuple[int, int]]:
    """Which group and which seed come one after the other: both groups, but arms alone from where
    the recipes have their least number of seeds to where the arms have theirs."""
    after = LEAST[0] - LEAST[1]
    ranks = [
        (i + after * (which and i >= LEAST[1]), which, i) for i in range(count) for which in (0, 1)
    ]
    return [(which, i) for _, which, i in sorted(ranks)]


def at_rates(group: dict) -> list[Arm]:
    """Each choice at each learning rate, from the seed that chooses."""
    return [
        Arm(name, cfg, replace(recipe, lr=factor * recipe.lr), TUNED)
        for name, (cfg, recipe) in group.items()
        for factor in recipes.RATES
    ]


def at_best(group: dict, best: dict[str, float], seed: int) -> list[Arm]:
    """Each choice of which a rate was chosen, at that."""
    return [
        Arm(name, cfg, replace(recipe, lr=best[name]), seed)
        for name, (cfg, recipe) in group.items()
        if name in best
    ]


def chosen(looks: pd.DataFrame) -> dict[str, float]:
    """Choice -> the learning rate that ends lowest on validation text."""
    ends = looks[looks.seed == TUNED].groupby(["run", "lr"], sort=False).valid_nats.last()
    ends = ends.reset_index().sort_values("valid_nats", kind="stable")
    return dict(ends.drop_duplicates("run")[["run", "lr"]].itertuples(index=False))


def paced(arm: Arm, shared: Shared, tick) -> float:
    """Seconds of a step."""
    _, rows = fit(arm, shared.texts["valid"], tick)
    return float(np.median([row["seconds"] for row in rows][SETTLED:]))


def trained(arm: Arm, shared: Shared, tick) -> None:
    """One run, its looks written, and its test losses where it is of the comparison; nothing where
    time runs out. Training that left the finite numbers ends at an infinite loss."""

    def in_time(step):
        if time.time() > shared.until:
            raise Late
        tick(step)

    last = arm.recipe.steps
    looks = sorted({round(last * i / shared.looks) for i in range(1, shared.looks + 1)} - {0})
    try:
        if time.time() + shared.seconds[arm.name] > shared.until:
            raise Late
        model, rows = fit(arm, shared.texts["valid"], in_time, looks)
    except Late:
        return
    except NonFiniteError:
        model, rows = None, [{"step": last, "tokens": arm.recipe.tokens, "valid_nats": np.inf}]
    log = pd.DataFrame(rows).assign(run=arm.name, seed=arm.seed, lr=arm.recipe.lr)
    log["seconds"] = log["seconds"].cumsum() if model else np.nan
    _append(shared.folder / FILES["looks"], log.dropna(subset="valid_nats")[LOOKS])
    if arm.seed != TUNED and model:
        own = replace(arm, text="language")
        table, _ = ablation.tested(own, shared.texts["test"], model, rows)
        table = table.assign(lr=arm.recipe.lr).reindex(columns=LOSSES)
        _append(shared.folder / FILES["losses"], table)


def described(words: Corpus, groups: tuple[dict, dict]) -> dict:
    """What a page has to know of the language and of the choices."""
    known = {"uniform_nats": float(np.log(words.vocab_size)), "floor_nats": words.floor_nats}
    known["worth_nats"] = error_budget.worth(words, list(MECHANISMS))
    return known | {"arms": list(groups[0]), "recipes": list(groups[1])}


def begin(folder: Path, made: dict) -> None:
    """Files without rows, in place of any that were there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, columns in (("losses", LOSSES), ("looks", LOOKS)):
        (folder / FILES[name]).write_bytes(f"{','.join(columns)}\n".encode())
    _write(folder, made)


def _write(folder, made):
    text = json.dumps(made, indent=2, sort_keys=True) + "\n"
    (folder / FILES["made"]).write_bytes(text.encode())


def _append(path, table):
    """Whole lines, in one write: processes share the file."""
    with path.open("ab", buffering=0) as file:
        file.write(table.to_csv(index=False, header=False, lineterminator="\n").encode())


def _side_by_side(job, arms, shared, workers, done):
    of, taken = sum(arm.recipe.steps for arm in arms), 0

    def tell(more):
        nonlocal taken
        taken += more
        done(job.__name__, taken, of)

    return side_by_side(job, arms, shared, workers=workers, done=tell)


def _nobody(stage, steps, of):
    """Is told of progress."""


# reading


def left(folder: Path) -> Kept | None:
    """What was kept; None where nothing was."""
    if not (folder / FILES["made"]).is_file():
        return None
    tables = [pd.read_csv(folder / FILES[name]) for name in ("losses", "looks")]
    return Kept(*tables, json.loads((folder / FILES["made"]).read_text()))


def compared(folder: Path) -> Kept | None:
    """What was kept of at least two whole seeds of each group; None where less was."""
    kept = left(folder)
    if kept is None:
        return None
    groups = kept.made["arms"], ["default", *kept.made["recipes"]]
    return kept if all(len(home(kept, names)) > 1 for names in groups) else None


def home(kept: Kept, names: list[str], column: str = "nats") -> pd.DataFrame:
    """Test loss at the training window, or another column, a row a seed, a column each of `names`,
    of the seeds from which all of them were trained."""
    own = kept.losses[kept.losses.evaluated_window == kept.made["window"]]
    wide = own.pivot(index="seed", columns="arm", values=column)
    return wide.reindex(columns=names).dropna().rename_axis(columns="arm")


def effects(kept: Kept) -> pd.DataFrame:
    """What each arm of the ablations changes, see `seeds.effects`."""
    return seeds.effects(home(kept, kept.made["arms"]))


def by_mechanism(kept: Kept) -> pd.DataFrame:
    """What each arm changes on the tokens of each mechanism: one family over all of them, named
    "arm on mechanism". Seeds that learnt a mechanism late do not hide what happens to another."""
    names, wide = kept.made["arms"], {}
    for mechanism in (m for m in MECHANISMS if kept.made["worth_nats"][m] > 0):
        excess = home(kept, names, f"excess_{mechanism}_nats")
        for name in names[1:]:
            wide[f"{name} on {mechanism}"] = excess[name] - excess["default"]
    return seeds.effects(pd.DataFrame(wide).assign(default=0.0))


def learnt(kept: Kept) -> pd.DataFrame:
    """By mechanism what it is worth, how much of that the default recovers in % (the mean, the
    least and the most over the seeds of the arms), and from how many seeds it is over half."""
    made = kept.made
    own = kept.losses[kept.losses.seed.isin(home(kept, made["arms"]).index)]
    own = own[(own.arm == "default") & (own.evaluated_window == made["window"])]
    rows = []
    for name in MECHANISMS:
        if (nats := made["worth_nats"][name]) > 0:
            share = 100 * (1 - own[f"excess_{name}_nats"] / nats)
            row = {"mechanism": name, "worth_nats": nats, "recovered_percent": share.mean()}
            row |= {"least_percent": share.min(), "most_percent": share.max()}
            rows.append(row | {"seeds": len(share), "over_half": int((share > 50).sum())})
    return pd.DataFrame(rows)


def tried(kept: Kept, ruler: str = "AdamW") -> pd.DataFrame:
    """What each recipe changes, Holm's correction over all of them, with its learning rate, and
    the share of the ruler's tokens and seconds after which it is as good as the ruler ends."""
    names = ["default", *kept.made["recipes"]]
    wide = home(kept, names)
    found = to_quality(kept.looks[kept.looks.seed.isin(wide.index)], ruler)
    table = seeds.effects(wide).rename(columns={"change": "recipe"})
    rates = chosen(kept.looks)
    first = {"recipe": "default", "pairs": len(wide), "difference_nats": 0.0, "reading": ""}
    table = pd.concat([pd.DataFrame([first]), table], ignore_index=True)
    table.insert(1, "lr", table.recipe.map(rates))
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


def at_an_end(looks: pd.DataFrame) -> list[str]:
    """Choices whose best learning rate is the lowest or the highest that was tried."""
    tried = looks[looks.seed == TUNED].groupby("run").lr
    best, lowest, highest = chosen(looks), tried.min(), tried.max()
    return [name for name, lr in best.items() if lr in (lowest[name], highest[name])]


def shown(kept: Kept) -> pd.DataFrame:
    """`tried`, for readers."""
    table = tried(kept).drop(columns=["p", "low", "high"])
    table = table.rename(columns={"p_holm": "p after Holm"})
    return table.round({"tokens_percent": 0, "seconds_percent": 0}).round(4)


def said(kept: Kept) -> str:
    """What not every seed learns, what changes on which mechanism, which recipes help, what Muon
    is worth in tokens and in seconds, and where the grid of rates was too narrow."""
    apart, table = by_mechanism(kept), tried(kept).rename(columns={"recipe": "change"})
    ends, own = at_an_end(kept.looks), table.set_index("change").loc["default"]
    late = learnt(kept).query("over_half < seeds")
    some = [f"{row.mechanism} ({row.over_half} of {row.seeds})" for row in late.itertuples()]
    return (
        f"Over half learnt by the default, but not from every seed: {', '.join(some) or 'none'}. "
        f"By mechanism, over {len(apart)} comparisons: {seeds.listed(apart, seeds.BETTER)} better; "
        f"{seeds.listed(apart, seeds.WORSE)} worse. The default is where AdamW ends after "
        f"{own.tokens_percent:.0f} % of its tokens and {own.seconds_percent:.0f} % of its seconds. "
        f"Of the recipes, better than the default: {seeds.listed(table, seeds.BETTER)}; worse: "
        f"{seeds.listed(table, seeds.WORSE)}. The best rate is the lowest or the highest of the "
        f"three for {len(ends)} of {len(chosen(kept.looks))} choices."
    )


def told(kept: Kept | None) -> str:
    """How kept results were made, in a sentence."""
    if kept is None:
        return "No long arms have been kept yet: python -m studies makes them."
    made = kept.made
    return (
        f"Measured apart on {made['date']} at commit {made['commit'][:12]}, on {made['cpu']} with "
        f"{made['workers']} processes of one thread (torch {made['torch']}): "
        f"{made['steps']:,} steps of {made['batch_size']} × {made['window']} tokens."
    )
