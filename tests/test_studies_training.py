"""The experiments of the chapters on training and ablations, at tiny size: known answers and
invariants."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import yaml
from scipy import stats as scipy_stats

from minitransformer.corpus import MINIMAL, SMALL, language_corpus, uniform_corpus
from minitransformer.evaluate import t_interval
from minitransformer.model import ModelConfig, Transformer
from minitransformer.train import GOOD, SEED, TrainConfig, initialize
from studies import (
    ablation,
    activations,
    architecture,
    arms,
    learning,
    seed_ablations,
    seeds,
    workers,
)
from studies.arms import Arm, Text
from ticking import ticking

pytestmark = pytest.mark.usefixtures("quick_processes")
SALT = "1a2b3c4d5e6f7890"
PROFILES = Path(__file__).resolve().parent.parent / "notebooks" / "profiles"
CFG = ModelConfig(vocab_size=43, d_model=16, n_heads=2, context=64)
TIMED = ["seconds", "tokens_per_second"]
RUN = TrainConfig(steps=9, batch_size=2, window=16, lr=1e-2, warmup=2)


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    return {"train": Text(rng.integers(0, 43, 900), rng.integers(0, 43, 129), 16)}


@pytest.fixture(scope="module")
def small():
    """A language of a few words, and the arms of the ablations on it."""
    words = language_corpus(1, SALT, SMALL, 1500, 60, 400)
    control = uniform_corpus(1, SALT, 300, 0, 150)
    texts = {"language": Text.of(words, "test", 16), "control": Text.of(control, "test", 16)}
    cfg = ModelConfig(vocab_size=words.vocab_size, d_model=32, n_heads=4, context=128)
    recipe = replace(GOOD, steps=3, batch_size=4, window=16, short_steps=1, warmup=1)
    return words, texts, ablation.changes(cfg, recipe)


# workers


def refused(item, shared, tick):
    if item == 2:
        raise ValueError(f"item {item}\nis too large: give 1")
    for step in range(600):
        tick(step)
        time.sleep(0.1)


def test_as_many_run_at_once_as_threads_cores_and_jobs_allow(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert [workers.at_once(t, 9) for t in (1, 2, 64)] == [1, 2, 4]
    assert workers.at_once(64, 3) == 3 and workers.at_once(2, 0) == 1


@pytest.mark.parametrize("count", [1, 2])
def test_a_job_that_fails_is_named_on_one_line_and_ends_the_others(count):
    began = time.monotonic()
    with pytest.raises(workers.JobFailed) as caught:
        workers.side_by_side(refused, [2, 1], None, workers=count)
    assert str(caught.value) == "2: ValueError: item 2 is too large: give 1"
    assert time.monotonic() - began < 50  # the other would take a minute
    alive = [child for child in psutil.Process().children() if child.status() != "zombie"]
    assert not [child for child in alive if "spawn_main" in str(child.cmdline())]


def killed_once(item, shared, tick):
    """Ends its process the first time it meets "b", and each time it meets "c"."""
    tick(2)
    mark = shared / item
    if item == "c" or (item == "b" and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    tick(5)
    return item.upper()


def test_what_a_killed_worker_left_is_done_once_more(tmp_path):
    told = []
    found = workers.side_by_side(killed_once, "abd", tmp_path, workers=2, done=told.append)
    assert found == ["A", "B", "D"] and (tmp_path / "b").exists()
    assert sum(told) == 15 and min(told) >= 0
    with pytest.raises(
        workers.WorkerDied, match="^a worker process died at (a or )?c( or d)?, probably"
    ):
        workers.side_by_side(killed_once, "acd", tmp_path, workers=2)


def lasting(item, shared, tick):
    """Says where it runs, and goes on until it is stopped, or ends once both are at work."""
    (shared / f"{os.getpid()}").write_text("")
    while len(list(shared.iterdir())) < 2:
        time.sleep(0.1)
    for step in range(600 * item):
        tick(step)
        time.sleep(0.1)


def test_an_interrupt_ends_the_workers_too(tmp_path):
    code = (
        "if __name__ == '__main__':\n"
        "    import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"    import sys; sys.path[:0] = {sys.path!r}\n"
        "    from pathlib import Path; from test_studies_training import lasting\n"
        "    from studies.workers import side_by_side\n"
        f"    side_by_side(lasting, [0, 1], Path({str(tmp_path)!r}), workers=2)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 120
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(0.5)
    os.killpg(parent.pid, signal.SIGINT)  # as a terminal does: to all, the idle one too
    said = parent.communicate(timeout=60)[1]
    assert said.count("KeyboardInterrupt") == 1 and "Process Spawn" not in said
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert len(pids) == 2 and not any(psutil.pid_exists(pid) for pid in pids)


FAULTS = """
import resource, torch
from studies.workers import keep_memory
kept = keep_memory()
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step(): [torch.ones(8, 256, 1004) for _ in range(8)]
for _ in range(4): step()
before = faults()
for _ in range(10): step()
print(kept, (faults() - before) / 80)
"""


def test_a_worker_keeps_the_memory_that_it_frees():
    """Without it each tensor of 8 MB costs most of its 2,008 pages, but where something small lies
    above it in the heap, which nobody decides."""
    own = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", FAULTS]
    said = subprocess.run(command, env=own, capture_output=True, text=True, check=True).stdout
    kept, found = said.split()
    if kept == "False":
        pytest.skip("this system's memory is not glibc's")
    assert float(found) < 20


# arms


def logged(arm, texts, tick):
    log = learning.learnt(arm, texts, tick).drop(columns=TIMED)
    model, _ = arms.fit(replace(arm, points=0), texts[arm.text], tick)
    weights = [p.detach().numpy().copy() for p in model.parameters()]
    return log, weights, (os.getpid(), torch.get_num_threads(), torch.is_grad_enabled())


def test_arms_are_the_same_to_the_bit_however_many_run_beside_them(texts, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # what a worker would take
    deep = Arm("deep", replace(CFG, n_layers=2), RUN, 5)
    mixed, told = [*arms.repeated(Arm("a", CFG, RUN, 3, points=3), 2), deep], []
    before = torch.get_num_threads()
    with torch.no_grad():
        alone = arms.run(logged, mixed, texts, 1)
    assert torch.get_num_threads() == before
    beside = arms.run(logged, mixed, texts, 2, progress=ticking(told.append))
    for (log, weights, here), (other, others, there) in zip(alone, beside, strict=True):
        pd.testing.assert_frame_equal(log, other, check_exact=True)
        assert all(np.array_equal(a, b) for a, b in zip(weights, others, strict=True))
        assert here == (os.getpid(), 1, True) and there[0] != here[0] and there[1:] == here[1:]
    assert [log.model[0] for log, *_ in beside] == ["a", "a", "deep"]
    assert not np.array_equal(alone[0][1][0], alone[1][1][0])  # another seed, other weights
    assert sum(told) == arms.steps(mixed)


def test_a_log_says_what_was_trained_and_scores_the_end(texts):
    told = []
    arm = Arm("a", CFG, RUN, 3, points=24)
    log = arms.run(learning.learnt, [arm], texts, 1, progress=ticking(told.append))[0]
    assert sum(told) == arms.steps([arm]) == len(log) == 9
    assert log.valid_nats.notna().sum() == 3 and log.valid_nats.notna().iloc[-1]
    assert set(log.model) == {"a"} and set(log.seed) == {3}
    assert set(log.parameters) == {architecture.counted(Transformer(CFG))}
    assert arms.scored_steps(replace(arm, points=1)) == [9]
    assert arms.scored_steps(replace(arm, points=0)) == []


def dying(arm, texts, tick):
    """As `learnt`, in a process that is killed once there is a checkpoint."""

    def deadly(steps):
        tick(steps)
        if arm.checkpoint is None:
            time.sleep(0.2)
        elif arm.checkpoint.exists():
            os.kill(os.getpid(), signal.SIGKILL)

    return learning.learnt(arm, texts, deadly)


def test_a_killed_worker_is_reported_and_its_run_goes_on_to_the_bit(texts, tmp_path):
    arm = Arm("long", CFG, replace(RUN, steps=230, batch_size=1), 3, points=4)
    kept = replace(arm, folder=tmp_path / "model", checkpoint=tmp_path / "run.pt")
    other, told = Arm("other", CFG, replace(RUN, steps=1_000), 1), []
    said = "^a worker process died at (other, seed 1 or )?long, seed 3, probably out of memory: "
    with pytest.raises(workers.WorkerDied, match=said):
        arms.run(dying, [other, kept], texts, 2, progress=ticking(told.append))
    assert sum(told) < 1_000  # at once, not when the other has ended
    assert kept.checkpoint.exists() and not kept.folder.exists()
    told = []
    whole = arms.run(learning.learnt, [arm], texts, 1)[0]
    resumed = arms.run(learning.learnt, [kept], texts, 1, progress=ticking(told.append))[0]
    equal = pd.testing.assert_frame_equal
    equal(whole.drop(columns=TIMED), resumed.drop(columns=TIMED), check_exact=True)
    assert sum(told) == 230  # what the killed one took counts as taken
    assert (kept.folder / "model.safetensors").is_file()
    again = arms.run(learning.learnt, [kept], texts, 1)[0]
    equal(again, resumed, check_exact=True)  # the very seconds: no step was taken


def test_the_arms_of_the_chapter_are_whole(small, tmp_path):
    words, _, _ = small
    shapes = learning.shapes(ModelConfig(n_heads=4, n_layers=2), 64)
    names = [name for name, _ in shapes.values()]
    assert names[:2] == ["2-block model", "2-block model (twin)"]
    assert names[2:4] == [f"smeared {name}" for name in names[:2]]
    assert learning.shapes(ModelConfig(), 64)["model"][0] == "1-block model"
    for name in ("model", "model-2block"):
        smeared = shapes[name.replace("model", "model-smeared")][1]
        assert smeared == replace(shapes[name][1], smeared_keys=True)
    assert shapes["model-gqa"][1].kv_heads == 2 and shapes["model-draft"][1].d_model == 64
    assert learning.shapes(replace(CFG, n_heads=1), 64)["model-gqa"][1].kv_heads == 1
    of_seed = learning.of_seed(SEED, 99, 5, 3, tmp_path)
    assert [arm.seed for arm in of_seed] == [5, 6, 7, 5] and of_seed[-1].cfg.vocab_size == 99
    kept = [arm.folder.name for arm in of_seed if arm.folder]
    assert kept == ["model-control", "model-control-1", "model-control-2", "model-seed"]
    assert of_seed[0].checkpoint == tmp_path / "train" / "model-control.pt"
    texts = learning.texts(words, uniform_corpus(1, SALT, 300, 0, 150), 1)
    assert {arm.text for arm in of_seed} <= set(texts)
    assert len(texts["train"].held_out) == learning.WATCHED + 1 == len(texts["train"].groups)


# seeds


def test_the_smallest_change_is_found_as_often_as_it_says():
    rng = np.random.default_rng(0)
    for n, comparisons in ((5, 1), (5, 8), (3, 4)):
        size = seeds.smallest_shown(2.0, n, comparisons)
        draws = rng.normal(size, 2.0, (20_000, n))
        score = draws.mean(1) / (draws.std(1, ddof=1) / np.sqrt(n))
        wide = t_interval(draws[0], seeds.family_level(comparisons))
        critical = (wide.interval[1] - wide.mean) / (wide.sd / np.sqrt(n))
        assert (score > critical).mean() == pytest.approx(seeds.POWER, abs=0.01)
    assert np.isfinite(seeds.smallest_shown(1.0, 2, 10))
    assert seeds.smallest_shown(0.0, 5) == 0


def test_a_further_run_falls_into_its_interval_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(4000):
        *seen, new = rng.normal(3.0, 2.0, 5)
        _, (low, high) = seeds.one_more(seen)
        inside.append(low <= new <= high)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.012)
    assert seeds.one_more([]) == seeds.mean([]) == (None, None)
    mean, (low, high) = seeds.mean([1.0, 2.0, 3.0])
    _, wide = seeds.one_more([1.0, 2.0, 3.0])
    assert wide[1] - mean == pytest.approx(2 * (high - mean))  # sqrt(n + 1)


def test_one_further_run_falls_farther_off_than_a_mean():
    values = [7.05, 7.06, 7.04, 7.08]
    t = t_interval(values)
    half = scipy_stats.t.ppf(0.975, 3) * np.std(values, ddof=1) * np.sqrt(1 + 1 / 4)
    assert t.one_more == pytest.approx((t.mean - half, t.mean + half))
    perplexity, ends = seeds.one_more_perplexity(values)
    assert perplexity == pytest.approx(np.exp(t.mean))
    assert ends == pytest.approx(tuple(np.exp(t.one_more)))
    assert seeds.one_more_perplexity([]) == (None, None)
    told, (low, high) = seeds.luck(values), t.one_more
    assert told.startswith("Over 4 ") and f"deviation of {t.sd:.3f} nats" in told
    assert told.endswith(f"between {low:.3f} and {high:.3f}.") and seeds.luck([7.0]) == ""


def test_an_estimate_is_the_column_before_its_interval():
    table = pd.DataFrame({"name": ["a", "b"], "n": [1, 2], "x": [0.5, 5], "low": [0, 4]})
    table["high"] = [1, 6]
    assert seeds.of(table, "b") == (5, (4, 6)) and seeds.of(table, "a").value == 0.5


def test_words_follow_holm_and_never_an_interval_alone():
    rng = np.random.default_rng(1)
    base = rng.normal(3.0, 0.5, 5)
    noise = rng.normal(0, 0.01, (5, 3))
    table = pd.DataFrame(
        {"default": base, "alike": base + noise[:, 0] - noise[:, 0].mean() + 0.001}
    )
    table["costs"] = base + 1 + noise[:, 1]
    table["gains"] = base - 0.2 + noise[:, 2]
    found = seeds.effects(table).set_index("change")
    assert found.reading.to_dict() == {"alike": seeds.UNCLEAR, "costs": "worse", "gains": "better"}
    assert (found.pairs == 5).all() and (found.p_holm >= found.p).all()
    assert found.difference_nats["costs"] == pytest.approx(1, abs=0.02)
    clear = found[found.reading != seeds.UNCLEAR]
    assert ((clear.low > 0) | (clear.high < 0)).all() and found.low["alike"] < 0 < found.high[
        "alike"
    ]
    # one comparison by itself would show it; among many it is not told as found
    shift = base + 0.02 * np.array([0.4, 0.9, 1.0, 1.3, 1.8])
    many = pd.DataFrame(
        {"default": base, "small": shift} | {f"x{i}": base + noise[:, i % 3] for i in range(40)}
    )
    late = table.costs.where(table.index < 3)  # two runs are missing: the others keep their pairs
    pairs = seeds.effects(table.assign(late=late)).set_index("change").pairs
    assert pairs.to_dict() == {"alike": 5, "costs": 5, "gains": 5, "late": 3}
    row = seeds.effects(many).set_index("change").loc["small"]
    assert row.p < 0.05 < row.p_holm and row.reading == seeds.UNCLEAR
    told = seeds.listed(found.reset_index(), "worse", "better")
    assert told.startswith("costs +") and "gains −0" in told
    named = found.rename({"gains": "multi-query"}).reset_index()
    assert "multi-query −0" in seeds.listed(named, "better")
    assert seeds.listed(found.reset_index(), "nothing") == "none"
    told = seeds.listed(named)
    assert told.startswith("costs +") and "multi-query −0" in told and "alike" not in told
    shown = seeds.shown(found.reset_index())
    assert "p" not in shown and shown["p after Holm"].max() == round(found.p_holm.max(), 4)


def test_an_arm_is_compared_over_the_seeds_that_it_has():
    base = np.array([3.0, 3.1, 2.9, 3.2, 3.0, 2.8])
    more = base + 0.2 + np.array([0.01, -0.01, 0.02, 0, -0.02, 0.01])
    few = np.where(np.arange(6) < 3, base + 0.01, np.nan)
    found = seeds.effects(pd.DataFrame({"default": base, "more": more, "few": few}))
    assert found.pairs.tolist() == [6, 3] and found.reading[0] == "worse"


def test_models_trained_once_are_told_apart_by_the_spread_of_a_training():
    losses = {"a": 3.0, "b": 3.01, "c": 5.0}
    told = seeds.in_words([3.0, 3.1, 2.9], losses)
    assert f"less than {seeds.unsure([3.0, 3.1, 2.9]):.2f} nats" in told
    assert told.endswith("Of the 3 pairs of trained models 2 are farther apart: a and c; b and c.")
    assert seeds.in_words([3.0, 3.1, 2.9], {"a": 1, "b": 1}).endswith(
        "1 pairs of trained models 0 are farther apart."
    )
    assert seeds.in_words([3.0], losses) == "Every model was trained once."


def test_what_cannot_be_seen_is_told_with_the_smallest_change_that_could():
    table = pd.DataFrame(
        {"change": ["a", "b", "c"], "pairs": 5, "difference_nats": [0.01, 1, -0.02]}
    )
    table["reading"] = [seeds.UNCLEAR, "worse", seeds.UNCLEAR]
    table["smallest_nats"] = [0.3, 9.0, 0.1]
    power = seeds.power(table)
    assert power.startswith("With 5 paired seeds and 3 comparisons a change shows from 0.1000 nats")
    assert power.endswith("from 9.0000 where they spread most.")
    _, _, found, why = seeds.unseen(seeds.undecided(table, []))
    assert found.endswith(": c −0.020 nats, a +0.010 nats.") and "0.1000 to 0.3000 nats" in why
    assert [*seeds.undecided(table, ["a"]).change] == ["c"]  # the longer arms decide a


# architecture


def test_the_object_is_asked_and_not_its_configuration():
    cfg = replace(CFG, context=80)
    model = initialize(Transformer(cfg), "torch", 0).eval()
    assert architecture.leak(model, 32) == 0
    taken, said = architecture.longest(model)
    assert taken == 80 and "81" in said
    for position in ("rope", "sinusoidal", "none"):
        assert architecture.positions(replace(cfg, position=position), 0) == position
    assert architecture.feed_forward(model) == "2 linear layers, relu, layernorm"
    gated = Transformer(replace(cfg, ffn="swiglu", norm="rmsnorm"))
    assert architecture.feed_forward(gated) == "3 linear layers, swiglu, rmsnorm"
    assert architecture.optimizer_name(SEED) == "Adam"
    assert architecture.optimizer_name(replace(GOOD, optimizer="adamw")) == "AdamW"
    assert architecture.optimizer_name(GOOD) == "Muon for the blocks' matrices, AdamW"
    table = architecture.recipes({"a": SEED, "b": GOOD}).set_index("setting")
    assert table.loc["optimizer"].tolist() == ["Adam", architecture.optimizer_name(GOOD)]
    assert table.loc["peak learning rate", "a"] == SEED.lr
    assert table.loc["shape of the cool-down"].tolist() == [None, GOOD.cooldown_shape]
    assert not any("_" in name for name in table.index) and len(table) == len(asdict(SEED))
    told = architecture.found(cfg, 0)
    assert (told["blocks"], told["width"], told["heads"]) == (1, 16, 2)
    assert told["parameters"] == architecture.counted(model) and told["tokens accepted"] == 80
    assert told["of embedding and head"] == 2 * 43 * 16 + 43
    table = architecture.parameter_table(cfg, (16, 32)).set_index("part")
    assert table["width 16"]["total"] == architecture.counted(model)


def test_a_leak_is_seen():
    model = initialize(Transformer(CFG), "torch", 0).eval()
    block, plain = model.blocks[0], model.blocks[0].forward

    def looking_ahead(*args, **kwargs):
        x = plain(*args, **kwargs)
        return x + x.mean(1, keepdim=True)

    block.forward = looking_ahead
    assert architecture.leak(model, 32) > 0


# learning


def test_the_scaled_initialisation_starts_at_a_uniform_guess(texts):
    table = learning.first_losses(replace(CFG, context=128), texts["train"].train, (32, 64), 0)
    by = table.set_index(["initialisation", "width"]).above_uniform_nats
    assert by["scaled", "width 32"] == pytest.approx(0.02, abs=0.03)
    assert by["torch", "width 32"] > by["scaled", "width 32"] > 0  # the mean of all: never below
    up, down = table.high - table.above_uniform_nats, table.above_uniform_nats - table.low
    assert up.max() > 0 <= up.min() and up.to_numpy() == pytest.approx(down, abs=0.003)
    starts = [
        learning.first_losses(replace(CFG, context=128), texts["train"].train, (32,), seed)
        for seed in (0, 50)
    ]  # other initialisations: another mean, in the same interval
    assert starts[0].loss_nats[1] != starts[1].loss_nats[1]
    assert list(learning.scaled(table).width) == ["width 32", "width 64"]
    assert set(learning.scaled(table).initialisation) == {"scaled"}


def test_word_counts_cost_their_cross_entropy():
    text = Text(np.array([0, 0, 1]), np.array([2, 0, 1]), 2)
    assert learning.word_counts(text, 3) == pytest.approx(-np.log([3 / 6, 2 / 6]).mean())


def test_losses_lie_between_a_guess_and_the_source(small):
    words, _, _ = small
    (guess, _), (counts, _), (floor, name) = learning.limits(words, 5.0)
    assert guess == np.log(words.vocab_size) > counts == 5.0 > floor == words.floor_nats
    assert name == "entropy of the source"
    assert len(learning.limits(replace(words, floor_nats=None), 5.0)) == 2


def test_a_recipe_warms_up_over_a_tenth_of_its_steps_at_its_own_rate():
    short = learning.recipe(GOOD, 30, window=64)
    assert short == replace(GOOD, steps=30, window=64, warmup=3)
    assert learning.recipe(GOOD, 10**6).warmup == GOOD.warmup
    assert learning.recipe(GOOD, 1, lr=0.5).lr == 0.5 and learning.recipe(GOOD, 1).warmup == 1
    assert learning.read_percent(SEED) == 100 * SEED.tokens / 40_000


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shorter_runs_are_the_headline_s_in_small(path):
    """A run that ends on its short windows says nothing of one that does not."""
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    steps = given["steps"]
    main = learning.recipe(GOOD, steps, short_steps=given["short_steps"])
    assert learning.shortened(main, steps) == main
    for name in ("spread_steps", "gqa_steps", "draft_steps"):
        own = learning.shortened(main, given[name])
        assert own.steps == given[name] and own.warmup >= 1
        assert own.short_steps / own.steps == pytest.approx(main.short_steps / steps, abs=0.1)


def test_every_shape_is_trained_for_its_own_updates(tmp_path):
    shapes = learning.shapes(CFG, 32)
    plans = learning.of_shapes(shapes, range(1, 7), RUN, 3, tmp_path)
    assert [arm.recipe for arm in plans] == [learning.shortened(RUN, n) for n in range(1, 7)]
    assert [arm.folder for arm in plans] == [tmp_path / folder for folder in shapes]
    assert plans[1].cfg.n_layers == 2 and {arm.seed for arm in plans} == {3}
    more = learning.shorter(CFG, RUN, 3, 2)
    assert [(arm.name, arm.seed) for arm in more] == [("spread", 4), ("spread", 5)]


def test_tables_are_read_off_the_log():
    log = pd.DataFrame({"model": ["a"] * 4 + ["b"] * 2, "seed": [1, 1, 2, 2, 1, 1]})
    log["step"], log["tokens"], log["parameters"] = [1, 2] * 3, [10, 20] * 3, 7
    log["loss_nats"] = [5.0, 4, 6, 5, 3, 2]
    log["valid_nats"] = [np.nan, 4.5, np.nan, 5.5, 3.5, 2.5]
    log["excess_bigram_nats"] = [np.nan, 1, np.nan, 2, 4, 1]
    log["tokens_per_second"] = [1.0, 3, 2, 2, 5, 5]
    found = learning.runs(log, "a")
    assert found.run.tolist() == [0, 1] and found.seed.tolist() == [1, 2]
    assert found.first_nats.tolist() == [5, 6] and found.test_nats.tolist() == [4.5, 5.5]
    assert learning.runs(log, "a", "valid").valid_nats.tolist() == [4.5, 5.5]
    end = learning.ends(log).set_index("model")
    assert end.index.tolist() == ["a (the first of 2)", "b"]  # of b there is one
    assert end.valid_nats.tolist() == [4.5, 2.5] and end.tokens_per_second.tolist() == [2, 5]
    assert len(learning.curves(log, ["b"])) == 2
    own = learning.mechanisms(log, "b")
    assert own.mechanism.tolist() == ["bigram"] * 2 and own.excess_nats.tolist() == [4, 1]
    half = learning.halved(log[log.seed == 1], ["a", "b"])
    assert [*half.columns[:2]] == ["model", "mechanism"]  # what names a row comes first
    half = half.set_index("model")
    assert half.halved_at_tokens.isna()["a"] and half.halved_at_tokens["b"] == 20
    assert half.first_nats.tolist() == [1, 4] and half.last_nats.tolist() == [1, 1]
    assert learning.mechanisms(log.drop(columns="excess_bigram_nats"), "b").empty
    four = pd.concat([log.assign(model=log.model + mark) for mark in ("", "2")])
    told = learning.final(four, ["b", "a", "b2", "a2", "c"])
    assert told == {
        "name": "b", "tokens": "20", "one": 2.5, "two": 4.5, "smeared": 2.5, "both": 4.5,
        "source": "",
    }  # fmt: skip
    told = learning.final(four, ["b", "a", "b2", "a2", "c"], 3.2)
    assert told["source"] == "; the source's own entropy is 3.20"
    beside = learning.joined([log, log], 1)
    assert len(beside) == 12 and set(beside.side_by_side) == {1}
    seen = learning.on_control(found, RUN, 43)
    assert seen["first"] == seeds.one_more([5, 6]) and seen["last"] == seeds.one_more([4, 5])
    assert seen["above"] == pytest.approx(5.5 - np.log(43))
    assert (seen["batch"], seen["test"]) == (32, 5.0)


# ablations


def test_what_the_default_has_learnt_of_each_mechanism_is_told_by_its_worth(monkeypatch):
    stops = pd.DataFrame(
        {"arm": ["other", "default"], "excess_bigram_nats": [9, 0.1], "excess_offset_nats": [9, 2]}
    )
    worth = {"free": 0.0, "bigram": 1.0, "offset": 2.0}
    monkeypatch.setattr(ablation.error_budget, "worth", lambda data, names: worth)
    assert ablation.recovered(stops, None) == "bigram 90 %, offset none"
    told = ablation.learnt(stops.assign(learnt_percent=[9.0, 77.0]), None)
    assert told == {"share": 77.0, "each": "bigram 90 %, offset none"}


def test_the_text_and_the_recipe_of_the_arms_are_their_own(small):
    words, _, _ = small
    own = ablation.corpus(words, "minimal", 1, SALT, (300, 40, 40))
    assert own.vocab_size == MINIMAL.vocab_size and len(own.splits["train"]) == 300
    given = replace(words, meta={**words.meta, "kind": "text"})
    assert given.kind != "text" or ablation.corpus(given, "minimal", 1, SALT, (1, 1, 1)) is given
    short = ablation.recipe(40, 4, 16)
    assert (short.optimizer, short.short_steps, short.short_window) == ("adamw", 0, 16)
    assert (short.steps, short.warmup, short.batch_size, short.window) == (40, 2, 4, 16)
    made = ablation.texts(words, uniform_corpus(1, SALT, 300, 0, 150), 16, 99)
    assert len(made["language"].held_out) == 99 and made["control"].window == SEED.window
    assert ablation.limits(words) == [(words.floor_nats, "entropy of the source")]
    assert ablation.limits(replace(words, floor_nats=None)) == []


def test_every_arm_changes_one_thing_at_equal_tokens():
    cfg, recipe = ModelConfig(vocab_size=254), replace(GOOD, batch_size=4, window=128)
    changed = ablation.changes(cfg, recipe)
    sizes = {name: arms.size(own) for name, (own, _) in changed.items()}
    assert len({plan.tokens for _, plan in changed.values()}) == 1
    for name in ("grouped queries", "multi-query"):
        assert abs(sizes[name] / sizes["default"] - 1) < 1e-3
        assert changed[name][0].kv_heads < cfg.n_heads
    for name, (own, plan) in changed.items():
        differs = [k for k in vars(own) if vars(own)[k] != vars(cfg)[k] and k != "d_ff"]
        assert len(differs) + (plan.window != recipe.window) == (name != "default"), name
    assert not any("window" in name for name in ablation.changes(cfg, replace(recipe, window=64)))
    assert len(ablation.arms(changed, 7, 3)) == 3 * len(changed)
    told = ablation.described(changed).set_index("arm")
    assert told.changes["default"] == "-" and told.changes["window 64 read in 128"] == "window"
    assert told.changes["multi-query"] == "n_kv_heads, d_ff" and told.parameters.to_dict() == sizes


@pytest.fixture(scope="module")
def found(small):
    words, texts, changed = small
    few = {
        name: changed[name]
        for name in ("default", "sinusoidal positions", "no positions", "multi-query")
    }
    both = [*ablation.arms(few, 1, 2), *seed_ablations.arms(replace(SEED, steps=1), 1, 2)]
    both = [arm for arm in both if arm.name != "width 256"]
    return arms.run(ablation.scored, both, texts, 1)


def test_arms_are_scored_where_they_were_trained_and_positions_beyond(small, found):
    words, texts, changed = small
    losses = ablation.joined(found, "losses")
    own = losses[losses.text == "language"]
    assert set(own[own.arm == "multi-query"].evaluated_window) == {16}
    assert set(own[own.arm == "no positions"].evaluated_window) == {16, 64, 128}
    home = ablation.at_home(own, 16)
    assert list(home)[0] == "default" and home.notna().all(axis=None) and len(home) == 2
    # the excesses by mechanism, weighted by how often each occurs, are the loss over the oracle
    first = own[(own.arm == "default") & (own.seed == 1)].iloc[0]
    shares = pd.Series(words.mechanism["test"][1:]).value_counts(normalize=True)
    excess = sum(
        shares[i] * first[f"excess_{n}_nats"] for i, n in enumerate(texts["language"].names)
    )
    assert excess == pytest.approx(first.nats + words.oracle["test"][1:].mean())
    stops = ablation.stops(own, 16, words).set_index("arm")
    assert stops.nats["default"] == pytest.approx(
        own[own.arm == "default"].groupby("evaluated_window").nats.mean()[16]
    )
    guess = np.log(words.vocab_size)
    way = 100 * (guess - stops.nats) / (guess - words.floor_nats)
    assert stops.learnt_percent.to_numpy() == pytest.approx(way.to_numpy())
    both = ablation.results(found, 1)
    assert set(both[0].side_by_side) == {1} and both[0].drop(columns="side_by_side").equals(losses)
    assert both[1].equals(ablation.joined(found, "formats"))


def test_the_control_is_scored_as_the_training_chapter_scores_it(small, found):
    text, (name, cfg) = small[1]["control"], next(iter(seed_ablations.models().items()))
    arm = arms.Arm(name, cfg, replace(SEED, steps=1), 1, "control", points=1)
    _, rows = arms.fit(arm, text, lambda step: None)
    own = seed_ablations.losses(ablation.joined(found, "losses"), name)
    assert own[0] == pytest.approx(rows[-1]["valid_nats"], rel=1e-6)


def test_contrasts_are_paired_by_seed(small, found):
    losses = ablation.joined(found, "losses")
    own = losses[losses.text == "language"]
    wide = own[own.evaluated_window == 128].pivot(index="seed", columns="arm", values="nats")
    mean, (low, high) = ablation.rotary_gain(own, 128, 0.99)
    assert mean == pytest.approx((wide["default"] - wide["sinusoidal positions"]).mean())
    assert low < mean < high
    assert ablation.rotary_gain(own, 96, 0.95) == (None, None)  # not evaluated there
    lengths = ablation.by_length(own)
    assert set(lengths.positions) == {"rotary", "sinusoidal", "none"}
    assert ((lengths.low <= lengths.nats) & (lengths.nats <= lengths.high)).all()
    home = pd.DataFrame({"width 64": [4.0, 4.2], "default": [3.0, 3.0], "width 256": [2.5, 2.6]})
    assert ablation.bend(home, 0.95)[0] == pytest.approx(0.65)  # 1.1 gained first, then 0.45


def test_costs_stand_beside_changes(small, found):
    _, _, changed = small
    own = ablation.joined(found, "losses").query("text == 'language'")
    effects = seeds.effects(ablation.at_home(own, 16))
    names = {"multi-query": "all share", "default": "none shares"}
    table = ablation.costs(effects, own, changed, names).set_index("what")
    assert table.difference_nats["none shares"] == 0 and np.isnan(table.low["none shares"])
    change = effects.set_index("change").difference_nats["multi-query"]
    assert table.difference_nats["all share"] == change and list(table.index) == [*names.values()]
    assert table.cache_bytes_per_token.tolist() == [2 * 8 * 4, 2 * 32 * 4]
    assert table.kv_heads.tolist() == [1, 4] and (table.step_ms > 0).all()
    sized = pd.DataFrame({"parameters": [1000, 1001, 998]})
    assert ablation.parameters_apart(sized) == pytest.approx(0.2)


def test_formats_are_added_to_the_float_model(small, found):
    added = ablation.joined(found, "formats")
    assert set(added.seed) == {1, 2} and len(added) == 2 * len(activations.formats())
    table = activations.over_seeds(added).set_index("format")
    assert (
        abs(table.added_nats["int8 weights"]) < 0.01 < abs(table.added_nats["int4 weights"]) + 0.01
    )
    mean, _ = activations.between(added, "int4 weights", "int8 weights", 0.95)
    difference = table.added_nats["int4 weights"] - table.added_nats["int8 weights"]
    assert mean == pytest.approx(difference)
    wide = added.pivot(index="seed", columns="format", values="added_nats")
    gain = wide["+ int8 activations by token, asymmetric"]
    gain -= wide["+ int8 activations by token, symmetric"]
    assert activations.zero_points(added, 0.95).value == pytest.approx(gain.mean())


def test_the_seeds_table_without_runs_is_empty_and_says_so(found):
    losses = ablation.joined(found, "losses")
    table = seed_ablations.table(losses).set_index("variant")
    assert table.runs.to_dict() == {"width 64": 2, "width 128": 2, "width 256": 0, "sinusoidal": 2}
    nats = seeds.one_more(seed_ablations.losses(losses, "width 64"))
    assert table.perplexity["width 64"] == pytest.approx(np.exp(nats.value))
    assert table.high["width 64"] == pytest.approx(np.exp(nats.interval[1]))
    assert table.low["width 64"] < table.perplexity["width 64"] < table.high["width 64"]
    none = losses[losses.text == "language"]
    assert seed_ablations.widths(losses) == "64, 128" and seed_ablations.widths(none) is None
    rotary = seed_ablations.losses(losses, "width 128") - seed_ablations.losses(
        losses, "sinusoidal"
    )
    assert seed_ablations.rotary_gain(losses).value == pytest.approx(rotary.mean())
    assert seed_ablations.rotary_gain(none) == seeds.Estimate()
    assert seed_ablations.sizes()[128] == 456_556
    assert seed_ablations.table(none).perplexity.isna().all()
    assert seed_ablations.per_doubling(none) == (None, None)
    assert len(seed_ablations.losses(losses, "sinusoidal")) == 2
    times = pd.DataFrame({"seed": [1, 1, 1, 2, 2, 2], "text": "control"})
    times["arm"] = ["width 64", "width 128", "width 256"] * 2
    times["step_ms"] = [1.0, 2, 6, 1, 3, 6]
    assert seed_ablations.per_doubling(times)[0] == pytest.approx(2.0)


def test_two_single_trainings_are_apart_from_a_difference_on():
    """By the spread of a few: √2 · sd · Student's t, which holds for 95 % of drawn pairs."""
    values = np.array([3.90, 3.92, 3.91])
    assert seeds.unsure(values) == pytest.approx(np.sqrt(2) * 0.01 * 4.3027, rel=1e-3)
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(4000, 5))
    held = [abs(d[3] - d[4]) < seeds.unsure(d[:3]) for d in draws]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)
    losses = {"one": 3.5, "two": 3.4, "draft": 3.48}
    told = seeds.in_words(values, losses)
    assert "3 shorter trainings" in told and "less than 0.06 nats" in told
    assert told.endswith(" 2 are farther apart: one and two; two and draft.")
    alike = seeds.in_words(values, dict.fromkeys("abcd", 3.5))
    assert alike.endswith("Of the 6 pairs of trained models 0 are farther apart.")
    assert seeds.in_words(values[:1], losses) == "Every model was trained once."
