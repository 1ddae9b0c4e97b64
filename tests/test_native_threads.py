"""Threads of the engine: the same bits for any number of them, from any caller, in any process."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import minitransformer
from minitransformer.cache import make_cache
from minitransformer.model import ModelConfig
from minitransformer.native import NativeModel, generate, pays_above
from minitransformer.native import threads as module
from minitransformer.native.build import FLAGS, SOURCE, compiler
from minitransformer.quant import quantize
from native_models import (
    CONFIGS,
    FORCES,
    ROUNDED,
    WEIGHT_ONLY,
    even_rope,
    ids_of,
    model_of,
    needs_compiler,
)

pytestmark = needs_compiler
HERE = Path(__file__).parent
CFG = ModelConfig(vocab_size=300, d_model=64, n_layers=2, context=64)
KINDS = {
    "static": {},
    "paged": {"block_size": 4},
    "int8": {},
    "paged-int4": {"block_size": 3},
    "window": {"window": 9, "sinks": 2},
}
EACH_KIND = [None, WEIGHT_ONLY[0], WEIGHT_ONLY[7], WEIGHT_ONLY[10], ROUNDED[0], ROUNDED[3]]
FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")


@settings(max_examples=25)
@given(
    CONFIGS,
    st.sampled_from([None, *WEIGHT_ONLY, *ROUNDED]),
    st.sampled_from(FORCES),
    st.integers(1, 3),
    st.sampled_from([1, 2, 3, 5, 8, 16, 70]),
)
def test_threads_do_not_change_a_bit(cfg, scheme, force, batch, n):
    assume(even_rope(cfg))
    model, ids = model_of(cfg), ids_of(cfg, batch, n)
    model = model if scheme is None else quantize(model, scheme)
    one, *more = (NativeModel(model, force=force, threads=t)(ids) for t in (1, 2, 3))
    assert all(torch.equal(one, other) for other in more)


@pytest.mark.parametrize("scheme", EACH_KIND, ids=str)
def test_nor_where_panels_come_in_blocks(scheme):
    """Every product, of matrices of many units of panels and several blocks, for 1 to 16 rows."""
    cfg = ModelConfig(vocab_size=500, d_model=200, n_heads=4, d_ff=900, context=64)
    engine = NativeModel(model_of(cfg) if scheme is None else quantize(model_of(cfg), scheme))
    for n in (*range(1, 17), 64):
        ids = ids_of(cfg, 1, n)
        one, *more = (engine.with_threads(t)(ids) for t in (1, 2, 3, 7))
        assert all(torch.equal(one, other) for other in more), n


@pytest.mark.parametrize("scheme", [None, ROUNDED[3]], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_nor_over_any_cache(kind, scheme):
    """A prompt, then tokens one by one, of one sequence and of several."""
    model = model_of(CFG) if scheme is None else quantize(model_of(CFG), scheme)
    for batch in (1, 4):
        texts = []
        for threads in (1, 2, 3):
            cache = make_cache(CFG, kind, batch, 64, **KINDS[kind])
            engine = NativeModel(model, threads=threads)
            text = generate(engine, ids_of(CFG, batch, 19), 30, cache=cache)
            texts.append((text, engine(text[:, -1:], cache)))
        for text, logits in texts[1:]:
            assert torch.equal(text, texts[0][0]) and torch.equal(logits, texts[0][1])


def test_callers_at_once_do_not_meet():
    """One of them has the pool, the others work alone meanwhile; two share a model."""
    engines = [NativeModel(model_of(CFG, seed), threads=2 + seed) for seed in range(3)] * 3
    alone = [generate(engine, ids_of(CFG, 1, 5), 40) for engine in engines]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda e: generate(e, ids_of(CFG, 1, 5), 40), engines))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def process(code):
    """What a new process prints that runs `code` after this file's imports, and its exit is 0."""
    env = {**os.environ, "PYTHONPATH": f"{Path(minitransformer.__file__).parent.parent}:{HERE}"}
    env["OMP_NUM_THREADS"] = "1"  # PyTorch has no threads beside those that are counted
    code = f"import os, sys, time, torch\nfrom test_native_threads import *\n{code}"
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def states():
    """Of the threads of this process, S for one that sleeps."""
    stats = [task.joinpath("stat").read_text() for task in Path("/proc/self/task").iterdir()]
    return [stat.rpartition(")")[2].split()[0] for stat in stats]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc to look into")
def test_workers_start_when_needed_sleep_when_idle_and_end_with_the_process():
    """A process of its own, which is left while they sleep."""
    alone, shared, again = process(
        "engine, ids, before = NativeModel(model_of(CFG), threads=3), ids_of(CFG, 1, 9), states()\n"
        "engine.with_threads(1)(ids), print(len(states()) - len(before))\n"
        "engine(ids), print(len(states()) - len(before))\n"
        "while states().count('S') < len(states()) - 1: time.sleep(0.01)\n"
        "engine(ids), print(len(states()) - len(before))"
    ).split()
    assert (alone, shared, again) == ("0", "2", "2")


@FORKS
def test_a_child_has_workers_of_its_own():
    """It forks while they sleep, and while another thread's job is under way."""
    said = process(
        "engine, ids = NativeModel(model_of(CFG), threads=3), ids_of(CFG, 1, 9)\n"
        "expected, same, exits = engine(ids), True, []\n"
        "with ThreadPoolExecutor(1) as pool:\n"
        "    busy = pool.submit(lambda: [engine(ids) for _ in range(300)])\n"
        "    for _ in range(5):\n"
        "        child = os.fork()\n"
        "        same = all(torch.equal(engine(ids), expected) for _ in range(20))\n"
        "        if not child: os._exit(0 if same and len(states()) == 3 else 1)\n"
        "        exits.append(os.waitpid(child, 0)[1])\n"
        "    same = same and all(torch.equal(one, expected) for one in busy.result())\n"
        "print(same, sum(exits))"
    )
    assert said == "True 0"


def test_no_race_is_seen(tmp_path):
    """The C program beside this file, with the engine in it, under ThreadSanitizer: callers at once
    and in a child, in every kind of format."""
    made = tmp_path / "program"
    source = ["-I", str(SOURCE.parent), str(HERE / "native_threads.c"), "-o", str(made)]
    flags = ["-O1", "-g0", "-pthread", "-Wno-psabi", "-DPORTABLE", "-fsanitize=thread"]
    command = [*compiler(), *FLAGS, *flags, *source, "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no sanitizer: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    fixed = ["setarch", "-R"] if Path("/usr/bin/setarch").exists() else []  # addresses it knows
    env = {**os.environ, "TSAN_OPTIONS": "die_after_fork=0"}
    done = subprocess.run([*fixed, str(made)], env=env, capture_output=True, text=True)
    if "unexpected memory mapping" in done.stderr or "setarch" in done.stderr:
        pytest.skip("ThreadSanitizer does not know how this system lays memory out")
    assert done.returncode == 0 and done.stdout == "the same\n", done.stderr[-3000:]


@pytest.mark.parametrize("threads", [0, -1, 65, 10**6, 1.5, "two", True, float("nan")])
def test_wrong_numbers_of_threads(threads):
    engine = NativeModel(model_of(CFG))
    for make in (
        lambda: NativeModel(model_of(CFG), threads=threads),
        lambda: engine.with_threads(threads),
    ):
        with pytest.raises(ValueError, match=r"^threads .*: give 1 to 64$"):
            make()


@pytest.mark.parametrize(
    "pays, above", [((), None), ((1024,), 2**20), ((1024, 512), 2**19), ((512,), None)]
)
def test_by_default_threads_are_pytorchs_where_they_were_measured_to_pay(pays, above, monkeypatch):
    """From the smallest size from which every larger one paid; one thread where none did, and where
    PyTorch has one."""

    def seconds(engine, weights, x, y, rows):
        return [1.0, 0.6 if rows in pays else 0.95]

    monkeypatch.setattr(module, "product_seconds", seconds)
    monkeypatch.setattr(module, "cores", lambda: 4)
    pays_above.cache_clear()
    before = torch.get_num_threads()
    try:
        assert pays_above() == above
        for threads in (1, 3, 8):
            torch.set_num_threads(threads)
            engine = NativeModel(model_of(CFG))
            most = 1 if above is None else min(threads, 4)
            assert engine.threads == most
            assert most == 1 or engine.struct.grain == above // 2
    finally:
        torch.set_num_threads(before)
        pays_above.cache_clear()


def test_what_pays_is_asked_of_the_same_variant(monkeypatch):
    asked = []
    monkeypatch.setattr(module, "pays_above", asked.append)
    monkeypatch.setattr(module, "cores", lambda: 4)
    monkeypatch.setattr(module.torch, "get_num_threads", lambda: 2)
    engine = NativeModel(model_of(CFG), force="portable").with_threads(None)
    assert asked == ["portable"] * 2 and engine.threads == 1
    assert engine.engine.engine_instructions() == b"portable"


def test_what_pays_is_measured_once():
    pays_above.cache_clear()
    above = pays_above()
    assert above is None or 4 * 256 * 128 <= above <= 4 * 256 * 1024
    assert pays_above() is above and pays_above.cache_info().misses == 1
