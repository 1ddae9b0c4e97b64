"""GPTQ: never above round-to-nearest on the data it saw, never below the exhaustive optimum, and
near it."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.quant import (
    Moments,
    QuantScheme,
    clip_tensor,
    dequantize_tensor,
    gptq,
    gptq_tensor,
    quantize_tensor,
)

FORMATS = [{}, {"symmetric": False}, {"full_range": True}, {"bits": 4, "codebook": "nf4"}]


def moments(x):
    x = x.double()
    return Moments(x.T @ x / len(x), x.abs().mean(0).float(), x.abs().amax(0).float(), len(x))


def inputs(n, columns, seed=0):
    """Correlated, with channels of very different size, as activations are."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=generator)
    return torch.randn(n, columns, generator=generator) @ mix * torch.logspace(-1, 1, columns)


def losses(parts, scheme, w, x):
    return (
        ((dequantize_tensor(*parts, scheme, w.shape[1]) - w).double() @ x.double().T)
        .square()
        .mean(1)
    )


@given(
    seed=st.integers(0, 999),
    rows=st.integers(1, 5),
    columns=st.integers(1, 40),
    power=st.integers(-4, 3),
    form=st.sampled_from(FORMATS),
    bits=st.integers(2, 4),
    granularity=st.sampled_from(["tensor", "channel", 7, 16]),
    tokens=st.sampled_from([1, 5, 100]),
)
@settings(deadline=None, max_examples=40)
def test_no_row_is_worse_than_round_to_nearest(
    seed, rows, columns, power, form, bits, granularity, tokens
):
    scheme = QuantScheme(
        **{"bits": bits, **form},
        **(
            {"granularity": "group", "group_size": granularity}
            if isinstance(granularity, int)
            else {"granularity": granularity}
        ),
    )
    w = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 10.0**power
    w[rows // 2, ::2] = 0
    x = inputs(tokens, columns, seed)
    x[:, ::5] = 0  # channels that are never active
    ours, nearest = (
        losses(parts, scheme, w, x)
        for parts in (gptq_tensor(w, scheme, moments(x)), quantize_tensor(w, scheme))
    )
    if granularity == "tensor":
        ours, nearest = ours.sum(), nearest.sum()
    assert (ours <= nearest * (1 + 1e-6) + 1e-30).all()


@pytest.mark.parametrize("seed", range(4))
def test_it_lies_between_the_exhaustive_optimum_and_rounding(seed):
    scheme, x = QuantScheme(bits=2, full_range=True), inputs(50, 5, seed)
    w = torch.randn(6, 5, generator=torch.Generator().manual_seed(seed))
    every = torch.tensor(list(itertools.product(range(-2, 2), repeat=5))).float()  # (4^5, K)
    grids = {
        f: f(w, scheme)[1].float()
        for f in (quantize_tensor, lambda *a: clip_tensor(*a, moments(x).second.diagonal()))
    }
    best = (
        torch.stack(
            [
                ((every[None] * s[:, None] - w[:, None]) @ x.T).square().mean(-1).amin(1)
                for s in grids.values()
            ]
        )
        .amin(0)
        .double()
    )
    ours = losses(gptq_tensor(w, scheme, moments(x)), scheme, w, x)
    nearest = losses(quantize_tensor(w, scheme), scheme, w, x)
    assert (
        (ours >= best * (1 - 1e-5)).all()
        and (ours <= nearest * (1 + 1e-6)).all()
        and ours.sum() < 0.7 * nearest.sum()
    )


def test_compensation_itself_pays_and_blocks_change_nothing(monkeypatch):
    scheme, w, x = (
        QuantScheme(bits=4),
        torch.randn(8, 60, generator=torch.Generator().manual_seed(1)),
        inputs(500, 60),
    )
    scale = quantize_tensor(w, scheme)[1].float().expand(8, 60)
    zero = torch.full_like(scale, 8)
    whole = gptq.compensate(w, scale, zero, moments(x).second, scheme, 0.01)
    monkeypatch.setattr(gptq, "BLOCK", 7)
    assert torch.equal(gptq.compensate(w, scale, zero, moments(x).second, scheme, 0.01), whole)
    error = (((whole - zero) * scale - w) @ x.T).square().mean()
    assert error < 0.5 * losses(quantize_tensor(w, scheme), scheme, w, x).mean()


def test_compensation_is_the_textbook_update():
    """Against the update that is written in the paper, one column at a time with the inverse
    Hessian itself."""
    scheme, w, x = (
        QuantScheme(bits=3),
        torch.randn(4, 9, generator=torch.Generator().manual_seed(2)),
        inputs(40, 9),
    )
    second = moments(x).second
    scale = quantize_tensor(w, scheme)[1].float().expand(4, 9)
    order = second.diagonal().argsort(descending=True).tolist()
    H = 2 * second + 2 * 0.01 * second.diagonal().mean() * torch.eye(9)
    left, codes = w.double().clone(), torch.zeros(4, 9)
    for step, j in enumerate(order):
        rest = order[step:]
        inverse = torch.linalg.inv(H[rest][:, rest])
        codes[:, j] = (left[:, j].float() / scale[:, j]).round().clamp(-3, 3) + 4
        error = (left[:, j] - (codes[:, j] - 4) * scale[:, j]) / inverse[0, 0]
        left[:, rest] -= error[:, None] * inverse[0]
    assert torch.equal(
        gptq.compensate(w, scale, torch.full_like(scale, 4), second, scheme, 0.01), codes
    )


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_where_compensation_fails_rounding_is_kept(monkeypatch, granularity):
    scheme, w, x = QuantScheme(bits=4, granularity=granularity), torch.randn(4, 9), inputs(40, 9)
    monkeypatch.setattr(gptq, "compensate", lambda weight, *_: torch.full_like(weight, 15))
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            gptq_tensor(w, scheme, moments(x))[:2], quantize_tensor(w, scheme)[:2], strict=False
        )
    )


def test_inputs_without_correlation_change_nothing():
    w, scheme = torch.randn(4, 16, generator=torch.Generator().manual_seed(3)), QuantScheme(bits=4)
    white = Moments(torch.eye(16, dtype=torch.float64), torch.ones(16), torch.ones(16), 1)
    scale = quantize_tensor(w, scheme)[1].float().expand(4, 16)
    codes = gptq.compensate(w, scale, torch.full_like(scale, 8), white.second, scheme, 0.01)
    assert torch.equal(codes, (w / scale).round().clamp(-7, 7) + 8)
    silent = Moments(torch.zeros(16, 16, dtype=torch.float64), torch.zeros(16), torch.zeros(16), 1)
    assert torch.equal(gptq_tensor(w, scheme, silent)[0], quantize_tensor(w, scheme)[0])


def test_damping_must_be_positive():
    with pytest.raises(ValueError, match="damping 0 is not positive"):
        gptq_tensor(torch.ones(1, 2), QuantScheme(), moments(torch.ones(1, 2)), damping=0)


def test_the_size_of_the_activations_decides_nothing():
    """A power of two times the inputs is another unit: the same codes, even beyond float32."""
    torch.manual_seed(0)
    weight, x = torch.randn(6, 16), torch.randn(40, 16, dtype=torch.float64)
    codes = [
        gptq_tensor(
            weight,
            QuantScheme(bits=3),
            Moments(x.T @ x * unit, x.abs().mean(0).float(), x.abs().amax(0).float(), 40),
        )[0]
        for unit in (1.0, 2.0**160, 2.0**-160)
    ]
    assert torch.equal(codes[0], codes[1]) and torch.equal(codes[0], codes[2])
