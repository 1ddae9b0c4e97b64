"""Every method in every floating type: the model runs, is close to its float32 twin, and comes back
from disk in its type."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.quant import (
    KERNELS,
    METHODS,
    KernelError,
    QuantScheme,
    accelerate,
    equalize,
    layer_errors,
    layer_output_errors,
    matrices,
    quantize,
    search,
    sensitivity,
)
from minitransformer.train import convert, prepare_qat
from uneven import ids, uneven

# Relative error of the logits that a type may leave: some hundred of its roundings.
CLOSE = {torch.float32: 0.0, torch.float64: 1e-5, torch.bfloat16: 0.1, torch.float16: 0.02}
DTYPES = st.sampled_from(list(CLOSE))
METHOD = st.sampled_from([*METHODS, "qat rtn", "qat mse"])


@st.composite
def schemes(draw):
    """Any scheme of `QuantScheme` that goes with a method."""
    grain = draw(st.sampled_from(["tensor", "channel", "group"]))
    bits, book = draw(st.integers(2, 8)), draw(st.sampled_from([None, None, "nf4"]))
    full = draw(st.booleans()) and book is None
    return QuantScheme(
        bits=4 if book else bits,
        granularity=grain,
        group_size=draw(st.sampled_from([8, 12, 32])) if grain == "group" else None,
        symmetric=True if book or full else draw(st.booleans()),
        scale_dtype=draw(st.sampled_from(["float16", "bfloat16", "float32"])),
        activation_bits=draw(st.sampled_from([None, 8])),
        embeddings=draw(st.booleans()),
        activation_granularity=draw(st.sampled_from(["token", "tensor"])),
        activation_symmetric=draw(st.booleans()),
        full_range=full,
        codebook=book,
    )


def allowed(scheme, dtype):
    """Where activations are rounded, one may fall on either side of the middle of two codes."""
    flips = 0.15 if scheme.activation_bits and dtype != torch.float32 else 0.0
    return CLOSE[dtype] + flips


def made(model, scheme, method):
    """The quantized model, or the one line that refuses it."""
    if method.startswith("qat"):
        return convert(prepare_qat(model, scheme, method.removeprefix("qat ")))
    data = {} if method in ("rtn", "mse") else {"calibration": ids(2)}
    return quantize(model, scheme, method, **data)


def apart(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


@torch.no_grad()
@settings(deadline=None, max_examples=24)
@given(schemes(), METHOD, DTYPES, st.booleans())
def test_a_quantized_model_runs_in_every_type(scheme, method, dtype, tied):
    """Against the float32 model of the same rounded weights, so that only the type differs."""
    model = uneven(tied=tied, d_model=16, d_ff=24).to(dtype)
    before = copy.deepcopy(model.state_dict())
    try:
        small = made(model, scheme, method)
    except ValueError as error:
        assert "\n" not in str(error)
        assert "activation_bits 8" in str(error) or "cannot be trained" in str(error)
        return
    logits, twin = small(ids()), made(copy.deepcopy(model).float(), scheme, method)
    assert logits.dtype == dtype and {p.dtype for p in small.parameters()} == {dtype}
    assert apart(logits, twin(ids())) <= allowed(scheme, dtype)
    if dtype != torch.float64 or method in ("rtn", "mse"):  # else data is read more exactly
        for name, own in small.named_buffers():
            assert name == "table" or torch.equal(own, dict(twin.named_buffers())[name]), name
    assert all(torch.equal(own, model.state_dict()[name]) for name, own in before.items())


@torch.no_grad()
@settings(deadline=None, max_examples=16)
@given(schemes(), st.lists(DTYPES, min_size=1, max_size=3))
def test_a_change_of_type_changes_what_is_read_and_nothing_that_is_stored(scheme, types):
    small = quantize(uneven(), scheme)
    exact, before = small(ids()), copy.deepcopy(small.state_dict())
    for dtype in types:
        small.to(dtype)
        assert small(ids()).dtype == dtype
    for name, own in small.state_dict().items():
        if name.endswith(("codes", "scale", "zero")):
            assert torch.equal(own, before[name]) and own.dtype == before[name].dtype
    assert apart(small(ids()), exact) <= max(allowed(scheme, t) for t in types) + 1e-5


@torch.no_grad()
@pytest.mark.parametrize("dtype", list(CLOSE), ids=str)
@pytest.mark.parametrize("backend", KERNELS)
def test_kernels_answer_in_the_type_of_the_model(backend, dtype):
    scheme = (
        QuantScheme(8)
        if backend in ("int8pack", "onednn", "fbgemm")
        else QuantScheme(4, "group", 32)
    )
    small = quantize(uneven().to(dtype), scheme)
    try:
        fast, later = accelerate(small, backend), accelerate(quantize(uneven(), scheme), backend)
    except KernelError as error:
        pytest.skip(str(error))
    for model in (fast, later.to(dtype)):
        assert model(ids()).dtype == dtype and apart(model(ids()), small(ids())) < 0.1
        assert model(ids()[:1, :1]).dtype == dtype
    if backend != "dequantized":
        with pytest.raises(KernelError, match="is packed for the CPU and cannot be moved to meta"):
            fast.to("meta")


@torch.no_grad()
@pytest.mark.parametrize("dtype", list(CLOSE), ids=str)
def test_what_is_measured_and_searched_works_in_every_type(dtype):
    model, scheme = uneven().to(dtype), QuantScheme(4)
    small = quantize(model, scheme)
    errors = layer_errors(model, small), layer_output_errors(model, small, ids(4))
    twin = layer_errors(uneven(), quantize(uneven(), scheme))
    assert [r["relative_error"] for r in errors[0]] == pytest.approx(
        [r["relative_error"] for r in twin], rel=0.05
    )
    assert all(0 < r["relative_output_error"] < 1 for r in errors[1])
    even = equalize(model, QuantScheme(8, activation_bits=8), "smoothquant", ids(4))
    assert even(ids()).dtype == dtype and apart(even(ids()), model(ids())) <= CLOSE[dtype] + 1e-5

    def loss(net):
        return net(ids(2)).double().square().mean().item()

    formats = [QuantScheme(8), QuantScheme(4)]
    mixed = search(model.cfg, sensitivity(model, formats, loss), 10**6)
    assert (
        set(mixed.scheme) == set(matrices(model.cfg))
        and quantize(model, mixed.scheme)(ids()).dtype == dtype
    )


def test_a_model_of_two_types_is_refused_in_one_line():
    model = uneven()
    model.head.half()
    with pytest.raises(ValueError, match="mixes torch.float16 and torch.float32: convert it"):
        quantize(model, 8)


def test_accelerating_nothing_is_refused():
    with pytest.raises(
        ValueError, match=r"no quantized layer to accelerate: quantize\(\) it first"
    ):
        accelerate(uneven(), "dequantized")


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("method", [*METHODS, "qat mse"])
def test_half_precision_is_quantized_as_its_float32_twin(method, dtype):
    model = uneven().to(dtype)
    scheme = QuantScheme(4, "group", 8, activation_bits=8)
    small, twin = made(model, scheme, method), made(copy.deepcopy(model).float(), scheme, method)
    stored = twin.state_dict()
    for name, own in small.state_dict().items():
        assert torch.equal(own, stored[name].to(own.dtype)), name
