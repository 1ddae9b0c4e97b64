"""Peers: runtimes that are there continue as we do, those that are not say why, and the figures
are those of the samples."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from minitransformer.model import ModelConfig
from studies import limits, native, peers

KINDS = [f"llama.cpp, {kind}" for kind in ("F32", "Q8_0", "Q4_0")]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    tiny = ModelConfig(64, 32, 1, 2, norm="rmsnorm", ffn="swiglu", bias=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(peers.SHAPES, "tiny", tiny)
        patch.setitem(__import__("sys").modules, "xllamacpp", None)  # as if it were not installed
        folder = tmp_path_factory.mktemp("peers")
        return peers.measure(folder, ["tiny"], 6, 2, 0, only=("ONNX Runtime", "llama.cpp"))


def test_what_is_installed_gives_equal_tokens(measured):
    told = measured["told"].set_index("runtime")
    assert told.tokens["ONNX Runtime"] == told.tokens[peers.OURS] != ""
    assert len(json.loads(told.tokens[peers.OURS])) == 6
    assert not any(name.startswith(("torchao", "transformers")) for name in told.index)


def test_what_is_not_installed_says_so(measured):
    told = measured["told"].set_index("runtime")
    assert (
        told.reason["llama.cpp, F32"] == "xllamacpp is not installed"
        and told.tokens["llama.cpp, F32"] == ""
    )
    assert told.mib[[peers.OURS, "ONNX Runtime"]].notna().all()
    assert pd.isna(told.mib["llama.cpp, F32"])
    assert told.bytes["llama.cpp, Q4_0"] < told.bytes["llama.cpp, F32"] / 3


def test_a_runtime_that_fails_late_says_so():
    def breaks(new):
        if new > 4:
            raise RuntimeError("out of\nplaces")
        return [7] * new, 0.1

    row = {"runtime": "theirs", "tokens": "", "reason": ""}
    samples = peers.continued(breaks, row, 4, 1)
    assert [(s["name"], s["new"], s["repeat"]) for s in samples] == [
        ("theirs", n, 1) for n in (1, 4)
    ]
    assert row["tokens"] == "[7, 7, 7, 7]" and not row["reason"]
    assert peers.continued(breaks, row, 5, 0) == []
    assert row["tokens"] == "" and row["reason"] == "RuntimeError: out of places"


def test_only_the_libraries_that_are_asked_are_imported_early(monkeypatch):
    asked = []
    monkeypatch.setattr(peers, "import_module", asked.append)
    peers.measure.ready("folder", ["tiny"], 6, 2, 0, only=["llama.cpp"])
    assert asked == ["xllamacpp"]
    peers.ready("folder", ["tiny"], 6, 2, 0, only=["all"])
    assert {module for modules in peers.PEERS.values() for module in modules} <= {*asked}


def test_a_heavy_shape_has_half_of_the_calls_and_one_peer(tmp_path, monkeypatch):
    tiny = ModelConfig(64, 32, 1, 2, norm="rmsnorm", ffn="swiglu", bias=False)
    monkeypatch.setitem(peers.SHAPES, "tiny", tiny)
    monkeypatch.setitem(__import__("sys").modules, "xllamacpp", None)
    monkeypatch.setattr(limits, "HEAVY", 0)
    found = peers.measure(tmp_path, ["tiny"], 6, 2, 0, only=["all"])
    told = found["told"].set_index("runtime")
    assert list(told.index) == [peers.OURS, *native.FORMATS, *KINDS]
    assert len(json.loads(told.tokens[peers.OURS])) == 3
    assert set(found["peers"].groupby("name").size()) == {2}
    assert {path.name for path in (tmp_path / "tiny").iterdir()} == {
        "model", "f32.gguf", "q8_0.gguf", "q4_0.gguf"
    }  # fmt: skip


def test_every_way_is_timed_at_two_lengths_in_every_repeat(measured):
    count = measured["peers"].groupby("name").size()
    assert set(count) == {4} and peers.OURS in count.index and "ONNX Runtime" in count.index


def test_the_table_is_of_the_samples():
    times = {peers.OURS: (2e-3, 12e-3), "native FP32": (1e-3, 2e-3), "llama.cpp, F32": (1e-3, 5e-3)}
    rows = [
        dict(shape="s", name=name, new=new, repeat=0, seconds=t * (1 + 0.1 * p), process=p)
        for name, pair in times.items()
        for new, t in zip((1, 11), pair, strict=True)
        for p in range(3)
    ]
    told = [
        dict(shape="s", runtime=name, bits=32, bytes=1e6, reason="", process=p, tokens=tokens,
             mib=10.0 * (p + 1))
        for p in range(3)
        for name, tokens in zip(times, ("[1, 2, 3]", "[1, 2, 3]", "[1, 9, 3]"), strict=True)
    ]  # fmt: skip
    told.append(
        {**told[0], "runtime": "none", "tokens": "", "reason": "not installed"} | {"mib": None}
    )
    table = peers.table(pd.DataFrame(rows), pd.DataFrame(told)).set_index("runtime")
    assert list(table.equal_tokens[:3]) == [3, 3, 1] and table.why_not["none"] == "not installed"
    ratio, (low, high) = peers.against(table.reset_index(), "s", "llama.cpp, F32")
    assert ratio == pytest.approx(4) and low == pytest.approx(high)
    assert table.over_engine_estimate[peers.OURS] == pytest.approx(10)
    assert table.memory_mib[peers.OURS] == 20 and pd.isna(table.memory_mib["none"])
    shown = peers.shown(table.reset_index())
    columns = list(shown.columns)
    place = columns.index("times the engine's")
    assert columns[place + 1 : place + 4] == ["engine's low", "engine's high", "spread"]
    assert [*shown["leading tokens equal"]] == ["3 of 3", "3 of 3", "1 of 3", "–"]
    assert peers.against(table.reset_index(), "s", "none") is None


def test_kernels_of_others_are_held_against_their_own_program():
    times = {peers.IN_FP32: 4e-3, "optimum-quanto, int8 weights": 10e-3, "bitsandbytes, int8": 8e-3}
    rows = [
        dict(shape="s", name=name, new=new, repeat=0, seconds=(1e-3 + t * (new - 1)) * (1 + p))
        | {"process": p}
        for name, t in times.items()
        for new in (1, 11)
        for p in range(3)
    ]
    ratio, (low, high) = peers.kernels(pd.DataFrame(rows), "s")
    assert ratio == pytest.approx(2) and low == pytest.approx(high)
    alone = [row for row in rows if row["name"] == peers.IN_FP32]
    assert peers.kernels(pd.DataFrame(alone), "s") is None


def test_the_answer_names_the_fastest_and_who_was_not_there():
    us = {peers.OURS: 800.0, "native FP32": 30.0, "ONNX Runtime": 200.0, "ONNX Runtime, int4": None,
          "llama.cpp, F32": None, "llama.cpp, Q4_0": None}  # fmt: skip
    table = pd.DataFrame({"shape": "s", "runtime": list(us), "us_per_token": list(us.values())})
    assert peers.summary(table, "s") == (
        "At s the fastest of ours by its mean is native FP32, **30 µs** a token, the fastest of "
        "the others ONNX Runtime, **200 µs**; not there to be measured: llama.cpp."
    )
    assert peers.summary(table[:3], "s").endswith(" ONNX Runtime, **200 µs**.")
    assert "no other runtime" in peers.summary(table[:2], "s")


def test_each_bar_has_its_format_and_shape_and_what_is_absent_is_told():
    rows = [dict(shape=shape, runtime=name, bits=bits, over_engine_estimate=i + bits, why_not="",
                 over_engine_low=1.0, over_engine_high=99.0, us_per_token=100.0)
            for i, shape in enumerate(("s", "t"))
            for bits, name in zip((32, 8, 4), KINDS, strict=True)]  # fmt: skip
    table = pd.DataFrame(rows)
    found = peers.judged(table, ["s", "t"])
    assert [(id, value[0], shape) for id, value, shape in found[1:4]] == [
        ("peers-int8", 8, "s"), ("peers-int4", 4, "s"), ("peers-large-f32", 33, "t")
    ]  # fmt: skip
    assert len(peers.judged(table, ["s"])) == 3 and peers.absent(table) == ""
    lost = table.assign(over_engine_estimate=np.nan, why_not="no")
    assert peers.judged(lost, ["s"]) == []
    assert peers.absent(lost).endswith(": llama.cpp, F32; llama.cpp, Q4_0; llama.cpp, Q8_0.")


def test_what_llama_cpp_was_compiled_for_is_what_it_says(monkeypatch):
    said = "CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 0 | n_threads = 1 | "
    there = SimpleNamespace(get_system_info=lambda: said)
    monkeypatch.setattr(peers, "import_module", lambda name: there)
    assert peers.built() == "SSE3, AVX2"
    told = peers.built_told(pd.DataFrame({"built": [peers.built()]}))
    assert told.endswith(" compiled with SSE3, AVX2. ")
    monkeypatch.setattr(peers, "import_module", lambda name: 1 / 0)
    assert peers.built_told(pd.DataFrame({"built": [peers.built()]})) == ""
