"""The experiments of the evaluation chapter, at tiny size: known answers, and what must always
hold."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minitransformer.checkpoint import save
from minitransformer.corpus import (
    MECHANISMS,
    SMALL,
    Language,
    entropy,
    hidden_bits,
    language_corpus,
    text_corpus,
    window_bits,
)
from minitransformer.decode import Sampling
from minitransformer.evaluate import TokenReport, best_order, token_report
from minitransformer.model import ModelConfig, Transformer
from minitransformer.train import initialize
from studies import attention, context_worth, error_budget, marked, reliability, samples, standing

SALT = "00112233445566778899aabbccddeeff"
V = SMALL.vocab_size
CFG = ModelConfig(vocab_size=V, d_model=16, n_heads=4, n_kv_heads=2, n_layers=2, context=48)


@pytest.fixture(scope="module")
def language():
    return language_corpus(7, SALT, SMALL, 4000, 400, 3000)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "text.txt"
    path.write_text("the cat sat on the mat; a rat ran at the fat cat.\n" * 60)
    return text_corpus(path, "character")


@pytest.fixture(scope="module")
def model():
    return initialize(Transformer(CFG), "scaled", 0).eval().requires_grad_(False)


def report(nll, correct=None, confidence=None):
    """A token report with given losses; nothing else of it is looked at."""
    n = len(nll)
    some = np.zeros(n) if correct is None else np.asarray(correct)
    sure = np.full(n, 0.1) if confidence is None else np.asarray(confidence)
    return TokenReport(np.asarray(nll, float), some, sure, np.ones(n, int))


def shifted(data, by):
    """Losses above the oracle's by so many nats on each mechanism."""
    return report(standing.oracle(data) + np.array(by)[data.mechanism["test"][1:]])


# standing


@given(st.integers(1, 300), st.integers(1, 40), st.data())
def test_every_prediction_is_scored_once(n, window, data):
    stride = data.draw(st.integers(1, window))
    assert standing.times_scored(n, window, stride).tolist() == [1] * n
    assert 1 <= standing.stride(window) <= window


def test_models_are_named_by_their_blocks_and_scored_in_their_own_windows(tmp_path):
    one, two = (Transformer(replace(CFG, n_layers=n, context=96)) for n in (1, 2))
    for name, made in (("model", one), ("model-2block", two)):
        save(made, tmp_path / name)
    assert list(standing.models(tmp_path)) == ["1-block model", "2-block model"]
    save(one, tmp_path / "model-seed")
    save(two, tmp_path / "model")
    found = standing.models(tmp_path)
    assert list(found) == [standing.SEED, "2-block model", "2-block model (twin)"]
    assert list(standing.windows(found, 32).values()) == [64, 32, 32]
    save(Transformer(replace(two.cfg, smeared_keys=True)), tmp_path / "model-smeared")
    assert list(standing.models(tmp_path))[-1] == "smeared 2-block model"
    assert set(standing.windows(found, 500).values()) == {64, 96}


def test_the_ladder_stands_on_known_rungs(language):
    n, floor = len(language.splits["test"]) - 1, standing.oracle(language)
    reports = {
        "uniform guess": report(np.full(n, math.log(V))),
        "unigram (best on validation)": report(floor + 1),
        "1-block model": report(floor + 0.5, correct=np.arange(n) % 4 == 0),
    }
    table = standing.table(language, reports, {"1-block model": 32}).set_index("system")
    assert list(table.index) == [*reports, standing.FLOOR]
    assert table.perplexity["uniform guess"] == pytest.approx(V)
    assert table.above_floor_nats.tolist()[1:] == pytest.approx([1, 0.5, 0])
    assert table.accuracy.tolist()[0] == 1 / V and math.isnan(table.accuracy[standing.FLOOR])
    assert table.accuracy["1-block model"] == pytest.approx(0.25, abs=1e-3)
    assert (table.window["1-block model"], table.stride["1-block model"]) == (32, 16)
    assert table.window.isna().sum() == 3 and (table.low <= table.perplexity).all()
    bits = (n + 1) * math.log2(V) / language.n_bytes["test"]
    assert table.bits_per_byte["uniform guess"] == pytest.approx(bits)
    assert standing.same_tokens(reports, n) and not standing.same_tokens(reports, n + 1)
    shown = standing.shown(table.reset_index())
    assert shown.perplexity.is_monotonic_decreasing and shown.system.iloc[-1] == standing.FLOOR
    assert standing.FLOOR not in set(standing.ladder(table.reset_index()).system)
    assert standing.best_name(reports) == "unigram (best on validation)"
    (best, _), (without, _) = standing.limits(language)
    assert best == pytest.approx(math.exp(floor.mean())) and without > best


def test_what_a_window_allows_lies_above_the_oracle(language, model):
    """Held against the oracle's own loss and the closed form of what the window hides."""
    nets, windows = {"a": model}, {"a": 32}
    found = standing.above_window(language, nets, windows).iloc[0]
    hidden = window_bits(language.language, 32) - language.language.entropy_bits
    best = math.exp(standing.oracle(language).mean()) * 2**hidden
    nll = token_report(model, language.splits["test"], 32, 32).nll
    assert hidden > 0 and found.optimum == pytest.approx(best)
    assert found.above_percent == pytest.approx(100 * (math.exp(nll.mean()) / best - 1))
    assert found.low < found.above_percent < found.high


def test_of_a_text_nothing_is_said_of_a_floor(text):
    n = len(text.splits["test"]) - 1
    table = standing.table(text, {"uniform guess": report(np.full(n, 2.0))}, {})
    assert table.system.tolist() == ["uniform guess"] and standing.limits(text) == []
    assert standing.above_window(text, {"a": None}, {"a": 4}).empty
    assert "above_floor_nats" not in standing.shown(table) and standing.oracle(text) is None
    assert len(standing.orders(text)) == 9


def test_n_grams_are_named_and_compared_at_their_best_on_test(language):
    train, valid, test = language.splits.values()
    best, grams, tuning = best_order(train, valid, standing.orders(language), V)
    counted = {order: gram.report(test) for order, gram in grams.items()}
    table = standing.by_order(counted, tuning, V).set_index("order")
    assert table.test_perplexity[0] == pytest.approx(V)
    assert table.validation_perplexity.idxmin() == best and list(table.index) == list(range(6))
    assert table.test_accuracy_percent[0] == 100 / V
    chosen = standing.chosen(counted, 3)
    assert list(chosen) == ["uniform guess", "unigram", "2-gram", "3-gram (best on validation)"]
    assert list(standing.chosen(counted, 1)) == [
        "uniform guess", "unigram (best on validation)", "2-gram",
    ]  # fmt: skip
    strongest = table.test_perplexity.idxmin()
    better = report(counted[strongest].nll - 0.25)
    opponent, (ahead, (low, high)) = standing.ahead(better, counted)
    assert ahead == pytest.approx(-0.25) and low == pytest.approx(high)
    assert opponent == f"order {strongest}"
    far = standing.longest({0: 3.0, 1: 2.0, 2: 2.5})
    assert far == {"best": 1, "longest": 2, "behind": 0.5}


def test_the_system_nearest_to_the_oracle_is_named(language):
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, len(language.splits["test"]) - 1)
    reports = {"far": shifted(language, [1] * 5), "near": shifted(language, [0.5] * 5)}
    reports = {name: report(r.nll + noise) for name, r in reports.items()}
    name, below = standing.nearest(language, reports)
    assert name == "near" and below < 0
    reports["leaks"] = report(standing.oracle(language) - 0.5 + noise)
    assert standing.nearest(language, reports)[0] == "leaks"
    assert standing.nearest(language, reports)[1] > 3


def test_models_are_scored_in_their_own_windows_and_told_by_key(language, model):
    test, nets = language.splits["test"], dict.fromkeys("abcde", model)
    assert list(standing.trained(nets)) == ["b", "c", "d", "e"]
    own = standing.scored({"a": model}, test, {"a": 32})["a"]
    assert np.array_equal(own.nll, token_report(model, test, 32, 16).nll)
    table = pd.DataFrame({"system": ["guess", "x", "y"], "perplexity": [9.0, 4.0, 2.0]})
    assert standing.nats(table.assign(nll_nats=[3, 2, 1]), ["y", "x"]) == {"y": 1, "x": 2}
    told = standing.for_sentence(table, {"one": "x"})
    assert told == {"one": "x", "one_ppl": 4.0, "uniform": 9.0, "floor": 2.0}


def test_metrics_are_finite_and_keep_the_order_of_the_systems(language):
    n = len(language.splits["test"]) - 1
    reports = {"uniform guess": report(np.full(n, 5.0)), "model": shifted(language, [0.1] * 5)}
    budget = error_budget.table(language, reports)
    rungs = standing.table(language, reports, {"model": 32})
    about = {"split": "test", "tokens": n}
    rows = standing.metrics(rungs, budget, {"model": 0.01}, about, {"model": "headline"})
    assert {row["role"]: row["system"] for row in rows} == {
        "uniform": "uniform guess",
        "headline": "model",
        "floor": standing.FLOOR,
    }
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    perplexities = [row["system"] for row in rows if row["measure"] == "perplexity"]
    assert perplexities == ["uniform guess", "model", standing.FLOOR]
    own = [r for r in rows if r["system"] == "model" and r["measure"] == "excess_nats"]
    assert [row["kind"] for row in own] == list(MECHANISMS)
    assert sum(row["tokens"] for row in own) == n
    assert [r["value"] for r in own] == pytest.approx([0.1] * 5)
    plain = standing.metrics(rungs, budget.assign(floor_nats=0), {}, {}, {})
    assert {row["measure"] for row in plain if "kind" in row} == {"nll_nats"}


# error budget


def test_recovered_is_all_at_the_oracle_and_nothing_without_the_mechanism(language):
    worth = list(error_budget.worth(language, list(MECHANISMS)).values())
    hidden, spec = hidden_bits(language.language), SMALL
    wanted = [math.log(2) * (hidden[m] - entropy(spec.ranks(m))) for m in MECHANISMS]
    assert worth == pytest.approx(wanted)
    half = [0.5 * w for w in worth]
    reports = {
        "oracle": shifted(language, [0] * 5),
        "half": shifted(language, half),
        "nothing": shifted(language, worth),
    }
    budget = error_budget.table(language, reports)
    wide = error_budget.recovered(budget)
    assert list(wide.index) == list(range(len(wide)))  # a table shows any other index
    wide = wide.set_index("kind")
    assert list(wide.index) == list(MECHANISMS) and wide.share_percent.sum() == pytest.approx(100)
    for name, share in (("oracle", 100), ("half", 50), ("nothing", 0)):
        assert wide[f"{name}, %"].iloc[1:].tolist() == pytest.approx([share] * 4, abs=1e-9)
    assert (
        wide[[f"{name}, %" for name in reports]].iloc[0].isna().all()
    )  # nothing is to be gained on a free word


def test_the_parts_of_a_budget_make_the_whole(language, text):
    rng = np.random.default_rng(0)
    for data in (language, text):
        some = report(rng.exponential(size=len(data.splits["test"]) - 1))
        budget = error_budget.table(data, {"model": some}).set_index("kind")
        parts = budget.drop("all")
        whole = (parts.excess_nats * parts.share_percent).sum() / 100
        assert whole == pytest.approx(budget.excess_nats["all"])
        assert parts.tokens.sum() == budget.tokens["all"] == len(some.nll)
        assert (budget.low <= budget.excess_nats).all()
        assert (budget.excess_nats <= budget.high).all()


def test_kinds_of_a_text_are_how_often_a_token_was_seen(text):
    seen = np.repeat([1, 2, 3, 4], [1, 9, 10, 100])  # token 0 never
    splits = {"train": seen, "test": np.array([0, 0, 1, 2, 3, 4])}
    few = SimpleNamespace(kind="text", splits=splits, vocab_size=5)
    kind, names = error_budget.kinds(few)
    wanted = ["never", "1 to 9", "1 to 9", "10 to 99", "100 to 999"]
    assert [names[k] for k in kind] == wanted
    assert error_budget.worth(few, names)["never"] == math.log(5)
    assert len(error_budget.kinds(text)[0]) == len(text.splits["test"]) - 1


def test_kinds_are_drawn_from_the_largest_loss_down(language):
    reports = {"a": shifted(language, [0.1, 0.5, 0.3, 0.2, 0.4]), "b": shifted(language, [1] * 5)}
    rows = error_budget.drawn(error_budget.table(language, reports), by="a")
    order = ["bigram", "induction", "offset", "recency", "free"]
    assert rows[rows.system == "a"]["kind"].tolist() == order
    assert list(dict.fromkeys(rows["kind"])) == order


@pytest.mark.parametrize("first", [True, False])
def test_two_systems_are_apart_by_the_kind_that_makes_most_of_it(language, first):
    own = {"a": shifted(language, [0, 0.1, 0.1, 0.1, 0.1])}
    own["b"] = shifted(language, [0, 0.1, 0.1, 0.9, 0.1])
    budget = error_budget.table(language, own)
    found = error_budget.apart(budget, *(("a", "b") if first else ("b", "a")))
    assert (found["better"], found["worse"]) == ("a", "b")
    share = budget.set_index("kind").share_percent["recency"].iloc[0] / 100
    assert found["most"] == f"the largest part of it on **recency** ({0.8 * share:.3f})"
    own["b"] = shifted(language, [0, 0.1, 0.1, 0.9, 0])
    found = error_budget.apart(error_budget.table(language, own), "a", "b")
    assert 0 < found["nats"] < 0.8 * share and found["most"].endswith("while it gains on others")
    assert found["most"].startswith("most on **recency**")


def test_parts_that_are_equal_at_their_digits_are_both_named():
    nats = {"a": [0.0, 0.0, 0.0, 0.0], "b": [0.02, 0.0322, 0.0320, 0.001]}
    kinds = ["all", "offset", "induction", "free"]
    share = {"kind": kinds, "share_percent": [100.0, 20.0, 20.0, 60.0]}
    rows = [pd.DataFrame({**share, "system": s, "excess_nats": x}) for s, x in nats.items()]
    found = error_budget.apart(pd.concat(rows), "a", "b")
    parts = "**offset** (0.006) and **induction** (0.006)"
    assert found["most"] == f"the largest part of it on {parts}"


@pytest.mark.parametrize("spec", [SMALL, replace(SMALL, keys=3)])
def test_what_is_left_without_the_key_is_what_a_count_of_memories_gives(spec):
    """Against a replay of the source: every value in memory is known, the key is not."""
    own = Language(3, SALT, spec)
    sample = own.generate("test", 120_000)
    q, memory, losses, before = np.array(spec.stay) / 65536, [0] * spec.keys, [], 0
    index, steps = own.index_of_id[sample.ids].tolist(), sample.mechanism.tolist()
    for word, mechanism in zip(index, steps, strict=True):
        if MECHANISMS[mechanism] == "induction":
            p = np.mean([q[(word - spec.unit * value) % spec.words] for value in memory])
            losses.append(-math.log2(p))
            memory[before % spec.keys] = word % spec.values
        before = word
    hidden, known = hidden_bits(own)["induction"], entropy(spec.stay)
    share = 100 * (hidden - np.mean(losses)) / (hidden - known)
    assert error_budget.without_key(own) == pytest.approx(share, abs=2)


def test_induction_is_found_or_not_by_the_whole_interval(language, text):
    bound = error_budget.without_key(language.language)
    worth = error_budget.worth(language, list(MECHANISMS))["induction"]
    noise = np.random.default_rng(0).normal(size=len(language.splits["test"]) - 1)
    reports = {}
    for name, share in (("above", bound + 20), ("below", bound - 20), ("near", bound)):
        base = shifted(language, [0, 0, 0, 0, worth * (1 - share / 100)])
        reports[name] = report(base.nll + 0.3 * (noise - noise.mean()))
    budget = error_budget.table(language, reports)
    found = error_budget.induction(language, budget, reports).set_index("system")
    assert found.verdict.to_dict() == {
        "above": "found", "below": "not found", "near": "undecided",
    }  # fmt: skip
    assert (found.without_key_percent == bound).all()
    some = {"model": report(np.ones(len(text.splits["test"]) - 1))}
    none = error_budget.induction(text, error_budget.table(text, some), some)
    assert len(none) == 0 and error_budget.last(none) == (None, None)
    assert error_budget.bound(none) is None and error_budget.bound(found) == bound
    value, (low, high) = error_budget.last(found)
    assert low < value == found.recovered_percent["near"] < high
    assert "% by the above (found), " in error_budget.in_words(found.reset_index())
    with pytest.raises(ValueError, match="recall 'index' has no values"):
        error_budget.without_key(Language(1, SALT, replace(SMALL, recall="index")))


# the worth of context


def test_a_curve_of_a_guess_is_flat_and_bins_hold_every_place(text, model):
    class Guess(torch.nn.Module):
        cfg = replace(CFG, vocab_size=text.vocab_size, context=16)

        def forward(self, ids):
            return torch.zeros(*ids.shape, self.cfg.vocab_size)

    where = context_worth.curve(text, {"guess": Guess()})
    assert where.loss_nats.to_numpy() == pytest.approx(math.log(text.vocab_size))
    n = len(text.splits["test"]) - 1
    assert where.tokens.sum() == n and where.position.is_monotonic_increasing
    assert where.position.iloc[0] == 1 and context_worth.limits(text, where) == []
    few = context_worth.curve(text, {"guess": Guess()}, most=3)
    assert few.tokens.sum() == 3 * 16


def test_a_curve_is_told_at_its_ends_and_where_training_ended():
    where = pd.DataFrame({"system": [*"aaaabbbb"], "group": ["1-1", "2-5", "6-9", "10-29"] * 2})
    where = where.assign(loss_nats=[5.0, 4, 3, 3.1, 6.0, 4, 3, 3.5])
    told = context_worth.for_sentence(where, 9)  # of the one that it changes most
    assert told["system"] == "b" and told["first"] == 6
    assert (told["near"].group, told["near"].loss_nats) == ("6-9", 3)
    assert (told["far"].group, told["far"].loss_nats) == ("10-29", 3.5)
    assert context_worth.for_sentence(where, 8)["near"].group == "2-5"  # a bin whole within it


def test_the_oracle_is_taken_from_a_curve_and_given_back(language, model):
    where = context_worth.curve(language, {"model": model})
    whole = token_report(model, language.splits["test"], 48, 48)
    parts = (where.loss_nats * where.tokens).sum() / where.tokens.sum()
    assert parts == pytest.approx(whole.nll.mean())
    (floor, _), ((seen, best), _) = context_worth.limits(language, where)
    assert (np.diff(best) <= 1e-12).all() and best[-1] > language.floor_nats
    assert len(seen) == len(where) and floor == pytest.approx(standing.oracle(language).mean())


def test_the_best_with_so_much_context_is_the_best_in_a_window(language):
    """The figure's curve and the bar's optimum are of the same places: 1 to all words seen."""
    where = pd.DataFrame({"position": np.arange(1, 21)})
    (_, _), ((seen, best), _) = context_worth.limits(language, where)
    assert seen.tolist() == [*range(1, 21)]
    assert best.mean() == pytest.approx(math.log(2) * window_bits(language.language, 20))


# reliability


@pytest.mark.parametrize("bias, verdict", [(-0.15, "too sure"), (0.15, "not sure enough")])
def test_the_worst_bin_says_in_which_direction(bias, verdict):
    rng = np.random.default_rng(1)
    sure = rng.uniform(0.2, 0.8, 6000)
    right = rng.uniform(size=6000) < sure + bias
    one = report(np.ones(6000), correct=right, confidence=sure)
    table = reliability.table({"model": one})
    assert table.tokens.sum() == 6000 and list(table.bin)[0] == "20 to 30 %"
    assert table.gap_points.to_numpy() == pytest.approx(100 * (table.accuracy - table.confidence))
    assert (table.low <= table.accuracy).all() and (table.accuracy <= table.high).all()
    row = reliability.worst(table)
    assert row.verdict == verdict and row.gap_points == pytest.approx(100 * bias, abs=6)
    assert row.right_percent == pytest.approx(100 * row.accuracy)
    error = reliability.errors({"model": one})["model"]
    assert error == pytest.approx(abs(bias), abs=0.03)
    weighted = (table.gap_points.abs() * table.tokens).sum() / 6000
    assert 100 * error == pytest.approx(weighted)
    value, (low, high) = reliability.error(one)
    assert value == pytest.approx(weighted) and low < value < high < value + 5
    assert low < 15 < high  # what it is made of


def test_an_error_by_chance_alone_lies_in_its_own_interval():
    """Resampled distances are longer than the one measured: it is the lower end then."""
    sure = np.tile(np.linspace(0.05, 0.95, 10), 400)
    right = np.random.default_rng(3).uniform(size=4000) < sure
    value, (low, high) = reliability.error(report(np.ones(4000), right, sure))
    assert low <= value < high < 5
    exact = report(np.ones(400), np.arange(400) % 2 == 0, np.full(400, 0.5))
    value, (low, high) = reliability.error(exact)
    assert low == value == 0 <= high


def test_bins_of_few_tokens_are_not_drawn():
    bins = pd.DataFrame({"tokens": [29, 30, 500]})
    assert reliability.drawn(bins).tokens.tolist() == [30, 500]


@pytest.mark.parametrize("off", [-3, 0, 3])
def test_a_bin_whose_interval_holds_the_diagonal_is_sure_enough(off):
    right = np.random.default_rng(0).permutation(np.arange(400) < 200 + off)
    table = reliability.table({"model": report(np.ones(400), right, np.full(400, 0.5))})
    row = reliability.worst(table)
    assert row.gap_points == pytest.approx(off / 4) and row.verdict == "sure enough"
    assert row.gap_low < 0 < row.gap_high


def test_a_wide_bin_does_not_acquit_a_sure_one():
    """Few tokens 12 points off, whose interval holds the diagonal, and many that are surely 4
    points off: of these the sentence speaks."""
    rng = np.random.default_rng(2)
    sure = np.concatenate([np.full(9000, 0.45), np.full(120, 0.65)])
    right = np.concatenate([rng.uniform(size=9000) < 0.41, rng.permutation(120) < 70])
    order = rng.permutation(len(sure))
    one = report(np.ones(len(sure)), right[order], sure[order])
    table = reliability.table({"model": one})
    assert table.gap_points.abs().idxmax() == table.confidence.idxmax()
    row = reliability.worst(table)
    assert row.confidence == pytest.approx(0.45) and row.verdict == "too sure"


def test_the_worst_bin_is_that_of_the_worst_system():
    sure, half = np.full(400, 0.5), np.arange(400) % 2 == 0
    systems = {"right": report(np.ones(400), half, sure)}
    systems["rash"] = report(np.ones(400), half, np.full(400, 0.65))
    row = reliability.worst(reliability.table(systems))
    assert (row.system, row.verdict) == ("rash", "too sure")


def test_a_bin_of_few_tokens_is_not_spoken_of():
    sure = np.array([0.25] * 200 + [0.95] * 5)
    right = np.array([True] * 50 + [False] * 155)
    table = reliability.table({"model": report(np.ones(205), right, sure)})
    assert reliability.worst(table).confidence == pytest.approx(0.25)
    assert reliability.worst(table, least=5).confidence == pytest.approx(0.95)
    assert reliability.worst(table, least=500).confidence == pytest.approx(0.95)


# samples


def test_samples_start_at_fixed_places_and_repeat(text):
    cfg = replace(CFG, vocab_size=text.vocab_size, context=256)
    made = {"model": initialize(Transformer(cfg), "scaled", 0).eval()}
    prompts = samples.prompts(text)
    half = len(text.splits["test"]) // 2
    assert prompts[1][0].tolist() == text.splits["test"][half : half + 40].tolist()
    first = samples.drawn(text, made, Sampling(temperature=1.0))
    assert len(first) == 4 and first.equals(samples.drawn(text, made, Sampling(temperature=1.0)))
    assert first.prompt[0] == text.text("test")[:40].replace("\n", " / ")
    assert first.continuation[0] != first.continuation[1]  # another seed
    greedy = samples.drawn(text, made, Sampling(temperature=0.0))
    assert greedy.continuation[0] == greedy.continuation[1]


# attention


def test_attention_is_causal_sums_to_one_and_is_what_the_model_uses(model):
    ids = torch.randint(0, V, (3, 12), generator=torch.Generator().manual_seed(0))
    heads = attention.probabilities(model, ids)
    assert list(heads) == [f"{b}.{h}" for b in (1, 2) for h in (1, 2, 3, 4)]
    for p in heads.values():
        assert torch.allclose(p.sum(-1), torch.ones(3, 12), atol=1e-5)
        assert (p.triu(1) == 0).all()
    block = model.blocks[0].attention
    x, rope = model.embed(ids, torch.arange(12), 12)
    v = block.project(model.blocks[0].attention_norm(x), rope)[2].repeat_interleave(2, dim=1)
    p = torch.stack([heads[f"1.{h}"] for h in (1, 2, 3, 4)], dim=1)
    mixed = (p @ v).transpose(1, 2).flatten(2)
    used = block(model.blocks[0].attention_norm(x), rope)
    assert torch.allclose(block.out(mixed), used, atol=1e-5)


def test_distances_count_from_the_predicted_token():
    T = 32
    query = torch.arange(T)
    three = torch.zeros(2, T, T)
    three[:, query, (query - 2).clamp(min=0)] = 1  # the token three before the next one
    even = torch.ones(2, T, T).tril() / torch.arange(1, T + 1)[:, None]
    table = attention.by_distance({"three": three, "even": even})
    assert table.loc["three", 3] == pytest.approx(100) and table.loc["three"].sum() == 100
    wanted = 100 * np.mean([1 / t for t in range(T // 2 + 1, T + 1)])
    assert table.loc["even"].to_numpy() == pytest.approx(wanted, rel=1e-5)
    assert attention.most(table, 3).index.tolist() == ["three", "even"]
    assert attention.most(table, 1, heads=1).index.tolist() == ["even"]


@pytest.mark.parametrize("recall", ["value", "index"])
def test_what_an_induction_recalls_followed_the_same_key_last(recall):
    """Against the language's own memory: with no chance left, what is recalled comes again."""
    stay = (2**16 - 24, *[1] * 24)
    spec = replace(SMALL, recall=recall, stay=stay)
    own = Language(3, SALT, spec)
    ids = own.generate("test", 3000).ids.astype(np.int64)
    found = attention.recalled(own, ids.reshape(3, -1))
    kinds = own.mechanism_of_class[own.class_of_id[ids]].reshape(3, -1)
    row, t = np.nonzero(found >= 0)
    place = found[row, t]
    assert len(t) > 400 and (place <= t).all() and (kinds[row, t + 1] == 4).all()
    assert (kinds[row, place] == 4).all()
    index = own.index_of_id[ids].reshape(3, -1)
    assert (index[row, place - 1] % spec.keys == index[row, t] % spec.keys).all()
    if recall == "value":
        index = index % spec.values
    assert (index[row, t + 1] == index[row, place]).mean() > 0.97
    assert (found[:, -1] == -1).all() and (kinds[:, 1:][found[:, :-1] >= 0] == 4).all()


def test_a_head_that_looks_where_induction_recalls_is_found(language):
    test, T = language.splits["test"], 40
    target = attention.recalled(language.language, test[: 2 * T].reshape(2, T).astype(np.int64))
    right, even = torch.zeros(2, T, T), torch.ones(2, T, T).tril() / torch.arange(1, T + 1)[:, None]
    right.scatter_(2, torch.from_numpy(target.clip(0))[..., None], 1)
    table = attention.of_recall(language.language, {"a, 1.1": even, "b, 1.1": right}, test)
    assert table["what followed"]["b, 1.1"] == 100 and table["the key"]["b, 1.1"] == 0
    assert table["what followed"]["a, 1.1"] == pytest.approx(table["even"].iloc[0], rel=1e-4)
    found = attention.strongest(table, "what followed")
    assert found == {"head": "b, 1.1", "at": "what followed", "share": 100}
    shown = attention.shown(table, "a model", 1)  # and where the sentence's other head looks
    assert shown["head"].tolist() == ["b, 1.1", "a, 1.1"] and shown["what followed, %"][0] == 100
    assert attention.in_words(table, "a model").endswith("first block looks back at the key.")
    table.loc["a, 1.1", "from there at the key"] = 30.0
    told = attention.in_words(table, "a model")
    assert told.startswith(
        "Head b, 1.1 gives what followed 100 %. The a model's best head gives it "
    )
    back = table["from there at the key"]["a, 1.1"]
    assert told.endswith(f"have been, head a, 1.1 looks back at the key with {back:.0f} %.")
    assert "best head" not in attention.in_words(table, "b model")  # is its own
    twin = table.rename(index=lambda head: head.replace("a,", "a (twin),"))
    assert attention.in_words(twin, "a model (twin)").endswith(f"at the key with {back:.0f} %.")
    late = table.rename(index={"b, 1.1": "a, 2.1"})
    late.loc["a, 2.1", "from there at the key"] = 99  # no first look
    assert "head a, 1.1 looks back" in attention.in_words(late, "a model")
    assert attention.in_words(table.loc[["a, 1.1"]], "a model").startswith("No head looks there: ")
    end = attention.recall_ends(language.language, test, T)
    assert T >= end >= 20 and (end == T or end - 20 <= target[0, end - 1] < end)
    grid = attention.map_of(language, right, test, end)
    pd.testing.assert_frame_equal(grid, attention.recall_map(language, right, test))
    assert grid.shape == (20, 20) and grid.index[-1].endswith(
        language.language.words[test[end - 1]]
    )


def test_the_look_back_at_the_key_is_taken_where_the_key_was_followed(language):
    test, T = language.splits["test"], 40
    previous = torch.zeros(2, T, T)
    previous[:, torch.arange(1, T), torch.arange(T - 1)] = 1
    query = previous.clone()
    target = attention.recalled(language.language, test[: 2 * T].reshape(2, T).astype(np.int64))
    rows, places = np.nonzero(target > 0)
    query[rows, target[rows, places]] = 0  # looks at the previous token but where it would help
    heads = {"a, 1.1": previous, "a, 1.2": query}
    table = attention.of_recall(language.language, heads, test)["from there at the key"]
    assert table["a, 1.1"] == 100 and table["a, 1.2"] == 0


def test_a_map_shows_the_end_of_the_first_window(language, text, model):
    test = language.splits["test"]
    heads = attention.of_models({"2-block model": model}, test, 40)
    assert set(heads) == {f"2-block, {b}.{h}" for b in (1, 2) for h in (1, 2, 3, 4)}
    p = heads["2-block, 1.1"]
    assert p.shape == (16, 40, 40)
    grid = attention.map_of(language, p, test)
    assert grid.shape == (20, 20) and grid.index[-1] == f"20 {language.language.words[test[39]]}"
    assert grid.to_numpy() == pytest.approx(100 * p[0, 20:, 20:].numpy())
    table = attention.by_distance(heads)
    assert attention.distance(language, table) == SMALL.offset
    loud = pd.DataFrame({1: [99.0], 2: [5.0], 3: [1.0]}, index=["a"])
    assert attention.distance(text, loud) == 2  # the previous token is left aside
    narrow = attention.of_models({"model": model}, test[:9], 40)
    assert narrow["model, 1.1"].shape == (1, 9, 9)


def test_a_marked_text_has_the_losses_of_the_report_and_what_else_was_expected(
    language, text, model
):
    for data, name in ((language, "floor_nats"), (text, "7_gram_nats")):
        test, window = data.splits["test"], 16
        net = Transformer(replace(model.cfg, vocab_size=data.vocab_size)).eval()
        own = token_report(net, test, window, standing.stride(window))
        table = marked.text(data, net, own, report(own.nll - 1), window, "7 gram", count=40)
        first = (len(test) - 1) // 2
        assert len(table) == 40 and np.allclose(table.loss_nats, own.nll[first : first + 40])
        assert np.allclose(table.excess_nats, table.loss_nats - table[name])
        other, share = marked.others(net, test, window, range(first, first + 40))
        assert not (other == test[first + 1 : first + 41]).any()
        right = own.correct[first : first + 40]
        assert np.allclose(share[~right], own.confidence[first : first + 40][~right], atol=1e-6)
        assert (share[right] < own.confidence[first : first + 40][right]).all()
        assert len(table.kind.cat.categories) <= 5
        told = marked.for_sentence(table)
        assert told["excess"] == table.excess_nats.max() and 10 <= told["share"] <= 100
        assert told["best"] == f"the {'oracle' if name == 'floor_nats' else 'best n-gram'}"
    assert len(marked.text(text, net, own, own, window, count=10**6)) == len(test) - 1
