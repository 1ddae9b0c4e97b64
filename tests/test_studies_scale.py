"""What a second core gives a sweep, and what tokenizing takes: measured small, kept, and read."""

import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minitransformer.corpus import train_tokenizer
from minitransformer.model import ModelConfig
from minitransformer.train import GOOD
from studies import ablation, scale
from studies.arms import Arm, Text

CFG, RECIPE = ModelConfig(23, d_model=16, n_heads=2), ablation.recipe(2, 2, 8)
TEXT = Text(np.arange(900) % 23, np.arange(90) % 23, 8)
GAIN = scale.machine_gain
LINUX = pytest.mark.skipif(not hasattr(sys.modules["os"], "wait4"), reason="no wait4 here")


def test_the_grid_is_every_choice_once_by_one_recipe():
    arms = scale.grid(250, 60)
    assert len({(a.cfg.d_model, a.recipe.lr, a.seed) for a in arms}) == len(arms) == 8
    assert {a.recipe.steps for a in arms} == {60} and GOOD.optimizer != arms[0].recipe.optimizer


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setattr(scale, "machine_gain", lambda workers: 1.5)


def test_what_a_second_core_is_worth_is_counted_in_products_at_the_same_time(monkeypatch):
    def side_by_side(job, items, during, workers):
        began, ended = during
        assert ended - began == pytest.approx(0.2) and began > time.time()
        counts = [job(item, during, None) for item in items]
        assert time.time() >= ended and len(counts) == workers
        return [30 + 20 * i for i in items]

    monkeypatch.setattr(scale, "side_by_side", side_by_side)
    assert GAIN(2, 0.2, 0.4) == (30 + 50) / 30
    now = time.time()
    assert scale.products(0, (now, now + 0.2), None) > 0 == scale.products(0, (now, now), None)


def test_serial_and_side_by_side_take_turns_and_end_at_the_same_weights():
    arms = [Arm(str(seed), CFG, RECIPE, seed) for seed in (1, 2, 3)]
    found = scale.in_turn(arms, TEXT, 1)
    assert found["same"] == found["trainings"] == 3  # the first pass is what they are held against
    assert set(found["rounds"][0]) == {"round", "serial_s", "parallel_s", "products_times_as_fast"}
    estimate, interval = scale.gain(found)
    row = found["rounds"][0]
    assert estimate == pytest.approx(row["serial_s"] / row["parallel_s"])
    assert all(map(math.isnan, interval))  # one round


def test_weights_that_differ_are_counted_and_rounds_begin_in_turn(monkeypatch):
    asked = []

    def side_by_side(job, arms, shared, *, workers):
        asked.append(workers)
        return ["a", "b" if len(asked) < 4 else "c"]  # the last pass alone differs

    monkeypatch.setattr(scale, "side_by_side", side_by_side)
    found = scale.in_turn([1, 2], TEXT, 2)
    assert asked == [1, 2, 2, 1] and (found["same"], found["trainings"]) == (5, 6)
    assert scale.in_turn([1, 2], TEXT, 0)["trainings"] == 0


def test_the_gain_is_over_rounds():
    shared = {"products_times_as_fast": 1.5, "round": 0}
    rounds = [shared | {"parallel_s": 1.0, "serial_s": 2.0}]
    rounds += [shared | {"parallel_s": 2.5, "serial_s": 4.5}]
    estimate, (low, high) = scale.gain({"rounds": rounds})
    assert estimate == pytest.approx(math.sqrt(2 * 1.8)) and low < 1.8 and high > 2
    kept = scale.rounds({"rounds": rounds})
    assert list(kept.times_as_fast) == [2.0, 1.8]
    assert list(kept.columns)[-1] == "products_times_as_fast" and len(kept.columns) == 4


def test_shards_hold_as_much_text_as_they_say_in_words_few_of_which_are_frequent(tmp_path):
    packed, lines = scale.shards(tmp_path, 2)
    texts = [json.loads(line)["text"] for line in lines.read_text().splitlines()]
    assert sum(map(len, texts)) == 1_000_000
    with scale.gzip.open(packed, "rt") as file:
        assert len(file.read()) == 1_000_000
    counts = np.unique(" ".join(texts).split(), return_counts=True)[1]
    assert len(counts) > 10_000 and counts.max() > 1000 * np.median(counts)


@LINUX
def test_the_memory_that_tokenizing_takes_does_not_grow_with_the_text(tmp_path):
    text = scale.shards(tmp_path, 1)[1].read_text()
    train_tokenizer("bpe", text, 512).save(str(tmp_path / "bpe.json"))
    few, many = (scale.tokenized(size, str(tmp_path / "bpe.json")) for size in (2, 14))
    grown = 4 * (many["tokens"] - few["tokens"]) / 2**20
    assert many["tokens"] > 6 * few["tokens"] and grown > 16
    assert many["peak_mib"] - few["peak_mib"] < 8 and few["peak_mib"] > 20


@LINUX
def test_a_build_that_fails_is_an_error(monkeypatch):
    monkeypatch.setattr(scale, "shards", lambda folder, megabytes: [folder / "none.txt"])
    with pytest.raises(RuntimeError, match="tokenizing 3 MB ended with status"):
        scale.tokenized(3)


def test_what_is_kept_is_read_and_a_part_leaves_the_other(tmp_path, monkeypatch):
    assert scale.left(tmp_path) == {}
    monkeypatch.setattr(scale, "tokenized", lambda megabytes: {"megabytes": megabytes})
    words = ["--out", str(tmp_path), "--commit", "1234567890abcdef", "--cpu", "a CPU"]
    scale.main([*words, "--rounds", "0", "--megabytes", "1", "2"])
    stores = scale.left(tmp_path)["stores"]
    assert stores["rows"] == [{"megabytes": 1}, {"megabytes": 2}]
    told = scale.how_made(scale.left(tmp_path), "stores")
    assert told.endswith("at commit 1234567890ab, on a CPU.")
    monkeypatch.setattr(scale, "in_turn", lambda arms, text, rounds: {"rounds": [rounds]})
    scale.main([*words, "--rounds", "3", "--steps", "5000", "--megabytes"])
    kept = scale.left(tmp_path)
    assert kept["stores"] == stores and kept["sweep"]["rounds"] == [3]
    assert (kept["sweep"]["arms"], kept["sweep"]["steps"]) == (8, 5000)
    told = scale.how_made(kept, "sweep")
    assert told.endswith("at commit 1234567890ab, on a CPU: 8 trainings of 5,000 steps each.")
    ran = f"python -m studies.scale --out {tmp_path} --rounds"
    assert kept["sweep"]["made"]["command"] == f"{ran} 3 --steps 5000 --megabytes"
    assert stores["made"]["command"] == f"{ran} 0 --steps {scale.STEPS} --megabytes 1 2"


def test_what_is_kept_is_what_the_command_measures_when_it_is_told_nothing():
    kept = scale.left(Path(__file__).resolve().parent.parent / "reports" / "long")["sweep"]
    assert kept["steps"] == scale.STEPS and kept["arms"] == len(scale.grid(250))


def test_growth_is_a_share_of_what_the_ids_grow_by():
    rows = [
        {"megabytes": 20, "tokens": 3 * 2**18, "peak_mib": 101.0},
        {"megabytes": 1, "tokens": 2**18, "peak_mib": 100.0},
        {"megabytes": 5, "tokens": 2 * 2**18, "peak_mib": 150.0},
    ]
    assert scale.growth(rows) == 50  # 1 MiB, where the ids add 2


def test_what_was_not_measured_says_so():
    assert scale.how_made({"sweep": {}}, "stores").startswith("Not measured yet; `python -m")
