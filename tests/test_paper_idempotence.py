"""Comparing two runs: all that should be the same is, and what is left out has a reason."""

import json

import pytest

from paper import idempotence
from paper.files import write_text

TIMED = ["claims/04-kv-bench.json", "figures/latency.*"]
NOTEBOOK = json.dumps({"cells": [], "metadata": {"paper": {"name": "04-kv-bench", "timed": TIMED}}})
FILES = {
    "corpus.txt": "a b",
    "train.jsonl": '{"step": 1, "loss": 2.0, "tokens_per_s": 5}\n',
    "bench.csv": "n,latency_ms,cache_bytes\n10,1.5,640\n",
    "metrics.json": '{"runs": [{"loss": 1.0, "seconds": 3}]}',
    "figures/latency.png": "draws times",
    "claims/04-kv-bench.json": "[]",
    "run.json": "{}",
    "04-kv-bench.ipynb": NOTEBOOK,
    "model/model.safetensors": "weights",
}


@pytest.fixture
def runs(tmp_path):
    for run in ("first", "second"):
        for name, text in FILES.items():
            write_text(tmp_path / run / name, text)
    return tmp_path / "first", tmp_path / "second"


def test_equal_runs_are_equal_and_what_varies_is_named_with_a_reason(runs):
    found = idempotence.compare(*runs)
    assert found["equal"] == [
        "bench.csv",
        "corpus.txt",
        "metrics.json",
        "model/model.safetensors",
        "train.jsonl",
    ]
    assert found["varies"] == [
        "04-kv-bench.ipynb",
        "claims/04-kv-bench.json",
        "figures/latency.png",
        "run.json",
    ]
    assert not found["differ"] and not found["missing"]
    said = "04-kv-bench says that it depends on measured times"
    assert idempotence.why("figures/latency.png", runs[0]) == said
    assert idempotence.why("figures/loss.png", runs[0]) is None
    assert idempotence.why("index.html", runs[0]) == "shows times"


def test_what_a_chapter_does_not_declare_must_be_equal(runs):
    for run in runs:
        write_text(run / "04-kv-bench.ipynb", '{"cells": [], "metadata": {}}')
        write_text(run / "figures" / "latency.png", run.name)
    assert idempotence.compare(*runs)["differ"] == ["figures/latency.png"]


@pytest.mark.parametrize(
    "name, text",
    [
        ("train.jsonl", '{"step": 1, "loss": 2.0, "tokens_per_s": 9}\n'),
        ("bench.csv", "n,latency_ms,cache_bytes\n10,9.5,640\n"),
        (
            "metrics.json",
            '{"runs": [{"loss": 1.0, "seconds": 9, "tokens_per_second": 7, "time_ratio_low": 1, '
            '"label": "fast"}]}',
        ),
        ("run.json", '{"when": 1}'),
    ],
)
def test_times_may_differ(runs, name, text):
    write_text(runs[1] / name, text)
    assert not idempotence.compare(*runs)["differ"]


@pytest.mark.parametrize(
    "name, text",
    [
        ("corpus.txt", "a c"),
        ("train.jsonl", '{"step": 1, "loss": 2.5, "tokens_per_s": 5}\n'),
        ("bench.csv", "n,latency_ms,cache_bytes\n10,1.5,641\n"),
        ("metrics.json", '{"runs": [{"loss": 1.1, "seconds": 3}]}'),
        ("model/model.safetensors", "Weights"),
    ],
)
def test_everything_else_may_not(runs, name, text):
    write_text(runs[1] / name, text)
    assert idempotence.compare(*runs)["differ"] == [name]


def test_a_missing_artefact_is_found_and_a_comparison_can_be_narrowed(runs):
    (runs[1] / "corpus.txt").unlink()
    assert idempotence.compare(*runs)["missing"] == ["corpus.txt"]
    assert idempotence.compare(*runs, only=("model/*",))["missing"] == []
