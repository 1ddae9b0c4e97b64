"""Caches: equality with recomputation for every split, bytes, rollback, reordering, and the
errors."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.cache import make_cache
from minitransformer.model import ModelConfig, Transformer

KINDS = (
    "dynamic",
    "static",
)  # those that give exactly what a forward gives; the others have files of their own
CFG = ModelConfig(vocab_size=50, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, context=24)


def model_and_ids(cfg=CFG, batch=2, tokens=16):
    torch.manual_seed(1)
    model = Transformer(cfg).double().eval()
    return model, torch.randint(0, 50, (batch, tokens))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 15), max_size=4, unique=True),
    position=st.sampled_from(["rope", "sinusoidal", "none"]),
)
def test_any_split_of_the_tokens_gives_the_logits_of_one_forward(kind, cuts, position):
    model, ids = model_and_ids(replace(CFG, position=position))
    cache = make_cache(model.cfg, kind, batch=2)
    with torch.no_grad():
        whole = model(ids)
        parts = [
            model(ids[:, a:b], cache)
            for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), 16], strict=True)
        ]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-12, rtol=0)
    assert cache.pos == 16


@pytest.mark.parametrize("kind", KINDS)
def test_truncate_forgets_and_select_reorders(kind):
    model, ids = model_and_ids()
    cache = make_cache(CFG, kind, batch=2)
    cache.truncate(0)  # an empty cache may be truncated and selected from
    cache.select(torch.tensor([0, 1]))
    with torch.no_grad():
        model(ids, cache)
        cache.truncate(10)
        cache.select(torch.tensor([1, 1, 0]))
        tail = model(ids[[1, 1, 0], 10:], cache)
        torch.testing.assert_close(tail, model(ids)[[1, 1, 0], 10:], atol=1e-12, rtol=0)


def test_a_cache_that_returned_other_values_would_be_noticed():
    model, ids = model_and_ids()
    cache = make_cache(CFG, "static", batch=2)
    with torch.no_grad():
        model(ids[:, :8], cache)
        cache[1].store[1][:, :, 3] += 0.1
        assert (model(ids[:, 8:], cache) - model(ids)[:, 8:]).abs().max() > 1e-6


def test_bytes_are_those_of_the_configuration():
    model, ids = model_and_ids()
    static, dynamic = (
        make_cache(CFG, "static", batch=2, capacity=20),
        make_cache(CFG, "dynamic", batch=2),
    )
    assert static.nbytes == dynamic.nbytes == 0
    with torch.no_grad():
        model(ids, static), model(ids, dynamic)
    token = 2 * CFG.n_layers * CFG.kv_heads * CFG.head_dim * 8
    assert static.nbytes == 2 * 20 * token
    assert dynamic.nbytes == 2 * 16 * token


def test_dtype_and_device_of_the_cache_win_over_those_of_the_update():
    k = torch.ones(1, 2, 3, 8)
    for kind in KINDS:
        cache = make_cache(CFG, kind, dtype=torch.float16, device="cpu")
        assert cache[0].update(k, k)[0].dtype == torch.float16


@pytest.mark.parametrize("kind", KINDS)
def test_overflow_foreign_shapes_and_bad_rollback_are_named(kind):
    model, ids = model_and_ids()
    with pytest.raises(ValueError, match="16 tokens do not fit a cache of capacity 10"):
        model(ids, make_cache(CFG, kind, batch=2, capacity=10))
    with pytest.raises(ValueError, match=r"\(2, 2, 8\) do not fit a cache of \(3, 2, 8\)"):
        model(ids, make_cache(CFG, kind, batch=3))
    with pytest.raises(ValueError, match="cannot truncate to 5: the cache holds 0 tokens"):
        make_cache(CFG, kind).truncate(5)


def test_an_unknown_kind_and_an_impossible_size_are_named():
    with pytest.raises(
        ValueError, match="cache kind 'ring' is unknown: choose one of dynamic, static, "
    ):
        make_cache(CFG, "ring")
    with pytest.raises(
        ValueError, match="option 'window' is unknown to kind 'static': its options are starts"
    ):
        make_cache(CFG, window=8)
    with pytest.raises(
        ValueError,
        match=(
            "option 'windows' is unknown to kind 'window': its options are window, sinks, rollback"
        ),
    ):
        make_cache(CFG, "window", windows=8)
    with pytest.raises(ValueError, match="cache batch 0 is not positive"):
        make_cache(CFG, batch=0)
    with pytest.raises(ValueError, match="cache capacity 0 is not positive"):
        make_cache(CFG, capacity=0)
