"""What is measured on a GPU, at tiny size on the CPU: products are held against the exact ones,
ratios are of one process, the tokens and losses are the CPU's, and a part that fails says why."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minitransformer.quant import QuantWeight
from studies import gpu, gpu_layers, gpu_models, gpu_told
from studies.compiled import Step
from studies.words import plain, powered

CPU = torch.device("cpu")
INT4 = "int4, groups of 32"


@pytest.fixture(scope="module")
def measured():
    return gpu_layers.measure((128,), (1, 64), 2, "cpu")


def test_every_format_is_held_against_the_exact_product_of_its_own_weights(measured):
    formats = measured["formats"].set_index(["format", "tokens"])
    error, nbytes = formats.relative_error, formats.nbytes
    for m in (1, 64):
        assert error["fp32", m] < 1e-6 < error["bf16", m] < 1e-2
        assert error["int8", m] < 1e-2
        assert formats.reason[INT4, m].startswith("NotImplementedError")  # it is a GPU's
    assert error["int8, activations too", 64] < 2e-2
    assert nbytes["fp32", 1] == 2 * nbytes["bf16", 1] == 4 * 128 * 128
    assert nbytes["int8", 1] == 128 * 128 + 2 * 128
    assert (measured["layers"].seconds > 0).all() and set(measured["layers"].way) == {
        gpu_layers.CALLS
    }


def test_the_table_has_a_row_or_a_reason_for_every_format(measured):
    samples = {name: table.assign(process=0) for name, table in measured.items()}
    table = gpu_layers.table(samples)
    assert {*table.format} == {*gpu_layers.FORMATS}
    base = table[table.format == "fp32"]
    assert (base.time_ratio == 1).all() and (base.us > 0).all()
    assert (base["nbytes"] == 4 * 128 * 128).all()
    seconds_a_byte = samples["memory"].seconds_a_byte.iloc[0]
    assert (base.least_us == 1e6 * 4 * 128 * 128 * seconds_a_byte).all()
    assert table[table.format == INT4].us.isna().all()
    assert gpu_told.refused(table).startswith(f" Without a row: {INT4}, rows 1 and 64 (")
    shown = gpu_told.layers(table)
    assert [*shown.format[:2]] == ["fp32", "bf16"] and shown.from_memory_us.isna().all()
    assert gpu_told.layers(pd.DataFrame()).empty  # nothing was kept: no table
    assert gpu_layers.production(table).empty
    assert gpu_told.layer_sentence(table).startswith("At width 128, called from Python, a row")


@given(st.integers(0, 2**32), st.sampled_from([1e-20, 1e-3, 1.0, 1e4]), st.integers(17, 40))
def test_rounded_activations_stay_within_eight_bits(seed, size, rows):
    """The largest of a token is ±127 and never 128, which would turn into −128."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 16, generator=generator) * size
    eye = torch.eye(16, dtype=torch.int8)
    y = gpu_layers.rounded(x, eye, torch.ones(16))
    assert ((y - x).abs() <= x.abs().amax(-1, keepdim=True) / 127 * 0.51).all()
    assert not gpu_layers.rounded(torch.zeros(17, 16), eye, torch.ones(16)).any()


def test_what_the_int4_kernel_is_given_stands_for_the_weights(monkeypatch):
    """By its definition: the even code in the high half of a byte, (u - 8)·s + zero."""
    monkeypatch.setattr(torch, "_convert_weight_to_int4pack", lambda codes, tiles: codes)
    weight = torch.randn(24, 64, generator=torch.Generator().manual_seed(0))
    layer = gpu_layers.int4_weights(weight, CPU)
    packed, grid = layer.held
    codes = torch.stack((packed >> 4, packed & 15), -1).flatten(1)
    scale, zero = (grid[..., i].float().T.repeat_interleave(32, 1) for i in (0, 1))
    wanted = QuantWeight.from_tensor(weight, gpu_layers.INT4)()
    assert torch.allclose((codes.float() - 8) * scale + zero, wanted, rtol=2**-7)
    assert torch.equal(layer.matrix, wanted) and layer.nbytes == 24 * 32 + 24 * 2 * 4


def samples(times, processes=3):
    """Samples whose every time drifts with the process, so that only paired ratios are exact."""
    rows = [
        {"width": w, "tokens": m, "way": way, "name": name, "repeat": r, "process": p,
         "seconds": seconds * (1 + p / 5)}
        for (w, m, way, name), seconds in times.items()
        for p in range(processes)
        for r in range(3)
    ]  # fmt: skip
    layers = pd.DataFrame(rows)
    about = layers[["width", "tokens", "name", "process"]].drop_duplicates()
    about = about.rename(columns={"name": "format"}).assign(nbytes=8, relative_error=0.1)
    memory = pd.DataFrame({"seconds_a_byte": [1.0] * processes})
    return {"layers": layers, "formats": about.assign(reason=None), "memory": memory}


def test_production_is_the_slowest_of_the_quickest_kernels_of_the_widest_layer():
    times = {}
    for m, (int8, both, int4) in {1: (0.5, 0.9, 0.3), 64: (2.0, 0.6, 0.7)}.items():
        for width, way in ((8, gpu_layers.ROTATED), (8, gpu_layers.CALLS), (4, gpu_layers.ROTATED)):
            best = 1 if (width, way) == (8, gpu_layers.ROTATED) else 9
            times |= {(width, m, way, "fp32"): 1.0, (width, m, way, "int8"): best * int8,
                      (width, m, way, "int8, activations too"): best * both,
                      (width, m, way, INT4): best * int4}  # fmt: skip
    table = gpu_layers.table(samples(times))
    best = gpu_layers.production(table)
    assert gpu_layers.production_in_words(best) == (
        f"a layer of width 8 takes for 1 row 0.30 ({INT4}) and 0.50 (int8), "
        f"for 64 rows 0.70 ({INT4}) and 0.60 (int8, activations too) times FP32's time"
    )
    value, (low, high) = gpu_layers.slowest(best)
    assert value == pytest.approx(0.7) and low <= value <= high
    said = gpu_told.layer_sentence(table)
    assert said.startswith(
        "At width 8, weights from memory, by the quickest kernels for so many bits, "
        f"one row takes 50 % (“int8”) and 30 % (“{INT4}”), 64 rows take "
        f"60 % (“int8, activations too”) and 70 % (“{INT4}”) of FP32's time; at width 4"
    )
    without = {key: t for key, t in times.items() if key[1:4:2] != (64, INT4)}
    assert gpu_layers.production(gpu_layers.table(samples(without))).empty
    assert gpu_told.drawn(table).empty


def test_what_was_kept_of_a_gpu_answers_by_the_slowest_and_tells_all(tmp_path, monkeypatch):
    rows = [(8, m, gpu_layers.ROTATED, name, ratio, ratio / 2, 2 * ratio)
            for m, name, ratio in ((1, "int8", 5.0), (1, INT4, 0.3), (64, "int8", 0.6),
                                   (64, INT4, 1.2))]  # fmt: skip
    columns = ["width", "tokens", "way", "format", "time_ratio", "low", "high"]
    tables = {"layers": pd.DataFrame(rows, columns=columns)}
    monkeypatch.setattr(gpu, "left", lambda folder: (tables, {"gpu": "G", "date": "today"}))
    answer, told = gpu.production(tmp_path)
    assert answer == (5.0, (2.5, 10.0))
    assert told == (
        f"Measured apart, on G, today: a layer of width 8 takes for 1 row 0.30 ({INT4}) and 5.00 "
        f"(int8), for 64 rows 1.20 ({INT4}) and 0.60 (int8) times FP32's time."
    )


def test_steps_over_fixed_buffers_say_the_oracles_tokens():
    cfg = gpu_models.DECODED[gpu_models.LEAST]
    wanted = gpu_models.oracle(gpu_models.LEAST, 12)
    step = Step(gpu_models.model_of(cfg, 0), len(wanted))
    with torch.no_grad():
        assert gpu_models.stepped(step, gpu_models.prompt(cfg), 12)[0].tolist() == wanted
    row = gpu_models.decoded(gpu_models.LEAST, gpu_models.EAGER, wanted, 1, "cpu")
    assert row["agreed"] == row["tokens"] == 12 and row["us_per_step"] > 0
    spoilt = [*wanted[:-3], wanted[-3] ^ 1, *wanted[-2:]]
    assert gpu_models.decoded(gpu_models.LEAST, gpu_models.EAGER, spoilt, 1, "cpu")["agreed"] == 9


def test_a_training_is_held_beside_that_of_the_cpu():
    rows = [gpu_models.trained(gpu_models.LEAST, way, "cpu") for way in ("FP32", "bf16")]
    rows.append(gpu_models.trained(gpu_models.LEAST, gpu_models.ON_CPU, "nowhere"))
    table = gpu_models.beside(pd.DataFrame(rows)).set_index("way")
    assert table.nats_from_cpu["FP32"] == 0 != table.nats_from_cpu["bf16"]
    assert table.over_cpu["FP32"] == table.tokens_per_s["FP32"] / table.tokens_per_s.iloc[-1]
    assert (table.steps == 6).all() and (table.predicted_mib > 0).all()
    assert gpu_models.beside(pd.DataFrame(rows[:2])).over_cpu.isna().all()
    far = table.reset_index().assign(nats_from_cpu=[-7.946e-5, 0.001146, 0])
    assert gpu_told.training_sentence(far).endswith(
        "the largest difference of a loss from the CPU's is 7.9·10⁻⁵ nats in FP32, 0.0011 nats in "
        "bf16."
    )


@pytest.mark.usefixtures("quick_processes")
def test_the_whole_is_kept_told_and_fails_part_by_part(tmp_path):
    nothing, unmade = gpu.left(tmp_path)
    assert unmade == {} and gpu.production(tmp_path) == (None, "")
    assert gpu_told.layer_sentence(nothing["layers"]) == "No layer was measured."
    assert gpu_told.refused(nothing["layers"]) == "" and gpu_told.apart({}).startswith(
        "Not examined: this mac"
    )
    gpu.main(["--out", str(tmp_path), "--device", "cpu", "--tiny", "--commit", "abc"])
    assert {path.name for path in tmp_path.iterdir()} == {
        "gpu-layers.csv", "gpu-decode.csv", "gpu-training.csv", "gpu.json"
    }  # fmt: skip
    tables, made = gpu.left(tmp_path)
    assert [*made["reasons"]] == [f"decoding {gpu_models.LEAST}, CUDA graph"]  # not on a CPU
    assert "is of a GPU, and this is cpu" in [*made["reasons"].values()][0]
    assert made["commit"] == "abc" and "gpu" not in made
    assert "CUDA graph (" in gpu_told.apart(made) and " at commit abc on cpu, with " in (
        gpu_told.apart(made)
    )
    assert set(tables["training"].way) == {"FP32", "bf16", gpu_models.ON_CPU}
    assert "are the CPU's, 4 of each" in gpu_told.decode_sentence(tables["decode"])
    assert "the largest difference of a loss from the CPU's is 0 nats in FP32" in (
        gpu_told.training_sentence(tables["training"])
    )
    answer = gpu_told.answer(tables, made)
    assert answer.startswith(f"On one {made['cpu']}, at width 128")
    assert "The greedy tokens are" in answer and "learns from" in answer  # of every part
    assert len(gpu_told.models(tables["decode"])) == 1
    once = gpu_told.models(pd.DataFrame({"over_cpu": [7.8597], "tokens_per_s": [9.6]}))
    assert once.to_numpy().tolist() == [[7.8597, 10]]  # the page rounds, once


def test_what_there_is_no_time_for_is_not_begun(monkeypatch, tmp_path):
    def slowly():
        raise OSError("no\nroom")

    steps = [("layers", "one", 0, lambda: [{"width": 1}]), ("decode", "two", 0, slowly),
             ("training", "three", 1, slowly)]  # fmt: skip
    monkeypatch.setattr(gpu, "jobs", lambda plan, device: steps)
    tables, made = gpu.measured(gpu.TINY, "cpu", 40)
    assert len(tables["layers"]) == 1
    assert made["reasons"] == {
        "two": "OSError: no room", "three": "not begun: 40 of 40 seconds were left"
    }  # fmt: skip
    gpu.keep(tmp_path, tables, made)
    assert json.loads((tmp_path / "gpu.json").read_text())["reasons"] == made["reasons"]
    found = gpu.left(tmp_path)[0]
    assert found["decode"].empty
    assert gpu_told.decode_sentence(found["decode"]) == "No decode step was measured."
    assert gpu_told.training_sentence(found["training"]) == "No training was measured."


def test_seconds_that_are_over_are_none_left(monkeypatch):
    monkeypatch.setattr(gpu, "jobs", lambda plan, device: [("layers", "one", 0, list)])
    made = gpu.measured(gpu.TINY, "cpu", -3)[1]
    assert made["reasons"]["one"] == "not begun: 0 of -3 seconds were left"
    assert "1 thread, torch" in gpu_told.apart(made | {"threads": 1})
    assert "2 threads, torch" in gpu_told.apart(made | {"threads": 2})


def test_all_that_a_gpu_is_asked_for_is_in_order():
    names = [what for _, what, _, _ in gpu.jobs(gpu.FULL, "cuda")]
    assert names[0] == "one layer" and len(names) == len(set(names)) == 1 + 2 * 4 + 2 * 3
    assert names[-3:] == [
        f"training {gpu_models.LARGE}, {gpu_models.ON_CPU}",
        f"training {gpu_models.LARGE}, bf16, compiled",
        f"decoding {gpu_models.LARGE}, {gpu_models.COMPILED}",
    ]


def test_a_kernel_that_takes_its_process_down_is_left_out_with_its_reason(monkeypatch):
    def in_one(measure, processes, *given, threads=1):
        if INT4 not in given[-1]:
            raise RuntimeError("an illegal\nmemory access")

    monkeypatch.setattr(gpu, "in_processes", in_one)
    found = gpu.faults(gpu.TINY, "cuda")
    assert found == {INT4: "RuntimeError: an illegal memory access"}
    layers, unmade = gpu_layers.made(torch.eye(128), CPU, found | {"fp32": "x"})
    assert {*layers} == {*gpu_layers.FORMATS} - {INT4, "fp32"}
    assert unmade[0] == {"format": INT4, "reason": found[INT4]}


def test_without_layers_the_answer_is_of_decoding():
    decode = pd.DataFrame([{"shape": "S", "way": "eager", "us_per_step": 9.0, "tokens": 4,
                            "agreed": 3}])  # fmt: skip
    tables = {"layers": pd.DataFrame(), "decode": decode}
    assert gpu_told.answer(tables, {"gpu": "G"} | {"cpu": "C"}) == (
        "On one G, s takes 9 µs a step by eager. The greedy tokens differ from the CPU's: S, "
        "eager, from new token 4."
    )


def test_reasons_are_told_to_who_reads_of_them():
    why = "RuntimeError: self.size(0) needs to be greater than 16, but got 1"
    lost = {"format": ["int8"], "tokens": [1], "us": [np.nan], "reason": [why]}
    assert gpu_told.refused(pd.DataFrame(lost)) == (
        " Without a row: int8, rows 1 (its kernel asks for more than 16 rows)."
    )
    advice = "integers cannot be rewritten as RMSNorm: give kind 'f32', for their numbers"
    assert plain(advice) == "integers cannot be rewritten as RMSNorm"
    assert plain("at block.q: error 0.9: use the reference") == "at block.q: error 0.9"
    assert powered("7.4e-08") == "7.4·10⁻⁸" and powered("0.1") == "0.1"
