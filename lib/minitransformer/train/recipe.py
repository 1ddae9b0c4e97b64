"""Recipes: how a model is initialised, which optimizer moves it, and the learning rate at every
step."""

import math
from dataclasses import dataclass, fields, replace

import torch
import torch.nn as nn

from ..fields import choice, flag, near, real, settle, whole
from .muon import Muon, MuonAdamW, hidden_matrices

INITIALIZATIONS = ("torch", "scaled", "zeroed")
COOLDOWNS = ("linear", "cosine")
OPTIMIZERS = ("adamw", "muon")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class TrainConfig:
    """One training run: `steps` updates on batches of `batch_size` windows of `window` tokens.

    The learning rate rises linearly over `warmup` steps, stays, and falls to zero over the last
    `cooldown` share of the steps (warm-up, stable, decay: Hägele et al. 2024): in a line, or, where
    `cooldown_shape` is "cosine", in half a wave (Loshchilov and Hutter 2017, over all the steps).
    The first `short_steps` steps hold as many tokens in windows of `short_window`. Gradients are
    scaled down to a norm of `clip`. `initialization` is "torch" (the default of `nn.Linear` and
    `nn.Embedding`), "scaled" or "zeroed" (see `initialize`), `optimizer` "adamw" or "muon" (see
    `optimizer`). With an `ema` above 0 the last step puts the running mean of the weights in their
    place (see `average`).
    `precision` is what forward and backward multiply in, "float32" or "bfloat16" (autocast: the
    weights, the loss and the optimizer stay FP32), which pays where the processor has it: GPUs.
    With `compile` both are one program (`torch.compile`; Ansel et al. 2024), made at the first step
    of every shape of batch in seconds to a minute, whose losses are the others' but for rounding.
    ValueError names the field, its value and the remedy."""

    steps: int = 100
    batch_size: int = 4
    window: int = 64
    short_window: int = 0
    short_steps: int = 0
    lr: float = 1e-3
    warmup: int = 10
    cooldown: float = 0.0
    cooldown_shape: str = "linear"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip: float = 1.0
    initialization: str = "torch"
    optimizer: str = "adamw"
    ema: float = 0.0
    precision: str = "float32"
    compile: bool = False

    def __post_init__(self):
        for name in ("steps", "batch_size", "window"):
            settle(self, **{name: whole(name, getattr(self, name))})
        for name in ("short_window", "short_steps", "warmup"):
            settle(self, **{name: whole(name, getattr(self, name), 0)})
        for name in ("lr", "clip"):
            settle(self, **{name: real(name, getattr(self, name), above=True)})
        settle(
            self,
            cooldown=real("cooldown", self.cooldown, 0, 1),
            cooldown_shape=choice("cooldown_shape", self.cooldown_shape, COOLDOWNS),
            ema=real("ema", self.ema, 0, 0.99999),
            weight_decay=real("weight_decay", self.weight_decay),
            initialization=choice("initialization", self.initialization, INITIALIZATIONS),
            optimizer=choice("optimizer", self.optimizer, OPTIMIZERS),
            precision=choice("precision", self.precision, PRECISIONS),
            compile=flag("compile", self.compile),
            betas=_betas(self.betas),
        )
        if self.short_steps and not 1 <= self.short_window <= self.window:
            raise ValueError(
                f"short_window {self.short_window} does not fit window {self.window}: "
                f"give 1 to {self.window}, or short_steps 0"
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


def _betas(betas) -> tuple[float, float]:
    """Two shares below 1; 0.999… at most, so that a mean can move."""
    if isinstance(betas, str) or not hasattr(betas, "__len__") or len(betas) != 2:
        raise ValueError(f"betas {betas!r} are not two numbers: give a pair like (0.9, 0.999)")
    first, second = (real(f"betas[{i}]", beta, 0, 1) for i, beta in enumerate(betas))
    if 1 in (first, second):
        raise ValueError(f"betas {betas!r} reach 1, and nothing would move: give shares below 1")
    return first, second


# The original report's: Adam, lr 1e-3, warm-up 10, 100 steps, batch 4 x 64, clip 1.0.
SEED = TrainConfig()
GOOD = TrainConfig(
    steps=1500,
    batch_size=8,
    window=256,
    short_window=16,
    short_steps=300,
    lr=6e-3,
    warmup=50,
    cooldown=0.6,
    betas=(0.9, 0.99),
    weight_decay=0.1,
    initialization="scaled",
    optimizer="muon",
)
RECIPES = {"seed": SEED, "good": GOOD}


def plan(recipe: str, **changes) -> TrainConfig:
    """The recipe of this name, "seed" or "good", with some of its fields changed.

    ValueError for an unknown recipe or field (the close one is named) and for a value that a field
    cannot have: so that a run can be checked before anything is read or built."""
    own, known = RECIPES[choice("recipe", recipe, RECIPES)], [f.name for f in fields(TrainConfig)]
    for name in changes:
        if name not in known:
            raise ValueError(
                f"a recipe has no field {name!r}{near(name, known)}: choose from {', '.join(known)}"
            )
    return replace(own, **changes)


def learning_rate(step: int, cfg: TrainConfig) -> float:
    """Learning rate of update `step`, counted from 0."""
    rise = min(1.0, (step + 1) / (cfg.warmup + 1))
    tail = cfg.cooldown * cfg.steps
    fall = 1.0 if tail == 0 else min(1.0, (cfg.steps - step) / tail)
    if cfg.cooldown_shape == "cosine":
        fall = (1 - math.cos(math.pi * fall)) / 2
    return cfg.lr * min(rise, fall)


@torch.no_grad()
def initialize(model: nn.Module, initialization: str, seed: int) -> nn.Module:
    """Draw the weights in place from `seed` and return the model.

    "torch": the distributions of PyTorch's own defaults. "scaled": embeddings of standard deviation
    0.5; matrices normal with 1/sqrt(fan-in), the two that write into the residual stream divided by
    sqrt(2·layers) (Radford et al. 2019); a head of 0.2/sqrt(C), so that logits start with variance
    0.04 and the loss at ln V + 0.02 whatever the width; biases zero, but those of queries and keys
    normal with 1.5: with rotary positions their product is a fixed preference for some distances,
    so that heads start out looking at different offsets. "zeroed": the same, but that the two
    matrices that write into the residual stream are zero, so that every block begins as the
    identity. ValueError for another word."""
    choice("initialization", initialization, INITIALIZATIONS)
    generator = torch.Generator().manual_seed(whole("seed", seed, -(2**63), 2**64 - 1))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)
            if initialization == "torch":  # kaiming_uniform(a=sqrt(5)), as reset_parameters
                module.weight.uniform_(-bound, bound, generator=generator)
            else:
                module.weight.normal_(0, bound, generator=generator)
            if module.bias is not None and initialization == "torch":
                module.bias.uniform_(-bound, bound, generator=generator)
            elif module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(0, 1 if initialization == "torch" else 0.5, generator=generator)
    if initialization != "torch":
        for block in model.blocks:
            for matrix in (block.attention.out.weight, block.ffn.down.weight):
                matrix.div_(math.sqrt(2 * len(model.blocks)))
                if initialization == "zeroed":
                    matrix.zero_()
            for layer in (block.attention.q, block.attention.k):
                if layer.bias is not None:
                    layer.bias.normal_(0, 1.5, generator=generator)
        model.head.weight.normal_(0, 0.2 / math.sqrt(model.cfg.d_model), generator=generator)
    return model


def optimizer(model: nn.Module, cfg: TrainConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019) with decay on matrices only; without decay it is Adam.
    "muon": the matrices of the blocks are moved by Muon instead, see `MuonAdamW`."""
    own = hidden_matrices(model) if cfg.optimizer == "muon" else []
    apart = {id(p) for p in own}
    named = [(name, p) for name, p in model.named_parameters() if id(p) not in apart]
    matrices = [p for name, p in named if p.ndim == 2 and "embedding" not in name]
    chosen = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in chosen]
    groups = [
        {"params": matrices, "weight_decay": cfg.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=cfg.lr, betas=cfg.betas, fused=True)
    if not own:
        return adamw
    return MuonAdamW(Muon(own, lr=cfg.lr, weight_decay=cfg.weight_decay), adamw)


@torch.no_grad()
def average(opt: torch.optim.Optimizer, share: float, last: bool) -> None:
    """Move the running mean of the weights by one step, of which it keeps `share`; after the `last`
    step the weights become it (Polyak and Juditsky 1992).

    It stands in the optimizer's state, and so in every checkpoint."""
    for p, own in opt.state.items():
        mean = own.setdefault("mean", p.detach().clone()).lerp_(p, 1 - share)
        if last:
            p.copy_(mean)
