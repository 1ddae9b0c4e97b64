"""Intervals that cover, corrections that match their definition, groups that add up,
calibration."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from minitransformer.evaluate import (
    beats_oracle,
    block_bootstrap,
    block_stderr,
    by_group,
    by_position,
    calibration,
    expected_calibration_error,
    holm,
    paired_difference,
    recovered,
    t_interval,
)


def correlated(rng, n, reach=30):
    """Values whose neighbours agree: an independent series smoothed over `reach` tokens."""
    return np.convolve(rng.normal(size=n + reach - 1), np.ones(reach), "valid")


def test_blocks_see_the_dependence_that_single_tokens_miss():
    x = correlated(np.random.default_rng(0), 40_000)
    true = 30 / math.sqrt(40_000)  # long-run standard deviation of the smoothed series
    low, high = block_bootstrap(x)
    assert (high - low) / (2 * 1.96) == pytest.approx(true, rel=0.25)
    assert block_stderr(x) == pytest.approx(true, rel=0.3)
    low, high = block_bootstrap(x, block=1)
    assert (high - low) / (2 * 1.96) < true / 3


def test_bootstrap_intervals_cover():
    rng = np.random.default_rng(1)
    inside = 0
    for seed in range(200):
        low, high = block_bootstrap(correlated(rng, 8000, 5), block=200, n=300, seed=seed)
        inside += low < 0 < high
    assert 175 <= inside <= 198  # 95 % of 200 is 190, sd 3


def test_bootstrap_statistics_and_sizes():
    x = np.random.default_rng(2).exponential(1, (6000, 2))
    low, high = block_bootstrap(x, lambda m: m[:, 0] / m[:, 1])
    assert low < x[:, 0].mean() / x[:, 1].mean() < high
    same = block_bootstrap(x[:, 0], seed=3)
    assert same == block_bootstrap(x[:, 0], seed=3) != block_bootstrap(x[:, 0], seed=4)
    assert np.log(block_bootstrap(x[:, 0], np.exp, seed=3)) == pytest.approx(same)
    assert block_bootstrap([2.0]) == (2.0, 2.0)  # shorter than a block: the block shrinks
    narrow = block_bootstrap(x[:, 0], level=0.5, seed=3)
    assert same[0] < narrow[0] < narrow[1] < same[1]
    with pytest.raises(ValueError, match="0 values"):
        block_bootstrap([])
    assert math.isnan(block_stderr([1.0]))


def test_pairing_removes_what_both_share():
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 3, 20_000)
    a, b = noise + rng.normal(0.02, 0.1, 20_000), noise
    d = paired_difference(a, b)
    assert d.mean == pytest.approx(0.02, abs=0.005) and d.n == 20_000
    assert 0.015 < d.interval[0] < d.mean < d.interval[1] < 0.025 and d.stderr == pytest.approx(
        0.1 / math.sqrt(20_000), rel=0.4
    )
    with pytest.raises(ValueError, match="paired"):
        paired_difference(a, b[1:])
    with pytest.raises(ValueError, match="paired"):
        paired_difference(a[None], b[None])


def test_what_is_recovered_is_a_share_with_an_interval_that_covers_it():
    rng = np.random.default_rng(4)
    full, cost = correlated(rng, 20_000) + 10, 1 + 0.3 * correlated(rng, 20_000)
    worse = full + cost
    assert recovered(full, worse, full) == (100, 100, 100) and recovered(worse, worse, full) == (
        0,
        0,
        0,
    )
    own = full + 0.25 * cost + 0.05 * correlated(rng, 20_000)
    share, low, high = recovered(own, worse, full)
    assert (
        share == pytest.approx(100 * (1 - (own - full).mean() / cost.mean())) and low < share < high
    )
    assert low < 75 < high < low + 20
    assert recovered(full - cost, worse, full)[0] == pytest.approx(200)


def test_the_leak_detector():
    rng = np.random.default_rng(4)
    oracle = rng.exponential(3, 20_000)
    assert abs(beats_oracle(oracle + rng.normal(0, 0.5, 20_000), oracle)) < 3
    assert (
        beats_oracle(oracle + rng.normal(0.1, 0.5, 20_000), oracle) < -3
    )  # an honest, imperfect model
    assert beats_oracle(oracle + rng.normal(-0.1, 0.5, 20_000), oracle) > 3  # a leak
    assert beats_oracle(oracle, oracle) == 0
    assert beats_oracle(np.zeros(9000), np.ones(9000)) == math.inf


def test_t_interval_is_scipys():
    x = [1.0, 2.0, 4.0, 3.5, 2.2]
    t = t_interval(x)
    assert t.interval == pytest.approx(scipy_stats.ttest_1samp(x, 0).confidence_interval())
    assert t.pvalue == pytest.approx(scipy_stats.ttest_1samp(x, 0).pvalue)
    assert (t.mean, t.sd, t.n) == (np.mean(x), np.std(x, ddof=1), 5)
    same = t_interval([2.0, 2.0])
    assert same.interval == (2, 2) and same.pvalue == 0
    assert t_interval([0.0, 0.0]).pvalue == 1
    with pytest.raises(ValueError, match="1 value"):
        t_interval([1.0])


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1, 1]) and len(holm([])) == 0


def test_groups_add_up():
    rng = np.random.default_rng(5)
    groups = rng.choice([0, 1, 3], 30_000, p=[0.5, 0.3, 0.2])
    values = rng.normal(groups, 1)
    table = by_group(values, groups, ["free", "bigram", "absent", "offset"])
    assert list(table["group"]) == ["free", "bigram", "offset"] and table["tokens"].sum() == 30_000
    assert np.average(table["mean"], weights=table["tokens"]) == pytest.approx(values.mean())
    assert table["share"].sum() == pytest.approx(1)
    for row, truth in zip(table.itertuples(), (0, 1, 3), strict=False):
        assert row.low < row.mean < row.high and row.mean == pytest.approx(truth, abs=0.04)
        assert row.high - row.low == pytest.approx(4 / math.sqrt(row.tokens), rel=0.4)


def test_a_group_too_rare_for_some_resamples_still_has_an_interval():
    table = by_group(np.arange(5000.0), np.arange(5000) == 4000, ["common", "rare"])
    assert table.loc[1, ["mean", "low", "high"]].tolist() == [
        4000,
        pytest.approx(4000),
        pytest.approx(4000),
    ]


def test_positions_are_binned():
    position = np.tile(np.arange(1, 101), 50)
    table = by_position(position.astype(float), position, [1, 11, 51, 101, 200], n=50)
    assert list(table["group"]) == ["1-10", "11-50", "51-100"]
    assert table["position"].tolist() == table["mean"].tolist() == [5.5, 30.5, 75.5]
    assert (
        by_position(position, position, [50, 60])["tokens"].item() == 500
    )  # outside the edges: in no bin


def test_calibration_of_an_honest_and_a_boastful_model():
    rng = np.random.default_rng(6)
    confidence = rng.uniform(0.001, 1, 40_000)
    correct = rng.random(40_000) < confidence
    honest = calibration(confidence, correct)
    assert len(honest) == 15 and honest["tokens"].sum() == 40_000
    assert ((honest["accuracy"] - honest["confidence"]).abs() < 5 * honest["stderr"] + 1e-9).all()
    assert expected_calibration_error(honest) < 0.02
    boastful = calibration(confidence**0.5, correct)
    assert expected_calibration_error(boastful) == pytest.approx(1 / 6, abs=0.01)  # E[sqrt(u) - u]


def test_calibration_edges():
    table = calibration([1.0, 0.5, 0.0], [True, False, False], bins=2)
    assert table["tokens"].tolist() == [2, 1] and table["high"].tolist() == [
        0.5,
        1.0,
    ]  # bins are (low, high]
    assert expected_calibration_error(table) == pytest.approx((0.25 * 2 + 0) / 3)
    with pytest.raises(ValueError, match="differ"):
        calibration([0.5], [True, False])
