"""The sliding window: equal to its oracle for every split, far beyond the context, in constant
memory, with rollback."""

from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cache_models import configs, fed, near, peaked, takes, tokens
from minitransformer.bench import kv_bytes
from minitransformer.cache import make_cache
from minitransformer.decode import in_float64, oracle_logits
from minitransformer.model import ModelConfig, Transformer

CFG = ModelConfig(vocab_size=30, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, context=16)
OPTIONS = st.fixed_dictionaries(
    {"window": st.integers(1, 11), "sinks": st.integers(0, 5), "rollback": st.integers(0, 3)}
)


@settings(max_examples=20, deadline=None)
@given(
    cfg=configs(16, ["rope", "none"]),
    options=OPTIONS,
    cuts=st.sets(st.integers(1, 39), max_size=20),
)
def test_any_split_gives_the_logits_of_the_windowed_oracle(cfg, options, cuts):
    assume(takes("window", cfg))
    model, ids = peaked(cfg), tokens(cfg, 2, 40)
    cache = make_cache(cfg, "window", batch=2, **options)
    near(fed(model, cache, ids, {16, 32, *cuts}), oracle_logits(model, ids, "window", **options))
    assert cache.pos == 40


def test_smeared_keys_are_refused():
    """The key before the oldest one that is kept is gone."""
    with pytest.raises(ValueError, match="smeared keys mix each key .* a window lets that one go"):
        make_cache(replace(CFG, smeared_keys=True), "window")


@settings(max_examples=20, deadline=None)
@given(
    options=OPTIONS,
    moves=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), min_size=2, max_size=6),
)
def test_rolled_back_tokens_leave_no_trace(options, moves):
    model, ids = peaked(CFG), tokens(CFG, 1, 60)
    cache, whole = (
        make_cache(CFG, "window", **options),
        oracle_logits(model, ids, "window", **options),
    )
    for feed, back in moves:
        a, b = cache.pos, cache.pos + feed
        wrong = 29 - ids[:, b : b + min(back, options["rollback"])]
        near(fed(model, cache, torch.cat((ids[:, a:b], wrong), dim=1))[:, :feed], whole[:, a:b])
        cache.truncate(b)


def test_the_default_window_is_the_context_and_until_it_is_full_a_plain_forward():
    model, ids = peaked(CFG), tokens(CFG, 2, 16)
    cache = make_cache(CFG, "window", batch=2)
    near(fed(model, cache, ids, {3, 4, 9}), model(ids))
    assert (cache.window, cache.sinks, cache.chunk) == (12, 4, 16)
    assert make_cache(CFG).chunk is None


@pytest.mark.parametrize("rollback", [0, 3])
def test_every_query_sees_what_it_may_at_the_distances_of_positions_in_the_cache(rollback):
    cache = make_cache(CFG, "window", window=7, sinks=2, rollback=rollback)
    slowest = CFG.rope_theta ** (-(CFG.head_dim - 2) / CFG.head_dim)
    for T in (5, 1, 2, 1, 13, 1, 16):
        queries, sines, mask = cache.positions(T), cache.plan(T).turn[1][:, -1], cache.mask(T)
        assert queries[-1] < CFG.context
        places = (sines.asin() / slowest).round().long()  # (S,)
        mask = (
            torch.ones(T, len(places), dtype=torch.bool).tril(len(places) - T)
            if mask is None
            else mask
        )
        for row, query in enumerate(queries):
            distances = (query - places[mask[row]]).sort().values
            assert distances.tolist() == list(range(min(cache.pos + row + 1, 9)))
        cache.advance(T)


def test_sinks_and_window_decide_the_logits():
    model, ids = peaked(CFG), tokens(CFG, 1, 40)
    options = [{"window": w, "sinks": s} for w, s in ((6, 2), (6, 0), (8, 0), (7, 2))]
    logits = [fed(model, make_cache(CFG, "window", **o), ids, range(1, 40)) for o in options]
    assert all((a - b)[:, 20:].abs().max() > 1e-3 for i, a in enumerate(logits) for b in logits[:i])


def test_memory_is_constant_and_that_of_the_configuration():
    model, ids = peaked(CFG), tokens(CFG, 2, 16 * 9)
    cache = make_cache(CFG, "window", batch=2, window=6, sinks=3, rollback=2)
    assert cache.nbytes == 0
    fed(model, cache, ids[:, :1])
    bytes_, places = cache.nbytes, [layer.store[0].data_ptr() for layer in cache.layers]
    fed(model, cache, ids[:, 1:], range(1, 143, 5))
    assert cache.pos == 144 == 9 * CFG.context
    assert (
        cache.nbytes
        == bytes_
        == kv_bytes(CFG, 144, batch=2, itemsize=8, kind="window", window=6, sinks=3, rollback=2)
    )
    assert [layer.store[0].data_ptr() for layer in cache.layers] == places
    assert kv_bytes(CFG, 1, kind="window") == kv_bytes(CFG, CFG.context)


def test_select_reorders_what_was_evicted_around():
    model, ids = peaked(CFG), tokens(CFG, 2, 36)
    cache = make_cache(CFG, "window", batch=2, window=6)
    cache.select(torch.tensor([0, 1]))  # an empty cache may be selected from
    fed(model, cache, ids[:, :30], {16})
    cache.select(torch.tensor([1, 1, 0]))
    near(
        fed(model, cache, ids[[1, 1, 0], 30:]),
        oracle_logits(model, ids[[1, 1, 0]], "window", window=6)[:, 30:],
    )


def test_float32_stays_near_and_a_named_dtype_wins():
    model, ids = peaked(CFG), tokens(CFG, 1, 40)
    single, cache = peaked(CFG).float(), make_cache(CFG, "window", window=9)
    near(
        fed(single, cache, ids, {16, 32}).double(),
        oracle_logits(model, ids, "window", window=9),
        2e-3,
    )
    k = torch.ones(1, 2, 3, 8)
    assert (
        make_cache(CFG, "window", dtype=torch.float16, device="cpu")[0].update(k, k)[0].dtype
        == torch.float16
    )


def test_truncation_past_the_window_is_refused_and_before_it_is_free():
    model, ids = peaked(CFG), tokens(CFG, 1, 40)
    cache, whole = (
        make_cache(CFG, "window", window=6, sinks=2),
        oracle_logits(model, ids, "window", window=6, sinks=2),
    )
    fed(model, cache, ids[:, :20], {16})
    with pytest.raises(
        ValueError,
        match=r"truncate to 18: token 13 has left the window of 6: make_cache\(..., rollback=2\)",
    ):
        cache.truncate(18)
    with pytest.raises(ValueError, match="cannot truncate to 21: the cache holds 20 tokens"):
        cache.truncate(21)
    for pos in (
        19,
        2,
        1,
        0,
    ):  # one step back is always free, and what only the sinks see can always come back
        cache.truncate(pos)
        near(fed(model, cache, ids[:, pos:20], {9}), whole[:, pos:20])
    cache.truncate(0)
    fed(model, cache, ids[:, :8])
    cache.truncate(5)  # what was evicted before the text began anew is forgotten
    near(fed(model, cache, ids[:, 5:20]), whole[:, 5:20])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"window": 0}, "window 0 is not positive: give at least 1"),
        ({"sinks": -1}, "sinks -1 is negative: give at least 0"),
        ({"rollback": -1}, "rollback -1 is negative: give at least 0"),
        ({"window": 13}, "4 sinks and a window of 13 pass context 16: lower one of them"),
        ({"sinks": 16}, "16 sinks and a window of 1 pass context 16: lower one of them"),
    ],
)
def test_impossible_windows_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_cache(CFG, "window", **options)


def test_sinusoids_long_chunks_and_foreign_shapes_are_named():
    with pytest.raises(ValueError, match="position 'sinusoidal' is baked into keys and values"):
        make_cache(replace(CFG, position="sinusoidal"), "window")
    with pytest.raises(
        ValueError, match="17 tokens are more than the 16 that one forward may feed a window: feed"
    ):
        fed(peaked(CFG), make_cache(CFG, "window", window=4), tokens(CFG, 1, 17))
    with pytest.raises(ValueError, match=r"\(1, 2, 8\) do not fit a cache of \(3, 2, 8\)"):
        fed(peaked(CFG), make_cache(CFG, "window", batch=3), tokens(CFG, 1, 4))


@pytest.mark.parametrize("scaling", [("linear", 4.0), ("llama3", 8.0, 1.0, 4.0, 8)])
def test_a_window_turns_keys_as_far_as_the_model_has_turned_them(scaling):
    cfg = replace(CFG, rope_scaling=scaling)
    model, ids = peaked(cfg), tokens(cfg, 1, 14)
    near(fed(model, make_cache(cfg, "window", window=12), ids, {5}), model(ids))  # none is evicted
    plain = Transformer(cfg)
    assert (in_float64(plain).table - plain.table).abs().max() < 1e-6
