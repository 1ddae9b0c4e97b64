"""Which recipe? One run of each that was tried, all listed, judged on validation text."""

from dataclasses import replace

import pandas as pd

from minitransformer.model import ModelConfig
from minitransformer.train import TrainConfig

from .arms import Arm, Text, fit

RATES = (0.5, 1.0, 2.0)  # times the recipe's own learning rate
LOOKS = 10  # times that the validation text is scored on the way
RULER = "adamw, own rate"  # the run whose end is the quality to reach


def tried(cfg: ModelConfig, recipe: TrainConfig) -> dict[str, tuple[ModelConfig, TrainConfig]]:
    """Name -> (model, recipe): each optimizer at three learning rates, then the recipe as it is
    with one thing changed."""
    found = {}
    for optimizer in ("adamw", "muon"):
        for factor in RATES:
            rate = "own rate" if factor == 1 else f"{factor:g} times the rate"
            own = replace(recipe, optimizer=optimizer, lr=factor * recipe.lr)
            found[f"{optimizer}, {rate}"] = cfg, own
    for name, change in {
        "no cooldown": {"cooldown": 0.0},
        "short windows first": {"short_steps": max(recipe.steps // 6, 1)},
    }.items():
        found[name] = cfg, replace(recipe, **change)
    for name, change in {
        "QK-norm": {"qk_norm": True},
        "ReLU²": {"ffn": "relu2"},
    }.items():
        found[name] = replace(cfg, **change), recipe
    return found


def varied(cfg: ModelConfig, recipe: TrainConfig) -> dict[str, tuple[ModelConfig, TrainConfig]]:
    """Name -> (model, recipe): one thing changed each, be it of the recipe or of the model. A mean
    of the weights is over a twentieth of the steps."""
    mean = {"ema": max(1 - 20 / recipe.steps, 0.5)}
    plans = {
        "AdamW": {"optimizer": "adamw"},
        "no short windows": {"short_steps": 0},
        "no cooldown": {"cooldown": 0.0},
        "cosine": {"cooldown": 1.0, "cooldown_shape": "cosine"},
        "mean of weights": mean,
        "mean, no cooldown": mean | {"cooldown": 0.0},
        "zeroed projections": {"initialization": "zeroed"},
        "no weight decay": {"weight_decay": 0.0},
    }
    models = {
        "RMSNorm": {"norm": "rmsnorm"},
        "QK-norm": {"qk_norm": True},
        "ReLU²": {"ffn": "relu2"},
        "SwiGLU": {"ffn": "swiglu"},
        "tied embeddings": {"tied": True},
        "no biases": {"bias": False},
    }
    found = {name: (cfg, replace(recipe, **change)) for name, change in plans.items()}
    return found | {name: (replace(cfg, **change), recipe) for name, change in models.items()}


def arms(runs: dict, seed: int) -> list[Arm]:
    """One run of each, from one seed."""
    return [Arm(name, *what, seed, "valid", points=LOOKS) for name, what in runs.items()]


def ran(arm: Arm, texts: dict[str, Text], tick) -> pd.DataFrame:
    """The validation loss on the way: a row a look, with the tokens and seconds spent so far."""
    _, rows = fit(arm, texts[arm.text], tick)
    log = pd.DataFrame(rows).assign(run=arm.name, lr=arm.recipe.lr)
    log["seconds"] = log.seconds.cumsum()
    return log.dropna(subset="valid_nats")[["run", "lr", "step", "tokens", "seconds", "valid_nats"]]


def table(looks: list[pd.DataFrame], ruler: str = RULER) -> pd.DataFrame:
    """A row a run, the lowest validation loss first: its end, and the tokens and seconds after
    which a look found it as good as the end of the run `ruler`; NaN where none did."""
    looks = pd.concat(looks, ignore_index=True)
    by = looks.groupby("run", sort=False)
    ends = by[["lr", "seconds", "valid_nats"]].last()
    good = looks[looks.valid_nats <= ends.valid_nats[ruler]].groupby("run")[["tokens", "seconds"]]
    ends[["tokens_to_quality", "seconds_to_quality"]] = good.first()
    return ends.sort_values("valid_nats", kind="stable").reset_index()
