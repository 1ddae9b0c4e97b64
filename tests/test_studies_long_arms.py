"""Long arms that are kept: what is run, what is left when it is cut or killed, and how it is
read."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from minitransformer.model import ModelConfig
from minitransformer.train import GOOD
from studies import __main__ as entry
from studies import ablation, kept_arms, long_arms, recipes, seeds
from studies.arms import Arm, Text
from studies.kept_arms import TUNED, Kept
from studies.long_arms import Design, Shared

TINY = Design(3000, 64, 600, batch_size=2, window=16, width=16, steps=4, looks=2, seeds=2)
MADE = {"choices": ["default", "no positions"], "window": 16}
MACHINE = {"cpu": "a", "torch": "d"}
SITTING = {"commit": "b", "command": "c"}


@pytest.fixture
def few(monkeypatch):
    """No more choices than it takes to tell them apart."""
    whole, names = long_arms.choices, ("default", "no positions", "AdamW", "cosine")

    def some(*given):
        return {name: what for name, what in whole(*given).items() if name in names}

    monkeypatch.setattr(long_arms, "choices", some)


def sitting(folder, family="arms", minutes=10, design=TINY, **machine):
    return long_arms.run(folder, family, minutes, 1, design, None, MACHINE | machine, **SITTING)


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


@pytest.mark.parametrize("family", long_arms.FAMILIES)
def test_what_is_kept_has_the_names_that_the_choices_have_now(family):
    """Else the next sitting would refuse to go on with it."""
    kept = kept_arms.left(Path(__file__).resolve().parent.parent / "reports" / "long", family)
    names = list(long_arms.choices(family, Design(), 254, Design().steps))
    assert kept.made["choices"] == names and set(kept.losses.arm) == set(kept.looks.run) == {*names}


def test_arms_are_tuned_on_validation_trained_from_every_seed_and_kept(few, tmp_path):
    kept = sitting(tmp_path / "long")
    tuned = kept.looks[kept.looks.seed == TUNED]
    assert set(tuned.run) == set(MADE["choices"]) == set(kept.made["choices"])
    assert {0.008, 0.016, 0.032} <= set(tuned.lr) and set(tuned.step) == {2}
    tried = tuned.groupby("run").lr.nunique()
    assert tried.between(3, 5).all()
    assert set(kept_arms.at_an_end(kept.looks)) <= set(tried.index[tried == 5])
    assert set(kept.losses.seed) == {42, 43} and kept.looks.step.max() == 4
    rates = kept.losses.groupby("arm").lr.unique()
    assert {name: rate for name, (rate,) in rates.items()} == kept_arms.chosen(kept.looks)
    assert kept.losses.groupby("arm").evaluated_window.max()["no positions"] == 256
    (own,) = kept.made["sittings"]
    assert own | SITTING == own and own["workers"] == 1 and own["core_seconds"] > 0
    assert "on a with 1 processes" in (told := kept_arms.how_made(kept)) and "at commit b, " in told
    assert "4 steps of 2 × 16 tokens, 2 to choose" in told and "had a core for" in told
    assert kept_arms.left(tmp_path / "long", "recipes") is None

    excess = kept.losses[kept.losses.evaluated_window == 16].set_index(["arm", "seed"])
    change = kept_arms.effects(kept).set_index("change").difference_nats["no positions"]
    assert change == pytest.approx((excess.nats["no positions"] - excess.nats["default"]).mean())
    apart = kept_arms.by_mechanism(kept).set_index("change")
    assert len(apart) == 4 and (apart.pairs == 2).all()
    found = excess.excess_recency_nats["no positions"] - excess.excess_recency_nats["default"]
    assert apart.difference_nats["no positions on recency"] == pytest.approx(found.mean())
    assert list(kept_arms.learnt(kept).mechanism) == ["bigram", "offset", "recency", "induction"]
    longer = kept_arms.lengths(kept)
    assert set(longer.evaluated_window) == {16, 64, 128, 256} and len(longer) == 8
    beyond = "Read in windows of 256 tokens instead of the trained 16, on average: rotary "
    assert beyond in (said := kept_arms.in_words(kept)) and said.endswith("that was tried.")
    assert "%): no arm. " in said
    worth, reach = kept.made["worth_nats"]["induction"], kept.made["reach_percent"]["induction"]
    one_look = worth * (1 - reach / 100)  # what it leaves
    for left, told in (
        (1.01 * one_look, "no arm"),
        (0.99 * one_look, "no positions from 2 of 2 seeds"),
    ):
        excess_left = np.where(kept.losses.arm == "no positions", left, worth)
        own = kept._replace(losses=kept.losses.assign(excess_induction_nats=excess_left))
        said = f"More of induction than one look finds ({reach:.0f} %): {told}. "
        assert worth > 0 and said in kept_arms.in_words(own)
    unclear = kept_arms.effects(kept).reading  # of the whole loss; a mechanism decides
    assert [*unclear] == [seeds.UNCLEAR] and kept_arms.settled(kept) == ["no positions"]
    even = kept._replace(losses=kept.losses.assign(**dict.fromkeys(kept_arms.EXCESS, 0.1)))
    assert kept_arms.settled(even) == []
    sure = even.losses.nats.where(kept.losses.arm == "default", kept.losses.nats + 9)
    assert kept_arms.settled(even._replace(losses=even.losses.assign(nats=sure))) == [
        "no positions"
    ]
    assert set(kept_arms.above_floor(kept).what) == {"width 128, 1 block"}
    assert seeds.power(kept_arms.effects(kept)).startswith("With 2 paired seeds and 1 comparisons")


def test_recipes_are_kept_apart_and_told_by_what_they_take(few, tmp_path):
    kept = sitting(tmp_path, "recipes")
    table = kept_arms.tried(kept)
    assert set(table.recipe) == {"default", "AdamW", "cosine"}
    ruler = table.set_index("recipe").loc["AdamW"]
    assert ruler.tokens_percent == pytest.approx(100) == pytest.approx(ruler.seconds_percent)
    assert "p after Holm" in kept_arms.shown(kept)
    assert kept_arms.recipes_said(kept).endswith("of 3 recipes.")
    assert {path.name for path in tmp_path.iterdir()} == {
        "recipes.csv", "recipes-looks.csv", "recipes.json"
    }  # fmt: skip


def cut(folder, losses, looks):
    """What was kept, as a kill after so many rows would have left it."""
    for name, rows in (("arms.csv", losses), ("arms-looks.csv", looks)):
        lines = (folder / name).read_text().splitlines(keepends=True)
        (folder / name).write_text("".join(lines[: rows + 1]))


@pytest.mark.parametrize("losses, looks", [(0, 0), (0, 4), (4, -8), (8, -6), (8, -4), (16, -2)])
def test_what_was_killed_goes_on_to_the_same_results(few, tmp_path, losses, looks):
    """Whatever row the kill came after: in the rates, in the seeds, between a run's two tables."""
    whole = sitting(tmp_path)
    cut(tmp_path, losses, looks if looks >= 0 else len(whole.looks) + looks)
    again = sitting(tmp_path)
    for one, other, keys in (
        (whole.losses, again.losses, ["seed", "arm", "evaluated_window"]),
        (whole.looks, again.looks, ["seed", "run", "lr", "step"]),
    ):
        pd.testing.assert_frame_equal(
            *(
                table.drop(columns=["step_ms", "seconds"], errors="ignore")
                .sort_values(keys)
                .reset_index(drop=True)
                for table in (one, other)
            )
        )
    assert len(again.made["sittings"]) == 2
    done = (tmp_path / "arms-looks.csv").read_bytes()
    assert len(sitting(tmp_path).made["sittings"]) == 3
    assert (tmp_path / "arms-looks.csv").read_bytes() == done  # nothing is made twice


def test_a_sitting_that_is_too_short_leaves_no_half_of_a_run_and_chooses_nothing(few, tmp_path):
    kept = sitting(tmp_path, minutes=0)
    assert kept.losses.empty and kept.looks.empty
    assert kept_arms.compared(tmp_path, "arms") is None
    sitting(tmp_path)
    cut(tmp_path, 0, 5)  # a rate was not tried to its end
    assert len(sitting(tmp_path, minutes=0).losses) == 0
    assert kept_arms.compared(tmp_path, "arms") is None
    assert len(sitting(tmp_path).losses) == 16


@pytest.mark.parametrize("changed", [{"design": replace(TINY, steps=5)}, {"cpu": "another"}])
def test_what_was_made_otherwise_is_not_gone_on_with(few, tmp_path, changed):
    sitting(tmp_path, minutes=0)
    with pytest.raises(ValueError, match="arms.json was begun with .* not .*: give another --out"):
        sitting(tmp_path, **changed)


def test_one_whole_seed_tells_nothing(few, tmp_path):
    kept = sitting(tmp_path)
    assert kept_arms.compared(tmp_path, "arms") is not None
    rest = kept.losses[(kept.losses.arm != "default") | (kept.losses.seed != 43)]
    rest.to_csv(tmp_path / "arms.csv", index=False)
    assert kept_arms.compared(tmp_path, "arms") is None


def test_a_mechanism_is_learnt_over_half_of_what_is_within_reach():
    """Of a worth of 2 nats and a reach of 60 %, 0.6 nats of gain are half."""
    made = MADE | {"choices": ["default"], "worth_nats": dict.fromkeys(kept_arms.MECHANISMS, 0.0)}
    made["worth_nats"]["induction"], made["reach_percent"] = 2.0, {"induction": 60}
    losses = pd.DataFrame(
        {"arm": "default", "seed": [1, 2], "evaluated_window": 16, "nats": 1.0,
         "excess_induction_nats": [1.3, 1.5]}
    )  # fmt: skip
    looks = [row("default", 1, 1.0, step=s, excess_induction_nats=x) for s, x in ((3, 1.5), (6, 1))]
    looks += [row("default", 2, 1.0, step=3, excess_induction_nats=1.39)]
    found = kept_arms.learnt(Kept(losses, pd.DataFrame(looks), made)).iloc[0]
    assert found.recovered_percent == pytest.approx(30) and found.reach_percent == 60
    assert (found.seeds, found.learnt_from, found.by_step) == (2, 1, 6)
    never = kept_arms.learnt(Kept(losses, pd.DataFrame(looks[:2]), made)).iloc[0]
    assert np.isnan(never.by_step)


def row(run, seed, nats, lr=1.0, step=1, **more):
    tokens = {"tokens": 100 * step, "seconds": 2.0 * step}
    return {"run": run, "seed": seed, "lr": lr, "step": step, "valid_nats": nats} | tokens | more


def test_a_rate_is_chosen_by_its_end_and_by_the_seed_of_its_own():
    looks = pd.DataFrame(
        [row("a", TUNED, 1.0, 1.0), row("a", TUNED, 3.0, 1.0, 2), row("a", TUNED, 2.0, 2.0, 2),
         row("a", TUNED, math.inf, 4.0, 2), row("a", 42, 0.1, 4.0, 2), row("b", TUNED, 5.0, 8.0)]
    )  # fmt: skip
    assert kept_arms.chosen(looks) == {"a": 2.0, "b": 8.0}
    assert kept_arms.at_an_end(looks) == ["b"]


@pytest.mark.parametrize(
    "ends, asked",
    [
        ({}, [1, 2, 4]),
        ({1: 0.1, 2: 0.2}, [1, 2, 4]),
        ({1: 0.2, 2: 0.1, 4: 0.3}, [1, 2, 4]),
        ({1: 0.3, 2: 0.2, 4: 0.1}, [1, 2, 4, 8]),
        ({1: 0.3, 2: 0.2, 4: 0.1, 8: math.inf}, [1, 2, 4, 8]),
        ({1: 0.1, 2: 0.2, 4: 0.3, 0.5: 0.05}, [0.25, 0.5, 1, 2, 4]),
        ({1: 0.1, 2: 0.2, 4: 0.3, 0.5: 0.05, 0.25: 0.04}, [0.25, 0.5, 1, 2, 4]),
    ],
)
def test_rates_are_asked_for_until_the_best_lies_between_two_or_twice(ends, asked):
    tried = pd.DataFrame(
        [row("a", TUNED, nats, lr) for lr, nats in ends.items()], columns=row("a", 1, 1.0).keys()
    )
    design = replace(TINY, lr=2.0, rates=(0.5, 1.0, 2.0), wider=2)
    assert long_arms.asked(tried, design) == asked


def test_seeds_come_one_after_the_other_each_with_every_choice_at_its_rate():
    names = long_arms.choices("arms", TINY, 254, 4)
    found = long_arms.at_best("arms", TINY, 254, dict.fromkeys(names, 2.0))
    assert [arm.seed for arm in found] == [42] * len(names) + [43] * len(names)
    assert {arm.name for arm in found[: len(names)]} == set(names)
    assert {arm.recipe.lr for arm in found} == {2.0} and found[0].name == "width 192"
    assert not {"width 256", "grouped queries"} & set(names)


def test_the_way_to_a_quality_is_a_straight_line_between_looks():
    curve = pd.DataFrame([row("a", 1, 4.0), row("a", 1, 2.0, step=2), row("a", 1, 1.0, step=3)])
    assert kept_arms.reached(curve, 3.0) == {"tokens": 150, "seconds": 3.0}
    assert kept_arms.reached(curve, 1.0) == {"tokens": 300, "seconds": 6.0}
    assert kept_arms.reached(curve, 9.0) == {"tokens": 100, "seconds": 2.0}
    assert np.isnan(kept_arms.reached(curve, 0.5)["tokens"])
    ruler = [row("r", seed, 3.0, step=2) for seed in (1, 2)]
    slow = [row("s", 1, 3.0), row("s", 2, 9.0)]
    fast = [row("f", 1, 3.0), row("f", 2, 2.0)]
    found = kept_arms.to_quality(pd.DataFrame(ruler + slow + fast), "r")
    assert found.tokens_percent["r"] == 100 and found.tokens_percent["f"] == 50
    assert found.loc["s"].isna().all()


def test_only_seeds_from_which_all_were_trained_are_compared():
    rows = [
        {"arm": arm, "seed": seed, "evaluated_window": 16, "nats": seed + (arm == "no positions")}
        for arm in MADE["choices"]
        for seed in (1, 2, 3)
    ]
    kept = Kept(pd.DataFrame(rows[:-1]), pd.DataFrame(), MADE)
    assert list(kept_arms.home(kept).index) == [1, 2]
    assert kept_arms.effects(kept).pairs.tolist() == [2]
    assert list(kept_arms.every(kept).index) == [1, 2, 3]  # a recipe's own pairs, one by one
    assert kept_arms.every(kept).iloc[2].isna().tolist() == [False, True]
    assert kept_arms.home(kept._replace(made={"window": 16, "choices": ["absent"]})).empty
    assert kept_arms.home(kept._replace(losses=kept.losses[:0])).empty


@pytest.fixture
def shared(tmp_path):
    words = long_arms.language(TINY)
    texts = {name: Text.of(words, name, 16) for name in ("valid", "test")}
    long_arms.begin(tmp_path, "arms", {})
    return Shared(texts, tmp_path, "arms", time.time() + 60, 2)


def written(folder):
    return [
        len((folder / name).read_text().splitlines()) - 1 for name in ("arms.csv", "arms-looks.csv")
    ]


def test_a_run_that_time_runs_out_on_leaves_nothing(shared, tmp_path):
    arm = Arm("default", *long_arms.choices("arms", TINY, 254, 4)["default"], 42)

    def slow(step):
        time.sleep(0.2)

    long_arms.trained(arm, shared._replace(until=time.time() + 0.3), slow)
    assert written(tmp_path) == [0, 0]
    long_arms.trained(arm, shared, lambda step: None)
    windows = len([w for w in ablation.SPANS if 16 < w < 300])
    assert written(tmp_path) == [1 + windows, 2]


def test_a_rate_that_explodes_loses_and_ends_nothing_else(shared, tmp_path):
    cfg, recipe = long_arms.choices("arms", TINY, 254, 4)["default"]
    wild = Arm("wild", cfg, replace(recipe, lr=1e30, optimizer="adamw"), TUNED)
    long_arms.trained(wild, shared, lambda step: None)
    looks = pd.read_csv(tmp_path / "arms-looks.csv")
    assert looks.valid_nats.tolist() == [math.inf] and written(tmp_path)[0] == 0
    assert long_arms.unfinished([wild], looks) == []


def test_the_command_tells_how_far_it_is_and_how_many_seeds_are_whole(
    monkeypatch, tmp_path, capsys
):
    asked = {}
    losses = pd.DataFrame(
        [{"arm": name, "seed": 42, "evaluated_window": 16, "nats": 1.0} for name in MADE["choices"]]
    )

    def run(out, family, minutes, workers, design, done, machine, **sitting):
        asked.update(machine, **sitting, family=family, workers=workers, steps=design.steps)
        for taken in (1, 5, 10):
            done("rates", taken, 10)
        return Kept(losses, pd.DataFrame(), MADE)

    monkeypatch.setattr(long_arms, "run", run)
    given = ["--out", str(tmp_path), "--minutes", "7", "--workers", "3", "--commit", "abc"]
    assert entry.main([*given, "--steps", "6"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3 and "1 of 10 steps" in said[0] and "10 of 10 steps" in said[1]
    assert said[2] == "arms: 1 whole seeds of 2 choices"
    assert asked["command"] == "python -m studies --family arms --minutes 7 --workers 3 --steps 6"
    assert (asked["commit"], asked["family"], asked["steps"]) == ("abc", "arms", 6)
    assert json.dumps(asked)

    def refused(*given, **sitting):
        raise ValueError("arms.json was begun otherwise")

    for more in (["--minutes", "nan"], ["--steps", "-5"]):
        assert entry.main([*given, *more]) == 2
        told = capsys.readouterr().err
        assert told.startswith(f"error: {' '.join(more)} is") and told.count("\n") == 1
    monkeypatch.setattr(long_arms, "run", refused)
    assert entry.main(given) == 2 and "begun otherwise" in capsys.readouterr().err


ABSOLUTE = ("default", "sinusoidal positions")


def positions(gains):
    """Losses by evaluated window of rotary positions that are better by `gains`."""
    return pd.DataFrame(
        {"arm": arm, "seed": seed, "evaluated_window": w, "tokens": 2000,
         "nats": 4.0 + (arm != "default") * (gain + 0.01 * seed)}
        for w, gain in gains.items() for seed in (1, 2, 3) for arm in ABSOLUTE
    )  # fmt: skip


def test_long_arms_answer_where_they_are_kept_and_the_short_ones_stand_in_the_remark():
    short = positions({16: 0.0, 600: 0.5})
    made = {"choices": [*ABSOLUTE], "window": 16}
    kept = Kept(positions({16: 0.2, 600: 0.1, 900: -0.3}), pd.DataFrame(), made)
    rows = kept_arms.rotary(kept, short, 0.95)
    assert [round(row["answer"].value, 2) for row in rows.values()] == [-0.22, 0.28, 0.28]
    assert rows["home"]["note"].startswith(
        "At 16 tokens, by the longer arms; by the short ones −0.0"
    )
    told = "At 900 tokens, trained on 16, by the longer arms (at 600 −0.12"
    assert rows["beyond"]["note"].startswith(told)
    assert "; by the short ones at 600 −0.52" in rows["past 512"]["note"]
    alone = kept_arms.rotary(None, short, 0.95)
    assert [round(row["answer"].value, 2) for row in alone.values()] == [-0.02, -0.52, -0.52]
    assert alone["home"]["note"] == "At 16 tokens, by the short arms."
    brief = kept_arms.rotary(None, positions({16: 0.0, 64: 0.5}), 0.95)
    assert brief["past 512"] == {"answer": (None, None)}  # nothing so long was evaluated


def effect_rows(**arms):
    """`seeds.effects` of arms that differ from the default by so much from seeds 1 to 3."""
    wide = {name.replace("_", " "): [d + x for x in (-0.01, 0, 0.01)] for name, d in arms.items()}
    return seeds.effects(pd.DataFrame({"default": [0.0, 0.0, 0.0]} | wide))


def kept_with(**arms):
    """Long arms whose effects are those of `effect_rows`."""
    rows = [
        {
            "arm": name.replace("_", " "),
            "seed": i,
            "evaluated_window": 16,
            "tokens": 2000,
            "nats": x,
        }
        for name, d in ({"default": None} | arms).items()
        for i, x in enumerate([0.0] * 3 if d is None else [d - 0.01, d, d + 0.01])
    ]
    choices = list(dict.fromkeys(row["arm"] for row in rows))
    return Kept(pd.DataFrame(rows), pd.DataFrame(), {"choices": choices, "window": 16})


def test_a_change_is_that_of_the_long_arms_or_of_the_short_ones_with_the_nearest_kept():
    short = effect_rows(two_blocks=-0.5, width_256=0.3)
    kept = kept_with(two_blocks=0.02, width_64=0.1, width_192=-0.04)
    found = kept_arms.change(kept, short, 500, "two blocks")
    assert found["answer"].value == pytest.approx(0.02)
    assert found["note"].startswith(
        "By the longer arms, of 2,000 tokens; by the short ones, of 500 "
    )
    assert "−0.500 [" in found["note"]
    wide = kept_arms.change(kept, short, 500, "width 256")
    assert wide["answer"].value == pytest.approx(0.3)
    assert "; width 192 by the longer ones, of 2,000, −0.040 [" in wide["note"]
    bare = kept_arms.change(None, short, 500, "two blocks")
    assert bare == {"answer": seeds.of(short, "two blocks"),
                    "note": "By the short arms, of 500 tokens."}  # fmt: skip
    told = kept_arms.change(None, effect_rows(**{"2_blocks": -0.5}), 500, "2 blocks")["note"]
    assert told.endswith(
        " tokens. On the page's own corpus chapter 3 has one longer training of each."
    )


def test_what_the_short_arms_decide_is_confirmed_by_name_or_not():
    short = effect_rows(a=0.5, b=-0.5, c=0.5, d=0.0, e=0.5)
    kept = kept_with(a=0.6, b=0.6, c=0.0, d=0.7)
    assert kept_arms.confirmed(kept, short) == (
        " Of the short arms' changes the longer ones confirm a, not b nor c, and hold no e."
    )
    assert kept_arms.confirmed(kept, effect_rows(a=0.0)) == ""
    told = kept_arms.answer(kept, short)
    assert told.startswith("Decided by the longer arms, measured apart: **d +0.700 nats")
    assert told.endswith("**." + kept_arms.confirmed(kept, short))
    assert kept_arms.answer(None, short).endswith("apart: **not measured**.")


def test_a_change_that_holms_correction_alone_decides_is_named():
    table = pd.DataFrame(
        {"change": ["a", "b", "c"], "reading": [seeds.WORSE, seeds.WORSE, seeds.UNCLEAR],
         "low": [-0.1, 0.1, -0.1], "high": 0.5}
    )  # fmt: skip
    said = kept_arms.by_holm_alone(table)
    assert said == " (a by Holm's correction; Bonferroni's interval holds 0)"
    assert kept_arms.by_holm_alone(table[1:]) == ""


def test_what_was_never_kept_is_said(tmp_path):
    assert kept_arms.how_made(None).startswith("None have been kept yet")
    assert kept_arms.compared(tmp_path, "arms") is None
