"""One walk over a model: every `nn.Linear` and `nn.Embedding` becomes its quantized twin, everything else stays."""

import copy
from collections.abc import Mapping
from difflib import get_close_matches

import torch.nn as nn

from .layers import QuantEmbedding, QuantLinear, QuantWeight
from .schemes import QuantScheme, quantize_tensor

METHODS = {"rtn": quantize_tensor}  # round to nearest, without data
Schemes = Mapping[str, QuantScheme | None]


def quantize(model: nn.Module, scheme: QuantScheme | Schemes, method: str = "rtn", calibration=None) -> nn.Module:
    """A new model with its matrices quantized (`.scheme` says how); the argument is untouched.

    `scheme` is one for all, or a mapping from the name of every matrix to its own, None keeping it in floating point: see
    `spread`. Norms, biases and position tables stay in floating point. A matrix shared by two layers (a tied head) is quantized
    once and stays shared. ValueError for an unknown method, data a method cannot use, a weight that does not fit (its layer is
    named), or a model that has nothing left to quantize.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is unknown: choose one of {', '.join(METHODS)}{_near(method, METHODS)}")
    if calibration is not None:
        raise ValueError(f"method {method!r} uses no calibration data: leave calibration None")
    return _swap(model, scheme, METHODS[method])


def quantize_structure(model: nn.Module, scheme: QuantScheme | Schemes) -> nn.Module:
    """The layers and buffer shapes of `quantize(model, scheme)` without its values: for `load_state_dict` to fill."""
    return _swap(model, scheme, None)


def spread(model: nn.Module, scheme: QuantScheme | Schemes) -> dict[str, QuantScheme | None]:
    """Name of every matrix -> its scheme, in the order the model defines them; None stays in floating point.

    A matrix that two layers share has the name of the first: a tied head is the embedding. A mapping names each exactly once
    (`embeddings` of its schemes says nothing then); ValueError names what is missing, or known to no layer.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Embedding))}
    if not layers or any(isinstance(m, QuantWeight) for m in model.modules()):
        raise ValueError("the model has no nn.Linear left as it was trained: give the FP32 model, not a quantized one")
    owners = {id(m.weight): name for name, m in reversed(layers.items())}  # the first name wins
    names = [name for name in layers if owners[id(layers[name].weight)] == name]
    if not isinstance(scheme, Mapping):
        read = set() if scheme.embeddings else {id(m.weight) for m in layers.values() if isinstance(m, nn.Embedding)}
        return {name: None if id(layers[name].weight) in read else scheme for name in names}
    for name in scheme:
        if name not in names:
            tied = f": it shares the matrix of {owners[id(layers[name].weight)]!r}, name that one" if name in layers else ""
            raise ValueError(f"the scheme names {name!r}, which is no matrix of this model{tied or _near(name, names)}")
    if missing := [name for name in names if name not in scheme]:
        raise ValueError(f"the scheme says nothing of {', '.join(missing)}: name every matrix, None keeps one in floating point")
    return {name: scheme[name] for name in names}


def _near(name, known):
    close = get_close_matches(str(name), known, 1, 0.4)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _swap(model, scheme, encode):
    schemes, made = spread(model, scheme), {}  # made: id of a weight -> its QuantWeight, so that tied layers share one
    model = copy.deepcopy(model)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Embedding))}
    for name, own in schemes.items():
        if own is not None:
            try:
                made[id(layers[name].weight)] = QuantWeight.from_tensor(layers[name].weight, own, encode)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
    for name, layer in layers.items():
        if id(layer.weight) in made:
            weight = made[id(layer.weight)]
            parent, _, child = name.rpartition(".")
            twin = QuantEmbedding(weight) if isinstance(layer, nn.Embedding) else QuantLinear(weight, layer.bias)
            setattr(model.get_submodule(parent), child, twin.train(layer.training))
    model.scheme = dict(scheme) if isinstance(scheme, Mapping) else scheme
    return model
