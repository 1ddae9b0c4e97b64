"""From recomputing to few bits: every way decodes the same tokens, reads what it says, and stands
beside the time to read that."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from minitransformer import bench
from minitransformer.model import Transformer
from studies import falls, native

SMALL = replace(falls.SEED, vocab_size=64, d_model=32, context=64)
ENGINE = pytest.mark.skipif(bool(native.missing()), reason="no C compiler here")


@ENGINE
def test_every_way_decodes_and_those_in_full_precision_decode_the_same():
    model = Transformer(SMALL).eval()
    found = {n: way() for n, way in falls.ways(model, native.packed(model), 6).items()}
    assert list(found) == list(falls.bytes_of(SMALL, 6))  # slowest first, in one order
    exact = [found[name] for name in (*falls.EAGER, "native FP32")]
    assert all(torch.equal(exact[0], ids) for ids in exact[1:])
    assert all(ids.shape == (1, falls.PROMPT + 6) for ids in found.values())


def test_what_a_token_reads_is_its_weights_and_its_cache():
    nbytes = falls.bytes_of(SMALL, 6)
    weights, held = 4 * bench.weights_read(SMALL), falls.PROMPT + 3
    assert nbytes["recomputing"] == weights
    assert nbytes["static cache"] == nbytes["native FP32"] == weights + bench.kv_bytes(SMALL, held)
    few = nbytes["native int4"] - bench.kv_bytes(SMALL, held)
    assert nbytes[native.SHRUNK] == few + bench.kv_bytes(SMALL, held, kind="int8")
    assert few < nbytes["native int8"] < weights


@ENGINE
def test_a_process_times_every_way_at_every_shape_and_reads_each_number_of_bytes_once(monkeypatch):
    asked, read = [], bench.read_seconds
    monkeypatch.setattr(falls.bench, "read_seconds", lambda n: asked.append(n) or read(n))
    monkeypatch.setattr(falls, "SHAPES", {"small": (SMALL, 3)})
    found = falls.measure(1, 1, 0)
    ways = list(falls.bytes_of(SMALL, 3))
    assert sorted(found["falls"].name) == sorted(found["fall_floors"].name) == sorted(ways)
    nbytes, least = falls.bytes_of(SMALL, 3), found["fall_floors"].set_index("name").seconds
    assert sorted(asked) == sorted({*nbytes.values()}) and len(asked) < len(ways)
    assert len({(nbytes[name], least[name]) for name in ways}) == len(asked)


def test_shares_are_of_the_time_to_read(monkeypatch):
    monkeypatch.setattr(falls, "SHAPES", {"small": (SMALL, 10)})
    ways = list(falls.bytes_of(SMALL, 10))
    taken = {name: (len(ways) - i) * 1e-3 for i, name in enumerate(ways)}
    times = [{"name": n, "seconds": s, "repeat": 0, "process": p, "shape": "small"}
             for p in range(2) for n, s in taken.items()]  # fmt: skip
    least = pd.DataFrame(times).assign(seconds=2e-5)
    table = falls.table(pd.DataFrame(times), least)
    assert list(table.step) == ways and list(table.us_per_token) == pytest.approx(
        [1e5 * taken[name] for name in ways]
    )
    assert table.reached_percent.iloc[-1] == pytest.approx(100 * 2e-5 / 1e-4)
    noisy = least.assign(seconds=least.name.map(lambda name: 1.0 if name == ways[0] else 2e-5))
    fewer = falls.table(pd.DataFrame(times), noisy).set_index("step").least_us
    assert fewer[ways[0]] == fewer["static cache"] == pytest.approx(20)  # which reads more
    told = falls.for_sentence(table)
    assert told.pop("shape") == "small"
    assert told["all"] == pytest.approx(told["cache"] * told["engine"] * told["bits"]) == len(ways)
    assert len(falls.largest(table)) == len(ways)
