"""Equalizing: the same function to rounding, scales as the papers define them, and a search that
cannot make things worse."""

import copy

import pytest
import torch

from minitransformer.quant import (
    QuantScheme,
    collect,
    dequantize_tensor,
    equalize,
    quantize_tensor,
    spread,
)
from minitransformer.quant.equalize import folds, search, smooth
from uneven import ids, uneven

INT4 = QuantScheme(bits=4, granularity="group", group_size=16)
MODELS = [
    {},
    {"norm": "rmsnorm", "ffn": "swiglu", "bias": False, "n_layers": 2, "qk_norm": True},
    {"ffn": "relu2", "tied": True},
    {"ffn": "gelu", "n_heads": 4, "n_kv_heads": 2, "position": "sinusoidal"},
]


@torch.no_grad()
@pytest.mark.parametrize("method", ["awq", "smoothquant"])
@pytest.mark.parametrize("options", MODELS, ids=str)
def test_the_function_stays_and_the_weights_do_not(options, method):
    model = uneven(biases=True, **options)
    before = copy.deepcopy(model.state_dict())
    equal = equalize(model, INT4, method, ids(4))
    assert (equal(ids(4)) - model(ids(4))).norm() / model(ids(4)).norm() < 1e-5
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    changed = {k for k, v in equal.state_dict().items() if not torch.equal(v, before[k])}
    assert {f"{t}.weight" for _, targets, _ in folds(model.cfg) for t in targets} <= changed
    assert ("embedding.weight" not in changed) and ("head.weight" in changed) == (
        not model.cfg.tied
    )
    assert ("blocks.0.attention.out.weight" in changed) == (model.cfg.kv_heads == model.cfg.n_heads)
    assert ("blocks.0.ffn.down.weight" in changed) == (model.cfg.ffn != "gelu")


def test_what_stays_in_floating_point_decides_nothing():
    model = uneven(biases=True)
    own = {name: INT4 if "ffn" in name else None for name in spread(model, INT4)}
    equal = equalize(model, own, "smoothquant", ids(4))
    same = {k for k, v in equal.state_dict().items() if torch.equal(v, model.state_dict()[k])}
    assert {
        "head.weight",
        "norm.weight",
        "blocks.0.attention.q.weight",
    } <= same and "blocks.0.ffn.up.weight" not in same


def test_smoothquant_scales_are_the_papers_and_meet_halfway():
    model = uneven(biases=True)
    seen = collect(model, ids(4), ["blocks.0.ffn.up"])["blocks.0.ffn.up"]
    w = model.blocks[0].ffn.up.weight.detach()
    s = smooth({"up": w}, seen, 0.5)
    assert torch.allclose(s, (seen.peak / w.abs().amax(0)).sqrt())
    # at one half the largest input and the largest weight of a channel become equal
    assert torch.allclose(seen.peak / s, w.abs().amax(0) * s, rtol=1e-5)
    assert torch.allclose(smooth({"up": w, "gate": 3 * w}, seen, 0.5), s / 3**0.5)
    w[:, 3], seen.peak[5] = 0, 0
    assert smooth({"up": w}, seen, 0.5)[[3, 5]].tolist() == [1, 1]


def test_awq_finds_the_best_power_of_its_grid_and_never_loses():
    model = uneven(biases=True)
    seen = collect(model, ids(4), ["head"])["head"]
    w = model.head.weight.detach()

    def loss(s):
        return (
            seen.loss(dequantize_tensor(*quantize_tensor(w * s, INT4), INT4, 32) / s - w)
            .sum()
            .item()
        )

    s = search({"head": w}, {"head": INT4}, seen)
    scan = [
        loss(seen.mean**a / (seen.mean.max() * seen.mean.min()) ** (a / 2))
        for a in torch.linspace(0, 1, 21)
    ]
    assert loss(s) == pytest.approx(min(scan), rel=1e-4) and loss(s) < 0.8 * loss(torch.ones(32))
    seen.mean.zero_()
    assert search({"head": w}, {"head": INT4}, seen).tolist() == [1] * 32


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("gptq", ids(4)), "method 'gptq' does not equalize: choose one of awq, smoothquant"),
        (("smoothquant", ids(4), 1.5), "alpha 1.5 is out of range: give 0 to 1"),
        (("awq", ids(4)[:0]), "calibration is empty"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        equalize(uneven(biases=True), INT4, *arguments)
