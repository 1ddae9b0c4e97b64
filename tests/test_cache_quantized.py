"""Quantized caches: equal to fake-quantized keys and values for every split, bytes from the
configuration, rollback."""

from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cache_models import configs, fed, near, peaked, takes, tokens
from minitransformer.bench import kv_bytes
from minitransformer.cache import make_cache
from minitransformer.decode import oracle_logits
from minitransformer.model import ModelConfig

CFG = ModelConfig(vocab_size=30, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, context=48)
WIDE = ModelConfig(d_model=128, n_layers=1, n_heads=4, n_kv_heads=1, context=8192)  # head dim 32
KINDS = ("int8", "int4", "int2")
GROUPS = st.fixed_dictionaries(
    {"residual": st.integers(0, 9), "group": st.integers(1, 9), "rollback": st.integers(0, 4)}
)


@settings(max_examples=30, deadline=None)
@given(
    cfg=configs(40, ["rope", "sinusoidal", "none"]),
    kind=st.sampled_from(KINDS),
    options=GROUPS,
    cuts=st.sets(st.integers(1, 39), max_size=20),
)
def test_any_split_gives_the_logits_of_fake_quantized_keys_and_values(cfg, kind, options, cuts):
    assume(takes(kind, cfg))
    model, ids, options = peaked(cfg, 3.0), tokens(cfg, 2, 40), {} if kind == "int8" else options
    cache = make_cache(cfg, kind, batch=2, **options)
    near(fed(model, cache, ids, cuts), oracle_logits(model, ids, kind, **options))
    assert cache.pos == 40
    assert cache.nbytes == kv_bytes(cfg, 40, batch=2, itemsize=8, kind=kind, **options)


@pytest.mark.parametrize("kind", ["int4", "int2"])
def test_smeared_keys_are_refused_where_a_key_has_two_versions(kind):
    with pytest.raises(ValueError, match=rf"smeared keys mix .* KIVI cache of {kind[3:]} bits"):
        make_cache(replace(CFG, smeared_keys=True), kind)


@settings(max_examples=20, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    options=GROUPS,
    moves=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4)), max_size=5),
)
def test_rolled_back_tokens_leave_no_trace(kind, options, moves):
    model, ids = peaked(CFG, 3.0), tokens(CFG, 1, 48)
    back_most, options = options["rollback"], {} if kind == "int8" else options
    cache, whole = make_cache(CFG, kind, **options), oracle_logits(model, ids, kind, **options)
    for feed, back in moves:
        a, b = cache.pos, cache.pos + feed
        wrong = 29 - ids[:, b : b + min(back, back_most)]
        near(fed(model, cache, torch.cat((ids[:, a:b], wrong), dim=1))[:, :feed], whole[:, a:b])
        cache.truncate(b)


def filled(cfg, kind, n, **options):
    """A cache filled to its capacity with random keys and values, float32, and what the last update
    returned."""
    cache = make_cache(cfg, kind, capacity=n, **options)
    torch.manual_seed(0)
    k, v = torch.randn(2, 1, cfg.kv_heads, n, cfg.head_dim)
    seen = [cache[i].update(k, v) for i in range(cfg.n_layers)]
    cache.advance(n)
    return cache, k, v, seen[-1]


@pytest.mark.parametrize(
    "kind, n, least",
    [("int8", 512, 3.7), ("int4", 8192, 6.0), ("int4", 512, 4.7), ("int2", 8192, 9.0)],
)
def test_bytes_meet_their_bars_and_equal_the_computed_ones(kind, n, least):
    cache = filled(WIDE, kind, n)[0]
    assert cache.nbytes == kv_bytes(WIDE, n, kind=kind)
    assert kv_bytes(WIDE, n) / cache.nbytes >= least


def test_the_ratio_at_512_tokens_is_that_of_480_packed_and_32_full_ones():
    assert kv_bytes(WIDE, 512) / kv_bytes(WIDE, 512, kind="int4") == pytest.approx(
        512 * 32 / (480 * 5 + 32 * 32)
    )
    assert kv_bytes(WIDE, 511, kind="int4") - kv_bytes(WIDE, 512, kind="int4") == 2 * (
        31 * 32 * 4 - 32 * 20
    )
    with pytest.raises(
        ValueError,
        match="cache kind 'int3' has no formula for its bytes: choose one of static, dynamic",
    ):
        kv_bytes(WIDE, 512, kind="int3")
    assert kv_bytes(WIDE, 33, kind="paged", block_size=16) == kv_bytes(WIDE, 48)


def test_empty_caches_hold_nothing_and_may_be_truncated_and_selected_from():
    for kind in KINDS:
        cache = make_cache(CFG, kind)
        cache.truncate(0)
        cache.select(torch.tensor([0, 0]))
        assert cache.nbytes == 0 and cache.batch == 2


@pytest.mark.parametrize("kind, levels", [("int8", 254), ("int4", 15), ("int2", 3)])
def test_no_number_is_farther_than_half_a_step(kind, levels):
    _, k, v, seen = filled(WIDE, kind, 96, **({} if kind == "int8" else {"residual": 0}))
    k_seen, v_seen = (x[:, :, :96] for x in seen)
    keys = (k, k_seen)
    if (
        kind != "int8"
    ):  # keys share a scale over the 32 tokens of a group, values over the 32 channels of a token
        keys = tuple(x.unflatten(2, (3, 32)).mT for x in keys)
    for x, seen in (keys, (v, v_seen)):
        span = (
            2 * x.abs().amax(-1, keepdim=True)
            if kind == "int8"
            else x.amax(-1, keepdim=True) - x.amin(-1, keepdim=True)
        )
        assert ((x - seen).abs() <= span / levels * 0.51 + 1e-3).all()
        assert (x - seen).abs().max() > span.max() / levels / 8


def test_the_residual_is_exact_and_the_rest_is_not():
    _, k, v, (k_seen, v_seen) = filled(WIDE, "int4", 96, residual=40)
    assert (
        k_seen.shape[2] == v_seen.shape[2] == 32 + 96
    )  # in one forward the group that it finishes is there in both versions
    assert torch.equal(k_seen[:, :, 32:], k) and torch.equal(v_seen[:, :, 32:], v)
    assert not torch.equal(k_seen[:, :, :32], k[:, :, :32])


def test_an_outlier_channel_of_the_keys_and_an_outlier_token_of_the_values_spoil_no_other():
    cache = make_cache(WIDE, "int4", capacity=64, residual=0)
    torch.manual_seed(0)
    k, v = torch.randn(2, 1, 1, 64, 32)
    k[..., 5] += 1000.0
    v[:, :, 7] *= 1000.0
    k_seen, v_seen = cache[0].update(k, v)
    k_error, v_error = (k_seen[:, :, :64] - k).abs(), (v_seen[:, :, :64] - v).abs()
    assert (
        k_error[..., [c for c in range(32) if c != 5]].max() < 0.3 and k_error[..., 5].max() < 0.6
    )
    assert v_error[:, :, [t for t in range(64) if t != 7]].max() < 0.3


@pytest.mark.parametrize("kind", ["int4", "int2"])
def test_finished_groups_are_packed_once_and_the_tail_keeps_no_chunk_alive(kind):
    model, ids = peaked(CFG), tokens(CFG, 1, 48)
    cache = make_cache(CFG, kind, residual=4, group=8)
    fed(model, cache, ids[:, :30])
    groups = (30 - 4) // 8
    before = [part[:, :, :groups].clone() for part in cache[1].parts]
    fed(model, cache, ids[:, 30:], range(31, 48))
    assert all(
        torch.equal(a, part[:, :, :groups]) for a, part in zip(before, cache[1].parts, strict=True)
    )
    assert [x.shape[2] for x in cache[1].tail] == [48 - 40, 48 - 40]
    assert all(x.untyped_storage().nbytes() == x.nbytes for x in cache[1].tail)


def test_truncation_into_a_finished_group_is_refused_without_rollback():
    model, ids = peaked(CFG), tokens(CFG, 1, 48)
    whole = oracle_logits(model, ids, "int4", residual=4, group=8)
    cache = make_cache(CFG, "int4", residual=4, group=8)
    fed(model, cache, ids[:, :30])
    with pytest.raises(
        ValueError,
        match=r"truncate to 27: token 16 is in a finished group: make_cache\(..., rollback=3\)",
    ):
        cache.truncate(27)
    with pytest.raises(ValueError, match="cannot truncate to 31: the cache holds 30 tokens"):
        cache.truncate(31)
    cache.truncate(28)
    near(fed(model, cache, ids[:, 28:40]), whole[:, 28:40])
    cache.truncate(0)
    near(fed(model, cache, ids, {5, 29}), whole)
    cache = make_cache(CFG, "int4", residual=4, group=8, rollback=4)
    fed(model, cache, ids[:, :32])
    cache.truncate(29)  # what was let go at 32 tokens is not thought to be held at 30
    near(fed(model, cache, ids[:, 29:], {1, 2}), whole[:, 29:])


@pytest.mark.parametrize("kind", KINDS)
def test_select_reorders_codes_and_tail(kind):
    model, ids = peaked(CFG), tokens(CFG, 2, 48)
    options = {} if kind == "int8" else {"residual": 4, "group": 8}
    cache = make_cache(CFG, kind, batch=2, **options)
    fed(model, cache, ids[:, :30])
    cache.select(torch.tensor([1, 1, 0]))
    near(
        fed(model, cache, ids[[1, 1, 0], 30:]),
        oracle_logits(model, ids[[1, 1, 0]], kind, **options)[:, 30:],
    )


@pytest.mark.parametrize("kind", KINDS)
def test_zero_constant_tiny_and_huge_ranges_come_back(kind):
    options = {} if kind == "int8" else {"residual": 0, "group": 4}
    for value in (0.0, 0.1, -3.0, 1e-9, 1e5):
        x = torch.full((1, 2, 8, 8), value)
        for seen in make_cache(CFG, kind, **options)[0].update(x, x):
            torch.testing.assert_close(seen[:, :, :8], x, rtol=2e-3, atol=1e-7)
    for value, word in ((1e30, "1e\\+30"), (float("nan"), "nan")):
        with pytest.raises(
            ValueError,
            match=f"values up to {word} do not fit {kind[3:]}-bit codes.*use the static cache",
        ):
            make_cache(CFG, kind, **options)[0].update(x, torch.full_like(x, value))


def test_dtypes_options_overflow_and_shapes_are_named():
    k = torch.ones(1, 2, 3, 8)
    for kind in KINDS:
        assert (
            make_cache(CFG, kind, dtype=torch.float16, device="cpu")[0].update(k, k)[0].dtype
            == torch.float16
        )
        with pytest.raises(ValueError, match="16 tokens do not fit a cache of capacity 10"):
            fed(peaked(CFG), make_cache(CFG, kind, capacity=10), tokens(CFG, 1, 16))
        with pytest.raises(ValueError, match=r"\(1, 2, 8\) do not fit a cache of \(3, 2, 8\)"):
            make_cache(CFG, kind, batch=3)[0].update(k, k)
    for option, least in (("residual", 0), ("group", 1), ("rollback", 0)):
        with pytest.raises(
            ValueError, match=f"{option} {least - 1} is (not posi|nega)tive: give at least {least}"
        ):
            make_cache(CFG, "int4", **{option: least - 1})
    with pytest.raises(
        ValueError, match="option 'residual' is unknown to kind 'int8': its options are none"
    ):
        make_cache(CFG, "int8", residual=4)


def test_a_cache_that_returned_other_codes_would_be_noticed():
    model, ids = peaked(CFG), tokens(CFG, 1, 48)
    for kind in KINDS:
        options = {} if kind == "int8" else {"residual": 4, "group": 8}
        cache = make_cache(CFG, kind, **options)
        fed(model, cache, ids[:, :40])
        cache[1].parts[0][:, :, 0, 0] ^= 255
        tail = fed(model, cache, ids[:, 40:])
        assert (tail - oracle_logits(model, ids, kind, **options)[:, 40:]).abs().max() > 1e-6


def test_head_dims_that_no_group_divides_share_one_scale_a_token():
    cfg = replace(CFG, d_model=40, n_heads=4)  # head dim 10
    model, ids = peaked(cfg), tokens(cfg, 1, 48)
    cache = make_cache(cfg, "int4", residual=3, group=4)
    near(fed(model, cache, ids, {11}), oracle_logits(model, ids, "int4", residual=3, group=4))
    assert cache.channels == 10 and cache.nbytes == kv_bytes(
        cfg, 48, itemsize=8, kind="int4", residual=3, group=4
    )
