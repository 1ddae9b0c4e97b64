"""Layers and walker: the quantized model is the dequantized one, structure rebuilds, ties hold, the
argument is untouched."""

import copy
from dataclasses import asdict

import pytest
import torch
import torch.nn as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.model import ModelConfig, Transformer
from minitransformer.quant import (
    QuantEmbedding,
    QuantLinear,
    QuantScheme,
    QuantWeight,
    computed_bytes,
    fake_quantize,
    matrix_bytes,
    quantize,
    quantize_structure,
    resident_bytes,
    spread,
)

INT4 = QuantScheme(bits=4, granularity="group", group_size=32)
SCHEMES = [
    QuantScheme(),
    INT4,
    QuantScheme(bits=4, granularity="group", group_size=24, symmetric=False),
    QuantScheme(granularity="tensor", symmetric=False),
    QuantScheme(bits=3),
    QuantScheme(embeddings=False),
]


def tiny(**k):
    torch.manual_seed(0)
    return Transformer(ModelConfig(vocab_size=50, d_model=32, n_heads=2, context=16, **k)).eval()


def ids():
    return torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(1))


def dequantized(model, quantized):
    """The FP32 model with every matrix replaced by what the quantized one stands for: the
    oracle."""
    model = copy.deepcopy(model)
    for name, layer in quantized.named_modules():
        if isinstance(layer, (QuantLinear, QuantEmbedding)):
            model.get_submodule(name).weight.data = layer.weight()
    return model


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize(
    "options", [{}, {"ffn": "swiglu", "bias": False, "n_layers": 2}, {"tied": True}], ids=str
)
def test_a_quantized_model_is_its_dequantized_twin(scheme, options):
    model = tiny(**options)
    quantized = quantize(model, scheme)
    assert torch.equal(quantized(ids()), dequantized(model, quantized)(ids()))
    assert 0 < (quantized(ids()) - model(ids())).norm() / model(ids()).norm() < 0.5
    assert quantized.scheme == scheme


def test_the_argument_is_untouched():
    model = tiny()
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for p in quantize(model, INT4).parameters():
            p.zero_()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not hasattr(model, "scheme") and isinstance(model.head, nn.Linear)


def test_no_matrix_is_copied_that_is_replaced(monkeypatch):
    copied, copies = [], torch.nn.Parameter.__deepcopy__

    def noted(parameter, memo):
        copied.append(parameter.ndim)
        return copies(parameter, memo)

    monkeypatch.setattr(torch.nn.Parameter, "__deepcopy__", noted)
    quantize(tiny(), QuantScheme())
    assert set(copied) == {1}
    quantize(tiny(), QuantScheme(embeddings=False))
    assert copied.count(2) == 1


def test_every_matrix_is_quantized_and_nothing_else():
    quantized = quantize(tiny(), INT4)
    assert not any(isinstance(m, (nn.Linear, nn.Embedding)) for m in quantized.modules())
    assert {p.dtype for p in quantized.parameters()} == {torch.float32} and max(
        p.ndim for p in quantized.parameters()
    ) == 1
    kept = quantize(tiny(), QuantScheme(embeddings=False))
    assert isinstance(kept.embedding, nn.Embedding) and isinstance(kept.head, QuantLinear)


def test_a_tied_head_is_quantized_once_and_stays_tied():
    quantized = quantize(tiny(tied=True), INT4)
    assert quantized.head.weight is quantized.embedding.weight
    double = copy.deepcopy(quantized).double()
    assert double.head.weight is double.embedding.weight
    assert double.head.weight().dtype == torch.float64
    kept = quantize(tiny(tied=True), QuantScheme(embeddings=False))
    assert kept.head.weight is kept.embedding.weight and isinstance(kept.head, nn.Linear)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("tied", [True, False])
def test_scheme_and_state_dict_rebuild_the_model(scheme, tied):
    quantized = quantize(tiny(tied=tied), scheme)
    rebuilt = quantize_structure(tiny(tied=tied), QuantScheme(**asdict(scheme)))
    assert not torch.equal(rebuilt(ids()), quantized(ids()))
    rebuilt.load_state_dict(quantized.state_dict(), strict=True)
    assert torch.equal(rebuilt(ids()), quantized(ids()))


def test_a_mapping_gives_every_matrix_its_own_scheme():
    for tied in (False, True):
        model = tiny(tied=tied)
        own = {name: SCHEMES[i % 5] for i, name in enumerate(spread(model, INT4))} | {
            "blocks.0.attention.k": None
        }
        quantized = quantize(model, own)
        assert quantized.scheme == own and list(spread(model, own)) == list(own)
        assert isinstance(quantized.blocks[0].attention.k, nn.Linear)
        found = {
            name: m.weight.scheme
            for name, m in quantized.named_modules()
            if isinstance(m, QuantLinear)
        }
        assert found == {k: v for k, v in own.items() if v and k != "embedding"} | (
            {"head": own["embedding"]} if tied else {}
        )
        assert torch.equal(quantized(ids()), dequantized(model, quantized)(ids()))
        assert resident_bytes(quantized) == computed_bytes(model.cfg, own)
        rebuilt = quantize_structure(tiny(tied=tied), own)
        rebuilt.load_state_dict(quantized.state_dict(), strict=True)
        assert torch.equal(rebuilt(ids()), quantized(ids()))


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"blocks.0.attention.w": INT4},
            r"names 'blocks.0.attention.w', which is no matrix.*did you mean 'blocks.0.attention",
        ),
        (
            {"head": INT4},
            "'head', which is no matrix of this model: it shares the matrix of 'embedding'",
        ),
        ({"blocks.0.ffn.up": ...}, r"says nothing of blocks\.0\.ffn\.up: name every matrix"),
    ],
)
def test_a_mapping_for_another_model_is_refused(change, message):
    model = tiny(tied=True)
    own = {k: v for k, v in (spread(model, INT4) | change).items() if v is not ...}
    with pytest.raises(ValueError, match=message):
        quantize(model, own)


def test_structure_costs_no_memory_on_meta():
    with torch.device("meta"):
        model = quantize_structure(Transformer(ModelConfig()), INT4)
    assert model.head.weight.codes.is_meta and model.head.weight.codes.shape == (1004, 64)


def test_state_dict_is_plain_and_packed():
    state = quantize(
        tiny(), QuantScheme(bits=4, granularity="group", group_size=16, symmetric=False)
    ).state_dict()
    assert {
        k: (v.dtype, tuple(v.shape)) for k, v in state.items() if k.startswith("blocks.0.ffn.down")
    } == {
        "blocks.0.ffn.down.bias": (torch.float32, (32,)),
        "blocks.0.ffn.down.weight.codes": (torch.uint8, (32, 64)),
        "blocks.0.ffn.down.weight.scale": (torch.float16, (32, 8)),
        "blocks.0.ffn.down.weight.zero": (torch.uint8, (32, 4)),
    }


def test_double_keeps_the_codes_and_widens_the_arithmetic():
    quantized = quantize(tiny(), INT4).double()
    assert quantized(ids()).dtype == torch.float64
    assert quantized.head.weight.codes.dtype == torch.uint8
    assert quantized.head.weight.scale.dtype == torch.float16  # stored as the scheme says


def test_single_layers():
    linear, embedding = nn.Linear(20, 6), nn.Embedding(9, 20)
    q = QuantLinear.from_linear(linear, INT4)
    e = QuantEmbedding(QuantWeight.from_tensor(embedding.weight, INT4))
    x = torch.randn(3, 20)
    assert torch.equal(q(x), nn.functional.linear(x, q.weight(), linear.bias))
    assert torch.equal(e(torch.tensor([[3, 1]])), e.weight()[[3, 1]][None])
    assert (
        "bits=4, group=32" in repr(q)
        and "num_embeddings=9" in repr(e)
        and "6, 20, int4 group 32 symmetric" in repr(q)
    )


@given(
    seed=st.integers(0, 99),
    rows=st.integers(1, 9),
    columns=st.integers(1, 50),
    power=st.integers(-9, 4),
    size=st.integers(1, 60),
    bits=st.integers(2, 8),
    granularity=st.sampled_from(["tensor", "channel", "group"]),
    form=st.sampled_from(
        [{}, {"symmetric": False}, {"full_range": True}, {"bits": 4, "codebook": "nf4"}]
    ),
    outliers=st.sampled_from([0, 0, 1, 50]),
)
@settings(deadline=None, max_examples=60)
def test_any_shape_and_format_is_its_dequantized_product(
    seed, rows, columns, power, size, form, bits, granularity, outliers
):
    outliers = min(outliers, columns)
    scheme = QuantScheme(
        **{"bits": bits, **form},
        granularity=granularity,
        group_size=size if granularity == "group" else None,
        outliers=outliers,
    )
    generator = torch.Generator().manual_seed(seed)
    w, x = (
        torch.randn(rows, columns, generator=generator) * 10.0**power,
        torch.randn(3, columns, generator=generator),
    )
    w[rows // 2] = 0
    apart = torch.randperm(columns, generator=generator)[:outliers]
    weight = QuantWeight.from_tensor(w, scheme, outliers=apart)
    assert torch.equal(QuantLinear(weight, None)(x), nn.functional.linear(x, weight()))
    assert resident_bytes(weight) == matrix_bytes(rows, columns, scheme)
    assert torch.equal(weight()[:, apart], w[:, apart]) and (weight()[rows // 2] == 0).all()
    step = w.abs().max() * (
        0.31 if scheme.codebook else 1 / (2 ** (scheme.bits - 1) - 1)
    )  # the widest gap between two levels
    rounded = 2.0 ** (
        scheme.bits - 25
    )  # the farthest level moves that much where fp16 runs out of small numbers
    assert ((weight() - w).abs() <= 1.01 * step + rounded).all()


def test_activations_are_rounded_where_linears_read_them():
    linear = nn.Linear(20, 6)
    scheme = QuantScheme(activation_bits=8, activation_symmetric=False)
    q = QuantLinear.from_linear(linear, scheme)
    x = torch.randn(3, 20)
    assert torch.equal(
        q(x), nn.functional.linear(fake_quantize(x, 8, "token", False), q.weight(), linear.bias)
    )
    assert not torch.equal(q(x), QuantLinear.from_linear(linear, QuantScheme())(x))


def test_quantized_models_train_their_biases_only():
    quantized = quantize(tiny(), QuantScheme())
    quantized(ids()).sum().backward()
    assert quantized.head.bias.grad is not None and quantized.training is False


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda m: quantize(m, INT4, method="rtm"),
            r"method 'rtm' is unknown: choose one of rtn.*did you mean 'rtn'\?",
        ),
        (lambda m: quantize(m, INT4, calibration=[1]), "'rtn' uses no calibration"),
        (lambda m: quantize(quantize(m, INT4), INT4), "give the FP32 model"),
        (
            lambda m: quantize(quantize(m, QuantScheme(embeddings=False)), INT4),
            "give the FP32 model",
        ),
        (lambda m: quantize(nn.LayerNorm(3), INT4), "no nn.Linear left"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call(tiny())


def test_a_bad_weight_names_its_layer():
    model = tiny()
    model.blocks[0].ffn.down.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"blocks\.0\.ffn\.down: a weight is not finite"):
        quantize(model, INT4)
