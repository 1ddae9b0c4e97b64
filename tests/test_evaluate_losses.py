"""Per-token losses: every token once, the promised context, the same numbers as a slow loop;
perplexity and bits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.cache import make_cache
from minitransformer.decode import in_float64
from minitransformer.evaluate import (
    bits_per_byte,
    perplexity,
    stream_losses,
    summary,
    token_losses,
    token_report,
)
from minitransformer.evaluate.losses import _device
from minitransformer.model import ModelConfig, Transformer

V = 7


def prefix_logits(ids):
    """Logits that depend on the whole prefix of the window, so a wrong window or target changes the
    loss."""
    total = ids.double().cumsum(1)  # (B, T)
    return torch.cos(total[..., None] * torch.arange(1, V + 1).double())  # (B, T, V)


def slow(ids, window, stride):
    """One token at a time: the window that owns it, its prefix, its loss."""
    n, out = len(ids) - 1, []
    window = min(window, n)
    for i in range(n):  # predicting ids[i + 1] from input i
        k = 0 if i < window else -(-(i - window + 1) // stride)
        start = min(k * stride, n - window)
        logits = prefix_logits(torch.tensor(ids[None, start : i + 1]))[0, -1]
        out.append(
            (
                -torch.log_softmax(logits, -1)[ids[i + 1]].item(),
                i + 1 - start,
                logits.argmax().item() == ids[i + 1],
            )
        )
    return [np.array(column) for column in zip(*out, strict=False)]


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 60), st.integers(1, 20), st.data())
def test_every_token_once_with_the_promised_context(n, window, data):
    stride = data.draw(st.integers(1, window))
    ids = np.random.default_rng(n).integers(0, V, n)
    got = token_report(prefix_logits, ids, window, stride, batch_size=3)
    nll, position, correct = slow(ids, window, stride)
    np.testing.assert_allclose(got.nll, nll, atol=1e-12)
    np.testing.assert_array_equal(got.position, position)
    np.testing.assert_array_equal(got.correct, correct)
    if n - 1 > window:
        assert got.position[window:].min() >= window - stride + 1
    assert got.position.max() <= window


def test_default_stride_is_half_a_window_and_confidence_is_the_top_probability():
    ids = np.random.default_rng(0).integers(0, V, 100).astype(np.int16)
    np.testing.assert_array_equal(
        token_losses(prefix_logits, ids, 10), token_losses(prefix_logits, ids, 10, 5)
    )
    got = token_report(prefix_logits, ids, 200)
    top = (
        torch.softmax(prefix_logits(torch.tensor(ids[None, :-1].astype(np.int64))), -1)
        .max(-1)
        .values[0]
    )
    np.testing.assert_allclose(got.confidence, top, atol=1e-12)
    assert token_losses(prefix_logits, ids, 1).shape == (99,)  # window 1: stride 1, not 0


def test_a_model_is_scored_like_its_full_forward_pass():
    torch.manual_seed(0)
    model = Transformer(ModelConfig(vocab_size=V, d_model=8, n_heads=2, context=32))
    ids = torch.randint(0, V, (30,))
    want = torch.nn.functional.cross_entropy(model(ids[None, :-1])[0], ids[1:], reduction="none")
    np.testing.assert_allclose(token_losses(model, ids, 32), want.detach().numpy(), atol=1e-5)
    half = token_losses(lambda x: model(x).bfloat16(), ids, 32)
    assert (
        1e-5 < np.abs(half - want.detach().numpy()).max() < 0.1
    )  # rounded logits, summed in float32


def test_where_a_callable_runs():
    assert _device(prefix_logits).type == "cpu"
    assert _device(torch.nn.Identity()).type == "cpu"
    buffers = torch.nn.Identity()
    buffers.register_buffer("codes", torch.zeros(1, device="meta"))
    assert _device(buffers).type == "meta"
    assert _device(torch.nn.Linear(1, 1, device="meta")).type == "meta"


@pytest.mark.parametrize(
    "ids, window, stride, match",
    [
        ([1], 4, None, "1 token"),
        ([], 4, None, "0 token"),
        ([1, 2], 4, 5, "stride 5"),
        ([1, 2], 4, 0, "stride 0"),
        ([1, 2], 0, None, "window 0"),
    ],
)
def test_what_does_not_fit_is_refused(ids, window, stride, match):
    with pytest.raises(ValueError, match=match):
        token_report(prefix_logits, np.array(ids), window, stride)


def test_perplexity_of_a_uniform_guess_is_the_vocabulary():
    p = perplexity(
        lambda ids: torch.zeros(*ids.shape, V, dtype=torch.float64), np.arange(2000) % V, 64
    )
    assert (
        p.value == pytest.approx(V) and p.bits == pytest.approx(math.log2(V)) and p.tokens == 1999
    )
    assert p.stderr == pytest.approx(0, abs=1e-12) and p.interval == pytest.approx((V, V))


def test_summary_has_the_interval_of_the_mean():
    losses = np.random.default_rng(1).exponential(2, 50_000)
    p = summary(losses)
    assert p.value == math.exp(losses.mean()) and p.nll == losses.mean()
    assert p.stderr == pytest.approx(2 / math.sqrt(50_000), rel=0.3)
    low, high = np.log(p.interval)
    assert (high - low) / (2 * 1.96 * p.stderr) == pytest.approx(1, rel=0.25) and low < p.nll < high


def test_bits_per_byte():
    assert bits_per_byte(math.log(2), 100, 50) == pytest.approx(2)
    assert bits_per_byte(math.log(217.8), 245_569, 1_256_449) == pytest.approx(
        1.518, abs=5e-4
    )  # WikiText-2 test
    with pytest.raises(ValueError, match="n_bytes 0"):
        bits_per_byte(1.0, 1, 0)


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_a_streamed_text_costs_what_it_costs_in_one_window(chunk):
    torch.manual_seed(0)
    model = Transformer(ModelConfig(vocab_size=V, d_model=16, n_heads=2, context=40)).double()
    ids, seen = np.random.default_rng(0).integers(0, V, 31), []
    losses = stream_losses(
        model,
        ids,
        make_cache(model.cfg, "static"),
        chunk,
        on_chunk=lambda cache: seen.append(cache.pos),
    )
    assert losses == pytest.approx(token_losses(model, ids, 30, 30), abs=1e-12)
    assert seen == [min(30, chunk * (i + 1)) for i in range(math.ceil(30 / chunk))]


def test_a_windowed_cache_reads_past_the_context_in_chunks_of_its_own():
    torch.manual_seed(0)
    model = in_float64(Transformer(ModelConfig(vocab_size=V, d_model=16, n_heads=2, context=8)))
    ids, seen = np.random.default_rng(0).integers(0, V, 41), []
    cache = make_cache(model.cfg, "window", window=6, sinks=2)
    losses = stream_losses(model, ids, cache, on_chunk=lambda cache: seen.append(cache.nbytes))
    assert (
        losses.shape == (40,)
        and np.isfinite(losses).all()
        and len(set(seen)) == 1
        and len(seen) == 5
    )
    assert losses == pytest.approx(
        stream_losses(model, ids, make_cache(model.cfg, "window", window=6, sinks=2), 1), abs=1e-12
    )
