"""Arms of an experiment: models trained side by side, each from its seed by its recipe on its text.

Arms of one seed share the order of batches and, where their shapes agree, the first weights: their
differences are paired."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from minitransformer.bench import parameters
from minitransformer.corpus import MECHANISMS, Batches, Corpus
from minitransformer.evaluate import Monitor, log_steps
from minitransformer.model import ModelConfig, Transformer
from minitransformer.train import TrainConfig, device_of, initialize, train

from .workers import at_once, side_by_side, ticks


@dataclass(frozen=True)
class Arm:
    """One training. `seed` decides the first weights and the order of batches, `text` names what is
    read; the model is kept in `folder`, and goes on from `checkpoint`, where they are given."""

    name: str
    cfg: ModelConfig
    recipe: TrainConfig
    seed: int
    text: str = "train"
    points: int = 0  # times that the held-out text is scored on the way, the end included
    folder: Path | None = None
    checkpoint: Path | None = None
    device: str = "cpu"  # see `device_of`

    def __str__(self):
        return f"{self.name}, seed {self.seed}"


@dataclass(frozen=True)
class Text:
    """What arms read and what they are scored on, in ids (N,), in windows of `window`; `names`,
    `groups` and `oracle` are the held-out text's, as `Monitor` takes them."""

    train: np.ndarray
    held_out: np.ndarray
    window: int
    tokenizer: object = None
    names: tuple = ()
    groups: np.ndarray | None = None
    oracle: np.ndarray | None = None

    @staticmethod
    def of(corpus: Corpus, split: str, window: int, tokens: int | None = None, first=None):
        """A corpus's training split, or its `first` tokens, and `tokens` of another split."""
        train, held_out, known = corpus.splits["train"][:first], corpus.splits[split][:tokens], {}
        if corpus.oracle is not None:
            groups, oracle = corpus.mechanism[split][:tokens], corpus.oracle[split][:tokens]
            known = {"names": tuple(MECHANISMS), "groups": groups, "oracle": oracle}
        return Text(train, held_out, window, corpus.tokenizer, **known)


def kept(arm: Arm, folder: Path) -> Arm:
    """The arm with its model in `folder`, and its checkpoint in the folder train beside it."""
    return replace(arm, folder=folder, checkpoint=folder.parent / "train" / f"{folder.name}.pt")


def repeated(arm: Arm, runs: int) -> list[Arm]:
    """The arm with as many seeds, counting on from its own."""
    return [replace(arm, seed=arm.seed + i) for i in range(runs)]


def steps(arms: Sequence[Arm]) -> int:
    """Updates of all arms together."""
    return sum(arm.recipe.steps for arm in arms)


def size(cfg: ModelConfig) -> int:
    """Parameters of a model."""
    return sum(parameters(cfg).values())


def fit(
    arm: Arm, text: Text, tick: Callable[[int], None], looks: Sequence[int] | None = None
) -> tuple[Transformer, list[dict]]:
    """The trained model and its log, one row a step, with the columns of `Monitor` where the
    held-out text was scored: after the steps `looks`, or those of `scored_steps`."""
    model = initialize(Transformer(arm.cfg), arm.recipe.initialization, arm.seed)
    model.to(device_of(arm.device))
    batches = Batches(text.train, seed=arm.seed, **arm.recipe.batches)
    known = {"names": text.names, "groups": text.groups, "oracle": text.oracle}
    looks = scored_steps(arm) if looks is None else looks
    monitor = Monitor(model, text.held_out, text.window, looks, **known)

    def on_step(row):
        tick(row["step"])
        return monitor(row)

    rows = train(model, batches.batch, arm.recipe, checkpoint=arm.checkpoint, on_step=on_step)
    tick(arm.recipe.steps)  # a finished checkpoint takes no step
    return model.cpu(), rows


def scored_steps(arm: Arm) -> list[int]:
    """After which steps the held-out text is scored: log-spaced, fewer where there are few."""
    last, points = arm.recipe.steps, min(arm.points, 1 + arm.recipe.steps // 4)
    return log_steps(last, points) if points > 1 else [last] * points


def run(
    job: Callable, arms: Sequence[Arm], texts: dict, threads: int, progress=None, device="cpu"
) -> list:
    """`job(arm, texts, tick)` of every arm, `threads` of them at once, on this device: see
    `side_by_side`, `ticks` and `device_of`."""
    arms = [replace(arm, device=device) for arm in arms]
    workers, done = at_once(threads, len(arms)), ticks(progress, steps(arms), "training")
    return side_by_side(job, arms, texts, workers=workers, done=done, cost=work)


def work(arm: Arm) -> int:
    """What an arm costs, up to a factor: parameters times tokens."""
    return size(arm.cfg) * arm.recipe.tokens
