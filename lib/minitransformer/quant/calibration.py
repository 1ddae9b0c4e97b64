"""What the layers of a model see: statistics of their inputs on training text, and the error a
format leaves in their outputs."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn as nn

from .layers import QuantLinear

LARGEST = 1e30  # activation whose square, times a few thousand tokens and weights, float64 can hold
EXACT = 1e15  # up to this, float32 holds the sum of the squares of any number of tokens


@dataclass(frozen=True)
class Moments:
    """Inputs x (K,) of one linear layer over `tokens` calibration tokens, all that the methods need
    of them.

    second: mean of x xᵀ, (K, K) float64; GPTQ's Hessian is twice that. mean: of |x|, (K,). peak:
    largest |x|, (K,)."""

    second: torch.Tensor
    mean: torch.Tensor
    peak: torch.Tensor
    tokens: int

    @property
    def importance(self) -> torch.Tensor:
        """Mean square of each input, (K,), in a power of two that brings the largest near 1: what
        weighs columns is a ratio, and float32 has to hold it."""
        square = self.second.diagonal()
        most = square.max()
        return square / 2.0 ** most.log2().floor() if most > 0 else square

    def loss(self, error: torch.Tensor) -> torch.Tensor:
        """Mean squared output error of each row whose weights are off by `error`: (N, K) -> (N,), e
        H eᵀ."""
        error = error.double()
        return ((error @ self.second) * error).sum(1).clamp(min=0)


def calibration_ids(model: nn.Module, ids) -> torch.Tensor:
    """Token ids as (B, T) on the model's device; ValueError when there are none, or they are not of
    this model's vocabulary."""
    try:
        ids = torch.as_tensor(ids)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"calibration is no array ({error}): give integer token ids (B, T), rows of one length"
        ) from None
    if ids.numel() == 0:
        raise ValueError("calibration is empty: give token ids (B, T) of the training split")
    if ids.ndim not in (1, 2) or ids.is_floating_point() or ids.dtype == torch.bool:
        raise ValueError(
            f"calibration has shape {tuple(ids.shape)} and type {ids.dtype}: "
            "give integer token ids (B, T)"
        )
    rows = next(m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding))
    if ids.min() < 0 or ids.max() >= rows:
        raise ValueError(
            f"calibration ids run from {ids.min()} to {ids.max()}, and the model knows 0 to "
            f"{rows - 1}: "
            "encode the text with the tokenizer the model was trained with"
        )
    return ids.long().reshape(-1, ids.shape[-1]).to(next(model.parameters()).device)


@torch.no_grad()
def collect(
    model: nn.Module, ids: torch.Tensor, names: Iterable[str], batch_size: int = 8
) -> dict[str, Moments]:
    """Name of each linear layer -> `Moments` of its inputs while the model reads `ids` (B, T).

    ValueError names the first layer whose input is not finite, or too large to be squared."""
    sums: dict[str, Moments] = {}

    def watch(name):
        def hook(_, inputs):
            new, old = _sums(name, inputs[0].flatten(0, -2)), sums.get(name)
            sums[name] = new if old is None else _add(old, new)

        return model.get_submodule(name).register_forward_pre_hook(hook)

    handles = [watch(name) for name in names]
    try:
        for part in ids.split(batch_size):
            model(part)
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: Moments(m.second / m.tokens, (m.mean / m.tokens).float(), m.peak, m.tokens)
        for name, m in sums.items()
    }


def _sums(name, x) -> Moments:
    """Sums instead of means over x (tokens, K), in float32 at least."""
    x = x.float() if x.dtype.itemsize < 4 else x
    peak = x.abs().amax(0)
    if not peak.max() <= LARGEST:  # also catches nan
        raise ValueError(
            f"{name}: its input reaches {peak.max().item():.6g} on the calibration tokens, at most "
            f"{LARGEST:g} can be calibrated on: check the model's weights and the tokens"
        )
    wide = x if peak.max() <= EXACT else x.double()
    return Moments((wide.T @ wide).double(), x.abs().double().sum(0), peak, len(x))


def _add(a: Moments, b: Moments) -> Moments:
    return Moments(
        a.second + b.second, a.mean + b.mean, a.peak.maximum(b.peak), a.tokens + b.tokens
    )


def layer_output_errors(model: nn.Module, quantized: nn.Module, calibration) -> list[dict]:
    """One row a quantized linear layer: name, and relative RMS error of its outputs x Ŵᵀ, fed what
    it sees in `model`.

    So every layer is judged alone, by the same inputs. A model made by "awq" or "smoothquant" has
    other weights before it is rounded, and is compared with `equalize`'s."""
    layers = {name: m for name, m in quantized.named_modules() if isinstance(m, QuantLinear)}
    moments = collect(model, calibration_ids(model, calibration), layers)
    rows = []
    for name, layer in layers.items():
        reference = model.get_submodule(name).weight.detach()
        error = moments[name].loss(layer.weight().double() - reference.double()).sum()
        whole = moments[name].loss(reference).sum()
        rows.append(
            {
                "layer": name,
                "relative_output_error": (error / whole.clamp(min=1e-300)).sqrt().item(),
                "tokens": moments[name].tokens,
            }
        )
    return rows
