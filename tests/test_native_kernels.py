"""The engine's products against their definition in float64, with every set of instructions that
this machine has, and without intrinsics."""

from ctypes import CDLL, byref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.affine import pack
from minitransformer.model import ModelConfig, Transformer
from minitransformer.native import NativeLinear, NativeModel
from minitransformer.native.build import build
from minitransformer.native.checks import raised
from minitransformer.native.pack import Held, matrix, panels, words
from minitransformer.native.structs import declare
from minitransformer.quant import QuantLinear, QuantScheme, QuantWeight, fake_quantize
from native_models import BUILT, FORCES, ROUNDED, WEIGHT_ONLY, needs_compiler
from native_products import definition, problems, whole_problems

pytestmark = needs_compiler
HOSTS = {}


def host(force, width):
    """A model that only lends its working memory, wide enough for matrices of this width."""
    key = force, 1 << (max(width, 64) - 1).bit_length()
    if key not in HOSTS:
        cfg = ModelConfig(vocab_size=2, d_model=key[1], n_heads=1, d_ff=1, context=8)
        HOSTS[key] = NativeModel(Transformer(cfg), force=force)
    return HOSTS[key]


def multiply(layer, x, force="native"):
    """y of the engine of that variant, or of a model given for one."""
    model = host(force, x.shape[1]) if isinstance(force, str) else force
    held = Held(model.engine.engine_side())
    structure = matrix(layer, held)
    y = torch.full((len(x), structure.rows), float("nan"))
    code = model.engine.engine_multiply(
        *(byref(model.struct), byref(structure), x.data_ptr(), len(x), y.data_ptr()),
        model.arena(1),
    )
    raised(code)
    return y


def agree(layer, x):
    expected, bound = definition(layer, x)
    for force in FORCES:
        error = (multiply(layer, x, force).double() - expected).abs()
        assert (error <= bound).all(), (force, float((error / bound).max()))


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


def needs(instructions):
    reason = f"the engine built here multiplies by {BUILT}, not {instructions}"
    return pytest.param(
        instructions, marks=pytest.mark.skipif(BUILT != instructions, reason=reason)
    )


@pytest.mark.parametrize("instructions", [needs(name) for name in ("vnni", "avx2", "neon")])
@settings(max_examples=150)
@given(problem=whole_problems())
def test_twins_give_the_same_integers(instructions, problem):
    """What multiplies bytes, beside its twin without intrinsics and, where it is more, AVX2."""
    expected = definition(*problem)[0].float()
    for force in FORCES:
        assert torch.equal(multiply(*problem, force), expected), force


DPBUSD = """
#include <immintrin.h>
#include <stdint.h>
static inline __m256i dpbusd(__m256i sum, __m256i unsigned_bytes, __m256i signed_bytes) {
    union { __m256i all; int32_t sum[8]; uint8_t u[32]; int8_t s[32]; } y, a, b;
    y.all = sum, a.all = unsigned_bytes, b.all = signed_bytes;
    for (int i = 0; i < 32; i++) y.sum[i / 4] += a.u[i] * b.s[i];
    return y.all;
}
#define __AVXVNNI__ 1
#undef _mm256_dpbusd_avx_epi32
#define _mm256_dpbusd_avx_epi32 dpbusd
"""


@pytest.fixture(scope="module")
def defined(tmp_path_factory):
    """A host whose engine believes in VNNI: its one instruction is a function of C."""
    if BUILT not in ("avx2", "vnni"):
        pytest.skip(f"no AVX2 to stand on: the engine built here multiplies by {BUILT}")
    place = tmp_path_factory.mktemp("vnni")
    (place / "dpbusd.h").write_text(DPBUSD)
    engine = build("avx2", extra=("-O1", "-include", str(place / "dpbusd.h")), place=place)
    cfg = ModelConfig(vocab_size=2, d_model=256, n_heads=1, d_ff=1, context=8)
    made = NativeModel(Transformer(cfg))
    made.engine = declare(CDLL(str(engine)))
    assert made.engine.engine_instructions() == b"vnni"
    return made


@settings(max_examples=150)
@given(whole_problems(), problems(), st.sampled_from(ROUNDED))
def test_vnni_by_its_definition(defined, whole, problem, scheme):
    """The kernel for VNNI is right wherever there is AVX2, if its instruction is as defined."""
    assert torch.equal(multiply(*whole, defined), definition(*whole)[0].float())
    layer, x = QuantLinear.from_linear(problem[0], scheme), problem[1]
    expected, bound = definition(layer, x)
    assert ((multiply(layer, x, defined).double() - expected).abs() <= bound).all()


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


@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([4, 8]), st.sampled_from([1, 2]))
def test_words_hold_the_codes(N, K, bits, side):
    codes = torch.randint(0, 2**bits, (N, K), dtype=torch.uint8)
    made, most = words(codes, bits, side), 2 * -(-N // 16) // side
    assert made.shape == (most, -(-K // (32 // bits)), 8 * side)
    for n, k in ((0, 0), (N - 1, K - 1)):
        i = k % (32 // bits)
        word = int(made[n // (8 * side), k // (32 // bits), n % (8 * side)]) & 0xFFFFFFFF
        assert word >> (8 * (i % 4) + 4 * (i // 4)) & (2**bits - 1) == codes[n, k]
    assert panels(codes, side).shape == (most, K, 8 * side)
