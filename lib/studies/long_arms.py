"""The arms of the ablations, or recipes, trained for longer than a page can take: made once, in one
sitting or several, and kept for `kept_arms` to read.

Every choice is first tried at several learning rates for a share of the steps, from a seed of its
own, on validation text. At the best of them it is trained from each seed of the comparison and
scored on the test split, which chooses nothing. All of this is fixed in `Design` before any loss of
the comparison is seen, but how many seeds there are when the time is over: one is done after
another, all choices of each."""

import json
import os
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from minitransformer.corpus import MECHANISMS, SMALL, Corpus, language_corpus
from minitransformer.model import ModelConfig
from minitransformer.train import GOOD, NonFiniteError, TrainConfig

from . import ablation, apart, error_budget, recipes
from .arms import Arm, Text, fit, steps, work
from .kept_arms import LOOKS, LOSSES, TUNED, Kept, chosen, left, place
from .workers import side_by_side

FAMILIES = ("arms", "recipes")
SEED, SALT = 42, "1a2b3c4d5e6f7890abcdef1234567890"  # of the language; the first compared
WIDER, LEFT_OUT = 192, ("width 256", "grouped queries")  # of the arms, see `Design`
NOTED_S = 20  # seconds between two notes of how long a sitting has taken


@dataclass(frozen=True)
class Design:
    """What all runs share.

    There are twice as many `steps` as the default took, from both of two seeds that take part in no
    comparison, to learn over half of what is within its reach of every mechanism (a trial of 900
    steps). The rates lie around the best of earlier runs of 440 steps, which had looked no higher;
    where the best of the three is the first or the last, the next beyond it is tried as well, twice
    at most. Half the steps choose among them. Arms that take long for what they tell are left out:
    grouped queries lie between two others, and a width of 192 takes the place of 256."""

    train_tokens: int = 2_000_000
    valid_tokens: int = 8_192
    test_tokens: int = 20_000
    batch_size: int = 4
    window: int = 128
    width: int = 128
    steps: int = 800
    lr: float = 0.016
    rates: tuple[float, ...] = (0.5, 1.0, 2.0)  # times lr
    wider: int = 2  # rates beyond them, at most
    tuned: float = 0.5  # share of the steps that a run takes which chooses a rate
    looks: int = 8  # at validation text, in a run of the comparison
    seeds: int = 8  # the most

    @property
    def tuned_steps(self) -> int:
        return max(round(self.tuned * self.steps), 1)


class Shared(NamedTuple):
    """What every job is given: texts by name, where results go, the clock's time at which it ends,
    and how often the validation split is scored."""

    texts: dict[str, Text]
    folder: Path
    family: str
    until: float
    looks: int


class Late(Exception):
    """Ends a run that time has run out on."""


def language(design: Design) -> Corpus:
    """The small language, whose mechanisms are learnt in few steps."""
    sizes = design.train_tokens, design.valid_tokens, design.test_tokens
    return language_corpus(SEED, SALT, SMALL, *sizes)


def choices(
    family: str, design: Design, vocab_size: int, steps: int
) -> dict[str, tuple[ModelConfig, TrainConfig]]:
    """The arms of the ablations, or recipes that differ in one thing, the default first: name ->
    (model, recipe). The recipe is the training chapter's on smaller steps."""
    short = {"short_window": min(32, design.window), "short_steps": steps // 6}
    size = {"batch_size": design.batch_size, "window": design.window, "lr": design.lr}
    base = replace(GOOD, steps=steps, warmup=max(steps // 20, 1), **size, **short)
    cfg = ModelConfig(vocab_size=vocab_size, d_model=design.width, context=1024)
    if family == "recipes":
        return {"default": (cfg, base)} | recipes.varied(cfg, base)
    found = ablation.changes(cfg, base)
    broad = {f"width {WIDER}": (replace(cfg, d_model=WIDER), base)}
    return {name: what for name, what in (found | broad).items() if name not in LEFT_OUT}


def run(
    folder: Path, family: str, minutes, workers, design=None, done=None, machine=None, **sitting
) -> Kept:
    """One sitting of so many minutes, on so many processes: goes on where the last one ended, and
    what ends is in `folder` at once. `done(stage, steps, of)` is told of progress; `machine` and
    `sitting` say where and how it was made. ValueError where the folder holds what another design
    or machine made."""
    began, design = time.time(), design or Design()
    words = language(design)
    plan = family, design, words.vocab_size
    made = begin(folder, family, described(words, family, design) | (machine or {}))
    note = _noting(folder, family, made, began, sitting | {"workers": workers})
    texts = {name: Text.of(words, name, design.window) for name in ("valid", "test")}
    shared = Shared(texts, folder, family, began + 60 * minutes, design.looks)

    def rest(stage, arms):
        """What is not kept of the arms that `arms` makes of the looks, when there was time."""
        while todo := unfinished(arms(looks := left(folder, family).looks), looks):
            if time.time() > shared.until:
                break
            told = _telling(stage, steps(todo), done, note)
            side_by_side(trained, todo, shared, workers=workers, done=told)
        return todo

    if not rest("rates", lambda looks: at_rates(*plan, looks)):
        rest("seeds", lambda looks: at_best(*plan, chosen(looks)))
    note(ended=True)
    return left(folder, family)


def at_rates(family: str, design: Design, vocab_size: int, looks: pd.DataFrame) -> list[Arm]:
    """Each choice at each learning rate that `looks` ask for, from the seed that chooses; the
    slowest first."""
    found = [
        Arm(name, cfg, replace(recipe, lr=lr), TUNED)
        for name, (cfg, recipe) in choices(family, design, vocab_size, design.tuned_steps).items()
        for lr in asked(looks[(looks.run == name) & (looks.seed == TUNED)], design)
    ]
    return sorted(found, key=work, reverse=True)


def asked(tried: pd.DataFrame, design: Design) -> list[float]:
    """The learning rates of a choice: those of the design, and the next one beyond while the best
    of all is the lowest or the highest."""
    rates = [factor * design.lr for factor in design.rates]
    ends = tried.groupby("lr").valid_nats.last()
    for _ in range(design.wider):
        if not set(rates) <= set(ends.index):
            break
        best = ends[rates].idxmin()
        if best == rates[0]:
            rates.insert(0, best / 2)
        elif best == rates[-1]:
            rates.append(best * 2)
    return rates


def at_best(family: str, design: Design, vocab_size: int, best: dict[str, float]) -> list[Arm]:
    """Each choice at its best rate, one seed after the other, and in each the slowest first."""
    group = choices(family, design, vocab_size, design.steps)
    found = [
        Arm(name, cfg, replace(recipe, lr=best[name]), SEED + i)
        for i in range(design.seeds)
        for name, (cfg, recipe) in group.items()
    ]
    return sorted(found, key=lambda arm: (arm.seed, -work(arm)))


def unfinished(arms: list[Arm], looks: pd.DataFrame) -> list[Arm]:
    """Those whose last look at validation text was not kept."""
    ended = set(looks[["run", "seed", "lr", "step"]].itertuples(index=False, name=None))
    return [a for a in arms if (a.name, a.seed, a.recipe.lr, a.recipe.steps) not in ended]


def trained(arm: Arm, shared: Shared, tick) -> None:
    """One run: its test losses where it is of the comparison, and its looks, which say that it has
    ended; nothing where time runs out. Training that left the finite numbers ends at an infinite
    loss."""

    def in_time(step):
        if time.time() > shared.until:
            raise Late
        tick(step)

    last = arm.recipe.steps
    count = 1 if arm.seed == TUNED else shared.looks
    looks = sorted({round(last * i / count) for i in range(1, count + 1)} - {0})
    try:
        in_time(0)
        model, rows = fit(arm, shared.texts["valid"], in_time, looks)
    except Late:
        return
    except NonFiniteError:
        model, rows = None, [{"step": last, "tokens": arm.recipe.tokens, "valid_nats": np.inf}]
    if arm.seed != TUNED and model:
        table, _ = ablation.tested(replace(arm, text="language"), shared.texts["test"], model, rows)
        table = table.assign(lr=arm.recipe.lr).reindex(columns=LOSSES)
        _append(place(shared.folder, shared.family, "losses"), table)
    log = pd.DataFrame(rows).assign(run=arm.name, seed=arm.seed, lr=arm.recipe.lr)
    log["seconds"] = log["seconds"].cumsum() if model else np.nan
    log = log.dropna(subset="valid_nats").reindex(columns=LOOKS)
    _append(place(shared.folder, shared.family, "looks"), log)


def described(words: Corpus, family: str, design: Design) -> dict:
    """What a page has to know of design, language and choices. One block without smeared keys can
    look for a value in one hop only, which bounds what it has of induction."""
    made = asdict(design) | {"tuned_steps": design.tuned_steps, "family": family}
    made["floor_nats"] = words.floor_nats
    made["worth_nats"] = error_budget.worth(words, list(MECHANISMS))
    within = {"induction": error_budget.without_key(words.language)}
    made["reach_percent"] = dict.fromkeys(MECHANISMS, 100.0) | within
    return made | {"choices": list(choices(family, design, words.vocab_size, design.steps))}


def begin(folder: Path, family: str, made: dict) -> dict:
    """How the results in the folder are made, which are to go on: `made`, with the sittings so far.
    ValueError where those there are made otherwise."""
    path, made = place(folder, family, "made"), json.loads(json.dumps(made))
    if kept := left(folder, family):
        for name, value in made.items():
            if kept.made.get(name) != value:
                raise ValueError(
                    f"{path} was begun with {name} {kept.made.get(name)}, not {value}: give "
                    "another --out, or move its files away"
                )
        return kept.made
    folder.mkdir(parents=True, exist_ok=True)
    for what, columns in (("losses", LOSSES), ("looks", LOOKS)):
        place(folder, family, what).write_bytes(f"{','.join(columns)}\n".encode())
    return made | {"sittings": []}


def _noting(folder, family, made, began, sitting):
    """A call that keeps how long this sitting has taken, and at its end, when that is known of all
    processes, for how long they had a core."""
    before, start = sum(os.times()[:4]), datetime.fromtimestamp(began, UTC)

    def note(ended=False):
        took = {"began": start.isoformat(timespec="seconds")}
        took |= {"seconds": round(time.time() - began)}
        if ended:
            took["core_seconds"] = round(sum(os.times()[:4]) - before, 2)
        whole = made | {"sittings": [*made["sittings"], sitting | took]}
        apart.write(place(folder, family, "made"), whole)

    note()
    return note


def _telling(stage, of, done, note):
    """A call that is told of more steps, tells how many of all, and now and then takes a note."""
    taken, noted = 0, time.monotonic()

    def tell(more):
        nonlocal taken, noted
        taken += more
        if done:
            done(stage, taken, of)
        if time.monotonic() - noted > NOTED_S:
            note()
            noted = time.monotonic()

    return tell


def _append(path, table):
    """Whole lines, in one write: processes share the file."""
    with path.open("ab", buffering=0) as file:
        file.write(table.to_csv(index=False, header=False, lineterminator="\n").encode())
