"""Real texts: budgets are planned and kept, what is finished is not trained again, sizes are
predicted as they are, and nanoGPT's log is read as it is written."""

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch.optim.optimizer import _global_optimizer_pre_hooks as HOOKS

from minitransformer.bench import parameters, training_bytes, training_flops
from minitransformer.model import ModelConfig, Transformer
from paper import bars
from studies import kept_texts, nanogpt, presets, real_texts, update_costs

TINY = presets.BUDGETS["a second"]
LOG = """tokens per iteration will be: 768
number of parameters: 0.80M
step 0: train loss 4.1676, val loss 4.1649
iter 0: loss 4.1828, time 900.00ms, mfu -100.00%
iter 1: loss 4.1, time 100.00ms, mfu -100.00%
iter 2: loss 4.0, time 100.00ms, mfu -100.00%
iter 3: loss 3.9, time 100.00ms, mfu -100.00%
iter 4: loss 3.8, time 100.00ms, mfu -100.00%
iter 5: loss 3.7, time 20.00ms, mfu 1.00%
step 6: train loss 3.6, val loss 3.5
saving checkpoint to out-shakespeare-char
iter 6: loss 3.6, time 5000.00ms, mfu 1.00%
iter 7: loss 3.5, time 40.00ms, mfu 1.00%
"""


def test_steps_fit_their_budget_with_a_margin():
    assert real_texts.planned(100, 0.1) == 920
    assert real_texts.planned(0.5, 1.0) == real_texts.planned(-3, 1.0) == 1
    brief = real_texts.over(replace(TINY.recipe, warmup=30), 40)
    assert (brief.steps, brief.warmup) == (40, 4)


def test_a_budget_is_planned_trained_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(real_texts, "plan", lambda *_: {"steps": 12, "pace": 0.1, "spent": 2.0})
    told = []
    corpus = real_texts.corpora({"t": TINY}, None)[0][TINY.text]
    row, curve = real_texts.reached("t", TINY, corpus, tmp_path / "t")
    assert row["steps"] == 12 and row["tokens"] == 12 * TINY.recipe.batch_size * TINY.recipe.window
    assert row["seconds"] > 2.0 and curve.seconds.is_monotonic_increasing
    assert math.exp(row["nats"]) == pytest.approx(row["perplexity"])
    assert row["low"] < row["nats"] < row["high"] and row["nats"] < math.log(corpus.vocab_size)
    assert row["parameters"] == real_texts.reader_table([row]).parameters[0]
    monkeypatch.setattr(real_texts, "trained", None)  # what is finished needs no training
    kept = real_texts.spent(
        {"t": TINY, "absent": replace(TINY, text="x")},
        {TINY.text: corpus},
        tmp_path,
        lambda own, what: told.append(what) or own,
    )
    assert kept[0] == [row] and len(kept[1]) == 1 and told == ["budgets of seconds"]
    assert not (tmp_path / "t" / "checkpoint.pt").exists()


def test_an_interrupted_budget_keeps_its_plan(tmp_path, monkeypatch):
    corpus = real_texts.corpora({"t": TINY}, None)[0][TINY.text]
    plans = iter(({"steps": 9, "pace": 0.1, "spent": 0.0},))
    monkeypatch.setattr(real_texts, "plan", lambda *_: next(plans))

    def killed(row):
        raise KeyboardInterrupt

    with monkeypatch.context() as once, pytest.raises(KeyboardInterrupt):
        once.setattr(real_texts, "Monitor", lambda *_: killed)
        real_texts.trained(TINY, corpus, tmp_path)
    assert len(real_texts.trained(TINY, corpus, tmp_path)[2]) == 9


def test_the_pace_is_measured_and_counted():
    corpus = real_texts.corpora({"t": TINY}, None)[0][TINY.text]
    model = Transformer(replace(TINY.cfg, vocab_size=corpus.vocab_size))
    before = [p.clone() for p in model.parameters()]
    ids = torch.zeros(2, 9, dtype=torch.long)
    for seconds in (1e-3, 30):  # few steps at least, and a hundredth of the budget
        found = real_texts.plan(replace(TINY, seconds=seconds), model, lambda step: ids)
        least = max(real_texts.CALIBRATED / 2 * found["pace"], real_texts.TRIAL * seconds)
        assert found["spent"] >= least > 0
        assert found["steps"] == real_texts.planned(seconds - found["spent"], found["pace"])
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_text_that_is_not_there_says_so(monkeypatch):
    def absent(*given, **named):
        raise FileNotFoundError("no network: put the file there by hand")

    monkeypatch.setattr(real_texts, "text_corpus", absent)
    found, why = real_texts.corpora(presets.BUDGETS, None)
    assert set(found) == {presets.GENERATED}
    assert set(why) == {b.text for b in presets.BUDGETS.values()} - set(found)


def test_nothing_is_downloaded(monkeypatch):
    def download(*given, **named):
        raise AssertionError("text_corpus downloads what is not there")

    monkeypatch.setattr(real_texts, "text_corpus", download)
    monkeypatch.setattr(real_texts, "on_disk", lambda *_: {})
    found, absent = real_texts.corpora(real_texts.chosen(["all"]), None)
    told = real_texts.at_hand(found, absent)
    assert told.startswith(
        "Texts at hand: none. tinyshakespeare, wikitext-2, tinystories, quijote:"
    )
    assert told.count("CORPORA_DIR") == 1


def test_what_was_not_run_is_told():
    row = {"budget": "a second", "text": presets.GENERATED, "seconds": 0.97, "nats": 4.9,
           "low": 4.86, "high": 4.94, "ngram": "Kneser-Ney 3", "ngram_nats": 4.1}  # fmt: skip
    assert real_texts.not_run([row], ["a second"]) == (
        "Not in this profile: a fifth, 3 minutes, 8 minutes, 30 minutes, 20 minutes, 40 minutes, "
        "stories, quijote."
    )
    assert real_texts.not_run([], ["a fifth"]).endswith(" or of nanoGPT: “a fifth”.")
    every = [row | {"budget": name} for name in presets.BUDGETS]
    assert real_texts.not_run(every, ["all"]) == "Every budget was spent."
    assert (
        "1 s of training on the synthetic language reach 4.900 [4.860, 4.940] nats a token"
    ) in real_texts.answer([row], {})
    lost = "; this run itself lacked the text of t."
    assert real_texts.answer([row], {"t": "lost"}).endswith(lost)
    old = real_texts.answer([row | {"date": "2026-01-01"}], {})
    assert old.startswith("1 s of training on the synthetic language, measured apart, reach 4.900")
    assert (
        real_texts.answer([], {"t": "lost"})
        == "No budget was spent here (this run itself lacked the text of t)."
    )
    assert real_texts.answer([], {}) == "No budget was spent here (nanoGPT was not run)."


def test_the_worst_real_text_stands_for_all():
    row = {"text": presets.GENERATED, "nats": 4.9, "low": 4.8, "high": 5.0}
    row |= {"ngram_nats": 4.1, "allowed_seconds": 1}
    real = [row | {"text": t, "nats": 1.0, "low": 0.75, "high": 1.5, "ngram_nats": n}
            for t, n in (("a", 1.5), ("b", 1.25))]  # fmt: skip
    brief = real[0] | {
        "nats": 2.0,
        "allowed_seconds": 0.5,
    }  # which another budget of its text beats
    assert real_texts.below_ngram([row, *real, brief]) == (-0.25, (-0.5, 0.25))
    assert real_texts.below_ngram([row]) is None


def test_all_budgets_are_those_of_real_texts():
    assert "a second" not in real_texts.chosen(["all"])
    assert list(real_texts.chosen(["a second"])) == ["a second"]


@pytest.mark.parametrize("name", presets.SIZES)
def test_the_parameters_of_a_size_are_those_of_its_model(name):
    cfg, _, _ = presets.SIZES[name]
    with torch.device("meta"):
        model = Transformer(cfg)
    assert sum(p.numel() for p in model.parameters()) == sum(parameters(cfg).values())


def test_the_small_preset_keeps_to_its_size():
    small = sum(parameters(replace(presets.SMALL, vocab_size=243)).values())
    assert small == 819_840 <= 830_000  # 243: 65 characters, and the bytes of any other
    larger = sum(parameters(replace(presets.LARGER, vocab_size=243)).values())
    assert larger <= 11e6


BLOCK = ModelConfig(64, 64, 3, 4, context=64, norm="rmsnorm", ffn="relu2", bias=False, qk_norm=True)


@pytest.mark.parametrize(
    "changes",
    [{}, {"qk_norm": False}, {"ffn": "gelu"}, {"ffn": "swiglu"}, {"norm": "layernorm"},
     {"ffn": "relu", "bias": True}, {"n_kv_heads": 2}, {"smeared_keys": True}],
    ids=str,
)  # fmt: skip
def test_what_a_forward_keeps_is_predicted(changes):
    """All that autograd holds until the backward, weights aside, against the formula."""
    cfg = replace(BLOCK, **changes)
    model = Transformer(cfg)
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    held = {}

    def pack(t):
        storage = t.untyped_storage()
        if t.is_floating_point() and storage.data_ptr() not in own:
            held[storage.data_ptr()] = (storage.nbytes(), t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        model(torch.zeros(4, 32, dtype=torch.long))
    kept = sum(nbytes for nbytes, _ in held.values())
    assert training_bytes(cfg, 4, 32)["activations"] == pytest.approx(kept, rel=0.03)


def test_operations_of_an_update_scale_with_its_tokens():
    assert training_flops(BLOCK, 8, 32) == 2 * training_flops(BLOCK, 4, 32)
    matrices = 3 * 12 * 64 * 64 + 64 * 64  # of three blocks, and the head
    assert training_flops(BLOCK, 1, 1) == 6 * matrices + 6 * 3 * 2 * 64  # attention: one pair


def test_predictions_stand_beside_what_was_measured(monkeypatch):
    monkeypatch.setattr(presets, "SIZES", {})
    tiny = {"tiny": (replace(BLOCK, n_layers=1), 2, 8), "other": (BLOCK, 2, 8)}
    monkeypatch.setattr(update_costs, "SIZES", tiny)
    assert update_costs.taken([], 5, 1, 2).empty
    found = update_costs.paces(["tiny"], 5, 1)["paces"]
    assert list(found.step) == [1, 2, 3, 4, 5, 6]  # as few as are settled, and three
    speeds = found.assign(seconds=0.5, flops_per_second=1e9)
    assert set(speeds.precision) == {"float32"}
    timed = pd.concat([speeds.assign(process=0), speeds.assign(process=1, seconds=0.4)])
    table = update_costs.compared(update_costs.predicted(1e9), timed).set_index("size")
    least = training_flops(tiny["tiny"][0], 2, 8) / 1e9
    shares = 100 * least / 0.5, 100 * least / 0.4
    assert table.of_peak_percent["tiny"] == pytest.approx(
        math.sqrt(shares[0] * shares[1]), abs=0.05
    )
    assert table.low["tiny"] < min(shares) and max(shares) < table.high["tiny"]
    assert math.isnan(table.seconds["other"]) and table.predicted_mib["other"] > 0
    twice = update_costs.compared(update_costs.predicted(2e9), timed).set_index("size")
    assert twice.least_seconds["tiny"] == table.least_seconds["tiny"]  # at the speed it is held to
    assert twice.least_seconds["other"] == pytest.approx(table.least_seconds["other"] / 2, abs=1e-4)
    judged = update_costs.reached(table.reset_index(), "tiny")
    assert len(judged) == 1 and not len(update_costs.reached(table.reset_index(), "other"))
    assert table.seconds["tiny"] == pytest.approx(math.sqrt(0.5 * 0.4), abs=1e-4)  # as its share
    alone = update_costs.compared(update_costs.predicted(1e9), timed[timed.process == 0])
    assert not len(update_costs.reached(alone, "tiny"))  # one process has no interval


def test_an_update_is_told_part_by_part_by_the_loop_itself(monkeypatch):
    tiny = {
        "tiny": (replace(BLOCK, n_layers=1), 2, 8),
        "large": (replace(BLOCK, d_model=256), 2, 8),
    }
    monkeypatch.setattr(update_costs, "SIZES", tiny)
    monkeypatch.setattr(update_costs, "OPERATIONS", update_costs.flops_of("tiny"))
    clock = itertools.count()  # every look at it is a second later
    monkeypatch.setattr(update_costs, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    found = update_costs.paces(["large", "tiny"], 9, 1, update_costs.PRECISIONS)["paces"]
    counted = found.groupby(["size", "precision"]).step.max()
    assert counted["tiny"].tolist() == [9, 9] and counted["large"].tolist() == [6, 6]
    tensors = found["size"].map(
        {n: len([*Transformer(c).parameters()]) for n, (c, *_) in tiny.items()}
    )
    parts = found[[*update_costs.PARTS]].T.to_numpy()
    assert (parts[2] == tensors).all() and (parts[[0, 1, 3, 4, 5]] == 1).all()
    assert not HOOKS  # none stays behind


def parted(process, seconds, precision="float32"):
    rows = {"size": "tiny", "precision": precision, "step": [3, 4, 5], "mib": 1.0}
    own = dict(zip(update_costs.PARTS, seconds, strict=True))
    return pd.DataFrame(rows | own).assign(
        process=process, seconds=sum(seconds), flops_per_second=1e9
    )


def test_where_an_update_spends_its_time_and_what_there_is_to_gain(monkeypatch):
    monkeypatch.setattr(update_costs, "SIZES", {"tiny": (BLOCK, 2, 8)})
    monkeypatch.setattr(update_costs, "flops_of", lambda name: 3e6)
    took = (0.001, 0.002, 0.008, 0.001, 0.003, 0.001)
    slow = [second * 3 for second in took]
    measured = pd.concat([parted(0, took), parted(1, took)])
    table = update_costs.split(measured).set_index("part")
    assert table.time_ms.tolist() == pytest.approx([1, 2, 8, 1, 3, 1])
    assert table.of_peak_percent.dropna().tolist() == pytest.approx([50, 25])
    assert table.share_percent.sum() == pytest.approx(100) and table.share_percent.iloc[
        2
    ] == pytest.approx(50)
    assert table.low.tolist() == pytest.approx(table.share_percent.tolist())
    apart = [parted(i, [second * times for second in took]) for i, times in enumerate((1, 1, 8))]
    wide = update_costs.split(pd.concat(apart)).set_index("part")  # a mean, as every interval is of
    assert wide.time_ms.tolist() == pytest.approx([2, 4, 16, 2, 6, 2])
    assert wide.of_peak_percent.dropna().tolist() == pytest.approx([25, 12.5])
    half = [parted(i, slow, "bfloat16") for i in range(2)]
    assert update_costs.in_words(pd.concat([measured, *half])) == (
        "Of tiny forward and backward, PyTorch's own, run at 30 % of the product's speed; "
        "with all else free an update would be 1.60 times as fast. In bfloat16 it takes 3.00 "
        "times as long."
    )


MADE = {"date": "2026-01-02", "commit": "abc", "cpu": "one", "threads": 2, "command": "make texts"}


def reached(budget, nats, **more):
    row = {"budget": budget, "text": "tinyshakespeare", "bar": "", "judged": "nats", "nats": nats}
    row |= {"low": nats - 0.1, "high": nats + 0.1}
    return (
        row
        | {
            "parameters": 8e5,
            "seconds": 9.0,
            "allowed_seconds": 10.0,
            "ngram_nats": 1.6,
            "ngram": "KN",
        }
        | more
    )


def test_long_results_are_read_as_they_were_kept_and_the_newer_take_their_place(tmp_path):
    nothing = kept_texts.left(tmp_path)
    assert not any(len(table) for table in nothing.values())
    assert kept_texts.apart(nothing["texts"]).startswith("No long run")
    curve = pd.DataFrame({"who": ["ours"], "text": ["tinyshakespeare"], "seconds": [1.0],
                          "valid_nats": [2.0]})  # fmt: skip
    costs = pd.DataFrame({"size": ["a", "b"], "low": [1.0, None], "high": [2.0, None]})
    rows = [reached("3 minutes", 1.5), reached("8 minutes", 1.4)]
    kept_texts.keep(tmp_path, kept_texts.found(rows, [curve], {}, costs), MADE)
    newer = kept_texts.found([reached("3 minutes", 1.45)], [], {}, costs[:0])
    kept_texts.keep(tmp_path, newer, MADE | {"threads": 1})
    kept = kept_texts.left(tmp_path)
    assert dict(zip(kept["texts"].budget, kept["texts"].nats, strict=True)) == {
        "8 minutes": 1.4, "3 minutes": 1.45}  # fmt: skip
    assert list(kept["texts-curves"].valid_nats) == [2.0] and list(kept["texts-costs"]["size"]) == [
        "a"
    ]
    assert list(kept_texts.dated(kept["texts-costs"]).columns) == ["size", "low", "high", "date"]
    said = kept_texts.apart(kept["texts"])
    assert "“8 minutes”: measured apart on 2026-01-02" in said and "with 1 thread," in said
    assert list(kept_texts.shown(kept["texts"]).date) == ["2026-01-02"] * 2
    drawn = kept_texts.figure_data(newer, kept)
    assert list(drawn.who) == ["ours, apart"]
    rows = [*kept["texts"].to_dict("records"), {"text": "another", "ngram_nats": 9.0, "ngram": "n"}]
    assert real_texts.lines_of(rows, drawn) == [(1.6, "KN")]  # of the texts that are shown alone
    both = kept_texts.together(newer["texts"].assign(nats=1.0), kept["texts"])
    assert {row["budget"]: row["nats"] for row in both} == {"3 minutes": 1.0, "8 minutes": 1.4}


def test_a_curve_of_a_part_of_a_text_ends_beside_what_the_whole_of_it_gave():
    looks = {"text": "tinyshakespeare", "seconds": [1.0, 9.0], "valid_nats": [2.0, 1.2]}
    names = ("ours, 3 minutes", "ours, 8 minutes", "nanoGPT")
    curves = pd.concat([pd.DataFrame(looks | {"who": who}) for who in names])
    rows = [reached(b, x) for b, x in (("3 minutes", 1.5), ("8 minutes", 1.4))]
    rows.append(reached(nanogpt.WHOLE, 1.8))
    one = {"texts": pd.DataFrame(rows), "texts-curves": curves}
    own = {"texts": pd.DataFrame(rows[:1]).assign(nats=1.3), "texts-curves": curves[:2]}
    drawn = kept_texts.figure_data(own, one)
    ends = drawn.dropna(subset="whole_nats").set_index("who").whole_nats
    assert ends.to_dict() == {
        "ours, 3 minutes": 1.3, "ours, 3 minutes, apart": 1.5, "ours, 8 minutes, apart": 1.4,
        "nanoGPT, apart": 1.8,
    }  # fmt: skip
    assert (drawn.seconds[drawn.whole_nats.notna()] == 9).all() and len(drawn) == 8


def test_nanogpts_log_is_read():
    log = nanogpt.parse(LOG)
    assert list(log.step) == list(range(8)) and log.loss_nats[7] == 3.5
    assert list(log.valid_nats.dropna()) == [4.1649, 3.5]
    assert list(log.seconds.dropna()) == [0.02, 0.04]  # settled, and none with an estimate
    assert nanogpt.seconds(log) == pytest.approx(2000 * 0.03)
    curve = nanogpt.curve(log)
    assert list(curve.seconds) == pytest.approx([0, 5 * 0.03 + 0.02])
    with pytest.raises(ValueError, match="no iteration"):
        nanogpt.parse("Traceback")


def test_a_clone_that_is_not_there_says_how_to_get_it(tmp_path):
    assert "git clone" in nanogpt.missing(None) and "git clone" in nanogpt.missing(tmp_path)


CLONE = {
    "train.py": "import sys, pickle, torch\n"
    "names = pickle.load(open('data/shakespeare_char/meta.pkl', 'rb'))\n"
    "steps = int([a for a in sys.argv if 'max_iters' in a][0].split('=')[1])\n"
    "for i in range(steps + 1):\n"
    "    print(f'iter {i}: loss {names[\"vocab_size\"]}.5, time 10.00ms, mfu 1%')\n"
    "from model import GPT, GPTConfig\n"
    "import os; os.makedirs('out-shakespeare-char')\n"
    "torch.save({'model': GPT(GPTConfig(n=3)).state_dict(), 'model_args': {'n': 3}},\n"
    "           'out-shakespeare-char/ckpt.pt')\n",
    "model.py": "import torch\nclass GPTConfig:\n    def __init__(self, n): self.n = n\n"
    "class GPT(torch.nn.Module):\n"
    "    def __init__(self, c):\n        super().__init__(); self.w = torch.nn.Embedding(3, c.n)\n"
    "        torch.nn.init.zeros_(self.w.weight)\n"
    "    def forward(self, x, y): return self.w(x), None\n",
    "configurator.py": "", "LICENSE": "", "config/train_shakespeare_char.py": "",
}  # fmt: skip


def test_a_clone_is_copied_run_and_scored(tmp_path):
    """With a program of our own in nanoGPT's place, which knows nothing: three characters alike."""
    clone, copy = tmp_path / "clone", tmp_path / "copy"
    for name, text in CLONE.items():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text(text)
    assert nanogpt.missing(clone) == ""
    nanogpt.prepare(clone, copy, "abcabc", "cab" * 40)
    found = nanogpt.measured(copy, 9, 1, score=True)
    assert len(found["nanogpt"]) == 9 and set(found["nanogpt"].loss_nats) == {3.5}
    assert len(found["scored"]) == 119
    assert found["scored"].nats.mean() == pytest.approx(math.log(3))
    assert not (clone / "out-shakespeare-char").exists()


def test_ratios_are_of_the_rounds():
    rows = [
        {"round": i, "who": who, "tokens_per_second": rate * (1 + i)}
        for i in range(2)
        for who, rate in ((next(iter(nanogpt.OURS)), 300.0), ("nanoGPT", 200.0))
    ]
    ratio, (low, high) = nanogpt.times_as_fast(pd.DataFrame(rows))
    assert ratio == pytest.approx(1.5) and low == pytest.approx(high)


def test_a_fifth_is_of_the_recipes_seconds():
    assert real_texts.chosen(["a fifth"], 170.0)["a fifth"].seconds == pytest.approx(34)
    assert nanogpt.recipe_seconds({"nanogpt": nanogpt.parse(LOG)}) == pytest.approx(60)
    assert nanogpt.recipe_seconds({}) == 0 and real_texts.chosen(["a fifth"], 0) == {}


def test_nanogpt_is_run_where_all_it_needs_is_there(tmp_path):
    assert "git clone" in nanogpt.why_not(None, True, 1)
    for name, text in CLONE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert "not at hand" in nanogpt.why_not(tmp_path, False, 1)
    assert "no rounds" in nanogpt.why_not(tmp_path, True, 0)
    assert nanogpt.why_not(tmp_path, True, 1) == ""


def test_what_a_run_measured_is_judged_before_what_was_kept():
    def tables(rows, rates=()):
        beside = {"rates": pd.DataFrame(rates)} if rates else {}
        return kept_texts.found(rows, [], beside, pd.DataFrame(columns=["size", "low"]))

    rates = [{"round": i, "who": who, "tokens_per_second": rate} for i in range(2)
             for who, rate in (("nanoGPT", 200.0), (next(iter(nanogpt.OURS)), 300.0))]  # fmt: skip
    own = tables([reached("a fifth", 1.8, bar="texts-fifth")])
    rows = [reached("a fifth", 1.2, bar="texts-fifth"),
            reached("3 minutes", 1.6, bar="texts-3", allowed_seconds=12.0)]  # fmt: skip
    late = reached("8 minutes", 1.5, bar="texts-8", seconds=11.0)
    kept = tables([*rows, late], rates)
    found = {bar: (measured, of) for bar, measured, _, of in kept_texts.judgements(own, kept)}
    assert found["texts-fifth"] == (1.8, "a fifth: 9 s of training")
    assert found["texts-fifth-time"] == (pytest.approx(9 / 50), "a fifth: 9 s of training")
    assert found["texts-3"] == (1.6, "3 minutes: 9 s of training, measured apart")
    assert found["texts-budgets"][0] == (1, 1)  # this run's own one
    assert found["texts-throughput"][0] == pytest.approx(1.5)
    apart = {bar: measured for bar, measured, *_ in kept_texts.judgements(tables([]), kept)}
    assert apart["texts-fifth"] == 1.2 and apart["texts-budgets"] == (2, 3)
    assert "texts-8" not in apart  # it took longer than it may
    slow = tables([reached("a fifth", 1.2, bar="texts-fifth", seconds=11.0)])
    late = {bar: measured for bar, measured, *_ in kept_texts.judgements(slow, tables([]))}
    assert late == {
        "texts-fifth-time": pytest.approx(0.22),
        "texts-30": 1.2,
        "texts-budgets": (0, 1),
    }
    assert bars.read()["texts-fifth-time"].verdict(late["texts-fifth-time"]) == "fail"
    told = kept_texts.apart(kept["texts"].assign(**MADE))
    assert told.startswith(
        "“8 minutes” took 11 s, more than its budget, so that texts-8 is not judged. “"
    )
    freed = kept["texts"].assign(**MADE, bar="")
    assert kept_texts.apart(freed).startswith("“8 minutes” took 11 s, more than its budget. “")
    old = freed.assign(budget=freed.budget.replace("8 minutes", "an hour"))
    assert "“an hour” took 11 s, more than its budget, which is asked no more." in kept_texts.apart(
        old
    )
    assert apart["texts-30"] == 1.6  # of the longest budget, not of the least loss
    later = reached("40 minutes", 1.3, allowed_seconds=2400.0)
    long = [later, reached("large", 1.2, parameters=12e6)]
    within = kept_texts.judgements(tables([]), tables([*rows, *long]))
    assert {bar: of for bar, _, _, of in within}["texts-30"] == (
        "3 minutes: 9 s of training, measured apart"
    )
    assert kept_texts.judgements(tables([]), tables([])) == []


def test_a_budgets_bar_is_held_against_the_interval_of_what_it_judges():
    words = {
        "text": "wikitext-2",
        "bar": "texts-words",
        "judged": "perplexity",
        "perplexity": 148.4,
    }
    rows = [reached("3 minutes", 1.4, bar="texts-3"), reached("20 minutes", 5.0, **words)]
    nothing = pd.DataFrame(columns=["size", "low"])
    own, none = (kept_texts.found(them, [], {}, nothing) for them in (rows, []))
    ends = {bar: interval for bar, _, interval, _ in kept_texts.judgements(own, none)}
    assert ends["texts-3"] == ends["texts-30"] == pytest.approx((1.3, 1.5))
    assert ends["texts-words"] == pytest.approx((math.exp(4.9), math.exp(5.1)))
    known = bars.read()
    assert known["texts-30"].verdict(1.4, ends["texts-30"]) == "undecided"  # though 1.4 meets it
    for bar, measured, interval, _ in kept_texts.judgements(own, none):
        assert known[bar].verdict(measured, interval) in ("pass", "fail", "undecided")


def test_nanogpts_recipe_has_a_row_where_it_was_scored():
    assert nanogpt.row({"rates": None}) == []
    scored = {"nanogpt": nanogpt.parse(LOG), "scored": pd.DataFrame({"nats": [1.0, 3.0]})}
    [row] = nanogpt.row(scored)
    assert (
        row["nats"] == 2.0 and row["seconds"] == pytest.approx(60) and not math.isnan(row["steps"])
    )
    table = real_texts.reader_table([reached("3 minutes", 1.5), row])
    assert table.budget[1] == nanogpt.WHOLE and table.allowed_seconds.notna().tolist() == [1, 0]
