"""Sizes: computed from the configuration = resident = on disk, and the original's arithmetic."""

import pytest
import torch
from safetensors.torch import save_file

from minitransformer.model import ModelConfig, Transformer
from minitransformer.quant import (
    QuantScheme,
    QuantWeight,
    computed_bytes,
    file_bytes,
    layer_errors,
    matrix_bytes,
    quantize,
    resident_bytes,
    seed_bytes,
)

GROUP32 = QuantScheme(bits=4, granularity="group", group_size=32)
GROUP128 = QuantScheme(bits=4, granularity="group", group_size=128)
CONFIGS = [
    ModelConfig(vocab_size=37, d_model=24, n_heads=2, context=8),
    ModelConfig(vocab_size=37, d_model=24, n_heads=2, context=8, tied=True, n_layers=2),
    ModelConfig(vocab_size=37, d_model=24, n_heads=2, d_head=16, context=8),
    ModelConfig(
        vocab_size=37,
        d_model=24,
        n_heads=4,
        n_kv_heads=1,
        context=8,
        ffn="swiglu",
        norm="rmsnorm",
        bias=False,
        qk_norm=True,
    ),
    ModelConfig(
        vocab_size=37, d_model=24, n_heads=2, context=8, tied=True, bias=False, position="none"
    ),
]
SCHEMES = [
    None,
    QuantScheme(),
    QuantScheme(bits=3, symmetric=False),
    QuantScheme(bits=4, granularity="group", group_size=10, symmetric=False),
    QuantScheme(granularity="tensor", scale_dtype="float32", embeddings=False),
    QuantScheme(bits=4, codebook="nf4", granularity="group", group_size=16),
    QuantScheme(bits=2, full_range=True),
]


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("cfg", CONFIGS, ids=lambda c: f"{c.ffn}-{c.tied}-{c.bias}")
def test_computed_is_resident(cfg, scheme):
    model = Transformer(cfg)
    assert resident_bytes(model if scheme is None else quantize(model, scheme)) == computed_bytes(
        cfg, scheme
    )


BARS = [(QuantScheme(), 3.7), (QuantScheme(symmetric=False), 3.7), (GROUP32, 6.3), (GROUP128, 7.0)]


@pytest.mark.parametrize("scheme, least", BARS, ids=str)
def test_the_seeds_model_shrinks_on_disk(tmp_path, scheme, least):
    model = Transformer(ModelConfig())
    sizes = {}
    for name, m in (("fp32", model), ("quantized", quantize(model, scheme))):
        save_file(m.state_dict(), tmp_path / name)
        sizes[name], tensors = file_bytes(tmp_path / name)
        assert sizes[name] == (tmp_path / name).stat().st_size and tensors == resident_bytes(m)
    assert sizes["fp32"] / sizes["quantized"] >= least


@pytest.mark.parametrize("scheme", SCHEMES[1:], ids=str)
@pytest.mark.parametrize("shape", [(7, 33), (1, 1), (16, 256)])
def test_the_bytes_of_a_matrix_are_those_it_holds(scheme, shape):
    assert matrix_bytes(*shape, scheme) == resident_bytes(
        QuantWeight.from_tensor(torch.randn(*shape), scheme)
    )
    assert matrix_bytes(*shape, None) == 4 * shape[0] * shape[1]


def test_position_tables_are_not_counted():
    model = Transformer(ModelConfig())
    assert resident_bytes(model) == sum(4 * p.numel() for p in model.parameters())
    assert sum(b.nbytes for b in model.buffers()) == 512 * 32 * 4


def test_resident_counts_a_view_as_all_it_keeps_alive():
    module = torch.nn.Module()
    module.register_buffer("part", torch.zeros(1000)[:10])
    assert resident_bytes(module) == 4000


def test_the_seeds_sizes():
    # its table: 1.99 MB, 1.06 MB, 1.06 MB, 1.88x, 1.88x; its MB are MiB
    fp32, int8, int4 = (seed_bytes(ModelConfig(), bits) for bits in (32, 8, 4))
    assert round(fp32 / 2**20, 2) == 1.99 and round(int8 / 2**20, 2) == 1.06 and int4 == int8
    assert round(fp32 / int8, 2) == 1.88


def test_layer_errors_are_ordered_and_named():
    model = Transformer(ModelConfig(vocab_size=200, d_model=64, tied=True))
    eight, four = (layer_errors(model, quantize(model, s)) for s in (QuantScheme(), GROUP32))
    assert [r["layer"] for r in four] == ["embedding"] + [
        f"blocks.0.attention.{x}" for x in ("q", "k", "v", "out")
    ] + ["blocks.0.ffn.up", "blocks.0.ffn.down"]
    assert all(
        a["relative_error"] < b["relative_error"] / 5 for a, b in zip(eight, four, strict=True)
    )
    assert all((r["lowest_code"], r["highest_code"], r["codes_used"]) == (-7, 7, 15) for r in four)
    assert eight[0]["snr_db"] == pytest.approx(
        -20 * torch.tensor(eight[0]["relative_error"]).log10().item(), rel=1e-5
    )
    assert eight[0]["weights"] == 200 * 64 and 0 < eight[0]["max_error"] < four[0]["max_error"]
    unsigned = layer_errors(model, quantize(model, QuantScheme(bits=4, symmetric=False)))
    assert (unsigned[0]["lowest_code"], unsigned[0]["highest_code"]) == (0, 15)


def test_an_exact_matrix_has_no_error():
    model = torch.nn.Sequential(torch.nn.Linear(8, 4))
    torch.nn.init.zeros_(model[0].weight)
    assert layer_errors(model, quantize(model, QuantScheme()))[0]["relative_error"] == 0
