"""Quantization-aware training: weights are read rounded, and the gradient goes straight to the
floats behind them.

The grid of training is the grid of deployment: `convert` packs the very codes, steps and
zero-points that the forward used (Jacob et al. 2018, section 3; straight-through, Bengio et al.
2013). A prepared model goes through `train` like any other, so a short fine-tune and training from
scratch (prepare right after `initialize`) are the same call."""

import copy
from dataclasses import replace

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..quant import QuantEmbedding, QuantLinear, QuantWeight, quantize
from ..quant.methods import DATA_FREE
from ..quant.schemes import SCALE_DTYPES, finite, fit_grid, grouped, store, ungrouped


class Straight(torch.autograd.Function):
    """The rounded value in the forward pass, exactly; the whole gradient to what was rounded."""

    @staticmethod
    def forward(ctx, x, rounded):
        return rounded.view_as(rounded)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


class FakeWeight(nn.Module):
    """An (N, K) matrix of floats that reads as its rounded self: `QuantWeight` while it trains, one
    for all layers it ties.

    ŵ = (u - z)·s with u = clamp(round(w / s) + z), where s and z are those of a grid over a share
    of the present range, as `fit_grid` makes it: so the grid follows weights that grow. The share
    is the first one times e^g, g (N or 1, G, 1), 0 at first, learned (the clipping of Shao et al.
    2023, kept from changing its sign) by the gradient of a step (Esser et al. 2020): ∂ŵ/∂s is u -
    z, less w / s inside the clamp, and ∂s/∂g is s. ∂ŵ/∂w is 1 inside the clamp and 0 outside.
    ValueError for a codebook or columns kept apart."""

    def __init__(self, full: nn.Parameter, start: QuantWeight):
        super().__init__()
        self.rows, self.columns, self.scheme = start.rows, start.columns, start.scheme
        self.inner = start.columns
        if self.scheme.codebook or self.scheme.outliers:
            raise ValueError(
                f"{self.scheme} cannot be trained: "
                "give a scheme of evenly spaced levels for all columns"
            )
        self.full = full
        w, scale = grouped(finite(full), self.scheme), start.scale.float()[..., None]
        exact = fit_grid(w, replace(self.scheme, scale_dtype="float32"))[0]
        self.register_buffer(
            "share", torch.where(scale == fit_grid(w, self.scheme)[0], 1.0, scale / exact)
        )
        # Three axes, so that weight decay, which is for matrices, leaves it alone.
        self.gain = nn.Parameter(torch.zeros_like(scale))

    def cells(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Unsigned codes (N, G, size), steps and zero-points (N or 1, G, 1); gradients
        straight-through."""
        s, w = self.scheme, grouped(self.full, self.scheme)
        scale, zero = fit_grid(
            grouped(finite(self.full), s), s, self.share * self.gain.detach().exp()
        )
        # Of the first argument only its gradient counts.
        step = Straight.apply(self.gain * scale.float(), scale.float())
        ratio = w / step
        codes = Straight.apply(ratio, ratio.detach().round()) + zero
        return codes.clamp(1 if s.symmetric and not s.full_range else 0, 2**s.bits - 1), step, zero

    def forward(self, ids: torch.Tensor | None = None) -> torch.Tensor:
        """The rounded matrix (N, K), or only the rows asked for: (...) -> (..., K)."""
        codes, step, zero = self.cells()
        weight = ungrouped((codes - zero) * step, self.full.shape).to(self.full.dtype)
        return weight if ids is None else F.embedding(ids, weight)

    @torch.no_grad()
    def packed(self) -> QuantWeight:
        """What the forward pass read, as it is stored."""
        codes, step, zero = self.cells()
        stored = store(
            codes,
            step.to(SCALE_DTYPES[self.scheme.scale_dtype]),
            zero,
            self.scheme,
            self.full.shape,
        )
        return QuantWeight.from_tensor(self.full, self.scheme, lambda weight, scheme: stored)

    def extra_repr(self):
        return f"{self.rows}, {self.columns}, {self.scheme}"


class FakeLinear(QuantLinear):
    """The quantized layer while it trains: its rounded input, too, passes the gradient straight
    on."""

    def activation(self, x):
        return (
            Straight.apply(x, super().activation(x.detach()))
            if self.weight.scheme.activation_bits
            else x
        )


def prepare_qat(model: nn.Module, scheme, method: str = "rtn") -> nn.Module:
    """A new model whose matrices read as `scheme` (one, or a mapping, as `quantize` takes it)
    rounds them, ready for `train`.

    `method` chooses the first grid: "rtn" the whole range, so that the first forward is that of
    `quantize(model, scheme)` bit for bit, "mse" the share of it that clips best, which pays at 2
    bits. ValueError for any other, and for what `quantize` refuses."""
    if method not in DATA_FREE:
        raise ValueError(
            f"method {method!r} gives no grid to train on: choose one of {', '.join(DATA_FREE)}"
        )

    def fake(name, start):
        return FakeWeight(nn.Parameter(model.get_submodule(name).weight.detach().clone()), start)

    return _swap(quantize(model, scheme, method), fake, FakeLinear)


def convert(model: nn.Module) -> nn.Module:
    """The quantized model that a prepared one has been computing: packed, with the same logits to
    the last bit.

    A new model; the argument can train on. ValueError when nothing in it was prepared."""
    if not any(isinstance(m, FakeWeight) for m in model.modules()):
        raise ValueError(
            "the model has no fake-quantized layer: give the one that prepare_qat returned"
        )
    return _swap(copy.deepcopy(model), lambda name, weight: weight.packed(), QuantLinear)


def _swap(model, make, linear):
    """Give every quantized layer of `model` the weight make(name, its own), tied ones the same, and
    the class `linear`."""
    made = {}
    for name, layer in list(model.named_modules()):
        if isinstance(layer, (QuantLinear, QuantEmbedding)):
            if layer.weight not in made:
                made[layer.weight] = make(name, layer.weight)
            weight, (parent, _, child) = made[layer.weight], name.rpartition(".")
            twin = (
                QuantEmbedding(weight)
                if isinstance(layer, QuantEmbedding)
                else linear(weight, layer.bias)
            )
            setattr(model.get_submodule(parent), child, twin.train(layer.training))
    return model
