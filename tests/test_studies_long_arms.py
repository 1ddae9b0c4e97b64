"""Long arms that are kept: how a run is planned, what it writes when it is cut, and how it is
read."""

import json
import math
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from minitransformer.model import ModelConfig
from minitransformer.train import GOOD
from studies import __main__ as entry
from studies import ablation, long_arms, recipes
from studies.arms import Arm, Text
from studies.long_arms import TUNED, Design, Kept, Shared

TINY = Design(3000, 64, 600, batch_size=2, window=16, width=16, looks=3, seeds=2)
MADE = {"arms": ["default", "no positions"], "recipes": ["AdamW", "cosine"], "window": 16}


@pytest.fixture
def few(monkeypatch):
    """No more choices than it takes to tell them apart."""
    whole = long_arms.choices

    def some(design, vocab_size, steps):
        groups, names = whole(design, vocab_size, steps), (MADE["arms"], MADE["recipes"])
        return tuple(
            {name: group[name] for name in own} for group, own in zip(groups, names, strict=True)
        )

    monkeypatch.setattr(long_arms, "choices", some)
    monkeypatch.setattr(long_arms, "PACED", long_arms.SETTLED + 2)


def test_each_recipe_that_is_varied_changes_one_thing():
    cfg, recipe = ModelConfig(vocab_size=254), replace(GOOD, window=128)
    runs = recipes.varied(cfg, recipe)
    for name, (model, plan) in runs.items():
        differs = {k for k in vars(cfg) if vars(model)[k] != vars(cfg)[k]}
        differs |= {k for k in vars(plan) if vars(plan)[k] != vars(recipe)[k]}
        pairs = ({"cooldown", "cooldown_shape"}, {"cooldown", "ema"})
        assert len(differs) == 1 or differs in pairs, name
    assert len({(model, plan) for model, plan in runs.values()} - {(cfg, recipe)}) == len(runs)
    assert len({plan.tokens for _, plan in runs.values()}) == 1


def test_the_steps_of_a_run_fill_the_time_of_the_workers():
    steps = long_arms.planned(400, 13, [0.5, 0.25])
    spent = steps * ((3 + 5) * 0.5 + (3 + 3) * 0.25) * long_arms.BESIDE
    assert 0.99 < spent / (long_arms.FILLED * 400 * 13) <= 1
    assert long_arms.planned(0.001, 1, [9, 9]) == 1
    assert long_arms.planned(1e9, 99, [1e-3, 0]) == long_arms.MOST_STEPS


def test_when_time_is_over_arms_have_five_seeds_before_recipes_have_more_than_three():
    order = long_arms.in_turn(8)
    assert sorted(order) == [(which, i) for which in (0, 1) for i in range(8)]
    for which in (0, 1):
        assert [i for w, i in order if w == which] == list(range(8))
    assert order[:8] == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2), (0, 3), (0, 4)]


def test_everything_is_run_tuned_on_validation_and_kept(few, tmp_path):
    told = []
    kept = long_arms.run(
        tmp_path / "long", 10, 1, TINY, 4, done=lambda *row: told.append(row), cpu="a", commit="b",
        date="c", torch="d",
    )  # fmt: skip
    names = [*MADE["arms"], *MADE["recipes"]]
    tuned = kept.looks[kept.looks.seed == TUNED]
    assert set(tuned.run) == set(names) and len(tuned.groupby(["run", "lr"])) == 3 * len(names)
    assert (
        kept.looks.step.max() == 4 and (kept.looks.groupby(["run", "seed", "lr"]).size() == 3).all()
    )
    assert set(kept.losses.seed) == {42, 43} and set(kept.losses.arm) == set(names)
    rates = kept.losses.groupby("arm").lr.unique()
    assert {name: rate for name, (rate,) in rates.items()} == long_arms.chosen(kept.looks)
    assert kept.losses.groupby("arm").evaluated_window.max()["no positions"] == 256
    assert {stage for stage, steps, of in told if steps == of} == {"paced", "trained"}
    again = long_arms.left(tmp_path / "long")
    pd.testing.assert_frame_equal(again.losses, kept.losses)
    assert long_arms.compared(tmp_path / "long") is not None
    cut = kept.losses[(kept.losses.arm != "cosine") | (kept.losses.seed != 43)]
    cut.to_csv(tmp_path / "long" / "arms.csv", index=False)
    assert long_arms.compared(tmp_path / "long") is None  # one whole seed tells nothing

    own = kept.losses[kept.losses.evaluated_window == 16].set_index(["arm", "seed"]).nats
    change = long_arms.effects(kept).set_index("change").difference_nats["no positions"]
    assert change == pytest.approx((own["no positions"] - own["default"]).mean())
    apart = long_arms.by_mechanism(kept)
    assert len(apart) == 4 and (apart.pairs == 2).all()
    excess = kept.losses[kept.losses.evaluated_window == 16].set_index(["arm", "seed"])
    excess = excess.excess_recency_nats
    recency = apart.set_index("change").difference_nats["no positions on recency"]
    assert recency == pytest.approx((excess["no positions"] - excess["default"]).mean())
    shares = long_arms.learnt(kept).set_index("mechanism")
    assert list(shares.index) == ["bigram", "offset", "recency", "induction"]
    assert (shares.least_percent <= shares.recovered_percent).all()
    table = long_arms.tried(kept)
    assert set(table.recipe) == {"default", "AdamW", "cosine"}
    ruler = table.set_index("recipe").loc["AdamW"]
    assert ruler.tokens_percent == pytest.approx(100) == pytest.approx(ruler.seconds_percent)
    assert "p after Holm" in long_arms.shown(kept) and "choices." in long_arms.said(kept)
    assert long_arms.told(kept).endswith("4 steps of 2 × 16 tokens.") and "on a with 1 " in (
        long_arms.told(kept)
    )


def row(run, seed, nats, lr=1.0, step=1, **more):
    tokens = {"tokens": 100 * step, "seconds": 2.0 * step}
    return {"run": run, "seed": seed, "lr": lr, "step": step, "valid_nats": nats} | tokens | more


def test_a_rate_is_chosen_by_its_end_and_by_the_seed_of_its_own():
    looks = pd.DataFrame(
        [row("a", TUNED, 1.0, 1.0), row("a", TUNED, 3.0, 1.0, 2), row("a", TUNED, 2.0, 2.0, 2),
         row("a", TUNED, math.inf, 4.0, 2), row("a", 42, 0.1, 4.0, 2), row("b", TUNED, 5.0, 8.0)]
    )  # fmt: skip
    assert long_arms.chosen(looks) == {"a": 2.0, "b": 8.0}
    assert long_arms.at_an_end(looks) == ["b"]
    at_best = long_arms.at_best({"a": (None, GOOD), "c": (None, GOOD)}, {"a": 2.0}, 9)
    assert [(arm.name, arm.recipe.lr, arm.seed) for arm in at_best] == [("a", 2.0, 9)]


def test_the_way_to_a_quality_is_a_straight_line_between_looks():
    curve = pd.DataFrame([row("a", 1, 4.0), row("a", 1, 2.0, step=2), row("a", 1, 1.0, step=3)])
    assert long_arms.reached(curve, 3.0) == {"tokens": 150, "seconds": 3.0}
    assert long_arms.reached(curve, 1.0) == {"tokens": 300, "seconds": 6.0}
    assert long_arms.reached(curve, 9.0) == {"tokens": 100, "seconds": 2.0}
    assert np.isnan(long_arms.reached(curve, 0.5)["tokens"])
    ruler = [row("r", seed, 3.0, step=2) for seed in (1, 2)]
    slow = [row("s", 1, 3.0), row("s", 2, 9.0)]
    fast = [row("f", 1, 3.0), row("f", 2, 2.0)]
    found = long_arms.to_quality(pd.DataFrame(ruler + slow + fast), "r")
    assert found.tokens_percent["r"] == 100 and found.tokens_percent["f"] == 50
    assert found.loc["s"].isna().all()


def test_only_seeds_from_which_all_were_trained_are_compared():
    rows = [
        {"arm": arm, "seed": seed, "evaluated_window": 16, "nats": seed + (arm == "b")}
        for arm in ("default", "b")
        for seed in (1, 2, 3)
    ]
    kept = Kept(pd.DataFrame(rows[:-1]), pd.DataFrame(), {"window": 16, "arms": ["default", "b"]})
    assert list(long_arms.home(kept, ["default", "b"]).index) == [1, 2]
    assert long_arms.effects(kept).pairs.tolist() == [2]
    assert long_arms.home(kept, ["default", "absent"]).empty
    nothing = kept._replace(losses=kept.losses[:0])
    assert long_arms.home(nothing, ["default", "b"]).empty


@pytest.fixture
def shared(tmp_path):
    words = long_arms.language(TINY)
    texts = {name: Text.of(words, name, 16) for name in ("valid", "test")}
    long_arms.begin(tmp_path, {})
    return Shared(texts, tmp_path, time.time() + 60, {"default": 1.0, "wild": 1.0}, 2)


def written(folder):
    return [
        len((folder / name).read_text().splitlines()) - 1 for name in ("arms.csv", "arms-looks.csv")
    ]


def test_a_run_that_time_runs_out_on_leaves_nothing(shared, tmp_path):
    groups = long_arms.choices(TINY, 254, 4)
    arm = Arm("default", *groups[0]["default"], 42)
    long_arms.trained(arm, shared._replace(until=time.time() + 0.5), lambda step: None)
    assert written(tmp_path) == [0, 0]  # it would have taken a second

    def slow(step):
        time.sleep(0.2)

    soon = shared._replace(until=time.time() + 0.3, seconds={"default": 0.0})
    long_arms.trained(arm, soon, slow)
    assert written(tmp_path) == [0, 0]
    long_arms.trained(arm, shared, lambda step: None)
    windows = len([w for w in ablation.SPANS if 16 < w < 300])
    assert written(tmp_path) == [1 + windows, 2]


def test_a_rate_that_explodes_loses_and_ends_nothing_else(shared, tmp_path):
    cfg, recipe = long_arms.choices(TINY, 254, 4)[0]["default"]
    wild = Arm("wild", cfg, replace(recipe, lr=1e30, optimizer="adamw"), TUNED)
    long_arms.trained(wild, shared, lambda step: None)
    looks = pd.read_csv(tmp_path / "arms-looks.csv")
    assert looks.valid_nats.tolist() == [math.inf] and written(tmp_path)[0] == 0


def test_the_command_tells_how_far_it_is_and_how_many_seeds_are_whole(
    monkeypatch, tmp_path, capsys
):
    asked = {}
    losses = pd.DataFrame(
        [{"arm": name, "seed": 42, "evaluated_window": 16, "nats": 1.0} for name in MADE["arms"]]
    )

    def run(out, minutes, workers, steps, done, **about):
        asked.update(about, out=out, minutes=minutes, workers=workers, steps=steps)
        for taken in (1, 5, 10):
            done("trained", taken, 10)
        return Kept(losses, pd.DataFrame(), MADE)

    monkeypatch.setattr(long_arms, "run", run)
    given = ["--out", str(tmp_path), "--minutes", "7", "--workers", "3", "--commit", "abc"]
    assert entry.main(given) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 4 and "1 of 10 steps" in said[0] and "10 of 10 steps" in said[1]
    assert said[2:] == ["arms: 1 whole seeds of 2 choices", "recipes: 0 whole seeds of 3 choices"]
    assert asked["command"] == "python -m studies --minutes 7 --workers 3"
    assert asked["commit"] == "abc" and json.dumps(asked | {"out": ""})


def test_what_was_never_kept_is_said(tmp_path):
    assert long_arms.told(None).startswith("No long arms have been kept yet")
    assert long_arms.compared(tmp_path) is None
