"""The same function with other weights: what is hard to round in one place is moved to another,
exactly, before rounding.

Input channel j of a linear layer is divided by s_j and column j of its weights multiplied by it.
The division costs nothing where it folds into what makes the input: a norm's weight, the values of
attention (a weighted mean keeps channels apart), or the layer before a ReLU, whose output scales
with its input."""

import copy
from collections.abc import Mapping

import torch
import torch.nn as nn

from ..fields import real
from .calibration import Moments, calibration_ids, collect
from .schemes import QuantScheme, dequantize_tensor, quantize_tensor
from .walker import in_full, spread

POWERS = {"relu": 1.0, "relu2": 0.5, "swiglu": 1.0}  # act(u / s^power) = act(u) / s; GELU has none
ALPHAS = [i / 20 for i in range(21)]


def equalize(
    model: nn.Module, scheme: QuantScheme | Mapping, method: str, calibration, alpha: float = 0.5
) -> nn.Module:
    """A new model in floating point that computes what `model` does, with the channel scales of
    "awq" or "smoothquant".

    AWQ (Lin et al. 2024): s = E|x|^a with the a of 0, 0.05 … 1 that leaves the outputs least wrong
    after round-to-nearest; a = 0 changes nothing. SmoothQuant (Xiao et al. 2023): s = max|x|^alpha
    / max|w|^(1 - alpha). ValueError for another method, an alpha outside 0 to 1, or calibration
    that does not fit."""
    if method not in ("awq", "smoothquant"):
        raise ValueError(f"method {method!r} does not equalize: choose one of awq, smoothquant")
    alpha = real("alpha", alpha, 0, 1)
    schemes, ids = spread(model, scheme), calibration_ids(model, calibration)
    full, dtype = in_full(model)
    model = copy.deepcopy(model) if full is model else full
    pairs = [
        (source, [t for t in targets if schemes.get(t)], targets, power)
        for source, targets, power in folds(model.cfg)
    ]
    # Once for all: folding leaves what follows as it was.
    moments = collect(model, ids, {own[0] for _, own, _, _ in pairs if own})
    for source, own, targets, power in pairs:
        if own:
            weights = {t: model.get_submodule(t).weight.detach() for t in own}
            seen = moments[own[0]]
            s = (
                smooth(weights, seen, alpha)
                if method == "smoothquant"
                else search(weights, schemes, seen)
            )
            fold(model.get_submodule(source), [model.get_submodule(t) for t in targets], s, power)
    return model.to(dtype)


def folds(cfg):
    """(source, targets that read it and nothing else, power) of every place where a scale folds
    away exactly."""
    for i in range(cfg.n_layers):
        attention, ffn = f"blocks.{i}.attention", f"blocks.{i}.ffn"
        yield f"{attention}_norm", [f"{attention}.{x}" for x in "qkv"], 1.0
        if cfg.kv_heads == cfg.n_heads:  # else several heads of `out` read one of `v`
            yield f"{attention}.v", [f"{attention}.out"], 1.0
        yield f"{ffn}_norm", [f"{ffn}.up"] + [f"{ffn}.gate"] * (cfg.ffn == "swiglu"), 1.0
        if cfg.ffn in POWERS:
            yield f"{ffn}.up", [f"{ffn}.down"], POWERS[cfg.ffn]
    if not cfg.tied:  # the embedding would change with the head
        yield "norm", ["head"], 1.0


def smooth(weights: dict[str, torch.Tensor], seen: Moments, alpha: float) -> torch.Tensor:
    """SmoothQuant's scale of each input channel, (K,); 1 where the input or the weights are
    zero."""
    widest = torch.stack([w.abs().amax(0) for w in weights.values()]).amax(0)
    scale = seen.peak**alpha / widest ** (1 - alpha)
    return torch.where((seen.peak > 0) & (widest > 0), scale, 1.0)


def search(weights: dict[str, torch.Tensor], schemes: Mapping, seen: Moments) -> torch.Tensor:
    """AWQ's scale of each input channel, (K,): the power of the mean magnitude that costs the
    outputs least."""
    mean = seen.mean.double()
    mean = mean.clamp(min=1e-4 * mean.max()) if mean.max() > 0 else torch.ones_like(mean)
    best, least = torch.ones_like(seen.mean), None
    for a in ALPHAS:
        s = mean**a
        s = (s / (s.max() * s.min()).sqrt()).to(best)
        cost = 0.0
        for name, w in weights.items():
            rounded = dequantize_tensor(
                *quantize_tensor(w * s, schemes[name]), schemes[name], w.shape[1]
            )
            cost += seen.loss(rounded / s - w).sum().item()
        if least is None or cost < least:
            best, least = s, cost
    return best


@torch.no_grad()
def fold(source: nn.Module, targets: list[nn.Module], scale: torch.Tensor, power: float):
    """Divide the outputs of `source`, a norm or a linear layer, by scale^power; multiply the
    columns of its readers by scale."""
    rows = scale**power
    source.weight /= rows[:, None] if isinstance(source, nn.Linear) else rows
    if getattr(source, "bias", None) is not None:
        source.bias /= rows
    for target in targets:
        target.weight *= scale
