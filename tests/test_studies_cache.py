"""The experiments of the cache chapter, at tiny size: known answers, and what must always hold."""

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from minitransformer.cache import KINDS
from minitransformer.checkpoint import save
from minitransformer.model import ModelConfig, Transformer
from minitransformer.train import initialize
from studies import (
    cache_bytes,
    cache_quality,
    certificates,
    compiled,
    latency,
    memory,
    native,
    operations,
    processes,
    seed_latency,
    serving,
    speculation,
    texts,
)
from studies.processes import speedup
from studies.words import with_interval
from ticking import ticking

pytestmark = pytest.mark.usefixtures("quick_processes")
CFG = ModelConfig(vocab_size=41, d_model=16, n_heads=2, context=96)
LARGER = ModelConfig(vocab_size=41, d_model=16, n_heads=1, tied=True, context=96)


def made(seed=0, **changes):
    return initialize(Transformer(replace(CFG, **changes)), "scaled", seed).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    for i, (name, changes) in enumerate(
        {
            "model": {},
            "model-control": {},
            "model-2block": {"n_layers": 2},
            "model-draft": {"d_model": 8},
        }.items()
    ):
        save(made(i, **changes), path / name)
    return path


@pytest.fixture(scope="module")
def text():
    return np.random.default_rng(0).integers(0, 41, 4000)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


# processes


def pid():
    return {"where": pd.DataFrame({"pid": [os.getpid()], "threads": [torch.get_num_threads()]})}


def named(name):
    found = pid()["where"]
    torch.set_num_threads(2)
    return {name: found}


def failing():
    raise ValueError("lengths 0 is too short: give at least 1")


class Bar:
    """What `nb.progress` gives, as far as it is asked for."""

    def __init__(self, told):
        self.update = told.append


def test_each_process_is_new_and_an_error_comes_through():
    ticks = []
    fresh = processes.Processes(2, threads=1, progress=lambda *_: Bar(ticks))
    found = fresh.run(pid, partial(named, "also"))
    assert found["where"].process.tolist() == [0, 1] and ticks == [1, 1]
    assert found["where"].pid.nunique() == 2 and os.getpid() not in set(found["where"].pid)
    assert found["also"].pid.tolist() == found["where"].pid.tolist()  # all of it in each of them
    assert found["also"].threads.tolist() == [1, 1]  # whatever another measure had set
    told = []
    shown = processes.Processes(1, 1, lambda total, what: told.append((total, what)) or Bar(told))
    shown.run(pid)
    assert told == [(1, "timing in a thread"), 1]
    with pytest.raises(ValueError, match="lengths 0 is too short"):
        processes.Processes(1).run(failing)
    with pytest.raises(ValueError, match="two measures return 'where'"):
        processes.Processes(1).run(pid, pid)
    with pytest.raises(ValueError, match="processes 0 measures nothing"):
        processes.Processes(0)


def test_every_process_starts_before_it_is_asked():
    fresh = processes.Processes(2)
    until = time.monotonic() + 120
    while not all(process.done() for process in fresh.imported):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert fresh.run(pid)["where"].pid.nunique() == 2


def test_one_alone_is_a_thread_unless_it_has_to_be_apart():
    threads = torch.get_num_threads()
    with torch.enable_grad():
        found = processes.Processes(1, threads=threads + 1).run(pid)["where"]
        assert torch.get_num_threads() == threads and torch.is_grad_enabled()
    assert found.pid.tolist() == [os.getpid()] and found.threads.tolist() == [threads + 1]
    assert processes.in_processes(pid, 1)["where"].pid.tolist() != [os.getpid()]


def prepared(folder):
    Path(folder, str(os.getpid())).touch()


def seen(folder):
    return {"seen": pd.DataFrame([{"ready": len(list(Path(folder).iterdir()))}])}


seen.ready = prepared


def test_nothing_is_timed_before_all_are_ready(tmp_path):
    found = processes.Processes(2).run(partial(seen, tmp_path))
    assert found["seen"].ready.tolist() == [2, 2]


def waiting(path):
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)


def test_a_worker_ends_with_a_killed_parent(tmp_path):
    told, code = (
        tmp_path / "pid",
        "import sys; sys.path[:0] = {path!r}; "
        + (
            "from functools import partial; from test_studies_cache import waiting; "
            "from studies.processes import Processes; Processes(2).run(partial(waiting, {told!r}))"
        ),
    )
    command = code.format(path=sys.path, told=str(told))
    parent = subprocess.Popen([sys.executable, "-c", f"if __name__ == '__main__': {command}"])
    until = time.monotonic() + 120
    while not (told.exists() and told.read_text()) and time.monotonic() < until:
        time.sleep(0.1)
    parent.kill()
    parent.wait()
    worker = int(told.read_text())
    while psutil.pid_exists(worker) and time.monotonic() < until:
        if psutil.Process(worker).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.1)
    assert time.monotonic() < until


def test_the_interval_is_over_processes_and_one_process_has_none():
    same = processes.over_processes([2.0, 2.0, 2.0])
    assert same["estimate"] == pytest.approx(2) and same["low"] == pytest.approx(same["high"])
    one = processes.over_processes([2.0])
    assert np.isnan([one["low"], one["high"], one["spread"]]).all()  # it shows no other
    five = processes.over_processes([1.0, 2.0, 4.0, 2.0, 2.0])
    assert five["estimate"] == pytest.approx(2.0) and five["spread"] == pytest.approx(4.0)
    # Student's t with four degrees of freedom: 2.776 standard errors of the logarithms
    error = np.log([1, 2, 4, 2, 2]).std(ddof=1) / np.sqrt(5)
    assert np.log(five["high"] / 2) == pytest.approx(2.776 * error, rel=1e-3)


def test_ratios_are_paired_inside_each_process():
    rows = [(p, r, n, s) for p in (0, 1) for r in range(3) for n, s in (("a", 3.0), ("b", 1.0))]
    samples = pd.DataFrame(rows, columns=["process", "repeat", "name", "seconds"])
    samples["seconds"] *= 1 + samples.process  # a slower process changes no ratio
    assert processes.process_ratios(samples, "a", "b").tolist() == [3.0, 3.0]
    assert processes.speedup(samples, "a", "b")["estimate"] == pytest.approx(3.0)
    assert processes.gain(samples, "a", "b")[0] == pytest.approx(3.0)


def test_one_more_process_falls_wider_than_the_mean():
    mean = processes.over_processes([1.0, 2.0, 4.0, 2.0, 2.0])
    low, high = processes.one_more(mean)
    assert low < mean["low"] and high > mean["high"] and low * high == pytest.approx(4)
    assert np.log(high / 2) == pytest.approx(np.log(mean["high"] / 2) * 6**0.5)
    assert np.isnan(processes.one_more(processes.over_processes([2.0]))).all()
    assert processes.mean(mean) == (mean["estimate"], (mean["low"], mean["high"]))


# operations


def test_operations_are_those_of_the_loops(text):
    """Token passes are counted by the model that the real loops call."""
    model, passes = made(), []
    model.embedding.register_forward_hook(lambda layer, given, out: passes.append(given[0].numel()))
    found = operations.counted((5, 9)).set_index(["new_tokens", "loop"])
    for loop, cache in (("recomputing", None), ("cached", "static")):
        passes.clear()
        texts.generate(model, texts.as_row(text[:1]), 9, cache=cache)
        assert sum(passes) == found.token_passes[9, loop]
    # the pairs of a causal mask: token i of a sequence sees i tokens
    assert found.attention_pairs[5, "recomputing"] == sum(sum(range(1, t + 1)) for t in range(1, 6))
    assert found.attention_pairs[5, "cached"] == sum(range(1, 6))


def test_exponents_are_those_of_the_powers_that_counts_follow():
    table = operations.counted((1000, 4000))
    for loop, column, power in (
        ("recomputing", "token_passes", 2),
        ("cached", "token_passes", 1),
        ("recomputing", "attention_pairs", 3),
        ("cached", "attention_pairs", 2),
    ):
        assert operations.exponent(table, loop, column) == pytest.approx(power, abs=0.01)
    assert operations.times_fewer(operations.counted((50,)), 50) == 25.5


# certificates


def test_every_cache_and_decoder_is_certified_and_a_broken_one_is_seen(folder, text):
    prompts = [torch.from_numpy(text[i : i + 6].copy())[None] for i in (0, 50)]
    plan = certificates.checks(KINDS, {"one": "model", "two": "model-2block"})
    ticks = []
    every = certificates.every(folder, prompts, 8, plan, progress=ticking(ticks.append))
    assert sum(ticks) == len(plan) == 2 * (len(KINDS) + len(certificates.WAYS))
    assert set(every.kind) > set(KINDS) and set(every.model) == {"one", "two"}
    told = certificates.agreement(every)
    assert told["float32_same"] == told["float32_steps"] == 2 * 3 * 2 * 8
    assert told["float64_same"] == told["float64_steps"] > told["float32_steps"]
    assert told["float64_error"] < 1e-10 and told["law_error"] < 1e-12
    table = certificates.summary(every)
    assert set(table.verdict) <= {"certified", "identical"}
    found = every[every.kind.isin(KINDS)]
    broken = pd.concat([found, found.iloc[[-1]].assign(verdict="different", error=1.0)])
    assert certificates.agreement(broken)["float64_same"] < told["float64_steps"]
    own = every[(every.dtype == "float32") & (every.kind == "static")]
    pair = pd.concat(
        [own.iloc[:1].assign(error=2.0, margin=100.0), own.iloc[:1].assign(error=1.0, margin=3.0)]
    )
    assert certificates.agreement(pair)["nearest"] == (2, 3)  # both of one model
    shown = certificates.summary(pair)
    assert shown[["difference", "margin"]].values.tolist() == [[1, 3]]
    apart = pair.assign(margin=float("inf"))  # nearest is none: the largest difference is shown
    assert certificates.summary(apart).difference.tolist() == [2.0]
    assert {"growing cache", "static cache"} < {*table.subject} and "dynamic cache" in {
        *every.subject
    }
    exact = certificates.summary(pair.assign(error=0.0))
    assert exact[["difference", "margin"]].values.tolist() == [[0, 3]]
    assert certificates.rows(told, "< 3e-13")[2][1:] == (told["float64_error"], "< 3e-13")
    assert "different" in set(certificates.summary(broken).verdict)
    two = [check for check in plan if check.what in ("static", "beams")]
    one = certificates.every(folder, prompts, 8, two)
    pd.testing.assert_frame_equal(certificates.every(folder, prompts, 8, two, threads=2), one)


# bytes


def test_bytes_in_objects_are_those_computed_for_every_kind():
    found = cache_bytes.measured_and_computed(CFG, KINDS, (50, 96))
    assert (found.measured_bytes == found.computed_bytes).all() and len(found) == 2 * len(KINDS)
    assert cache_bytes.per_token(CFG) == 2 * CFG.d_model
    assert cache_bytes.per_token(replace(CFG, n_layers=2), 1) == 2 * CFG.head_dim
    table = cache_bytes.formats(CFG, 512, 90)
    assert table.measured.all()
    own = table.set_index(["heads", "cache"])
    assert own.times["MHA", "static"] == 1 and own.times_all["MQA", "static"] == CFG.n_heads
    assert own.bytes["MHA", "int8"] < own.bytes["MHA", "paged"]


def test_pages_follow_use_and_waste_less_than_a_block():
    use = cache_bytes.in_use(CFG, room=256, points=12)
    assert (use.paged_kib <= use.static_kib + 1e-9).all()
    waste = cache_bytes.waste(CFG, 96)
    paged = waste[waste.cache == "paged, blocks of 16"].set_index("tokens").reserved_share
    assert paged[16] == 1 and paged[1] == 16 and (waste.reserved_share >= 1).all()
    idle = cache_bytes.idle(waste)
    assert idle["static, room for 96"] > idle["paged, blocks of 64"] > idle["paged, blocks of 16"]
    # every length once: 96 · 97 / 2 of 96² tokens, and blocks of 16 in the mean half a block more
    assert idle.iloc[-1] == pytest.approx(100 * (1 - 97 / 2 / 96))
    assert idle["paged, blocks of 16"] == pytest.approx(100 * (1 - 97 / 2 / (97 / 2 + 7.5)))


# quality


def test_added_perplexity_is_paired_and_grows_as_bits_fall(text):
    found = cache_quality.added_perplexity({"one": made()}, text[:600], 96)
    found = found.set_index("cache")
    assert abs(found.added_percent["int8"]) < abs(found.added_percent["int2"])
    assert (found.low <= found.added_percent).all() and (found.added_percent <= found.high).all()


def test_a_window_that_holds_all_costs_nothing_and_the_way_of_reading_is_compared(text):
    losses = cache_quality.endless(made(), text, 2, 192, 32)
    assert {x.shape for x in losses.values()} == {(2, 192)}
    curves, costs = cache_quality.against_recomputing(losses, 32)
    assert set(costs.cache) == set(losses) - {"window recomputed"}
    assert curves.groupby("cache").tokens.max().eq(192).all()
    slow = losses["window recomputed"]
    same = {"same": slow.copy(), "window recomputed": slow}
    _, none = cache_quality.against_recomputing(same, 32)
    assert none.added_percent.tolist() == [0.0]


def test_absolute_positions_have_no_window(text):
    losses = cache_quality.endless(made(position="sinusoidal"), text, 1, 64, 16)
    assert not any("sinks" in name for name in losses)


# latency


@pytest.fixture(scope="module")
def timed(folder, text):
    plan = latency.Plan((4, 8), 2, 1, 8, LARGER)
    with torch.no_grad():
        tables = latency.measure(folder, text[:200], plan, ("static", "int8"))
    return plan, {name: table.assign(process=0) for name, table in tables.items()}


def test_a_process_times_all_that_the_chapter_compares(timed):
    plan, samples = timed
    assert set(samples) == {"loops", "steps", "kinds", "seed"}
    assert set(samples["loops"].name) == set(latency.LOOPS[1:])
    assert samples["loops"].groupby(["tokens", "name"]).size().eq(plan.repeats).all()
    gains = latency.speedups(samples["loops"])
    assert gains[gains.loop == "recomputing"].speedup.tolist() == [1.0, 1.0]
    assert gains.high.isna().all()  # one process decides no bar
    columns = {"cache": ["int8"] * 2, "added_percent": [0.4, 0.3], "low": [0, 0.2], "high": [1, 2]}
    table = latency.kind_costs(samples["kinds"], pd.DataFrame(columns), CFG, ("static", "int8"))
    assert table.cache.tolist() == ["static", "int8"]
    assert table.added_percent.tolist() == [0.0, 0.3] and table.high.tolist() == [0.0, 2]
    assert table.time_ratio[0] == pytest.approx(1) and plan.usual == 8
    assert latency.text_needed(plan, 96) == 96  # kinds are timed up to the full context
    assert table.spread.isna().all() and gains.spread.isna().all()  # there is no other process
    assert set(latency.cached(gains).loop) == {"growing cache", "static cache"}


def test_kinds_of_cache_are_timed_up_to_the_full_context(folder, text, monkeypatch):
    """After a short prompt int4 has finished no group: a time of it would be of plain numbers."""
    ends, own = [], latency.generate

    def noted(model, ids, new, cache):
        ends.extend([ids.shape[1] + new] * (cache == "int4"))
        return own(model, ids, new, cache=cache)

    monkeypatch.setattr(latency, "generate", noted)
    latency.measure(folder, text[:200], latency.Plan((4, 8), 1, 1, 8), ("static", "int4"))
    assert ends == [CFG.context] * 4


def test_the_seeds_row_has_its_tokens_its_repeats_and_where_one_more_process_falls(timed):
    _, samples = timed
    assert seed_latency.setting(samples["seed"]) == "50 tokens, 3 repeats"
    assert seed_latency.rows(samples["seed"]).filter(regex="low|high").isna().any(axis=None)
    several = [samples["seed"].assign(process=i) for i in range(3)]
    several[2] = several[2].assign(seconds=lambda t: t.seconds * 1.5)
    table = seed_latency.rows(pd.concat(several)).set_index("loop")
    assert table.original_ms["growing cache"] == 8.98 and len(table) == 4
    assert (table.ms_low < table.ms).all() and (table.ms < table.ms_high).all()
    one = table.loc["the original's loop"]
    assert one.speedup == one.low == one.high == one.mean_low == pytest.approx(1)
    assert table.spread.notna().all()
    found, fast = seed_latency.stated(pd.concat(several)), table.loc["growing cache"]
    assert found["cached"] == (fast.ms, (fast.ms_low, fast.ms_high))
    assert found["speedup"] == (fast.speedup, (fast.low, fast.high))
    assert found["mean"] == (fast["mean"], (fast.mean_low, fast.mean_high))
    assert found["slow"][0] == one.ms and found["printed"] == pytest.approx(17.47 / 8.98)
    fair = speedup(pd.concat(several), seed_latency.AGAIN, seed_latency.STATIC)
    assert found["fair"] == with_interval(fair["estimate"], fair["low"], fair["high"], "×")


def test_a_larger_model_is_predicted_from_its_own_steps(timed):
    plan, _ = timed
    samples = latency.larger(plan, 0)
    samples = {name: table.assign(process=0) for name, table in samples.items()}
    law = latency.time_model(samples["larger_steps"], LARGER)
    row = latency.larger_row(samples["larger_loops"], law, LARGER, 8).iloc[0]
    off = abs(row.measured_speedup / row.predicted_speedup - 1)
    told = pd.DataFrame([row.to_dict() | {"low": row.measured_speedup / 2, "high": np.inf}])
    value, (low, high) = latency.larger_miss(told)
    assert value == pytest.approx(100 * off) and low <= value < high  # the whole interval
    assert np.isnan([row.high, row.spread]).all()
    wide = replace(law, kappa_interval=(-3e-7, 2e-7))
    kappa = latency.constants(wide, law, LARGER).set_index("symbol").loc["κ"]
    assert (kappa.low, kappa.high) == pytest.approx((-300, 200)) and "not resolvable" in kappa.what


def test_the_roofline_has_the_head_once_a_forward_and_the_original_s_everywhere(monkeypatch):
    monkeypatch.setattr(latency.bench, "matmul_flops_per_second", lambda: 2e11)
    law = latency.bench.TimeModel(1e-4, 1e-4, 1e-9, 1e-5, 2e-9, 0.0, (0.0, 0.0))
    roof = latency.roofline(law, CFG)
    blocks, head = latency.work(CFG)
    assert (head, blocks + head) == (2 * 41 * 16, latency.bench.flops(CFG, 1))
    own = latency.everywhere(roof)
    assert roof.uncached(7) == pytest.approx((7 * blocks + head) / 2e11)
    assert own.uncached(7) == pytest.approx(7 * (blocks + head) / 2e11)
    assert own.cached(7) == pytest.approx(roof.cached(7))
    assert own.speedup(8, 50) > roof.speedup(8, 50)
    told = latency.constants(law, roof, CFG).set_index("symbol").value
    assert told["F"] == pytest.approx(200) and told["a"] == pytest.approx(2)
    shown = [latency.constants(replace(law, attention=a), roof, CFG).what[4] for a in (0.0, 1e-15)]
    assert [what.endswith("not resolvable") for what in shown] == [True, False]
    kept = latency.summary(law, roof, pd.DataFrame(), CFG, 8)
    assert kept["peak_flops_per_second"] == pytest.approx(2e11) and kept["head"] == 0
    assert latency.fixed_in_words(law, 50) == ""  # what it reads of a cache is not to be seen
    seen = replace(law, kappa=2e-6, kappa_interval=(1e-6, 3e-6))
    assert latency.fixed_in_words(seen, 50).startswith("; of a cached step 50 % is")


def test_a_kind_of_cache_has_run_before_the_process_is_looked_at(monkeypatch):
    ran, looked, run = [], [], memory.run

    def noted(model, prompt, new, kind, options):
        for token in run(model, prompt, new, kind, options):
            ran.append(kind)
            yield token

    def look(make, steps):
        looked.append({*ran})
        return pd.DataFrame({"tokens": [1], "process_bytes": [2048]})

    monkeypatch.setattr(memory, "run", noted)
    monkeypatch.setattr(memory.bench, "process_growth", look)
    found = memory.growth(made(), np.arange(4), 40, 16)
    assert [len(kinds) for kinds in looked] == [1, 2, 3, 4] and len(ran) == 8  # two tokens of each
    assert (found.process_kib == 2).all()


def test_growth_is_seen_where_there_is_any():
    found = memory.growth(made(), np.arange(4), 40, 16)
    assert set(found.cache) == {"static", "paged", "window", "growing"} and found.tokens.max() == 40
    assert memory.settled(found, CFG)["kinds"] == "static, paged, window"
    table = pd.DataFrame({"tokens": [1, 10, 20, 40]})
    per_token = 4 * 2 * CFG.n_layers * CFG.kv_heads * CFG.head_dim
    grown = [("static", [0, 8, 9, 10]), ("paged", [0, 5, 5, 5]), ("growing", [0, 100, 200, 300])]
    tables = [table.assign(cache=kind, process_bytes=held) for kind, held in grown]
    settled = memory.settled(pd.concat(tables), CFG)
    assert settled == {
        "kinds": "static, paged",
        "kib": 1 / 1024,
        "growing": 100 / 1024,
        "percent": 1,
        "holds": 20 * per_token / 1024,
    }
    absolute = memory.growth(made(position="sinusoidal"), np.arange(4), 8, 16, ("window", "static"))
    assert set(absolute.cache) == {"static"}


def test_predictions_of_a_known_machine_are_exact():
    """Samples made from a time model's own equations give its constants and its speed-ups back."""
    from minitransformer.bench import TimeModel

    law = TimeModel(4e-4, 4e-4, 0.0, 1e-5, 0.0, 0.0, (0.0, 0.0))
    rows = [("recompute", t, float(law.uncached(t))) for t in (1, 5, 20, 60, 200)]
    rows += [("cached", t, float(law.cached(t))) for t in (1, 5, 20, 60, 200)]
    steps = pd.DataFrame(rows, columns=["phase", "tokens", "seconds"]).assign(process=0, repeat=0)
    found = latency.time_model(steps, CFG)
    assert found.speedup(8, 50) == pytest.approx(law.speedup(8, 50), rel=0.05)
    gains = pd.DataFrame(
        {
            "new_tokens": [50],
            "loop": ["static cache"],
            "speedup": [law.speedup(8, 50)],
            "low": [1.0],
            "high": [9.0],
            "spread": [1.2],
        }
    )
    told = latency.predictions(gains, law, law, CFG, 8)
    assert told.spread[0] == 1.2
    assert told.of_model_percent[0] == pytest.approx(100)
    assert told.operations[0] > told.measured[0]
    seen = replace(law, kappa_interval=(1e-9, 1e-8))
    assert " 98 % is what it costs" in latency.fixed_in_words(seen, 50)  # 4 of 4.1
    assert " 100 % is what it costs" in latency.fixed_in_words(replace(seen, weights=1e-4), 50)
    assert law.knee == pytest.approx(40)
    rows = {"phase": ["recompute"] * 3 + ["rows"], "tokens": [1, 30, 50, 40]}
    single = pd.DataFrame({**rows, "quiet": [2.0, 3.0, 7.0, 99.0]})
    assert latency.at_the_knee(single, law.knee) == pytest.approx(2.5)  # as it was timed
    text = float(law.uncached(8) + law.cached(np.arange(8, 57)).sum())
    slow = {"recomputing": 2e3 * text * law.speedup(8, 50), "static cache": 3e3 * text}
    own = pd.DataFrame({"loop": [*slow], "ms": [*slow.values()], "new_tokens": 50})
    off = latency.times_off(own, law, 8, 50)
    assert off == {"again": pytest.approx(100), "cached": pytest.approx(200), "fixed": ""}
    curves = latency.limit_curves(law, law, CFG, latency.Plan((50,), 1, 1, 8))
    (tokens, gains), name = curves[1]
    assert (tokens[-1], name) == (50, "time model")
    assert gains[-1] == pytest.approx(law.speedup(8, 50))


def test_a_prediction_is_missed_by_what_the_measured_interval_leaves():
    columns = {"new_tokens": [50.0, 500.0], "measured": [1.5, 4.0], "time_model": [1.5, 5.0]}
    compared = pd.DataFrame({**columns, "low": [1.2, 3.5], "high": [1.65, 4.5]})
    assert latency.measured_at(compared, compared.new_tokens[1]) == latency.measured(
        compared.iloc[1]
    )
    assert latency.measured_at(compared, 7) == (None, None)  # not timed
    found = latency.misses(compared).set_index("case")
    assert found.loc["50 tokens"].tolist() == pytest.approx([0, 0, 20])
    assert found.loc["500 tokens"].tolist() == pytest.approx([20, 10, 30])


def test_medians_of_steps_are_over_processes():
    rows = [(p, "rows", m, 1e-4 * m) for p in range(3) for m in (1, 2, 4)]
    steps = pd.DataFrame(rows, columns=["process", "phase", "tokens", "seconds"])
    told = latency.step_medians(steps).set_index("tokens")
    assert told.estimate[4] == pytest.approx(400) and told.quiet[2] == pytest.approx(200)


# speculation


def test_a_draft_that_is_the_target_is_always_accepted(text):
    model = made()
    prompt, ids = texts.as_row(text[:8]), texts.as_row(text[:60])
    same = speculation.speculated(model, lambda: speculation.ModelDraft(model), [prompt], 18, 4)
    expected = speculation.overlap(model, model, ids)
    counts = speculation.counted(same, expected)
    assert expected == pytest.approx(1) and counts["alpha"] == 1
    assert counts["tokens_a_forward"] == pytest.approx(counts["theory"])
    assert counts["off_percent"] == pytest.approx(0, abs=1e-6)
    assert counts["off_low"] == 0 < counts["off_high"]  # the last forward proposes fewer
    assert speculation.pays_from(4, 0.0, 1.0) == 0.0 and np.isnan(speculation.pays_from(4, 1, 1.5))


def test_the_overlap_predicts_what_is_accepted(text):
    """Two unequal models of nearly uniform distributions, on many forwards: the prediction from
    other text holds, and one from half the overlap does not."""
    target, draft = made(), made(1)
    prompts = [texts.as_row(text[i : i + 8]) for i in range(0, 400, 40)]
    expected = speculation.overlap(target, draft, texts.as_row(text[1000:1090]))
    runs = speculation.speculated(target, lambda: speculation.ModelDraft(draft), prompts, 60, 4)
    found = speculation.counted(runs, expected)
    assert 0.3 < expected < 0.95 and found["off_low"] == 0
    assert speculation.counted(runs, expected / 2)["off_low"] > 10


def test_drafts_are_timed_and_counted(folder, text):
    prompts = [texts.as_row(text[:8]), texts.as_row(text[50:58])]
    samples = speculation.measure(folder, texts.arrays(prompts), 12, 1)
    samples = {name: table.assign(process=0) for name, table in samples.items()}
    counts = speculation.counts(folder, prompts, 12, text, 1)
    first = speculation.counts(folder, prompts[:1], 12, text, 1)
    assert counts.timed_tokens_a_forward.equals(first.tokens_a_forward)
    assert not counts.timed_tokens_a_forward.equals(counts.tokens_a_forward)
    table = speculation.results(samples, counts)
    twice = counts.assign(timed_tokens_a_forward=2 * counts.timed_tokens_a_forward)
    of_timed = speculation.results(samples, twice).predicted_speedup / table.predicted_speedup
    assert of_timed.tolist() == pytest.approx([2] * 6)
    assert len(table) == 6 and set(table.target) == {"1 block", "2 blocks"}
    assert list(table.columns).index("spread") == list(table.columns).index("high") + 1
    assert table.theory.isna().sum() == table.expected_alpha.isna().sum() == 2  # prompt lookup
    steady = speculation.steady(counts)
    assert len(steady) == 4 and (steady.low <= steady.off_percent).all()
    assert "a draft model for 2 blocks" in set(steady.draft)  # which are the target's


def test_what_a_way_adds_late_is_told_with_true_minus_signs():
    late = pd.DataFrame({"cache": ["a", "b"], "added_percent": [1.0, -0.02]})
    said = cache_quality.in_words(late.assign(low=[0.5, -0.3], high=[1.5, 0.2]), {}, 8)
    assert said == "Late in the text: a +1.0 % [+0.5, +1.5]; b −0.02 % [−0.30, +0.20]."
    noise = np.random.default_rng(0).normal(3, 2, (2, 600))  # which both windows share
    own = noise + np.random.default_rng(2).normal(0.01, 0.01, noise.shape)
    ways = {"window recomputed": noise, "window of 4 and 4 sinks": own}
    assert cache_quality.sinks_in_words(ways, 8) == ""
    ways["window of 8, no sinks"] = noise.copy()
    told = cache_quality.sinks_in_words(ways, 8)
    assert told == "The first tokens change it by +0.95 % [+0.90, +1.00]."
    ways["window of 8, no sinks"] = np.random.default_rng(1).normal(3, 2, (2, 600))
    assert cache_quality.sinks_in_words(ways, 8).endswith(", nothing to be seen.")
    assert with_interval(1.23456, 1.2, 1.3) == "1.23 [1.20, 1.30]"
    assert with_interval(2.0, np.nan, np.nan, " %", "+") == "+2.00 %"


def test_drafts_pay_or_not_by_their_whole_interval_and_miss_their_prediction():
    table = pd.DataFrame(
        {
            "target": ["1 block", "2 blocks"],
            "draft": ["prompt lookup", "its own int4"],
            "measured_speedup": [0.8, 1.2],
            "low": [0.7, 0.9],
            "high": [0.9, 1.5],
            "predicted_speedup": [1.0, 1.25],
        }
    )
    assert speculation.in_words(table) == "no draft surely pays: 0.80 to 1.20 times the speed"
    assert speculation.best(table) == (1.2, (0.9, 1.5))
    slow = table.assign(measured_speedup=[0.8, 0.9], high=[0.9, 0.95])
    assert (
        speculation.in_words(slow) == "every draft surely costs time: 0.80 to 0.90 times the speed"
    )
    paying = speculation.in_words(table.assign(low=[0.7, 1.1]))
    assert paying.endswith("what surely pays is its own int4 for 2 blocks")
    found = speculation.beside_prediction(table)
    assert (found["off"], found["outside"], found["all"]) == ("4 to 20 % below", 1, 2)
    assert found["most"] == 1.25
    fast = speculation.beside_prediction(table.assign(predicted_speedup=[0.4, 1.0]))
    assert fast["off"] == "20 to 100 % above"
    both = speculation.beside_prediction(table.assign(predicted_speedup=[1.0, 1.0]))
    assert both["off"] == "20 % below to 20 % above"
    alone = speculation.beside_prediction(table.assign(low=np.nan, high=np.nan))
    assert alone["outside"] == 0  # of one process nothing is sure


def test_loops_of_greedy_text_are_seen(text):
    assert speculation.period([1, 2, 3] * 6, 10) == 3 and np.isnan(speculation.period(range(30), 9))
    prompts = [torch.from_numpy(text[:8].copy())[None]]
    found = speculation.greedy_loops(made(), prompts, 40).set_index("text")
    assert found.distinct_tokens["sampled"] > found.distinct_tokens["greedy"]
    told = speculation.circles(made(), prompts, 40)
    assert told["texts"] == 1 and told["few"] == found.distinct_tokens["greedy"]
    assert told["greedy"] == int(np.isfinite(found.period["greedy"])) and told["sampled"] == 0
    length = found.period["greedy"]
    words = f" of {length:.0f} token{'s' * int(length > 1)}" if np.isfinite(length) else ""
    assert told["length"] == words


# serving


def test_rows_of_a_batch_are_their_own_run_and_continuous_batching_serves_all(folder, text):
    model, many = made(), serving.several(text, CFG.context, 0, 4, 4)
    samples = serving.measure(folder, many, 1)
    timed = {name: table.assign(process=0) for name, table in samples.items()}
    seconds = pd.Series({1: 1e-3, 8: 2e-3})
    table = serving.batches(model, many, timed["batches"], seconds)
    assert (table.equal == table.texts).all() and table.limit_speedup.iloc[0] > 2
    found = serving.beams(model, many, timed["beams"])
    assert {"low", "high", "spread"} <= {*table.columns} & {*found.columns}
    scores = found["log-probability per token"]
    assert found.width.tolist() == [1, 2, 4] and scores.iloc[-1] >= scores.iloc[0]
    served = serving.served(model, text, 6, seconds, 0, slots=2)
    again = serving.served(model, text, 6, seconds, 0, slots=2)
    pd.testing.assert_frame_equal(served, again)
    at = served[served.load == 1.2].set_index("policy")
    gain = at.tokens_per_s["continuous"] / at.tokens_per_s["static"]
    assert gain >= 1


def test_a_load_of_one_asks_for_what_busy_places_serve_prompts_included(text):
    """A single place that all requests wait for serves exactly its capacity."""
    seconds, drawn = pd.Series({1: 1e-3, 32: 4e-3}), serving.stream(text, 12, 3, CFG.context)
    found = serving.simulated(made(), drawn, seconds, 1e9, "continuous", slots=1)
    served = found["tokens_per_s"] / drawn.sizes.mean()
    assert found["capacity_requests_per_s"] == pytest.approx(served)
    assert drawn.gaps.mean() == pytest.approx(1)  # of this draw, and not in the mean over draws
    assert max(map(len, serving.draw(text, 400, 0))) <= serving.ROWS[-1]  # was timed, or between


def test_the_gain_of_continuous_batching_is_over_draws_and_of_no_models_tokens(text, monkeypatch):
    seconds = pd.Series({1: 1e-3, 8: 2e-3})
    samples = pd.DataFrame({"process": 0, "tokens": [1, 8], "seconds": [1e-3, 2e-3]})
    served = serving.served(made(), text, 12, seconds, 3).set_index(["load", "policy"]).tokens_per_s
    monkeypatch.setattr(serving, "STREAMS", 1)
    one = serving.at_most_load(CFG, text, 12, samples, 3)
    # the clock of the model itself and of one that costs nothing agree to the last bit
    assert one["estimate"] == pytest.approx(served[1.2, "continuous"] / served[1.2, "static"])
    monkeypatch.setattr(serving, "STREAMS", 3)
    found = serving.at_most_load(CFG, text, 12, samples, 3)
    assert found["low"] < found["estimate"] < found["high"] and found["processes"] == 3
    # draws meet the times of one process after another: where a row costs as much again, of one
    dear = samples.assign(process=1, seconds=[1e-3, 8e-3])
    mixed = serving.at_most_load(CFG, text, 12, pd.concat([samples, dear]), 3)["estimate"]
    apart = serving.at_most_load(CFG, text, 12, dear, 3)["estimate"]
    assert min(apart, found["estimate"]) < mixed < max(apart, found["estimate"])


def test_pieces_of_text():
    ids = np.arange(100) % 41
    found = texts.prompts(ids, 8, 6, 0)
    assert len(found) == 6 and {p.shape for p in found} == {(1, 8)}
    assert texts.arrays(found)[0].tolist() == found[0][0].tolist()
    assert texts.stream_length(ids, 1000, 2, 20) == 49
    with pytest.raises(ValueError, match="49 test tokens a text are less than two training"):
        texts.stream_length(ids, 1000, 2, 30)
    assert texts.after_one_token(made(), ids[:8]).pos == 9


@pytest.mark.skipif(bool(native.missing()), reason="no C compiler: the engine cannot be built")
def test_the_engine_is_timed_beside_eager_and_certified(folder, text):
    plan = latency.Plan((5, 60), 1, 1, 8)
    measured = native.measure(folder, text, plan)
    samples, both = (measured[name].assign(process=0) for name in ("native", "native_loops"))
    assert (measured["native_least"] > 0).all(axis=None) and len(measured["native_least"]) == 1
    assert set(both.name) == {native.CACHED, native.RECOMPUTED} and set(both.tokens) == {5, 60}
    assert set(samples.name) == {*native.WAYS} and set(samples.tokens) == {50, 60}
    table = native.table(samples)
    value, ends = native.gain(table, native.EAGER, plan)
    assert value == pytest.approx(1) and np.isnan(ends).all()
    prompts = [texts.as_row(text[:8])]
    found = native.certified(made(), prompts, 12)
    assert native.same_tokens(found) == (12, 12)
    assert native.same_tokens(found.assign(mismatches=3)) == (9, 12)
    told = native.in_words({"native": samples, "native_loops": both}, 60)
    assert re.search(r"in the C engine \*\*\d+ times\*\*\. With that cache a token takes", told)
    assert re.search(r"where eager PyTorch on one thread takes \d+$", told)
    assert native.in_words({}, 60) == ""
    steps = pd.DataFrame({"new_tokens": [60] * 3, "ms_per_token": [3.0, 2.0, 1.0]})
    fall = native.waterfall(steps.assign(loop=latency.LOOPS[1:]), table, 60)
    assert fall.us_per_token.tolist()[:3] == [3000, 2000, 1000] and len(fall) == 7
    steps = native.steps(made(), 2)["native_steps"]
    assert set(steps.name) == set(native.STORED) and set(steps.tokens) == {64}


def test_what_a_cache_is_worth_stands_side_by_side_in_the_engine_and_eager():
    """At 500 tokens 40 times in the engine, 4 times eager: as times and in the sentence."""
    seconds = {native.CACHED: 1.0, native.RECOMPUTED: 40.0}
    eager = {"recomputing": 80.0, "static cache": 20.0, "growing cache": 21.0}
    rows = [
        dict(name=name, seconds=t * n / 500 * (1 + p), tokens=n, repeat=0, process=p, engine=engine)
        for engine, found in ((True, seconds), (False, eager))
        for name, t in found.items()
        for n in (50, 500)
        for p in range(3)
    ]
    timed = pd.DataFrame(rows)
    gains = latency.speedups(timed[~timed.engine])
    loops = native.worth({"native_loops": timed[timed.engine]}, gains)
    named = {native.CACHED, native.RECOMPUTED, native.EAGER, "eager, recomputing"}
    assert set(loops.loop) == named and len(loops) == 8
    seen = {"native_least": pd.DataFrame({"read": [2e-3, 1e-3], "operation": [1e-12, 1e-11]})}
    law = native.bench.TimeModel(1, 1, 9, 9, 9, 9, (9, 9))
    roof = native.roofline_of_one(seen, law, CFG)  # by the least of each, and nothing of the law's
    blocks, head = latency.work(CFG)
    assert (roof.weights, roof.overhead, roof.head) == (1e-3, 0, pytest.approx(head * 1e-12))
    assert roof.compute == pytest.approx(blocks * 1e-12)  # so a millisecond a token, either way
    told = native.worth_for_sentence(loops, roof, 8)
    assert (told["engine"], told["eager"]) == ("40.00", "4.00")  # paired: drift is no noise
    assert (told["n"], told["roof"]) == (500, pytest.approx(1))
    assert told["measured"] == (pytest.approx(40), (pytest.approx(40), pytest.approx(40)))
    curves = latency.least_curves(roof, latency.Plan((50, 500), 1, 1, 8))
    assert [name for _, name in curves] == ["recomputing at the peak", "a cache at the peak"]
    assert all(us == pytest.approx([1e3, 1e3]) for (_, us), _ in curves)


def test_a_step_of_the_engine_is_what_a_further_token_takes_without_the_call(monkeypatch):
    step = {"native FP32": 4.0, "native int8": 2.0, "native int4": 1.0}

    def timed(ways, repeats, **_):
        rows = [(way, r, 99 + step[way[0]] * way[1]) for way in ways for r in range(repeats)]
        return pd.DataFrame(rows, columns=["name", "repeat", "seconds"])

    monkeypatch.setattr(native, "missing", lambda: "")
    monkeypatch.setattr(native, "packed", lambda model: dict.fromkeys(native.FORMATS))
    monkeypatch.setattr(native.bench, "interleaved", timed)
    found = native.steps(made(), 2)["native_steps"]
    assert len(found) == 6 and set(found.name) == {*native.FORMATS}
    assert (found.seconds / found.tokens).tolist() == pytest.approx(found.name.map(step).tolist())


def test_without_a_compiler_the_reason_is_told(monkeypatch):
    def broken():
        raise native.BuildError("no C compiler: install one")

    monkeypatch.setattr(native, "library", broken)
    assert native.missing() == "no C compiler: install one"
    plan = latency.Plan((5,), 1, 1, 8)
    assert native.measure(None, None, plan) == native.steps(None, 1) == {}


def test_a_step_in_tensors_alone_continues_as_the_cache_does(text):
    """Without the compiler, whose product is held against eager's tokens where it is timed."""
    model, prompt = made(), text[:8].tolist()
    step = compiled.Step(model, 30).eval()
    want = compiled.generate(model, texts.as_row(prompt), 20)[0].tolist()
    assert compiled.continued(step, prompt, 20) == want
    step.keys.normal_(), step.values.normal_(std=1e4)  # what another text left behind is masked
    assert compiled.continued(step, prompt, 20) == want


def test_the_compiled_step_is_told_with_its_reason_or_its_gain(folder, text, monkeypatch):
    def refused(*_, **__):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(compiled, "continued", refused)
    plan = latency.Plan((5, 12), 1, 1, 8)
    found = compiled.measure(folder, text, plan)
    assert "no C++ compiler" in compiled.in_words(found) and np.isnan(compiled.us_per_token(found))
    times = [(p, r, n, t) for p in (0, 1) for r in (0, 1) for n, t in (("a", 4.0), ("b", 2.0))]
    samples = pd.DataFrame(times, columns=["process", "repeat", "name", "seconds"])
    names = {"a": compiled.EAGER, "b": native.COMPILED}
    samples = samples.assign(name=samples.name.map(names), tokens=10)
    compiling = pd.DataFrame({"seconds": [9.0, 3.0], "same": True, "reason": ""})
    both = {"compiled": samples, "compiling": compiling}
    assert compiled.us_per_token(both) == pytest.approx(2e5) and compiled.in_words({}).endswith(
        "longer profiles."
    )
    assert "takes 9 s once" in compiled.in_words(
        both
    ) and "2.00 times as fast as eager PyTorch, which takes 400,000 µs there" in compiled.in_words(
        both
    )
    steps = pd.DataFrame({"new_tokens": [60] * 3, "ms_per_token": [3.0, 2.0, 1.0]})
    own = pd.DataFrame({"new_tokens": 60, "loop": native.WAYS[1:], "us_per_token": 1.0})
    fall = native.waterfall(steps.assign(loop=latency.LOOPS[1:]), own, 60, 200.0)
    assert fall.step.tolist()[2:4] == ["static cache", "torch.compile"]
    assert fall.step[fall.apart].tolist() == ["torch.compile"]


def test_a_gap_is_explained_as_far_as_it_closes():
    assert latency.explained_percent(2, 8, 32) == pytest.approx(50)  # two of four doublings
