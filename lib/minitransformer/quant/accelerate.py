"""Walks over a quantized model: every quantized layer becomes a kernel's."""

import copy

import torch.nn as nn

from ..fields import choice
from .kernels import KERNELS
from .layers import QuantEmbedding, QuantLinear, QuantWeight
from .packed import KernelError
from .rows import lookup


def accelerate(model: nn.Module, backend: str) -> nn.Module:
    """A new model whose quantized layers run on `backend` and hold only the kernel's own copy of
    the weights.

    "dequantized": FP32 weights made once, "int8pack" and "int4pack": bf16 activations, "onednn",
    "fbgemm" and "onnxruntime": int8 activations, scales of a token's own. KernelError names the
    layer and the reason; the argument is untouched. ValueError for a model that has no
    quantized layer."""
    choice("backend", backend, KERNELS)
    if not any(isinstance(m, QuantWeight) for m in model.modules()):
        raise ValueError("the model has no quantized layer to accelerate: quantize() it first")
    model = copy.deepcopy(model)  # before packing: opaque weights cannot be copied
    for name, layer in list(model.named_modules()):
        if isinstance(layer, (QuantLinear, QuantEmbedding)):
            parent, _, child = name.rpartition(".")
            try:
                fast = _accelerated(layer, backend).train(layer.training)
            except KernelError as error:
                raise KernelError(f"{name}: {error}") from None
            setattr(model.get_submodule(parent), child, fast)
    return model


def _accelerated(layer, backend):
    if isinstance(layer, QuantLinear):
        return KERNELS[backend](layer)
    if backend == "dequantized":
        return nn.Embedding.from_pretrained(layer.weight())
    return lookup(layer)
