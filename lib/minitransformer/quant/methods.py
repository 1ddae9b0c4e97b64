"""How codes are chosen: `quantize` and its methods, from rounding to the nearest to making up for
what rounding loses."""

from dataclasses import replace
from functools import partial

import torch.nn as nn

from ..fields import choice, real
from .calibration import calibration_ids, collect
from .clipping import clip_tensor
from .equalize import equalize
from .gptq import gptq_tensor
from .schemes import QuantScheme, as_scheme, quantize_tensor
from .walker import Schemes, in_full, spread, swap

DATA_FREE = ("rtn", "mse")


def quantize(
    model: nn.Module,
    scheme: QuantScheme | Schemes,
    method: str = "rtn",
    calibration=None,
    **options,
) -> nn.Module:
    """A new model with its matrices quantized (`.scheme` says how); the argument is untouched.

    `scheme` is one for all, or a mapping from the name of every matrix to its own, None keeping it
    in floating point: see `spread`. Norms, biases and position tables stay in floating point. A
    matrix shared by two layers (a tied head) is quantized once and stays shared. Methods, the last
    four with `calibration` token ids (B, T) of the training split:

    "rtn"          round to nearest
    "mse"          round to nearest on the clipped range of least squared error
    "gptq"         `gptq_tensor`, each layer on the output of those quantized before (damping=0.01)
    "awq"          channel scales by activation (`equalize`), then clipping weighed by activation
    "smoothquant"  channel scales between activations and weights (alpha=0.5), then as "rtn"
    "llm.int8"     columns whose input reaches `threshold` stay FP32 (threshold=6.0), others "rtn"

    `scheme` may be a number of bits, 2 to 8, for the `QuantScheme` of so many. A model in half
    precision is quantized in float32, and then computes in its own type again.

    An embedding is looked up, not multiplied, so data cannot help it: gptq and awq clip it, and a
    head tied to it, as "mse". ValueError for an unknown method or option, data that is missing, of
    no use or of another tokenizer, a weight that does not fit (its layer is named), or a model that
    has nothing left to quantize."""
    run = METHODS[choice("method", method, METHODS)]
    known = getattr(run, "__kwdefaults__", None) or {}
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(
            f"method {method!r} has no option {', '.join(unknown)}: "
            f"it knows {', '.join(known) or 'none'}"
        )
    scheme = as_scheme(scheme)
    spread(model, scheme)  # refuses what is no model of ours before anything is read
    model, dtype = in_full(model)
    if method in DATA_FREE:
        if calibration is not None:
            raise ValueError(f"method {method!r} uses no calibration data: leave calibration None")
        return run(model, scheme).to(dtype)
    if calibration is None:
        raise ValueError(
            f"method {method!r} needs calibration: give token ids (B, T) of the training split"
        )
    return run(model, scheme, calibration_ids(model, calibration), **options).to(dtype)


def _gptq(model, scheme, ids, *, damping=0.01):
    return swap(
        model, scheme, partial(_linear, gptq_tensor, damping=damping), partial(_observe, ids)
    )


def _awq(model, scheme, ids):
    return swap(
        equalize(model, scheme, "awq", ids), scheme, partial(_linear, _clip), partial(_observe, ids)
    )


def _smoothquant(model, scheme, ids, *, alpha=0.5):
    _rounding("smoothquant", model, scheme)
    return swap(equalize(model, scheme, "smoothquant", ids, alpha), scheme, quantize_tensor)


def _llm_int8(model, scheme, ids, *, threshold=6.0):
    """LLM.int8() (Dettmers et al. 2022), its columns chosen once: at run time they would depend on
    what else is in the batch."""
    threshold = real("threshold", threshold)
    seen = collect(model, ids, _rounding("llm.int8", model, scheme))
    outliers = {name: (moments.peak >= threshold).nonzero()[:, 0] for name, moments in seen.items()}
    schemes = spread(model, scheme)
    schemes |= {
        name: replace(schemes[name], outliers=len(index)) for name, index in outliers.items()
    }
    return swap(model, schemes, quantize_tensor, outliers=outliers)


def _rounding(method, model, scheme):
    """Names of the linear layers to quantize; ValueError when the inputs of one are not to be
    rounded."""
    linear = {
        n: s
        for n, s in spread(model, scheme).items()
        if s is not None and isinstance(model.get_submodule(n), nn.Linear)
    }
    for name, own in linear.items():
        if own.activation_bits is None:
            raise ValueError(
                f"method {method!r} is for quantized activations, and the scheme of {name} "
                "leaves them in floating "
                "point: give activation_bits 8, or choose 'gptq' or 'awq'"
            )
    return list(linear)


def _observe(ids, model, name):
    layer = model.get_submodule(name)
    return {"moments": collect(model, ids, [name])[name] if isinstance(layer, nn.Linear) else None}


def _linear(encode, weight, scheme, moments, **options):
    return (
        clip_tensor(weight, scheme)
        if moments is None
        else encode(weight, scheme, moments, **options)
    )


def _clip(weight, scheme, moments):
    return clip_tensor(weight, scheme, moments.importance)


METHODS = {
    "rtn": partial(swap, encode=quantize_tensor),
    "mse": partial(swap, encode=clip_tensor),
    "gptq": _gptq,
    "awq": _awq,
    "smoothquant": _smoothquant,
    "llm.int8": _llm_int8,
}
