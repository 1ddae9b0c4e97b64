"""Quantization-aware training: weights are read rounded, and the gradient goes straight to the floats behind them.

The grid of training is the grid of deployment: `convert` packs the very codes, steps and zero-points that the forward used
(Jacob et al. 2018, section 3; straight-through, Bengio et al. 2013). A prepared model goes through `train` like any other, so a
short fine-tune and training from scratch (prepare right after `initialize`) are the same call.
"""

import copy

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..affine import pack, unpack
from ..quant import QuantEmbedding, QuantLinear, QuantScheme, QuantWeight, quantize
from ..quant.schemes import SCALE_DTYPES

GRIDS = ("rtn", "mse")  # methods that choose a grid and leave the weights as they are


class Straight(torch.autograd.Function):
    """The rounded value in the forward pass, exactly; the whole gradient to what was rounded."""

    @staticmethod
    def forward(ctx, x, rounded):
        return rounded.view_as(rounded)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


class FakeWeight(nn.Module):
    """An (N, K) matrix of floats that reads as its rounded self: `QuantWeight` while it trains, one for all layers it ties.

    ŵ = (u - z)·s with u = clamp(round(w / s) + z) and s = s₀·e^g in the scheme's scale type: the step is learned (Esser et al.
    2020), as the logarithm g (N or 1, G, 1) of its ratio to the first one, so that a step of the optimizer is a relative one and
    no sign can change. The zero-point stays. ∂ŵ/∂w is 1 inside the clamp and 0 outside; ∂ŵ/∂s is u - z, less w / s inside.
    """

    def __init__(self, full: nn.Parameter, start: QuantWeight):
        super().__init__()
        self.rows, self.columns, self.scheme = start.rows, start.columns, start.scheme
        s, groups = self.scheme, self.scheme.groups(self.columns)
        self.full = full
        self.register_buffer("scale", start.scale.float()[..., None])  # (N or 1, G, 1)
        zero = torch.full_like(start.scale, 2 ** (s.bits - 1)) if start.zero is None else unpack(start.zero, s.bits, groups)
        self.register_buffer("zero", zero.float()[..., None])
        self.gain = nn.Parameter(torch.zeros_like(self.scale))  # three axes: weight decay is for matrices

    def cells(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Unsigned codes (N, G, size) and steps (N or 1, G, 1), with their straight-through gradients."""
        s, size = self.scheme, self.scheme.group_size or self.columns
        w = F.pad(self.full, (0, -self.columns % size)).unflatten(-1, (-1, size))  # (N, G, size)
        dtype = SCALE_DTYPES[s.scale_dtype]
        step = self.scale * self.gain.exp()
        step = Straight.apply(step, step.detach().to(dtype).clamp(min=torch.finfo(dtype).tiny * torch.finfo(dtype).eps).float())
        ratio = w / step
        return (Straight.apply(ratio, ratio.detach().round()) + self.zero).clamp(1 if s.symmetric else 0, 2**s.bits - 1), step

    def forward(self, ids: torch.Tensor | None = None) -> torch.Tensor:
        """The rounded matrix (N, K), or only the rows asked for: (...) -> (..., K)."""
        codes, step = self.cells()
        weight = ((codes - self.zero) * step).flatten(-2)[..., : self.columns]
        return weight if ids is None else F.embedding(ids, weight)

    @torch.no_grad()
    def packed(self) -> QuantWeight:
        """What the forward pass read, as it is stored."""
        s, (codes, step) = self.scheme, self.cells()
        zero = None if s.symmetric else pack(self.zero.squeeze(-1), s.bits)
        stored = pack(codes.flatten(-2)[:, : self.columns], s.bits), step.squeeze(-1).to(SCALE_DTYPES[s.scale_dtype]), zero
        return QuantWeight.from_tensor(self.full, s, lambda weight, scheme: stored)

    def extra_repr(self):
        return f"{self.rows}, {self.columns}, {self.scheme}"


class FakeLinear(QuantLinear):
    """The quantized layer while it trains: its rounded input, too, passes the gradient straight on."""

    def activation(self, x):
        return Straight.apply(x, super().activation(x.detach())) if self.weight.scheme.activation_bits else x


def prepare_qat(model: nn.Module, scheme, method: str = "rtn") -> nn.Module:
    """A new model whose matrices read as `scheme` (one, or a mapping, as `quantize` takes it) rounds them, ready for `train`.

    Its first forward is that of `quantize(model, scheme, method)`, bit for bit; `method` chooses the first grid: "rtn", or "mse"
    where clipping pays, as it does at 2 bits. ValueError for any other, and for what `quantize` refuses.
    """
    if method not in GRIDS:
        raise ValueError(f"method {method!r} gives no grid to train on: choose one of {', '.join(GRIDS)}")

    def fake(name, start):
        return FakeWeight(nn.Parameter(model.get_submodule(name).weight.detach().clone()), start)

    return _swap(quantize(model, scheme, method), fake, FakeLinear)


def convert(model: nn.Module) -> nn.Module:
    """The quantized model that a prepared one has been computing: packed, with the same logits to the last bit.

    A new model; the argument can train on. ValueError when nothing in it was prepared.
    """
    if not any(isinstance(m, FakeWeight) for m in model.modules()):
        raise ValueError("the model has no fake-quantized layer: give the one that prepare_qat returned")
    return _swap(copy.deepcopy(model), lambda name, weight: weight.packed(), QuantLinear)


def _swap(model, make, linear):
    """Give every quantized layer of `model` the weight make(name, its own), tied ones the same, and the class `linear`."""
    made = {}
    for name, layer in list(model.named_modules()):
        if isinstance(layer, (QuantLinear, QuantEmbedding)):
            if layer.weight not in made:
                made[layer.weight] = make(name, layer.weight)
            weight, (parent, _, child) = made[layer.weight], name.rpartition(".")
            twin = QuantEmbedding(weight) if isinstance(layer, QuantEmbedding) else linear(weight, layer.bias)
            setattr(model.get_submodule(parent), child, twin.train(layer.training))
    return model
