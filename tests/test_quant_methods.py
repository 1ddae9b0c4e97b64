"""The methods as one walks in: what each leaves alone, what each gains on its own data, and what it
refuses."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn as nn

from minitransformer.model import Transformer
from minitransformer.quant import (
    METHODS,
    KernelError,
    QuantLinear,
    QuantScheme,
    QuantWeight,
    accelerate,
    clip_tensor,
    collect,
    computed_bytes,
    dequantize_tensor,
    equalize,
    fake_quantize,
    gptq_tensor,
    layer_output_errors,
    quantize,
    quantize_structure,
    quantize_tensor,
    resident_bytes,
    spread,
)
from uneven import ids, uneven

INT4 = QuantScheme(bits=4, granularity="group", group_size=16)
W8A8, W4A8 = QuantScheme(activation_bits=8), replace(INT4, activation_bits=8)
DATA = [m for m in METHODS if m not in ("rtn", "mse")]


@torch.no_grad()
@pytest.mark.parametrize(
    "options", [{}, {"norm": "rmsnorm", "ffn": "swiglu", "bias": False, "tied": True}], ids=str
)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_a_model_that_rebuilds_and_leaves_its_argument(method, options):
    model = uneven(**options)
    before = copy.deepcopy(model.state_dict())
    scheme = W4A8 if method in ("smoothquant", "llm.int8") else INT4
    quantized = quantize(model, scheme, method, ids() if method in DATA else None)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert (quantized(ids()) - model(ids())).norm() / model(ids()).norm() < 0.5
    assert resident_bytes(quantized) == computed_bytes(model.cfg, quantized.scheme)
    if model.cfg.tied:
        assert quantized.head.weight is quantized.embedding.weight
    rebuilt = quantize_structure(Transformer(model.cfg), quantized.scheme)
    rebuilt.load_state_dict(quantized.state_dict(), strict=True)
    assert torch.equal(rebuilt.eval()(ids()), quantized(ids()))


@torch.no_grad()
def test_each_method_gains_on_the_data_it_saw():
    model = uneven()
    error = {
        m: (quantize(model, INT4, m, ids() if m in DATA else None)(ids()) - model(ids()))
        .norm()
        .item()
        for m in METHODS
        if m not in ("smoothquant", "llm.int8")
    }
    assert error["gptq"] < 0.85 * error["rtn"] and error["awq"] < 0.95 * error["rtn"]


def test_gptq_reads_what_the_quantized_layers_before_it_write():
    model = uneven()
    quantized = quantize(model, INT4, "gptq", ids())
    half = copy.deepcopy(quantized)  # everything before `out` quantized, `out` itself as it was
    half.blocks[0].attention.out = copy.deepcopy(model.blocks[0].attention.out)
    seen = collect(half, ids(), ["blocks.0.attention.out"])["blocks.0.attention.out"]
    weight = model.blocks[0].attention.out.weight
    assert torch.equal(
        quantized.blocks[0].attention.out.weight.codes, gptq_tensor(weight, INT4, seen)[0]
    )
    assert torch.equal(
        quantized.embedding.weight.codes, clip_tensor(model.embedding.weight, INT4)[0]
    )


@torch.no_grad()
def test_layers_are_judged_alone_by_their_outputs():
    model = uneven()
    quantized = quantize(model, INT4)
    rows = layer_output_errors(model, quantized, ids())
    assert [r["layer"] for r in rows] == [
        n for n, m in model.named_modules() if isinstance(m, nn.Linear)
    ]
    inputs = []
    model.head.register_forward_pre_hook(lambda _, x: inputs.append(x[0]))
    model(ids())
    x = inputs[0].double().flatten(0, 1)
    right = x @ model.head.weight.double().T
    expected = ((x @ quantized.head.weight().double().T - right).norm() / right.norm()).item()
    assert rows[-1] == {
        "layer": "head",
        "relative_output_error": pytest.approx(expected, rel=1e-6),
        "tokens": 128,
    }
    better = layer_output_errors(model, quantize(model, INT4, "gptq", ids()), ids())
    assert all(
        b["relative_output_error"] < r["relative_output_error"]
        for b, r in zip(better, rows, strict=False)
    )
    awq = layer_output_errors(
        equalize(model, INT4, "awq", ids()), quantize(model, INT4, "awq", ids()), ids()
    )
    assert sum(b["relative_output_error"] for b in awq) < sum(
        r["relative_output_error"] for r in rows
    )


def test_moments_are_those_of_all_tokens_whatever_the_batches():
    model, names = uneven(), ["blocks.0.ffn.down"]
    whole, parts = (collect(model, ids(), names, batch_size=n)[names[0]] for n in (8, 3))
    with torch.no_grad():
        x = torch.embedding(model.embedding.weight, ids())
        for step in (
            lambda x: (
                x
                + model.blocks[0].attention(
                    model.blocks[0].attention_norm(x), model.table[:16].chunk(2, -1)
                )
            ),
            model.blocks[0].ffn_norm,
            model.blocks[0].ffn.up,
            torch.relu,
            lambda x: x.flatten(0, 1).double(),
        ):
            x = step(x)
    assert torch.allclose(whole.second, x.T @ x / 128, rtol=1e-4, atol=1e-6)
    assert torch.allclose(whole.mean, x.abs().mean(0).float()) and torch.allclose(
        whole.peak, x.abs().amax(0).float()
    )
    assert torch.allclose(whole.second, parts.second, rtol=1e-5) and torch.equal(
        whole.peak, parts.peak
    )
    assert whole.tokens == parts.tokens == 128 and torch.allclose(whole.mean, parts.mean, rtol=1e-5)
    assert not model.blocks[0].ffn.down._forward_pre_hooks


@torch.no_grad()
def test_smoothquant_serves_activations_with_outliers():
    model = uneven()
    model.blocks[0].ffn_norm.weight[3] *= 100
    plain, smooth = (quantize(model, W8A8, *how) for how in ((), ("smoothquant", ids())))
    errors = [(q(ids()) - model(ids())).norm().item() for q in (plain, smooth)]
    assert errors[1] < 0.7 * errors[0]
    far = quantize(model, W8A8, "smoothquant", ids(), alpha=0.9)
    assert not torch.equal(far.blocks[0].ffn_norm.weight, smooth.blocks[0].ffn_norm.weight)


@torch.no_grad()
def test_llm_int8_is_exact_when_every_column_is_an_outlier():
    model = uneven(tied=True)
    own = {n: None if n == "embedding" else W8A8 for n in spread(model, W8A8)}
    quantized = quantize(model, own, "llm.int8", ids(), threshold=0.0)
    assert {s.outliers for n, s in quantized.scheme.items() if s} == {32, 128}
    assert torch.equal(quantized.blocks[0].ffn.down.weight(), model.blocks[0].ffn.down.weight)
    assert torch.equal(quantized(ids()), model(ids()))


@torch.no_grad()
def test_llm_int8_keeps_the_columns_that_reach_the_threshold_and_no_others():
    model = uneven()
    model.blocks[0].ffn_norm.weight[3] *= 100
    seen = collect(model, ids(), ["blocks.0.ffn.up"])["blocks.0.ffn.up"]
    quantized = quantize(model, W8A8, "llm.int8", ids(), threshold=20.0)
    layer, plain = quantized.blocks[0].ffn.up, model.blocks[0].ffn.up
    index = (seen.peak >= 20).nonzero()[:, 0]
    rest = [j for j in range(32) if j not in index.tolist()]
    assert 0 < len(index) < 32 and layer.weight.index.tolist() == index.tolist()
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(2))
    half = layer.weight()[:, rest]  # the product apart: int8 by int8, and FP32 by FP32
    expected = (
        fake_quantize(x[:, rest], 8) @ half.T + x[:, index] @ plain.weight[:, index].T + plain.bias
    )
    assert torch.allclose(layer(x), expected, atol=1e-5)
    assert layer.weight.integers().shape == (128, len(rest)) and (layer.weight.grid()[0] > 0).all()
    errors = [(q(ids()) - model(ids())).norm().item() for q in (quantized, quantize(model, W8A8))]
    assert errors[0] < 0.8 * errors[1]
    with pytest.raises(KernelError, match="columns FP32"):
        accelerate(quantized, "int8pack")
    none = quantize(model, W8A8, "llm.int8", ids(), threshold=1e9)
    assert torch.equal(none(ids()), quantize(model, W8A8)(ids()))


def test_rows_of_a_matrix_with_outliers_are_those_of_the_matrix():
    w = torch.randn(6, 20, generator=torch.Generator().manual_seed(0))
    weight = QuantWeight.from_tensor(w, replace(INT4, outliers=3), outliers=[2, 7, 19])
    rest = [j for j in range(20) if j not in (2, 7, 19)]
    assert torch.equal(weight()[:, [2, 7, 19]], w[:, [2, 7, 19]])
    assert torch.equal(
        weight()[:, rest], dequantize_tensor(*quantize_tensor(w[:, rest], INT4), INT4, 17)
    )
    assert torch.equal(weight(torch.tensor([[4, 1]])), weight()[[4, 1]][None])
    with pytest.raises(ValueError, match="outliers 21 are more than the 20 columns"):
        QuantWeight.from_tensor(w, replace(INT4, outliers=21))


def test_a_codebook_has_no_grid():
    layer = QuantLinear.from_linear(nn.Linear(8, 2), QuantScheme(bits=4, codebook="nf4"))
    with pytest.raises(ValueError, match="nf4 channel is a codebook, not a grid"):
        layer.weight.grid()


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        (
            (INT4, "gptqq"),
            {},
            r"method 'gptqq' is unknown: choose one of rtn, mse.*did you mean 'gptq'\?",
        ),
        ((INT4, "gptq"), {}, "method 'gptq' needs calibration: give token ids"),
        ((INT4, "awq"), {"calibration": []}, "calibration is empty"),
        (
            (INT4, "awq"),
            {"calibration": torch.zeros(0, 8, dtype=torch.long)},
            "calibration is empty",
        ),
        (
            (INT4, "gptq"),
            {"calibration": [[3, 50]]},
            "ids run from 3 to 50, and the model knows 0 to 49: encode the text with the",
        ),
        ((INT4, "gptq"), {"calibration": [[-1, 5]]}, "ids run from -1 to 5"),
        (
            (INT4, "gptq"),
            {"calibration": [[0.5]]},
            r"shape \(1, 1\) and type torch.float32: give integer token ids",
        ),
        (
            (INT4, "gptq"),
            {"calibration": torch.zeros(1, 1, 1, dtype=torch.long)},
            r"shape \(1, 1, 1\)",
        ),
        ((INT4, "mse"), {"calibration": [[1]]}, "method 'mse' uses no calibration"),
        (
            (INT4, "gptq"),
            {"calibration": [[1]], "alpha": 1},
            "method 'gptq' has no option alpha: it knows damping",
        ),
        ((INT4, "rtn"), {"alpha": 1}, "method 'rtn' has no option alpha: it knows none"),
        (
            (INT4, "gptq"),
            {"calibration": [[1]], "damping": 0},
            r"blocks\.0\.attention\.q: damping 0 is not positive",
        ),
        (
            (INT4, "smoothquant"),
            {"calibration": [[1]]},
            "for quantized activations, and the scheme of blocks.0.attention.q",
        ),
        ((INT4, "llm.int8"), {"calibration": [[1]]}, "'llm.int8' is for quantized activations"),
        (
            (replace(INT4, outliers=2),),
            {},
            r"embedding: the scheme keeps 2 columns apart and 0 are chosen",
        ),
    ],
)
def test_errors(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        quantize(uneven(), *arguments, **options)
