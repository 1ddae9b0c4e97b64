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

from .arms import Arm, Text, fit, kept, size

WATCHED = 32  # windows of validation text that are scored on the way
SEED_TOKENS = 40_000  # of the original report's training split


def shapes(cfg: ModelConfig, draft_width: int) -> dict[str, tuple[str, ModelConfig]]:
    """Folder -> (name, configuration) of the headline model, of its twin of two blocks, of both
    with smeared keys, of one whose heads share keys and values in pairs, and of a small one that
    drafts."""
    blocks = f"{cfg.n_layers} block" + "s" * (cfg.n_layers > 1)
    pairs = cfg.n_heads // 2 if cfg.n_heads % 2 == 0 else 1
    draft = replace(cfg, n_layers=1, d_model=draft_width, n_heads=draft_width // 32)
    return {
        "model": (blocks, cfg),
        "model-2block": ("2-block twin", replace(cfg, n_layers=2)),
        "model-smeared": (f"{blocks}, smeared", replace(cfg, smeared_keys=True)),
        "model-smeared-2block": ("twin, smeared", replace(cfg, n_layers=2, smeared_keys=True)),
        "model-gqa": ("grouped queries", replace(cfg, n_kv_heads=pairs)),
        "model-draft": ("draft", draft),
    }


def of_seed(recipe: TrainConfig, vocab_size: int, seed: int, runs: int, root: Path) -> list[Arm]:
    """The original's recipe: on the control from as many initialisations, kept in model-control,
    model-control-1, … of the folder `root`, and on this corpus, kept in model-seed."""
    control = Arm("original recipe, control", ModelConfig(), recipe, seed, "control", points=1)
    own = ModelConfig(vocab_size=vocab_size)
    here = Arm("original recipe, this corpus", own, recipe, seed, "first tokens", points=8)
    return [
        kept(control, root / "model-control"),
        *(
            replace(control, seed=seed + i, folder=root / f"model-control-{i}")
            for i in range(1, runs)
        ),
        kept(here, root / "model-seed"),
    ]


def texts(corpus: Corpus, control: Corpus, window: int) -> dict[str, Text]:
    """What the arms read, and which held-out text is scored: validation tokens of the corpus, the
    test split of the control, each in windows as in training."""
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


@torch.no_grad()
def first_losses(cfg: ModelConfig, ids: np.ndarray, widths, seed: int) -> pd.DataFrame:
    """The loss before the first step by width and initialisation: the mean over all next tokens, so
    that it does not hang on which are frequent; 512 ids are read."""
    first = torch.from_numpy(np.asarray(ids[: 4 * 128], np.int64)).view(4, 128)
    rows = []
    for width in widths:
        for kind in ("scaled", "torch"):
            own = replace(cfg, d_model=width, n_heads=4, n_kv_heads=None)
            model = initialize(Transformer(own), kind, seed)
            loss = -model(first).log_softmax(-1).mean().item()
            rows.append({"width": width, "initialisation": kind, "loss_nats": loss})
    table = pd.DataFrame(rows)
    return table.assign(above_uniform_nats=table.loss_nats - np.log(cfg.vocab_size))


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


def ends(log: pd.DataFrame) -> pd.DataFrame:
    """One row a model, its first seed: size, tokens, first loss, held-out loss at the end, and the
    median rate of its steps."""
    by = log[log.seed == log.groupby("model").seed.transform("min")].groupby("model", sort=False)
    table = by[["parameters", "tokens"]].last()
    table["first_nats"], table["valid_nats"] = by.loss_nats.first(), by.valid_nats.last()
    return table.assign(tokens_per_second=by.tokens_per_second.median()).reset_index()


def curves(log: pd.DataFrame, models) -> pd.DataFrame:
    """Held-out loss at every step where it was taken."""
    return log[log.model.isin(models)].dropna(subset="valid_nats")[
        ["model", "step", "tokens", "valid_nats"]
    ]


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
        tables.append(table.reset_index().assign(model=model))
    return pd.concat(tables, ignore_index=True)
