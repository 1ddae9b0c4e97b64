"""What rows of one forward are worth: each way's forwards are the ones it makes, and gains are told
against what those promise."""

import pandas as pd
import pytest
import torch

from minitransformer import ModelConfig, Transformer
from studies import engine_gains as gains
from studies import limits, native

TINY = ModelConfig(vocab_size=64, d_model=32, n_heads=2)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(gains, "SHAPES", {"tiny": TINY})


def samples(token, ways, forward, processes=3):
    """Samples whose processes drift: `token` seconds alone, `ways` seconds, T(m) by `forward`."""
    times = {gains.PLAIN: gains.TEXTS * gains.NEW * token} | ways
    several = {str(m): forward(m) for m in gains.ROWS}
    asked = [{"name": gains.BATCH, "rows": 8}] * gains.NEW
    asked += [{"name": gains.BEAM, "rows": 4}] * gains.NEW
    asked += [{"name": gains.DRAFT, "rows": 8}] * (gains.NEW // 8)
    asked += [{"name": gains.SERVER, "rows": 6}] * gains.NEW * 2
    rows = [
        dict(table=table, name=name, process=p, repeat=0, seconds=t * (1 + 0.2 * p), shape="tiny")
        for table, found in (("gains", times), ("forwards", several))
        for name, t in found.items()
        for p in range(processes)
    ]
    both = dict(tuple(pd.DataFrame(rows).groupby("table")))
    return both | {"asked": pd.DataFrame(asked).assign(shape="tiny", process=0)}


def test_a_gain_is_told_against_what_its_forwards_promise():
    def forward(m):
        return 1 + 0.25 * (m - 1)  # T(8) = 2.75, T(6) between two that are timed

    ways = {gains.BATCH: 16 * 2.75, gains.BEAM: 16 * 1.75 * 2, gains.DRAFT: 2 * 2.75}
    found = gains.table(samples(1.0, ways | {gains.SERVER: 32 * 2.25}, forward)).set_index("way")
    assert found.gain[gains.BATCH] == pytest.approx(8 / 2.75)
    assert found.promised[gains.BATCH] == pytest.approx(8 / 2.75)
    assert found.over_promised[gains.BATCH] == pytest.approx(1)
    assert found.over_promised[gains.BEAM] == pytest.approx(0.5)  # as much again outside
    middle = 1.2  # of the processes' drifts
    assert found.outside_us[gains.BEAM] == pytest.approx(1e6 * 1.75 * middle)
    assert found.outside_us[gains.BATCH] == pytest.approx(0, abs=1e-3)
    assert found.promised[gains.SERVER] == pytest.approx(gains.TOKENS[gains.SERVER] / (32 * 2.25))
    slow = gains.table(samples(1.5, ways | {gains.SERVER: 32 * 2.25}, forward)).set_index("way")
    assert slow.promised[gains.BATCH] == pytest.approx(1.5 * 8 / 2.75)  # over what is timed alone,
    assert slow.over_promised[gains.BEAM] == pytest.approx(0.5)  # as the gain: time lost is lost
    assert found.over_promised_low[gains.DRAFT] == pytest.approx(1)  # paired: drift is no noise


def test_misses_are_whole_intervals():
    table = pd.DataFrame(
        {
            "shape": ["a", "a", "b"],
            "way": ["x", "y", "x"],
            "gain": [3.0, 1.0, 2.0],
            "gain_low": [2.5, 0.9, 1.9],
            "gain_high": [3.5, 1.1, 2.1],
            "promised": [3.0, 1.05, 4.0],
            "over_promised": [1.0, 0.95, 0.5],
            "over_promised_low": [0.9, 0.9, 0.4],
            "over_promised_high": [1.1, 0.97, 0.6],
        }
    )
    off = gains.misses(table).set_index("case")
    assert off.loc["x, a", ["off_percent", "low", "high"]].tolist() == pytest.approx([0, 0, 10])
    assert off.loc["x, b", ["off_percent", "low", "high"]].tolist() == pytest.approx([50, 40, 60])
    assert gains.in_words(table) == (
        "Of the gains that T(m) promise so much is reached: 95 to 100 % (a), 50 to 50 % (b)."
    )
    there = gains.there(table)
    assert there.case.tolist() == ["x, a", "x, b"] and there.gain.tolist() == [3.0, 2.0]


@pytest.mark.skipif(bool(native.missing()), reason=native.missing() or "-")
def test_every_way_makes_the_forwards_it_tells(tiny):
    with torch.no_grad():
        engine = gains.NativeModel(Transformer(TINY).eval())
        told = {name: run() for name, run in gains.decoders(engine).items()}
    assert told[gains.BATCH] == [8] * gains.NEW and sum(told[gains.BEAM]) == 4 * gains.NEW - 3
    assert sum(told[gains.DRAFT]) == gains.NEW and max(told[gains.DRAFT]) == gains.GAMMA + 1
    assert sum(told[gains.SERVER]) == gains.TOKENS[gains.SERVER]
    assert max(told[gains.SERVER]) == 8 < len(gains.LENGTHS)


@pytest.mark.skipif(bool(native.missing()), reason=native.missing() or "-")
def test_everything_is_timed_that_the_table_asks_for(tiny):
    with torch.no_grad():
        found = gains.measure(1, 1, 0)
    table = gains.table({name: part.assign(process=0) for name, part in found.items()})
    assert set(table.way) == set(gains.TOKENS) and (table.gain > 0).all()
    assert limits.ROWS == gains.ROWS
