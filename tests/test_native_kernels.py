"""The engine's products against their definition in float64, with AVX2 and without intrinsics."""

from ctypes import byref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.affine import pack
from minitransformer.model import ModelConfig, Transformer
from minitransformer.native import NativeLinear, NativeModel
from minitransformer.native.checks import raised
from minitransformer.native.pack import Held, matrix, panels, words
from minitransformer.quant import QuantLinear, QuantScheme, QuantWeight, fake_quantize
from native_models import FORCES, ROUNDED, WEIGHT_ONLY, needs_compiler

pytestmark = needs_compiler
EPS = torch.finfo(torch.float32).eps
HOSTS = {}


def host(force, width):
    """A model that only lends its working memory, wide enough for matrices of this width."""
    key = force, 1 << (max(width, 64) - 1).bit_length()
    if key not in HOSTS:
        cfg = ModelConfig(vocab_size=2, d_model=key[1], n_heads=1, d_ff=1, context=8)
        HOSTS[key] = NativeModel(Transformer(cfg), force=force)
    return HOSTS[key]


def multiply(layer, x, force="native"):
    model, held = host(force, x.shape[1]), Held()
    structure = matrix(layer, held)
    y = torch.full((len(x), structure.rows), float("nan"))
    code = model.engine.engine_multiply(
        *(byref(model.struct), byref(structure), x.data_ptr(), len(x), y.data_ptr()),
        model.arena(1),
    )
    raised(code)
    return y


def definition(layer, x):
    """Ŵ x̂ + b in float64, and what rounding in FP32 may change of it."""
    weight, bias = layer.weight, layer.bias
    if isinstance(layer, QuantLinear):
        weight, x = layer.weight(), layer.activation(x)
    y = x.double() @ weight.double().T
    size = x.double().abs() @ weight.double().abs().T
    if bias is not None:
        y, size = y + bias.double(), size + bias.double().abs()
    return y.detach(), size.detach() * EPS * (x.shape[1] + 16) + 1e-37


def agree(layer, x):
    expected, bound = definition(layer, x)
    for force in FORCES:
        error = (multiply(layer, x, force).double() - expected).abs()
        assert (error <= bound).all(), (force, float((error / bound).max()))


@st.composite
def problems(draw):
    N, K, M = (
        draw(st.sampled_from([1, 2, 7, 8, 9, 16, 31, 65])),
        draw(st.sampled_from([1, 2, 3, 7, 8, 15, 32, 33, 64, 100, 131])),
        draw(st.integers(1, 16)),
    )
    g = torch.Generator().manual_seed(draw(st.integers(0, 9999)))
    weight = torch.randn(N, K, generator=g) * draw(st.sampled_from([1e-3, 1.0, 300.0]))
    x = torch.randn(M, K, generator=g) * draw(st.sampled_from([1e-20, 1.0, 1e10]))
    if draw(st.booleans()):
        weight[0], x[-1] = 0, 0
    if draw(st.booleans()):
        x = x.relu()
    linear = torch.nn.Linear(K, N, bias=draw(st.booleans()))
    linear.weight.data = weight
    return linear, x


@settings(max_examples=40, deadline=None)
@given(problems())
def test_fp32_is_the_definition(problem):
    agree(*problem)


@settings(max_examples=120, deadline=None)
@given(problems(), st.sampled_from(WEIGHT_ONLY + ROUNDED))
def test_codes_are_the_definition(problem, scheme):
    linear, x = problem
    agree(QuantLinear.from_linear(linear, scheme), x)


@pytest.mark.parametrize("scheme", WEIGHT_ONLY + ROUNDED, ids=str)
def test_every_format_on_many_rows(scheme):
    torch.manual_seed(3)
    linear, x = torch.nn.Linear(160, 44), torch.randn(70, 160)
    agree(QuantLinear.from_linear(linear, scheme), x)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("sign", [1, -1])
def test_extreme_codes_do_not_saturate(bits, sign):
    """All codes at their ends against all activations at theirs: what maddubs would cut off."""
    scheme = QuantScheme(bits, "group", 64, symmetric=False, activation_bits=8)
    layer = QuantLinear.from_linear(torch.nn.Linear(512, 8), scheme)
    layer.weight.codes.fill_(255)  # every code the largest, zero-points at either end
    layer.weight.zero.fill_(0 if sign > 0 else 255)
    layer.weight.codes[::2] = 0
    x = torch.ones(3, 512)
    x[1] = -1
    agree(layer, x)


@pytest.mark.parametrize("scheme", [None, *ROUNDED[:1], *ROUNDED[3:4]], ids=str)
def test_matrices_larger_than_a_block(scheme):
    """Many panels and rows: blocks of panels, tiles of 4, 3 and 2 rows, and a panel left over."""
    torch.manual_seed(4)
    linear = torch.nn.Linear(1000, 300)
    layer = linear if scheme is None else QuantLinear.from_linear(linear, scheme)
    for rows in (5, 7, 64, 70):
        agree(layer, torch.randn(rows, 1000))


def test_a_layer_alone_is_its_definition_and_refuses_the_rest():
    plain = torch.nn.Linear(24, 9).requires_grad_(False)
    layer, x = QuantLinear.from_linear(plain, ROUNDED[0]), torch.randn(24, 5).t()
    for one in (plain, layer):
        expected, bound = definition(one, x)
        own = NativeLinear(one, host("native", 64))
        assert ((own(x).double() - expected).abs() <= bound).all()
        assert own.nbytes > 0 and own(x[:0]).shape == (0, 9)
        for wrong in (x.double(), x[0], x[:, :23], x.to("meta")):
            with pytest.raises(ValueError, match="float32"):
                own(wrong)
    with pytest.raises(ValueError, match="wider host"):
        NativeLinear(torch.nn.Linear(65, 3), host("native", 64))


def test_all_codes_are_told_apart():
    for bits in range(2, 9):
        layer = QuantLinear.from_linear(torch.nn.Linear(2**bits, 3), QuantScheme(bits))
        codes = torch.arange(2**bits, dtype=torch.uint8)
        layer.weight.codes.copy_(pack(codes, bits).expand(3, -1))
        agree(layer, torch.eye(2**bits))


def test_columns_kept_apart_are_exact():
    torch.manual_seed(0)
    linear, scheme = torch.nn.Linear(40, 9), QuantScheme(8, activation_bits=8, outliers=3)
    weight = QuantWeight.from_tensor(linear.weight, scheme, outliers=[1, 17, 39])
    x = torch.randn(5, 40)
    x[:, 17] *= 1e4
    agree(QuantLinear(weight, linear.bias), x)


def test_twins_give_the_same_integers():
    """With one group and scales of one, the sum is an integer: both must give it exactly."""
    for bits in (4, 8):
        linear = torch.nn.Linear(96, 24, bias=False)
        linear.weight.data = torch.randint(-7, 8, (24, 96)).float()
        linear.weight.data[:, 0] = 2 ** (bits - 1) - 1  # the scale is 1
        layer = QuantLinear.from_linear(
            linear, QuantScheme(bits, scale_dtype="float32", activation_bits=8)
        )
        x = torch.randint(-127, 128, (9, 96)).float()
        x[:, 0] = 127
        expected = x @ linear.weight.T
        for force in FORCES:
            assert torch.equal(multiply(layer, x, force), expected.detach())


def test_rounded_activations_are_those_of_the_library():
    """Codes of x, bit for bit: the identity matrix shows them."""
    x = torch.randn(16, 64) * torch.logspace(-6, 6, 16)[:, None]
    x[0, :3] = torch.tensor([127.0, 0.5, 1.5])  # ties
    layer = QuantLinear.from_linear(
        torch.nn.Linear(64, 64, bias=False),
        QuantScheme(8, scale_dtype="float32", activation_bits=8),
    )
    layer.weight.codes.copy_(128 + torch.eye(64, dtype=torch.uint8))
    layer.weight.scale.fill_(1.0)
    for force in FORCES:
        torch.testing.assert_close(
            multiply(layer, x, force), fake_quantize(x, 8), rtol=3e-7, atol=0
        )


def test_what_is_not_finite_is_an_error():
    layer = QuantLinear.from_linear(torch.nn.Linear(16, 8), QuantScheme(8, activation_bits=8))
    for value in (float("nan"), float("inf"), -float("inf")):
        x = torch.ones(2, 16)
        x[1, 5] = value
        with pytest.raises(ValueError, match="NaN or infinity"):
            multiply(layer, x)


@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([4, 8]))
def test_words_hold_the_codes(N, K, bits):
    codes = torch.randint(0, 2**bits, (N, K), dtype=torch.uint8)
    made = words(codes, bits)
    assert made.shape == (2 * -(-N // 16), -(-K // (32 // bits)), 8)
    for n, k in ((0, 0), (N - 1, K - 1)):
        i = k % (32 // bits)
        word = int(made[n // 8, k // (32 // bits), n % 8]) & 0xFFFFFFFF
        assert word >> (8 * (i % 4) + 4 * (i // 4)) & (2**bits - 1) == codes[n, k]
    assert panels(codes).shape == (2 * -(-N // 16), K, 8)
