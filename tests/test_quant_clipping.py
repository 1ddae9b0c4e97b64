"""Clipping: never worse than the whole range, as good as a fine scan, and aware of what a column
weighs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.quant import QuantScheme, clip_tensor, dequantize_tensor, quantize_tensor

FORMATS = [{}, {"symmetric": False}, {"full_range": True}, {"bits": 4, "codebook": "nf4"}]


def restored(parts, scheme, columns):
    return dequantize_tensor(*parts, scheme, columns)


@given(
    seed=st.integers(0, 999),
    rows=st.integers(1, 5),
    columns=st.integers(1, 40),
    power=st.integers(-6, 4),
    form=st.sampled_from(FORMATS),
    bits=st.integers(2, 8),
    granularity=st.sampled_from(["tensor", "channel", 7, 16]),
)
@settings(deadline=None, max_examples=60)
def test_clipping_never_loses_to_the_whole_range(
    seed, rows, columns, power, form, bits, granularity
):
    scheme = QuantScheme(
        **{"bits": bits, "scale_dtype": "float32", **form},
        **(
            {"granularity": "group", "group_size": granularity}
            if isinstance(granularity, int)
            else {"granularity": granularity}
        ),
    )
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(rows, columns, generator=generator) * 10.0**power
    w[:, ::3] *= torch.rand(
        1, generator=generator
    ).round()  # zero columns now and then, zero rows where K = 1
    error = [
        (restored(f(w, scheme), scheme, columns) - w).double().square().sum()
        for f in (clip_tensor, quantize_tensor)
    ]
    assert error[0] <= error[1] * (1 + 1e-6)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_clipping_is_as_good_as_a_fine_scan(bits):
    w = torch.randn(20, 64, generator=torch.Generator().manual_seed(bits))
    scheme = QuantScheme(bits=bits, scale_dtype="float32")
    found = (restored(clip_tensor(w, scheme), scheme, 64) - w).square().sum(1)
    q = 2 ** (bits - 1) - 1
    steps = (
        torch.linspace(0.001, 1, 4000)[:, None, None] * w.abs().amax(1, keepdim=True) / q
    )  # (scan, N, 1)
    best = torch.stack(
        [((w / s).round().clamp(-q, q) * s - w).square().sum(1) for s in steps]
    ).amin(0)
    assert (found >= best * (1 - 1e-5)).all() and (found <= best * 1.04).all()
    whole = (restored(quantize_tensor(w, scheme), scheme, 64) - w).square().sum(1)
    assert found.sum() < (0.95 if bits == 4 else 0.7) * whole.sum()


def test_what_is_exact_stays_exact():
    w = torch.tensor([[7.0, -3.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    scheme = QuantScheme(bits=4)
    assert torch.equal(restored(clip_tensor(w, scheme), scheme, 4), w)


def test_ties_go_to_the_whole_range():
    w, scheme = torch.randn(3, 8), QuantScheme(bits=4, full_range=True)
    assert torch.equal(clip_tensor(w, scheme, torch.zeros(8))[1], quantize_tensor(w, scheme)[1])


def test_a_full_range_grid_may_turn_its_long_side_to_the_many():
    w, scheme = torch.tensor([[1.0, -0.99, -0.99, -0.99]]), QuantScheme(bits=2, full_range=True)
    assert quantize_tensor(w, scheme)[1] < 0 < clip_tensor(w, scheme)[1]
    assert (restored(clip_tensor(w, scheme), scheme, 4) - w).square().sum() < 0.3


def test_a_heavy_column_is_served_first():
    w = torch.tensor([[6.0, 1.3, 1.2, 1.4]])
    scheme = QuantScheme(bits=2)
    light, heavy = (
        restored(clip_tensor(w, scheme, torch.tensor(h)), scheme, 4)
        for h in ([1e-6, 1, 1, 1], [1.0, 0, 0, 0])
    )
    assert (light - w)[0, 1:].abs().max() < 0.2 and abs(heavy[0, 0] - 6) < 0.01
    assert torch.equal(
        restored(clip_tensor(w, scheme, torch.ones(4)), scheme, 4),
        restored(clip_tensor(w, scheme), scheme, 4),
    )


def test_weights_must_be_finite():
    with pytest.raises(ValueError, match="not finite"):
        clip_tensor(torch.tensor([[float("nan")]]), QuantScheme())
