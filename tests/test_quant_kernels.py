"""Kernels: each agrees with the dequantized reference, refuses what it cannot do, and is caught
when it is wrong."""

import sys

import pytest
import torch
import torch.nn as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.model import ModelConfig, Transformer
from minitransformer.quant import (
    KERNELS,
    KernelError,
    QuantEmbedding,
    QuantLinear,
    QuantScheme,
    QuantWeight,
    accelerate,
    conformance,
    kernels,
    quantize,
    resident_bytes,
)
from minitransformer.quant.rows import lookup

INT8, INT4 = QuantScheme(), QuantScheme(bits=4, granularity="group", group_size=32)
CASES = [
    ("dequantized", INT8),
    ("dequantized", INT4),
    ("int8pack", INT8),
    ("int8pack", QuantScheme(granularity="tensor")),
    ("onednn", INT8),
    ("fbgemm", INT8),
    ("int4pack", INT4),
    ("int4pack", QuantScheme(bits=4, symmetric=False)),
    ("dequantized", QuantScheme(bits=4, codebook="nf4")),
    ("int8pack", QuantScheme(full_range=True)),
    ("int4pack", QuantScheme(bits=4, full_range=True)),
    ("int4pack", QuantScheme(bits=4, granularity="group", group_size=64, symmetric=False)),
]

# Without VNNI pairs of 8-bit products overflow 16 bits, and the load-time check refuses; with it, a
# refusal is a failure.
SATURATING = () if torch.cpu._is_vnni_supported() else ("onednn", "fbgemm")


def excused(backend, error):
    """Whether this build lacks the kernel, or this processor lets it saturate."""
    return "this build" in str(error) or backend in SATURATING and "relative error" in str(error)


def layer(scheme, rows=20, columns=64, bias=True):
    torch.manual_seed(0)
    return QuantLinear.from_linear(nn.Linear(columns, rows, bias=bias), scheme).eval()


def built(backend, *arguments):
    try:
        return KERNELS[backend](*arguments)
    except KernelError as error:
        if excused(backend, error):
            pytest.skip(str(error))
        raise


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("backend, scheme", CASES, ids=str)
def test_kernels_agree_with_the_reference(backend, scheme, bias):
    slow = layer(scheme, bias=bias)
    fast = built(backend, slow)
    x = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(2))
    assert fast(x).shape == (3, 5, 20) and fast(x).dtype == torch.float32
    assert (fast(x) - slow(x)).norm() / slow(x).norm() < 0.03
    assert fast.error < kernels.TOLERANCE and "out_features=20" in repr(fast)
    # a token's answer does not depend on what it is computed beside
    assert (fast(x)[1, 2] - fast(x[1:2, 2:3])[0, 0]).abs().max() < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("backend, scheme", CASES, ids=str)
def test_whole_models_run_and_hold_one_copy(backend, scheme):
    torch.manual_seed(0)
    quantized = quantize(
        Transformer(ModelConfig(vocab_size=100, d_model=64, context=16)).eval(), scheme
    )
    try:
        fast = accelerate(quantized, backend)
    except KernelError as error:
        pytest.skip(str(error)) if excused(backend, error) else pytest.fail(str(error))
    ids = torch.randint(100, (2, 7))
    assert (fast(ids) - quantized(ids)).norm() / quantized(ids).norm() < 0.05
    assert any(isinstance(m, QuantLinear) for m in quantized.modules())
    assert not any(isinstance(m, QuantLinear) for m in fast.modules()) and not fast.training
    if backend == "dequantized":
        assert resident_bytes(fast) == resident_bytes(
            Transformer(ModelConfig(vocab_size=100, d_model=64, context=16))
        )
    else:
        assert resident_bytes(fast) < 1.3 * resident_bytes(quantized)


@pytest.mark.parametrize("apart", [2, 6])
def test_columns_kept_apart_leave_the_random_vectors(apart):
    packed = QuantWeight.from_tensor(
        torch.randn(4, 6), QuantScheme(outliers=apart), outliers=range(apart)
    )
    assert not len(conformance.extreme_pairs(packed)[1])
    assert conformance.disagreement(lambda x: x @ packed().T, packed)[0] < 1e-5
    assert (
        conformance.disagreement(lambda x: x @ packed().T.roll(1, 0), packed)[1]
        == "a random vector"
    )


@pytest.mark.parametrize(
    "scheme",
    [
        INT8,
        QuantScheme(granularity="tensor"),
        INT4,
        QuantScheme(bits=4),
        QuantScheme(bits=4, granularity="tensor"),
        QuantScheme(symmetric=False),
        QuantScheme(granularity="group", group_size=32),
        QuantScheme(bits=3),
        QuantScheme(bits=4, granularity="group", group_size=48),
        QuantScheme(bits=4, full_range=True),
        QuantScheme(full_range=True),
        QuantScheme(bits=4, codebook="nf4"),
    ],
    ids=str,
)
def test_fast_rows_are_the_same_rows(scheme):
    torch.manual_seed(0)
    slow = QuantEmbedding(QuantWeight.from_tensor(nn.Embedding(30, 64).weight, scheme))
    ids = torch.arange(30).view(2, 15)
    assert torch.equal(lookup(slow)(ids), slow(ids))


@pytest.mark.parametrize(
    "backend, scheme, columns, message",
    [
        ("int8pack", INT8, 100, "100 columns are not a multiple of 16"),
        (
            "int8pack",
            INT4,
            64,
            "int8 symmetric, per tensor or per channel, not int4 group 32 symmetric",
        ),
        ("onednn", QuantScheme(symmetric=False), 64, "not int8 channel asymmetric"),
        ("fbgemm", QuantScheme(granularity="group", group_size=32), 64, "not int8 group 32"),
        ("int4pack", INT8, 64, "the kernel takes int4 in groups of 32"),
        ("int4pack", INT4, 48, "that divide the 48 columns"),
        (
            "onnxruntime",
            QuantScheme(bits=3),
            64,
            "2, 4 or 8 bits in groups of 16 to 256 that divide the 64 columns, not int3 channel",
        ),
        ("onnxruntime", INT4, 40, "that divide the 40 columns"),
        (
            "int4pack",
            QuantScheme(bits=4, granularity="group", group_size=16),
            64,
            "not int4 group 16",
        ),
        (
            "int4pack",
            QuantScheme(bits=4, codebook="nf4", granularity="group", group_size=32),
            64,
            "not nf4 group 32",
        ),
    ],
)
def test_kernels_refuse_with_a_reason(backend, scheme, columns, message):
    with pytest.raises(KernelError, match=message):
        built(backend, layer(scheme, columns=columns))


@pytest.mark.parametrize(
    "wrong", [lambda y: y * 1.2, lambda y: y * float("nan"), lambda y: y.roll(1, -1)]
)
def test_a_wrong_answer_is_caught_at_load(monkeypatch, wrong):
    right = kernels.Dequantized.forward
    monkeypatch.setattr(kernels.Dequantized, "forward", lambda self, x: wrong(right(self, x)))
    with pytest.raises(
        KernelError, match="relative error .* on a.*, at most 0.03 is allowed: use the reference"
    ):
        KERNELS["dequantized"](layer(INT8))


class Pairs(kernels.KernelLinear):
    """int8 as AVX2 multiplies it: products with unsigned activations, added in pairs; `bits` is
    what such a sum may take."""

    bits = 16

    def load(self, weight):
        codes, self.scale = kernels.int8_rows(weight)
        self.codes = nn.functional.pad(codes, (0, weight.columns % 2)).int()

    def multiply(self, x):
        x = nn.functional.pad(x, (0, self.columns % 2))
        step = x.abs().amax(-1, keepdim=True) / 127
        product = ((x / step).round().int() + 128)[:, None] * self.codes  # (M, N, K)
        most = 2 ** (self.bits - 1) - 1
        sums = product.unflatten(-1, (-1, 2)).sum(-1).clamp(-most - 1, most).sum(-1)
        return (sums - 128 * self.codes.sum(-1)) * self.scale * step + (
            0 if self.bias is None else self.bias
        )


@pytest.mark.parametrize(
    "scheme", [INT8, QuantScheme(granularity="tensor"), QuantScheme(full_range=True)], ids=str
)
@pytest.mark.parametrize("columns", [2, 33, 384, 1024])
def test_a_kernel_that_saturates_is_caught_whatever_the_width(monkeypatch, columns, scheme):
    torch.manual_seed(0)
    plain = nn.Linear(columns, 64)
    nn.init.normal_(plain.weight, 0, 0.1)  # as trained weights: few pairs are large
    slow = QuantLinear.from_linear(plain, scheme)
    with pytest.raises(KernelError, match="on an extreme pair of neighbours, at most 0.03"):
        Pairs(slow)
    if columns > 100:  # what random vectors alone let pass
        monkeypatch.setattr(
            conformance,
            "extreme_pairs",
            lambda w: (torch.empty(0, columns), torch.empty(0, dtype=torch.long)),
        )
        assert Pairs(slow).error < 0.03
    monkeypatch.undo()
    monkeypatch.setattr(Pairs, "bits", 32)
    assert Pairs(slow).error < 0.02  # the same products, added in full


@torch.no_grad()
@pytest.mark.parametrize("backend", ["onednn", "fbgemm", "int8pack", "onnxruntime"])
@pytest.mark.parametrize("width", [128, 512])
def test_a_kernel_that_passes_is_right_where_products_are_largest(backend, width):
    slow = layer(INT8, rows=width, columns=width, bias=False)
    fast = built(backend, slow)
    signs = slow.weight().sign()  # every product of a row with its own signs is positive
    for x in (signs[:8], signs[:8].clamp(min=0), signs[:8].clamp(max=0)):
        assert ((fast(x) - slow(x)).abs().amax(1) / slow(x).abs().amax(1)).max() < 0.03


@settings(deadline=None, max_examples=40)
@given(
    bits=st.sampled_from([8, 4, 3, 2]),
    symmetric=st.booleans(),
    rows=st.integers(1, 9),
    columns=st.integers(1, 40),
    kind=st.sampled_from(["normal", "zero", "positive"]),
    seed=st.integers(0, 99),
)
def test_right_products_pass_whatever_the_matrix(bits, symmetric, rows, columns, kind, seed):
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    weight = {"normal": weight, "zero": 0 * weight, "positive": weight.abs() + 1}[kind]
    packed = QuantWeight.from_tensor(weight, QuantScheme(bits, "group", 16, symmetric))
    pairs, at = conformance.extreme_pairs(packed)
    codes = packed.integers().int()
    found = (pairs @ codes.T.float()).gather(1, at[:, None])[:, 0].tolist()
    sums = [int(row[j : j + 2].sum()) for row in codes for j in range(0, max(columns - 1, 1), 2)]
    assert found == [max(sums), min(sums)]
    error, _ = conformance.disagreement(lambda x: x @ packed().T, packed)
    assert error < 1e-5
    assert conformance.disagreement(lambda x: x @ packed().T + 1, packed)[0] > 0.03


def test_a_missing_operator_is_named(monkeypatch):
    monkeypatch.setattr(kernels.Int8Pack, "multiply", lambda self, x: torch._no_such_operator(x))
    with pytest.raises(KernelError, match="this build has no Int8Pack kernel"):
        KERNELS["int8pack"](layer(INT8))


def test_a_build_without_onnx_runtime_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(KernelError, match="this build has no MatMulNBits kernel"):
        KERNELS["onnxruntime"](layer(INT4))


def test_a_build_without_fbgemm_is_named(monkeypatch):
    def absent(*_):
        raise RuntimeError("not built with FBGEMM")

    monkeypatch.setattr(torch, "fbgemm_pack_quantized_matrix", absent)
    with pytest.raises(
        KernelError, match="this build has no Fbgemm kernel .RuntimeError: not built with FBGEMM"
    ):
        KERNELS["fbgemm"](layer(INT8))


def test_errors_name_the_layer_and_the_choices():
    model = quantize(
        Transformer(ModelConfig(vocab_size=40, d_model=24, n_heads=2, context=8)), INT8
    )
    with pytest.raises(KernelError, match=r"blocks\.0\.attention\.q: 24 columns"):
        accelerate(model, "int8pack")
    with pytest.raises(ValueError, match="backend 'cuda' is unknown: choose one of dequantized"):
        accelerate(model, "cuda")
