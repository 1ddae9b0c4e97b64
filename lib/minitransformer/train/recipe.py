"""Recipes: how a model is initialised, which optimizer moves it, and the learning rate at every
step."""

import math
from dataclasses import dataclass

import torch
import torch.nn as nn


@dataclass(frozen=True)
class TrainConfig:
    """One training run: `steps` updates on batches of `batch_size` windows of `window` tokens.

    The learning rate rises linearly over `warmup` steps, stays, and falls linearly to zero over the
    last `cooldown` share of the steps (warm-up, stable, decay: Hägele et al. 2024).
    `initialization` is "torch" (the default of `nn.Linear` and `nn.Embedding`) or "scaled" (see
    `initialize`)."""

    steps: int = 100
    batch_size: int = 4
    window: int = 64
    short_window: int = 0
    short_steps: int = 0
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
                raise ValueError(
                    f"{name} {getattr(self, name)} is not positive: give a value above 0"
                )
        if not 0 <= self.cooldown <= 1:
            raise ValueError(f"cooldown {self.cooldown} is not a share of the steps: give 0 to 1")
        if self.initialization not in ("torch", "scaled"):
            raise ValueError(
                f"initialization {self.initialization!r} is unknown: choose torch or scaled"
            )

    @property
    def tokens(self) -> int:
        """Tokens seen in the whole run."""
        return self.steps * self.batch_size * self.window

    @property
    def batches(self) -> dict:
        """What a source of batches has to know."""
        return {
            k: getattr(self, k) for k in ("batch_size", "window", "short_window", "short_steps")
        }


SEED = (
    TrainConfig()
)  # the seed report's: Adam, lr 1e-3, warm-up 10, 100 steps, batch 4 x 64, clip 1.0
GOOD = TrainConfig(
    steps=1500,
    batch_size=8,
    window=256,
    short_window=16,
    short_steps=300,
    lr=6e-3,
    warmup=50,
    cooldown=0.3,
    betas=(0.9, 0.99),
    weight_decay=0.1,
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
def initialize(model: nn.Module, initialization: str, seed: int) -> nn.Module:
    """Draw the weights in place from `seed` and return the model.

    "torch": the distributions of PyTorch's own defaults. "scaled": embeddings of standard deviation
    0.5; matrices normal with 1/sqrt(fan-in), the two that write into the residual stream divided by
    sqrt(2·layers) (Radford et al. 2019); a head of 0.2/sqrt(C), so that logits start with variance
    0.04 and the loss at ln V + 0.02 whatever the width; biases zero, but those of queries and keys
    normal with 1.5: with rotary positions their product is a fixed preference for some distances,
    so that heads start out looking at different offsets."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            if (
                initialization == "torch"
            ):  # kaiming_uniform(a=sqrt(5)), as nn.Linear.reset_parameters
                module.weight.uniform_(-bound, bound, generator=generator)
            else:
                module.weight.normal_(0, bound, generator=generator)
            if module.bias is not None:
                module.bias.uniform_(
                    -bound, bound, generator=generator
                ) if initialization == "torch" else module.bias.zero_()
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(0, 1 if initialization == "torch" else 0.5, generator=generator)
    if initialization == "scaled":
        for block in model.blocks:
            for matrix in (block.attention.out.weight, block.ffn.down.weight):
                matrix.div_(math.sqrt(2 * len(model.blocks)))
            for layer in (block.attention.q, block.attention.k):
                if layer.bias is not None:
                    layer.bias.normal_(0, 1.5, generator=generator)
        model.head.weight.normal_(0, 0.2 / math.sqrt(model.cfg.d_model), generator=generator)
    return model


def optimizer(model: nn.Module, cfg: TrainConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019) with decay on matrices only; without decay it is Adam."""
    matrices = [
        p for name, p in model.named_parameters() if p.ndim == 2 and "embedding" not in name
    ]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    groups = [
        {"params": matrices, "weight_decay": cfg.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=cfg.lr, betas=cfg.betas, fused=True)
