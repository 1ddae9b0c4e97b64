"""Recipes: how a model is initialised, which optimizer moves it, and the learning rate at every step."""

import math
from dataclasses import dataclass

import torch
import torch.nn as nn


@dataclass(frozen=True)
class TrainConfig:
    """One training run: `steps` updates on batches of `batch_size` windows of `window` tokens.

    The learning rate rises linearly over `warmup` steps, stays, and falls linearly to zero over the last
    `cooldown` share of the steps (warm-up, stable, decay: Hägele et al. 2024). `initialization` is "torch"
    (the default of `nn.Linear` and `nn.Embedding`) or "scaled" (see `initialize`).
    """

    steps: int = 100
    batch_size: int = 4
    window: int = 64
    lr: float = 1e-3
    warmup: int = 10
    cooldown: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip: float = 1.0
    initialization: str = "torch"

    def __post_init__(self):
        for name in ("steps", "batch_size", "window", "lr", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)} is not positive: give a value above 0")
        if not 0 <= self.cooldown <= 1:
            raise ValueError(f"cooldown {self.cooldown} is not a share of the steps: give 0 to 1")
        if self.initialization not in ("torch", "scaled"):
            raise ValueError(f"initialization {self.initialization!r} is unknown: choose torch or scaled")

    @property
    def tokens(self) -> int:
        """Tokens seen in the whole run."""
        return self.steps * self.batch_size * self.window


SEED = TrainConfig()  # the seed report's: Adam, lr 1e-3, warm-up 10, 100 steps, batch 4 x 64, clip 1.0
GOOD = TrainConfig(
    steps=1000, batch_size=16, window=256, lr=3e-3, warmup=50, cooldown=0.4, betas=(0.9, 0.99), weight_decay=0.1,
    initialization="scaled",
)
RECIPES = {"seed": SEED, "good": GOOD}


def learning_rate(step: int, cfg: TrainConfig) -> float:
    """Learning rate of update `step`, counted from 0."""
    rise = min(1.0, (step + 1) / (cfg.warmup + 1))
    tail = cfg.cooldown * cfg.steps
    fall = 1.0 if tail == 0 else min(1.0, (cfg.steps - step) / tail)
    return cfg.lr * min(rise, fall)


@torch.no_grad()
def initialize(model: nn.Module, initialization: str, generator: torch.Generator) -> nn.Module:
    """Draw the weights in place and return the model.

    "torch": PyTorch's own defaults, drawn from `generator`. "scaled": embeddings of unit RMS per row direction,
    matrices normal with std 1/sqrt(fan-in), the two that write into the residual stream divided by sqrt(2·layers)
    (Radford et al. 2019), and a head of std 0.2/sqrt(C): final-normed states have unit variance, so logits start
    with variance 0.04 and the loss starts at ln V + 0.02, whatever the width.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            if initialization == "torch":  # kaiming_uniform(a=sqrt(5)), as nn.Linear.reset_parameters
                module.weight.uniform_(-bound, bound, generator=generator)
            else:
                module.weight.normal_(0, bound, generator=generator)
            if module.bias is not None:
                module.bias.uniform_(-bound, bound, generator=generator) if initialization == "torch" else module.bias.zero_()
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(0, 1 if initialization == "torch" else EMBEDDING_STD, generator=generator)
    if initialization == "scaled":
        for block in model.blocks:
            for matrix in (block.attention.out.weight, block.ffn.down.weight):
                matrix.div_(math.sqrt(2 * len(model.blocks)))
        model.head.weight.normal_(0, 0.2 / math.sqrt(model.cfg.d_model), generator=generator)
    return model


EMBEDDING_STD = 0.5  # chosen on the validation split among 0.02, 0.1, 0.5 and 1


def optimizer(model: nn.Module, cfg: TrainConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019) with decay on matrices only; without decay it is Adam."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embedding" not in name]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    groups = [{"params": matrices, "weight_decay": cfg.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=cfg.lr, betas=cfg.betas, fused=True)
