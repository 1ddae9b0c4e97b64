"""Costs equal real objects, intervals cover, and the time model recovers the constants it was made
from."""

import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from minitransformer.bench import (
    TimeModel,
    best_of,
    dispatch,
    dispatch_table,
    fit,
    flop_speedup,
    flops,
    interleaved,
    kv_bytes,
    labels,
    matmul_flops_per_second,
    median_interval,
    memory,
    parameters,
    process_growth,
    ratio,
    read_seconds,
    step_times,
    weights_read,
)
from minitransformer.cache import make_cache
from minitransformer.model import ModelConfig, Transformer
from minitransformer.quant import KERNELS, QuantScheme, matrix_bytes

VARIANTS = [
    ModelConfig(),
    ModelConfig(
        n_layers=2, n_kv_heads=1, norm="rmsnorm", ffn="swiglu", bias=False, tied=True, qk_norm=True
    ),
    ModelConfig(d_model=64, n_kv_heads=2, ffn="gelu"),
]


@pytest.mark.parametrize("cfg", VARIANTS)
def test_parameters_and_cache_bytes_are_those_of_the_objects(cfg):
    model = Transformer(cfg)
    assert sum(parameters(cfg).values()) == sum(p.numel() for p in model.parameters())
    cache = make_cache(cfg, "static", batch=2, capacity=9)
    model(torch.zeros(2, 5, dtype=torch.long), cache)
    assert cache.nbytes == kv_bytes(cfg, 9, batch=2)


def test_weights_read_leaves_out_other_tokens_embeddings():
    cfg = ModelConfig()
    assert sum(parameters(cfg).values()) - weights_read(cfg) == (1004 - 1) * 128
    assert weights_read(replace(cfg, tied=True)) == sum(
        parameters(replace(cfg, tied=True)).values()
    )


def test_flops_equal_torchs_own_counter():
    from torch.utils.flop_counter import FlopCounterMode

    cfg = ModelConfig(bias=False)
    model, ids = Transformer(cfg), torch.zeros(1, 8, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(ids)
    full_rows = (
        2 * 2 * 8 * 8 * 128
    )  # torch counts the masked half of attention too, or leaves the fused kernel out
    ours = flops(cfg, 8, head_positions=8) - 2 * 2 * (8 * 9 // 2) * 128
    assert counter.get_total_flops() in (ours, ours + full_rows)


def test_the_seeds_theoretical_25_is_a_ratio_of_operations():
    cfg = ModelConfig()
    assert flop_speedup(cfg, 1, 50, head_all=True) == pytest.approx(25.5, rel=0.02)
    assert flop_speedup(cfg, 1, 50) < 20


def test_untimed_calls_come_right_before_each_timed_one():
    calls = []
    samples = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, 1, 2)
    assert "".join(calls) == "ab" + "aaabbb" + "bbbaaa" and len(samples) == 4


def test_repeats_are_interleaved_and_paired():
    order = []
    samples = interleaved(
        {"a": lambda: order.append("a"), "b": lambda: (order.append("b"), time.sleep(0.002))},
        repeats=4,
    )
    assert "".join(order) == "ab" + "abba" * 2
    assert samples.columns.tolist() == ["name", "repeat", "seconds"] and len(samples) == 8
    low = ratio(samples, "b", "a")[1]
    assert low > 1


def test_the_median_interval_covers_the_median():
    rng = np.random.default_rng(0)
    hits = [
        low <= 0 <= high
        for _, low, high in (median_interval(rng.normal(size=25)) for _ in range(400))
    ]
    assert np.mean(hits) >= 0.93
    assert median_interval([3, 1, 2]) == (2, 1, 3)


def test_the_machines_speeds_are_positive():
    assert best_of(lambda: None, 2, 2) >= 0
    assert 0 < read_seconds(4096, repeats=2) < 1
    assert matmul_flops_per_second(64, repeats=1) > 0


def test_single_forwards_are_timed_in_four_phases_and_leave_the_cache_as_it_was(monkeypatch):
    cfg = ModelConfig(vocab_size=31, d_model=16, n_heads=2, context=16)
    model, fed = Transformer(cfg).eval(), []
    ids = torch.arange(12)[None]
    plain = model.states

    def noted(new, step=None):
        fed.append((tuple(new.shape), step and step.before.pos))
        return plain(new, step)

    monkeypatch.setattr(model, "states", noted)
    samples = step_times(model, ids, [1, 5], [1, 4], past=3, repeats=3)
    assert (
        samples.columns.tolist() == ["phase", "tokens", "repeat", "seconds"]
        and (samples.seconds > 0).all()
    )
    counts = samples.groupby(["phase", "tokens"]).size().to_dict()
    wanted = {"recompute": (1, 5), "cached": (1, 5), "several": (1, 4), "rows": (1, 4)}
    assert counts == {(phase, tokens): 3 for phase in wanted for tokens in wanted[phase]}
    timed = {
        ((1, 5), None),
        ((1, 1), 5),
        ((1, 4), 3),
        ((4, 1), 3),
    }  # what is fed, after how many cached tokens
    assert timed <= set(fed) and all(fed.count(call) == 3 + 2 for call in timed)
    with pytest.raises(ValueError, match="6 tokens of text are too few .* give 7"):
        step_times(model, ids[:, :6], [2, 6], repeats=1)


TRUE = TimeModel(150e-6, 160e-6, 20e-6, 8e-6, 2e-9, 5e-8, (4e-8, 6e-8))


def test_the_fit_recovers_its_own_constants():
    lengths, past = (
        np.array([1, 2, 4, 8, 16, 32, 64, 128, 256, 500]),
        np.array([1, 50, 100, 200, 300, 400, 500]),
    )
    noise = np.random.default_rng(1).normal(1, 0.01, 17)
    model = fit(
        lengths,
        TRUE.uncached(lengths) * noise[:10],
        past,
        TRUE.cached(past) * noise[10:],
        TRUE.weights,
    )
    assert model.overhead == pytest.approx(TRUE.overhead, rel=0.05)
    assert model.compute == pytest.approx(TRUE.compute, rel=0.05)
    assert model.attention == pytest.approx(TRUE.attention, rel=0.3)
    assert model.kappa_resolvable and model.kappa == pytest.approx(5e-8, rel=0.3)
    assert model.knee == pytest.approx(TRUE.knee, rel=0.05)
    assert model.speedup(16, 200) == pytest.approx(TRUE.speedup(16, 200), rel=0.05)


def test_attention_that_is_not_to_be_seen_is_nothing_and_no_bound_of_the_fit():
    lengths, past = np.array([1, 4, 16, 64, 256, 500]), np.array([1, 200, 500])
    bent = TRUE.uncached(lengths) - 3e-9 * lengths**2  # of attention below zero
    assert fit(lengths, bent, past, TRUE.cached(past), TRUE.weights).attention == 0


def test_a_flat_cache_read_is_called_not_resolvable():
    past = np.arange(10, 500, 50)
    seconds = 2e-4 * np.random.default_rng(2).normal(1, 0.05, len(past))
    model = fit([1, 10, 100, 500], TRUE.uncached([1, 10, 100, 500]), past, seconds, TRUE.weights)
    assert not model.kappa_resolvable and model.kappa_interval[0] <= 0 <= model.kappa_interval[1]


@pytest.mark.parametrize("slope", [1e-7, -1e-7])
def test_a_cached_step_is_predicted_by_what_was_fitted_to_it_resolvable_or_not(slope):
    past = np.arange(10, 500, 50)
    noise = 5e-5 * np.where(np.arange(10) % 2, 1, -1)
    few = [1, 10, 100, 500]
    model = fit(few, TRUE.uncached(few), past, 2e-4 + slope * past + noise, TRUE.weights)
    assert not model.kappa_resolvable and np.sign(model.kappa) == np.sign(slope)
    left = 2e-4 + slope * past + noise - model.cached(past)
    assert np.median(left) == pytest.approx(0, abs=1e-12)


def test_speedup_is_the_ratio_of_the_sums():
    # By hand: o = 3, o' = 2, w = 1, c = 4, no attention, a cache read of 1 a token. Prompt 2, three
    # tokens: uncached 3 + 4·2, 3 + 4·3, 3 + 4·4; cached 3 + 4·2, then after 2 and 3 tokens
    # 2 + max(1 + 2, 4) and 2 + max(1 + 3, 4), or with a read of 2 a token 2 + 5 and 2 + 7.
    model = TimeModel(3.0, 2.0, 1.0, 4.0, 0.0, 1.0, (0.9, 1.1))
    assert model.speedup(2, 3) == pytest.approx((11 + 15 + 19) / (11 + 6 + 6))
    assert replace(model, kappa=2.0).speedup(2, 3) == pytest.approx(45 / (11 + 7 + 9))
    assert model.speedup(2, 1) == 1  # one token: the prompt in both
    roof = TRUE.without_overhead(1e6, 1e11)
    assert (
        roof.overhead == 0 and roof.compute == 1e-5 and roof.speedup(10, 50) > TRUE.speedup(10, 50)
    )


def test_the_first_product_of_all_is_timed_once_more_and_the_rested_machine_is_dropped(monkeypatch):
    timed = []

    def seconds(layers, formats, x, repeats):
        timed.append((x.shape[1], len(x)))
        row = {"format": "fp32", "kernel": "none", "median_us": len(timed), "time_ratio": 1.0}
        yield row | {"low": 1.0, "high": 1.0, "resident_of_disk": 1.0}

    monkeypatch.setattr(dispatch, "_timed", seconds)
    monkeypatch.setattr(dispatch, "_natives", lambda *_: ({}, []))
    table = dispatch_table([16, 32], {}, tokens=(1, 2))
    assert timed == [(16, 1), (16, 1), (16, 2), (32, 1), (32, 2)]
    assert table.median_us.tolist() == [2, 3, 4, 5] and set(table.label) == {"baseline"}


def test_the_dispatch_table_times_what_runs_and_says_why_the_rest_does_not():
    formats = {"int8": QuantScheme(), "int4": QuantScheme(4, "group", 32)}
    table = dispatch_table([64], formats, tokens=(1, 3), repeats=3).set_index(
        ["tokens", "format", "kernel"]
    )
    assert len(table) == 2 * (2 + 2 * (1 + len(KERNELS))) and (table.width == 64).all()
    assert (
        table.loc[(1, "fp32", "none"), "time_ratio"] == 1
        and table.loc[(3, "fp32", "none"), "label"] == "baseline"
    )
    refused = table[table.label == "refused"]
    assert (
        "int8 symmetric" in refused.loc[(1, "int4", "int8pack"), "reason"]
        and refused.median_us.isna().all()
    )
    run = table[table.label != "refused"]
    assert (
        (run.median_us > 0).all()
        and (run.limit_us > 0).all()
        and (run.low <= run.high).all()
        and run.reason.isna().all()
    )
    once = run.loc[(3, "int4", "dequantized")]
    assert once.label == "FP32-resident" and once.resident_bytes == 4 * 64 * 64
    assert once.resident_of_disk == pytest.approx(
        4 * 64 * 64 / matrix_bytes(64, 64, formats["int4"])
    )


def test_fast_needs_both_time_and_memory():
    table = pd.DataFrame(
        {
            "format": ["fp32", *["int4"] * 5, "fp32"],
            "kernel": ["none", "dequantized", "a", "b", "c", "d", "native"],
            "time_ratio": [1, 0.4, 0.9, 0.8, 0.9, np.nan, 0.8],
            "high": [1, 0.5, 1.0, 0.9, 1.01, np.nan, 0.9],
            "resident_of_disk": [1, 7, 1.1, 1.11, 1, np.nan, 1],
        }
    )
    assert labels(table).tolist() == [
        "baseline",
        "FP32-resident",
        "fast",
        "fast, larger",
        "slower",
        "refused",
        "fast",  # another engine's FP32 is no baseline
    ]


def test_the_growth_of_the_process_is_seen_where_memory_is_kept_and_not_where_it_is_reused():
    kept, block = [], 4 * 2**20

    def keeping():
        return (kept.append(torch.ones(block // 4)) for _ in range(40))

    growing = process_growth(keeping, 40, looks=8)
    assert growing.tokens.tolist() == [1, *range(5, 41, 5)]
    assert growing.process_bytes.iloc[-1] - growing.process_bytes.iloc[0] > 30 * block
    reused = torch.ones(block // 4)
    flat = process_growth(lambda: (reused.add_(1) for _ in range(40)), 40)
    assert flat.process_bytes.iloc[-1] - flat.process_bytes.iloc[0] < 10 * block and len(flat) == 40


@pytest.mark.parametrize("error", [TypeError, OSError, AttributeError])
def test_growth_is_measured_where_the_system_takes_no_memory_back(monkeypatch, error):
    """Windows has no handle of the process (TypeError), macOS no such call (AttributeError)."""

    def refuse(name):
        raise error("no")

    monkeypatch.setattr(memory.ctypes, "CDLL", refuse)
    assert process_growth(lambda: range(3), 3).tokens.tolist() == [1, 2, 3]


def test_the_roofline_leaves_out_what_is_not_reading_weights_or_computing():
    roof = TRUE.without_overhead(1e6, 1e11)
    assert roof == TimeModel(0.0, 0.0, TRUE.weights, 1e-5, 0.0, 0.0, (0.0, 0.0))
    lengths = np.arange(1, 500)
    assert (
        roof.uncached(lengths) <= TRUE.uncached(lengths) + lengths * (1e-5 - TRUE.compute)
    ).all()
    assert (roof.cached(lengths) == np.maximum(TRUE.weights, 1e-5)).all()


def test_the_roofline_computes_the_head_once_a_forward():
    """By hand: a head as dear as four tokens, no reading, a prompt of 2 and 3 tokens after it."""
    roof = replace(TRUE, weights=0.0).without_overhead(1, 1, 4)
    assert (roof.compute, roof.head) == (1.0, 4.0)
    assert roof.loops(2, 3) == (4 + 2 + 4 + 3 + 4 + 4, 4 + 2 + 4 + 1 + 4 + 1)
