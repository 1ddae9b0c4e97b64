"""One walk over a model: every `nn.Linear` and `nn.Embedding` becomes its quantized twin, everything else stays."""

import copy

import torch.nn as nn

from .layers import QuantEmbedding, QuantLinear, QuantWeight
from .schemes import QuantScheme, quantize_tensor

METHODS = {"rtn": quantize_tensor}  # round to nearest, without data


def quantize(model: nn.Module, scheme: QuantScheme, method: str = "rtn", calibration=None) -> nn.Module:
    """A new model with its matrices quantized (`.scheme` says how); the argument is untouched.

    Norms, biases and position tables stay in floating point. A matrix shared by two layers (a tied head) is quantized once
    and stays shared. ValueError for an unknown method, data a method cannot use, a weight that does not fit (its layer is
    named), or a model that has nothing left to quantize.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is unknown: choose one of {', '.join(METHODS)}")
    if calibration is not None:
        raise ValueError(f"method {method!r} uses no calibration data: leave calibration None")
    return _swap(model, scheme, METHODS[method])


def quantize_structure(model: nn.Module, scheme: QuantScheme) -> nn.Module:
    """The layers and buffer shapes of `quantize(model, scheme)` without its values: for `load_state_dict` to fill."""
    return _swap(model, scheme, None)


def _swap(model, scheme, encode):
    model = copy.deepcopy(model)
    found = {name: m for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Embedding))}
    if not found or any(isinstance(m, QuantWeight) for m in model.modules()):
        raise ValueError("the model has no nn.Linear left as it was trained: give the FP32 model, not a quantized one")
    kept = set() if scheme.embeddings else {id(m.weight) for m in found.values() if isinstance(m, nn.Embedding)}
    made = {}  # id of a weight -> its QuantWeight, so that tied layers share one
    for name, layer in found.items():
        if id(layer.weight) in kept:
            continue
        if id(layer.weight) not in made:
            try:
                made[id(layer.weight)] = QuantWeight.from_tensor(layer.weight, scheme, encode)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        weight = made[id(layer.weight)]
        parent, _, child = name.rpartition(".")
        twin = QuantEmbedding(weight) if isinstance(layer, nn.Embedding) else QuantLinear(weight, layer.bias)
        setattr(model.get_submodule(parent), child, twin.train(layer.training))
    model.scheme = scheme
    return model
