"""The pure functions: codes, scales, zero-points and bytes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.affine import packed_bytes
from minitransformer.quant import (
    QuantScheme,
    codebook,
    dequantize_tensor,
    fake_quantize,
    pack,
    quantize_tensor,
    schemes,
    unpack,
)

SCHEMES = [
    QuantScheme(bits=bits, granularity=granularity, group_size=size, symmetric=symmetric)
    for bits in (2, 3, 4, 8)
    for granularity, size in (
        ("tensor", None),
        ("channel", None),
        ("group", 16),
        ("group", 48),
        ("group", 999),
    )
    for symmetric in (True, False)
]


def restored(w, scheme):
    return dequantize_tensor(*quantize_tensor(w, scheme), scheme, w.shape[1])


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(bits=st.integers(1, 8), n=st.integers(1, 40), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_pack_round_trips_at_every_width(bits, n, seed):
    codes = torch.randint(
        2**bits, (3, 2, n), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    data = pack(codes, bits)
    assert data.dtype == torch.uint8 and data.shape == (3, 2, packed_bytes(n, bits))
    assert torch.equal(unpack(data, bits, n), codes)


def test_int4_is_two_nibbles_a_byte_low_first():
    assert pack(torch.tensor([[1, 2, 15, 8, 7]]), 4).tolist() == [[0x21, 0x8F, 0x07]]


def test_three_bits_run_across_bytes_low_bits_first():
    assert pack(torch.tensor([0b101, 0b011, 0b110]), 3).tolist() == [0b10_011_101, 0b1]


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_a_matrix_in_pieces_has_the_codes_of_the_whole(scheme, monkeypatch):
    w = random(7, 100) * torch.logspace(-2, 1, 7)[:, None]
    whole = quantize_tensor(w, scheme)
    monkeypatch.setattr(schemes, "PIECE", 250)  # two rows, and the last alone
    for part, other in zip(quantize_tensor(w, scheme), whole, strict=True):
        assert (part is None and other is None) or torch.equal(part, other)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_error_is_at_most_half_a_step(scheme):
    w = random(7, 100) * torch.logspace(-2, 1, 7)[:, None]
    codes, scale, zeros = quantize_tensor(w, scheme)
    step = scale.float()
    if scheme.granularity == "group":
        step = step.repeat_interleave(scheme.group_size, 1)[:, :100]
    # half a step, plus what the rounded scale and the rounded zero-point may clip at the ends of
    # the range
    clip = (2**scheme.bits) * 2**-11 + (0 if scheme.symmetric else 0.5)
    assert ((restored(w, scheme) - w).abs() <= step * (0.5 + clip)).all()
    assert (zeros is None) == scheme.symmetric
    assert codes.shape == (7, packed_bytes(100, scheme.bits))


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_zero_is_exact(scheme):
    w = random(6, 100).abs() + 1  # a range that does not hold zero by itself
    w[:, ::3] = 0
    assert (restored(w, scheme)[:, ::3] == 0).all()


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_all_zero_weights_stay_zero_and_finite(scheme):
    w = torch.zeros(3, 40)
    assert torch.equal(restored(w, scheme), w)


def test_quantizing_twice_changes_nothing():
    scheme = QuantScheme(bits=4, granularity="group", group_size=32)
    once = restored(random(8, 64), scheme)
    assert torch.equal(restored(once, scheme), once)


@pytest.mark.parametrize("bits", range(2, 9))
def test_symmetric_codes_reach_both_ends_and_never_the_odd_one(bits):
    scheme = QuantScheme(bits=bits)
    w = random(64, 128)
    codes = unpack(quantize_tensor(torch.cat((w, -w)), scheme)[0], bits, 128)
    assert codes.min() == 1 and codes.max() == 2**bits - 1


@pytest.mark.parametrize("bits", range(2, 9))
def test_asymmetric_codes_use_every_level_end(bits):
    codes = unpack(
        quantize_tensor(random(64, 128), QuantScheme(bits=bits, symmetric=False))[0], bits, 128
    )
    assert codes.min() == 0 and codes.max() == 2**bits - 1


def test_codes_come_from_the_rounded_scale():
    # max/127 = 1.0003 rounds to 1 in fp16: with the exact scale 100.52 would become code 100, with
    # the stored one 101
    w = torch.tensor([[127.04, 100.52]])
    codes, scale, _ = quantize_tensor(w, QuantScheme())
    assert scale.item() == 1.0 and (codes.int() - 128).tolist() == [[127, 101]]


def test_tiny_weights_do_not_make_a_zero_scale():
    scheme = QuantScheme()
    w = torch.full((1, 4), 1e-6)  # max/127 = 8e-9 underflows fp16
    scale = quantize_tensor(w, scheme)[1]
    assert scale.item() == 2**-24
    assert (restored(w, scheme) - w).abs().max() <= 2**-25


def test_symmetric_codes_are_clamped_where_a_tiny_scale_rounds_down():
    # 5.95e-7 / 7 = 8.5e-8 rounds to 6e-8 in fp16: ten steps from zero, and the grid has seven on
    # either side
    codes = unpack(
        quantize_tensor(torch.tensor([[-5.95e-7, 5.95e-7]]), QuantScheme(bits=4))[0], 4, 2
    )
    assert codes.tolist() == [[1, 15]]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("symmetric", [True, False])
def test_one_sided_weights_are_covered(sign, symmetric):
    w = sign * (random(8, 64).abs() + 1)  # no zero among them, but the grid must hold it
    scheme = QuantScheme(bits=8, symmetric=symmetric)
    assert (restored(w, scheme) - w).abs().max() <= 0.51 * quantize_tensor(w, scheme)[1].max()


def test_scale_overflow_names_value_and_remedy():
    w = torch.full((2, 4), 1e7)
    with pytest.raises(
        ValueError, match=r"scale of 78740\.2 overflows float16.*scale_dtype 'float32'"
    ):
        quantize_tensor(w, QuantScheme())
    wide = QuantScheme(scale_dtype="float32")
    assert torch.allclose(restored(w, wide), w)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_must_be_finite(bad):
    with pytest.raises(ValueError, match="not finite"):
        quantize_tensor(torch.tensor([[1.0, bad]]), QuantScheme())


def test_finer_grids_lose_less():
    w = random(32, 128) * torch.logspace(-1, 1, 128)

    def error(**k):
        return (restored(w, QuantScheme(**k)) - w).norm().item()

    assert (
        error(bits=4, granularity="tensor")
        > error(bits=4)
        > error(bits=4, granularity="group", group_size=16)
        > error(bits=8)
    )
    assert error(bits=4, symmetric=False) < error(bits=4)


def test_scale_dtypes():
    for name, dtype in (
        ("float16", torch.float16),
        ("bfloat16", torch.bfloat16),
        ("float32", torch.float32),
    ):
        assert quantize_tensor(random(4, 8), QuantScheme(scale_dtype=name))[1].dtype == dtype


@pytest.mark.parametrize("symmetric", [True, False])
def test_token_activations_do_not_see_their_neighbours(symmetric):
    x = random(4, 6, 32)
    whole = fake_quantize(x, 8, "token", symmetric)
    assert torch.equal(whole[2:3, 1:2], fake_quantize(x[2:3, 1:2], 8, "token", symmetric))
    assert whole.shape == x.shape and 0 < (whole - x).norm() / x.norm() < 0.02


def test_tensor_activations_share_one_grid():
    x = torch.tensor([[100.0, -100.0], [0.3, 0.1]])
    assert fake_quantize(x, 8, "tensor")[1].tolist() == [0.0, 0.0]
    assert fake_quantize(x, 8, "token")[1, 0].item() == pytest.approx(0.3, rel=1e-3)


def test_asymmetric_activations_suit_one_sided_inputs():
    x = random(16, 64).relu()  # what follows a ReLU: the symmetric grid wastes its negative half
    error = {s: (fake_quantize(x, 8, "token", s) - x).norm().item() for s in (True, False)}
    assert error[False] < 0.6 * error[True]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"bits": 9}, "bits 9 is not supported: give 2 to 8"),
        ({"bits": None}, "bits None"),
        ({"activation_bits": 1}, "activation_bits 1"),
        (
            {"granularity": "row"},
            "granularity 'row' is unknown: choose one of tensor, channel, group",
        ),
        ({"scale_dtype": "float8"}, "scale_dtype 'float8'"),
        ({"activation_granularity": "channel"}, "activation_granularity 'channel'"),
        ({"granularity": "group"}, "granularity 'group' with group_size None"),
        ({"group_size": 32}, "granularity 'channel' with group_size 32"),
        ({"granularity": "group", "group_size": 0}, "group_size 0 is not positive"),
    ],
)
def test_schemes_refuse_what_they_cannot_mean(arguments, message):
    with pytest.raises(ValueError, match=message):
        QuantScheme(**arguments)


def test_names_say_everything():
    assert str(QuantScheme()) == "int8 channel symmetric"
    assert str(
        QuantScheme(bits=4, granularity="group", group_size=32, symmetric=False, activation_bits=8)
    ) == ("int4 group 32 asymmetric, int8 activations")


NF4 = [
    -1.0,
    -0.6961928,
    -0.5250731,
    -0.3949175,
    -0.2844414,
    -0.1847734,
    -0.0910500,
    0.0,
    0.0795803,
    0.1609302,
    0.2461123,
    0.3379152,
    0.4407098,
    0.5626170,
    0.7229568,
    1.0,
]  # as printed in QLoRA, appendix E


def test_the_codebook_follows_from_its_definition():
    assert codebook().tolist() == pytest.approx(NF4, abs=1e-6)


@pytest.mark.parametrize(
    "granularity, size", [("tensor", None), ("channel", None), ("group", 16), ("group", 48)]
)
def test_a_codebook_takes_the_nearest_level(granularity, size):
    scheme = QuantScheme(
        bits=4, codebook="nf4", granularity=granularity, group_size=size, scale_dtype="float32"
    )
    w = random(5, 100)
    if granularity == "tensor":
        top = w.abs().max().expand(5, 100)
    else:
        top = torch.cat(
            [part.abs().amax(1, keepdim=True).expand_as(part) for part in w.split(size or 100, 1)],
            1,
        )
    levels = torch.tensor(NF4) * top[..., None]
    nearest = levels.gather(-1, (levels - w[..., None]).abs().argmin(-1, keepdim=True))[..., 0]
    assert torch.allclose(restored(w, scheme), nearest, atol=2e-6)


def test_a_codebook_suits_normal_weights_and_keeps_zero():
    w = random(64, 128)
    w[:, ::5] = 0
    four = dict(bits=4, granularity="group", group_size=64)
    assert (restored(w, QuantScheme(**four, codebook="nf4"))[:, ::5] == 0).all()
    w = random(64, 128)
    assert (restored(w, QuantScheme(**four, codebook="nf4")) - w).norm() < 0.95 * (
        restored(w, QuantScheme(**four)) - w
    ).norm()
    assert torch.equal(
        restored(torch.zeros(2, 9), QuantScheme(bits=4, codebook="nf4")), torch.zeros(2, 9)
    )


@pytest.mark.parametrize("bits", range(2, 9))
def test_full_range_gives_the_farthest_weight_the_odd_code(bits):
    scheme = QuantScheme(bits=bits, full_range=True, scale_dtype="float32")
    w = random(64, 128)
    codes, scale, zeros = quantize_tensor(w, scheme)
    codes = unpack(codes, bits, 128)
    far = w.gather(1, w.abs().argmax(1, keepdim=True))
    assert zeros is None and codes.min() == 0 and codes.max() == 2**bits - 1
    assert torch.allclose(scale * -(2 ** (bits - 1)), far) and (codes == 0).any(1).all()
    assert torch.allclose(restored(w, scheme).gather(1, w.abs().argmax(1, keepdim=True)), far)


def test_full_range_halves_the_error_of_few_bits_and_little_of_many():
    w = random(256, 32)
    error = {
        (bits, full): (restored(w, QuantScheme(bits=bits, full_range=full)) - w).norm().item()
        for bits in (2, 3, 8)
        for full in (True, False)
    }
    assert error[2, True] < 0.75 * error[2, False] and error[3, True] < 0.9 * error[3, False]
    assert error[8, True] > 0.95 * error[8, False]


def test_full_range_keeps_a_sign_that_rounds_away():
    w = torch.tensor([[1e-9, 0.0], [-1e-9, 0.0], [0.0, 0.0]])
    assert quantize_tensor(w, QuantScheme(bits=4, full_range=True))[1].flatten().tolist() == [
        -(2**-24),
        2**-24,
        1.0,
    ]
    with pytest.raises(ValueError, match="scale of 125000 overflows float16"):
        quantize_tensor(torch.tensor([[1e6, 0.0]]), QuantScheme(bits=4, full_range=True))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"codebook": "nf5", "bits": 4}, "codebook 'nf5' is unknown: choose one of None, nf4"),
        ({"codebook": "nf4"}, "give bits 4, symmetric True and full_range False, not bits 8"),
        ({"codebook": "nf4", "bits": 4, "symmetric": False}, "has 16 levels and no zero-point"),
        ({"full_range": True, "symmetric": False}, "full_range True with symmetric False"),
        ({"outliers": -1}, "outliers -1 is negative"),
    ],
)
def test_formats_refuse_what_they_cannot_mean(arguments, message):
    with pytest.raises(ValueError, match=message):
        QuantScheme(**arguments)


def test_names_of_formats():
    assert (
        str(QuantScheme(bits=4, codebook="nf4", granularity="group", group_size=64))
        == "nf4 group 64"
    )
    assert str(QuantScheme(bits=2, full_range=True)) == "int2 channel full-range"
    assert (
        str(QuantScheme(activation_bits=8, outliers=3))
        == "int8 channel symmetric, int8 activations, 3 columns FP32"
    )
