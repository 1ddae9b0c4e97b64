"""Walks over a model: every `nn.Linear` and `nn.Embedding` becomes its quantized twin; everything
else stays."""

import copy
from collections.abc import Mapping
from functools import partial

import torch
import torch.nn as nn

from ..fields import near
from .layers import QuantEmbedding, QuantLinear, QuantWeight
from .schemes import QuantScheme, as_scheme

Schemes = Mapping[str, QuantScheme | None]


def quantize_structure(model: nn.Module, scheme: QuantScheme | Schemes) -> nn.Module:
    """The layers and buffer shapes of `quantize(model, scheme)` without its values: for
    `load_state_dict` to fill."""
    return swap(model, as_scheme(scheme), None)


def spread(model: nn.Module, scheme: QuantScheme | Schemes) -> dict[str, QuantScheme | None]:
    """Name of every matrix -> its scheme, in the order the model defines them; None stays in
    floating point.

    A matrix that two layers share has the name of the first: a tied head is the embedding. A
    mapping names each exactly once (`embeddings` of its schemes says nothing then); ValueError
    names what is missing, or known to no layer."""
    scheme = as_scheme(scheme)
    layers = {
        name: m for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Embedding))
    }
    if not layers or any(isinstance(m, QuantWeight) for m in model.modules()):
        raise ValueError(
            "the model has no nn.Linear left as it was trained: "
            "give the FP32 model, not a quantized one"
        )
    owners = {id(m.weight): name for name, m in reversed(layers.items())}  # the first name wins
    names = [name for name in layers if owners[id(layers[name].weight)] == name]
    if not isinstance(scheme, Mapping):
        read = (
            set()
            if scheme.embeddings
            else {id(m.weight) for m in layers.values() if isinstance(m, nn.Embedding)}
        )
        return {name: None if id(layers[name].weight) in read else scheme for name in names}
    for name in scheme:
        if name not in names:
            tied = (
                f": it shares the matrix of {owners[id(layers[name].weight)]!r}, name that one"
                if name in layers
                else ""
            )
            raise ValueError(
                f"the scheme names {name!r}, which is no matrix of this "
                f"model{tied or near(name, names)}"
            )
    if missing := [name for name in names if name not in scheme]:
        raise ValueError(
            f"the scheme says nothing of {', '.join(missing)}: "
            "name every matrix, None keeps one in floating point"
        )
    return {name: scheme[name] for name in names}


def in_full(model: nn.Module) -> tuple[nn.Module, torch.dtype | None]:
    """The model, or of one in half precision a float32 copy, and the type it is to have again.

    ValueError for one that mixes types, and so can multiply nothing."""
    types = {p.dtype for p in model.parameters() if p.is_floating_point()}
    if len(types) > 1:
        raise ValueError(
            f"the model mixes {' and '.join(sorted(map(str, types)))}: convert it to one type first"
        )
    dtype = next(iter(types))
    return (copy.deepcopy(model).float() if dtype.itemsize < 4 else model), dtype


def swap(model, scheme, encode, observe=None, outliers=None):
    """The copy whose matrices are quantized one by one; `encode` None leaves them empty.

    `observe(copy, name)` gives further arguments of `encode` for that matrix, from the copy as
    quantized so far. `outliers`: name -> columns to keep apart."""
    schemes = spread(model, scheme)
    replaced = [model.get_submodule(name).weight for name, own in schemes.items() if own]
    model = copy.deepcopy(model, {id(weight): weight for weight in replaced})  # all but these
    layers = {
        name: m for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Embedding))
    }
    for name, own in schemes.items():
        if own is None:
            continue
        matrix, chosen = layers[name].weight, (outliers or {}).get(name, ())
        try:
            how = encode if observe is None else partial(encode, **observe(model, name))
            weight = QuantWeight.from_tensor(matrix, own, how, chosen)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        for shared, layer in layers.items():  # tied layers share one QuantWeight
            if layer.weight is matrix:
                parent, _, child = shared.rpartition(".")
                twin = (
                    QuantEmbedding(weight)
                    if isinstance(layer, nn.Embedding)
                    else QuantLinear(weight, layer.bias)
                )
                setattr(model.get_submodule(parent), child, twin.train(layer.training))
    model.scheme = dict(scheme) if isinstance(scheme, Mapping) else scheme
    return model
