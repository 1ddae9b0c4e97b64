"""What is learnt, from where, and how fast: logs of training, and what they are held against."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from minitransformer.checkpoint import save
from minitransformer.corpus import MECHANISMS, Corpus
from minitransformer.model import ModelConfig, Transformer
from minitransformer.train import TrainConfig, initialize

from . import seeds
from .arms import Arm, Text, fit, kept, repeated, size
from .words import span
from .workers import at_once

WATCHED = 32  # windows of validation text that are scored on the way
SEED_TOKENS = 40_000  # of the original report's training split
STARTS = 5  # initialisations whose first loss is taken


def shapes(cfg: ModelConfig, draft_width: int) -> dict[str, tuple[str, ModelConfig]]:
    """Folder -> (name, configuration) of the headline model, of its twin of two blocks, of both
    with smeared keys, of one whose heads share keys and values in pairs, and of a small one that
    drafts."""
    one, two = f"{cfg.n_layers}-block model", "2-block model"
    two += " (twin)" * (one == two)
    pairs = cfg.n_heads // 2 if cfg.n_heads % 2 == 0 else 1
    draft = replace(cfg, n_layers=1, d_model=draft_width, n_heads=draft_width // 32)
    return {
        "model": (one, cfg),
        "model-2block": (two, replace(cfg, n_layers=2)),
        "model-smeared": (f"smeared {one}", replace(cfg, smeared_keys=True)),
        "model-smeared-2block": (f"smeared {two}", replace(cfg, n_layers=2, smeared_keys=True)),
        "model-gqa": ("grouped queries", replace(cfg, n_kv_heads=pairs)),
        "model-draft": ("draft", draft),
    }


def recipe(base: TrainConfig, steps: int, lr: float = 0.0, **changed) -> TrainConfig:
    """A recipe over so many steps, with other fields `changed`: at its own learning rate where `lr`
    is 0, and warming up over at most a tenth of the steps."""
    warmup = min(base.warmup, max(steps // 10, 1))
    return replace(base, steps=steps, lr=lr or base.lr, warmup=warmup, **changed)


def shortened(recipe: TrainConfig, steps: int) -> TrainConfig:
    """The recipe over fewer steps, in the same shares: warm-up and short windows take no more of
    them than they do of its own."""
    share, warmup = steps / recipe.steps, recipe.warmup
    short = round(recipe.short_steps * share)
    return replace(recipe, steps=steps, short_steps=short, warmup=max(round(warmup * share), 1))


def read_percent(recipe: TrainConfig) -> float:
    """How much of the original's training split a recipe reads, in %."""
    return 100 * recipe.tokens / SEED_TOKENS


def of_shapes(shapes: dict, updates, recipe: TrainConfig, seed: int, root: Path) -> list[Arm]:
    """An arm for each of `shapes`, kept in its folder of `root`, over so many of the `updates`, the
    recipe `shortened` to them."""
    return [
        kept(Arm(name, cfg, shortened(recipe, steps), seed, points=24), root / folder)
        for (folder, (name, cfg)), steps in zip(shapes.items(), updates, strict=True)
    ]


def shorter(cfg: ModelConfig, recipe: TrainConfig, seed: int, runs: int) -> list[Arm]:
    """As many runs of one model from further seeds, called "spread": what luck makes of it."""
    return repeated(Arm("spread", cfg, recipe, seed + 1, points=1), runs)


def of_seed(recipe: TrainConfig, vocab_size: int, seed: int, runs: int, root: Path) -> list[Arm]:
    """The original's recipe: on the control from as many initialisations, kept in model-control,
    model-control-1, … of the folder `root`, and on this corpus, kept in model-seed."""
    control = Arm("original recipe, control", ModelConfig(), recipe, seed, "control", points=1)
    own = ModelConfig(vocab_size=vocab_size)
    here = Arm("original recipe, this corpus", own, recipe, seed, "first tokens", points=8)
    more = [
        replace(control, seed=seed + i, folder=root / f"model-control-{i}") for i in range(1, runs)
    ]
    return [kept(control, root / "model-control"), *more, kept(here, root / "model-seed")]


def texts(corpus: Corpus, control: Corpus, window: int) -> dict[str, Text]:
    """What the arms read, and which held-out text is scored: validation tokens of the corpus in
    windows of `window`, the test split of the control in those of the original report."""
    watched = WATCHED * window + 1
    return {
        "train": Text.of(corpus, "valid", window, watched),
        "first tokens": Text.of(corpus, "valid", window, watched, SEED_TOKENS),
        "control": Text.of(control, "test", 64),
    }


def learnt(arm: Arm, texts: dict[str, Text], tick) -> pd.DataFrame:
    """The log of an arm, a row a step; its model is saved where it says."""
    model, rows = fit(arm, texts[arm.text], tick)
    if arm.folder is not None:
        save(model, arm.folder, texts[arm.text].tokenizer)
    log = pd.DataFrame(rows)
    log.insert(0, "model", arm.name)
    log.insert(1, "seed", arm.seed)
    rate = log.tokens.diff().fillna(log.tokens) / log.seconds
    return log.assign(tokens_per_second=rate, parameters=size(arm.cfg))


def joined(logs: list[pd.DataFrame], threads: int) -> pd.DataFrame:
    """The logs of all arms, and how many were trained side by side."""
    return pd.concat(logs, ignore_index=True).assign(side_by_side=at_once(threads, len(logs)))


@torch.no_grad()
def first_losses(cfg: ModelConfig, ids: np.ndarray, widths, seed: int) -> pd.DataFrame:
    """The loss before the first step by width and kind of initialisation: the mean over all next
    tokens, so that it does not hang on which are frequent; 512 ids are read. Means over `STARTS`
    seeds, and above a uniform guess where one further initialisation falls with 95 %."""
    first = torch.from_numpy(np.asarray(ids[: 4 * 128], np.int64)).view(4, 128)
    uniform, rows = np.log(cfg.vocab_size), []
    for width in widths:
        for kind in ("scaled", "torch"):
            own = replace(cfg, d_model=width, n_heads=4, n_kv_heads=None)
            drawn = (initialize(Transformer(own), kind, seed + i) for i in range(STARTS))
            losses = np.array([-model(first).log_softmax(-1).mean().item() for model in drawn])
            above, (low, high) = seeds.one_more(losses - uniform)
            row = {"width": f"width {width}", "initialisation": kind, "loss_nats": losses.mean()}
            rows.append(row | {"above_uniform_nats": above, "low": low, "high": high})
    return pd.DataFrame(rows)


def scaled(first: pd.DataFrame) -> pd.DataFrame:
    """Of `first_losses` those of the initialisation that is scaled to start at a uniform guess."""
    return first[first.initialisation == "scaled"]


def limits(corpus: Corpus, counts: float) -> list[tuple[float, str]]:
    """Between what losses lie, by name: those of a uniform guess, of word counts (`counts` nats),
    and, where it is known, the entropy of the source."""
    found = [(float(np.log(corpus.vocab_size)), "uniform guess"), (counts, "word counts")]
    return found + [(corpus.floor_nats, "entropy of the source")] * (corpus.floor_nats is not None)


def word_counts(text: Text, vocab_size: int) -> float:
    """Nats per token of the held-out text for who knows the training counts and no more (each count
    one higher, so that no token is impossible)."""
    counts = np.bincount(text.train, minlength=vocab_size) + 1.0
    return float(-np.log(counts / counts.sum())[text.held_out[1:]].mean())


def runs(log: pd.DataFrame, model: str, split: str = "test") -> pd.DataFrame:
    """One row a seed of a model: its first and last training loss, and its loss and perplexity at
    the end on the `split` that was held out, after which they are named."""
    by = log[log.model == model].groupby("seed", sort=False)
    table = pd.DataFrame({"first_nats": by.loss_nats.first(), "last_nats": by.loss_nats.last()})
    table[f"{split}_nats"] = by.valid_nats.last()
    table[f"{split}_perplexity"] = np.exp(by.valid_nats.last())
    return table.reset_index().rename_axis("run").reset_index()


def first_seeds(log: pd.DataFrame) -> pd.DataFrame:
    """Of every model its first seed alone."""
    return log[log.seed == log.groupby("model").seed.transform("min")]


def ends(log: pd.DataFrame) -> pd.DataFrame:
    """One row a model, its first seed, which the name of one that has several says: size, tokens,
    first loss, held-out loss at the end, and the median rate of its steps."""
    many = log.groupby("model").seed.transform("nunique")
    said = many.map(lambda n: f" (the first of {n})" if n > 1 else "")
    by = first_seeds(log.assign(model=log.model + said)).groupby("model", sort=False)
    table = by[["parameters", "tokens"]].last()
    table["first_nats"], table["valid_nats"] = by.loss_nats.first(), by.valid_nats.last()
    return table.assign(tokens_per_second=by.tokens_per_second.median()).reset_index()


def final(log: pd.DataFrame, models: list[str], floor: float | None = None) -> dict:
    """What the chapter's answer says of four models, in the order of `shapes`: the first one's
    name, the tokens that they saw, and their held-out losses at the end; and of the source's own
    entropy, where it is known."""
    last = ends(first_seeds(log)).set_index("model").loc[models[:4]]
    losses = dict(zip(("one", "two", "smeared", "both"), last.valid_nats, strict=True))
    source = f"; the source's own entropy is {floor:.2f}" if floor else ""
    return {"name": models[0], "tokens": span(last.tokens), "source": source} | losses


def on_control(runs: pd.DataFrame, recipe: TrainConfig, vocab_size: int) -> dict:
    """What `runs` of the original's recipe on the control say of one further run: its first and its
    last training loss. And by how much the first lies `above` a uniform guess, how many tokens the
    last is of (`batch`), and the loss on the test split (`test`)."""
    first, last = (seeds.one_more(runs[name]) for name in ("first_nats", "last_nats"))
    about = {"above": first.value - np.log(vocab_size), "test": runs.test_nats.mean()}
    return {"first": first, "last": last, "batch": recipe.batch_size * recipe.window} | about


def curves(log: pd.DataFrame, models) -> pd.DataFrame:
    """Held-out loss at every step where it was taken."""
    own = log[log.model.isin(models)].dropna(subset="valid_nats")
    return own[["model", "step", "tokens", "valid_nats"]]


def mechanisms(log: pd.DataFrame, model: str) -> pd.DataFrame:
    """What a model still loses over the source, by mechanism and tokens seen; empty where the
    source is not known."""
    names = {f"excess_{name}_nats": name for name in MECHANISMS}
    known = [column for column in names if column in log]
    own = log[log.model == model].dropna(subset="valid_nats").rename(columns=names)
    own = own.melt("tokens", [names[c] for c in known], "mechanism", "excess_nats")
    return own.dropna(ignore_index=True)


def halved(log: pd.DataFrame, models) -> pd.DataFrame:
    """By model and mechanism: the excess over the source at the first and at the last look, and the
    tokens after which half of it was gone (NaN where it never was)."""
    tables = []
    for model in models:
        left = mechanisms(log, model)
        by = left.groupby("mechanism", sort=False)
        table = pd.DataFrame({"first_nats": by.excess_nats.first()})
        table["last_nats"] = by.excess_nats.last()
        gone = left[left.excess_nats <= left.mechanism.map(table.first_nats) / 2]
        table["halved_at_tokens"] = gone.groupby("mechanism").tokens.min()
        table = table.reset_index()
        table.insert(0, "model", model)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
