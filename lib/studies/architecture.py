"""Is the model what its description says? Asked of the object, not of its configuration."""

from dataclasses import asdict, replace

import pandas as pd
import torch
from torch import nn

from minitransformer.bench import parameters
from minitransformer.model import ModelConfig, Transformer
from minitransformer.train import TrainConfig, initialize, optimizer

SETTINGS = {
    "batch_size": "batch, windows", "window": "window, tokens",
    "short_window": "first windows, tokens", "short_steps": "steps on the first windows",
    "lr": "peak learning rate", "warmup": "warm-up, steps",
    "cooldown": "cool-down, share of the steps", "cooldown_shape": "shape of the cool-down",
    "ema": "share that a mean of the weights keeps", "clip": "clipped at norm",
    "initialization": "initialisation",
}  # of a recipe, in words  # fmt: skip


def found(cfg: ModelConfig, seed: int) -> dict:
    """What a fresh model of this configuration shows when it is asked; see the functions below."""
    model = initialize(Transformer(cfg), "torch", seed).eval()
    accepted, refusal = longest(model)
    return {
        "blocks": len(model.blocks),
        "width": model.embedding.embedding_dim,
        "heads": model.blocks[0].attention.q.out_features // cfg.head_dim,
        "parameters": counted(model),
        "of embedding and head": counted(model.embedding) + counted(model.head),
        "largest change of an earlier logit": leak(model),
        "tokens accepted": accepted,
        "one more": refusal,
        "feed-forward": feed_forward(model),
        "positions": positions(cfg, seed),
        "positions as an option": positions(replace(cfg, position="sinusoidal"), seed),
    }


def parameter_table(cfg: ModelConfig, widths) -> pd.DataFrame:
    """Parameters by part, a column a width, and their total."""
    table = pd.DataFrame({f"width {d}": parameters(replace(cfg, d_model=d)) for d in widths})
    table.loc["total"] = table.sum()
    return table.rename_axis("part").reset_index()


def counted(model) -> int:
    """Parameters of a model, tensor by tensor."""
    return sum(p.numel() for p in model.parameters())


@torch.no_grad()
def leak(model, tokens: int = 64) -> float:
    """The largest change of an earlier logit when the last of so many tokens is another."""
    ids = _probe(model, tokens)
    changed = ids.clone()
    changed[0, -1] = ids[0, 0]
    return (model(ids)[:, :-1] - model(changed)[:, :-1]).abs().max().item()


@torch.no_grad()
def longest(model) -> tuple[int, str]:
    """How many tokens the model takes, and what it says of one more."""
    context = model.cfg.context
    taken = model(torch.zeros(1, context, dtype=torch.long)).shape[1]
    try:
        model(torch.zeros(1, context + 1, dtype=torch.long))
    except ValueError as error:
        return taken, str(error)
    return taken + 1, ""


@torch.no_grad()
def positions(cfg: ModelConfig, seed: int) -> str:
    """Which position encoding a model has, by what it does to logits beside the same weights
    without any: order counts or not, and a single token is moved (sums) or not (rotations)."""
    model = initialize(Transformer(cfg), "torch", seed).eval()
    bare = Transformer(replace(cfg, position="none")).eval()
    bare.load_state_dict(model.state_dict())
    ids = _probe(model, 64)
    turned = torch.cat([ids[:, :-1].flip(1), ids[:, -1:]], 1)
    order = (model(ids)[0, -1] - model(turned)[0, -1]).abs().max() > 1e-3
    moved = not torch.equal(model(ids[:, :1]), bare(ids[:, :1]))
    return ("sinusoidal" if moved else "rope") if order else "none"


def feed_forward(model) -> str:
    """The feed-forward network of the first block and the norm before it, in words."""
    linear = [layer for layer in model.blocks[0].ffn.children() if isinstance(layer, nn.Linear)]
    return f"{len(linear)} linear layers, {model.cfg.ffn}, {model.cfg.norm}"


def optimizer_name(recipe: TrainConfig) -> str:
    """AdamW decays weights; where none do, it is Adam. Muon moves the blocks' matrices alone."""
    own = optimizer(Transformer(ModelConfig(vocab_size=1, d_model=2, n_heads=1)), recipe)
    decays = any(group["weight_decay"] for group in own.param_groups)
    name = type(own).__name__.removesuffix("" if decays else "W")
    return name.replace("MuonAdam", "Muon for the blocks' matrices, Adam")


def recipes(named: dict[str, TrainConfig]) -> pd.DataFrame:
    """Recipes side by side, a row a setting in words; the optimizer by the name that it earns."""
    own = {name: asdict(r) | {"optimizer": optimizer_name(r)} for name, r in named.items()}
    table = pd.DataFrame(own).rename(lambda key: SETTINGS.get(key, key.replace("_", " ")))
    table.loc[SETTINGS["cooldown_shape"], table.loc[SETTINGS["cooldown"]] == 0] = None
    return table.rename_axis("setting").reset_index().astype(object)


def _probe(model, tokens: int) -> torch.Tensor:
    return torch.arange(tokens)[None] % model.cfg.vocab_size
