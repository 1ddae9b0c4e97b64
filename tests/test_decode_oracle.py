"""The oracles: where a cache changes nothing they are the plain forward, and where it does they
follow the definition."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings

from cache_models import configs, fed, near, peaked, tokens
from minitransformer.cache import make_cache
from minitransformer.decode import in_float64, oracle_logits
from minitransformer.model import ModelConfig, Transformer

CFG = ModelConfig(vocab_size=30, d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, context=24)


@settings(max_examples=10, deadline=None)
@given(cfg=configs(24, ["rope", "sinusoidal", "none"]))
def test_without_eviction_and_with_everything_residual_an_oracle_is_the_plain_forward(cfg):
    model, ids = peaked(cfg), tokens(cfg, 2, 24)
    with torch.no_grad():
        plain = model(ids)
    for kind in ("static", "dynamic", "paged"):
        assert torch.equal(oracle_logits(model, ids, kind, block_size=4), plain)
    near(oracle_logits(model, ids, "int4", residual=24), plain)
    near(oracle_logits(model, ids, "int2", residual=0, group=25), plain)
    if cfg.position != "sinusoidal":
        near(oracle_logits(model, ids, "window"), plain)


def test_a_window_of_one_block_is_a_recomputation_of_the_sinks_and_the_last_tokens():
    model = peaked(
        ModelConfig(vocab_size=30, d_model=32, n_layers=1, n_heads=4, context=12)
    )  # deeper, keys differ
    ids = tokens(model.cfg, 1, 40)
    windowed = oracle_logits(model, ids, "window", window=7, sinks=3)
    for i in (5, 9, 10, 25, 39):
        seen = torch.cat((ids[:, : min(3, i + 1)], ids[:, max(3, i - 6) : i + 1]), dim=1)
        with torch.no_grad():
            near(windowed[:, i], model(seen)[:, -1])


def test_fewer_bits_are_farther_from_the_plain_forward():
    model, ids = peaked(CFG), tokens(CFG, 2, 24)
    with torch.no_grad():
        errors = [
            float((oracle_logits(model, ids, kind, **options) - model(ids)).square().mean())
            for kind, options in (
                ("int8", {}),
                ("int4", {"residual": 0, "group": 4}),
                ("int2", {"residual": 0, "group": 4}),
            )
        ]
    assert 0 < errors[0] < errors[1] / 10 < errors[2] / 20


def test_the_table_of_a_float64_copy_is_of_float64():
    model = Transformer(CFG).eval()
    ids, double = tokens(CFG, 1, 60), model.double()
    exact = in_float64(model)
    assert 1e-9 < (double.table - exact.table).abs().max() < 1e-7
    oracle = oracle_logits(exact, ids, "window", window=9)
    near(fed(exact, make_cache(CFG, "window", window=9), ids, {20, 40}), oracle)
    assert in_float64(Transformer(ModelConfig(position="none"))).table is None
    stretched = Transformer(replace(CFG, rope_scaling=("llama3", 8.0, 1.0, 4.0, 16)))
    assert torch.equal(in_float64(stretched).table.float(), stretched.table)


def test_an_unknown_kind_and_a_window_over_sinusoids_are_named():
    with pytest.raises(ValueError, match="no window over position 'sinusoidal'"):
        oracle_logits(
            Transformer(ModelConfig(vocab_size=30, d_model=32, position="sinusoidal")),
            tokens(CFG, 1, 4),
            "window",
        )
    with pytest.raises(
        ValueError,
        match="no oracle for cache kind 'ring': choose one of static, dynamic, paged, window, int8",
    ):
        oracle_logits(Transformer(CFG), tokens(CFG, 1, 4), "ring")
