"""Training: recipes, initial loss, bit-exact resumption, and the end at the first loss that is not
finite."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from minitransformer.model import ModelConfig, Transformer
from minitransformer.train import (
    GOOD,
    RECIPES,
    SEED,
    NonFiniteError,
    TrainConfig,
    initialize,
    learning_rate,
    train,
)

CFG = ModelConfig(vocab_size=50, d_model=32, context=32)
RUN = TrainConfig(
    steps=12,
    batch_size=4,
    window=16,
    lr=1e-2,
    warmup=2,
    cooldown=0.5,
    weight_decay=0.1,
    initialization="scaled",
)


def batch(step):
    return torch.randint(0, 50, (4, 17), generator=torch.Generator().manual_seed(step))


def fresh(cfg=CFG, initialization="scaled", seed=0):
    return initialize(Transformer(cfg), initialization, seed)


@pytest.mark.parametrize("d_model", [64, 128, 256])
@pytest.mark.parametrize("n_layers", [1, 2])
def test_the_good_recipe_starts_at_the_loss_of_a_uniform_guess(d_model, n_layers):
    cfg = ModelConfig(d_model=d_model, n_layers=n_layers)
    ids = torch.randint(0, 1004, (4, 129), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        loss = F.cross_entropy(fresh(cfg)(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).item()
        torch_loss = F.cross_entropy(
            fresh(cfg, "torch")(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()
        ).item()
    assert abs(loss - math.log(1004)) < 0.05
    assert torch_loss > math.log(1004) + 0.1


def test_pytorchs_default_initialisation_is_reproduced_in_distribution():
    ours = fresh(ModelConfig(), "torch").state_dict()
    torch.manual_seed(0)
    for name, theirs in Transformer(ModelConfig()).state_dict().items():
        if "norm" not in name:
            assert math.isclose(ours[name].std(), theirs.std(), rel_tol=0.2), name


def test_the_seed_recipe_is_the_seed_reports():
    assert RECIPES == {"seed": SEED, "good": GOOD}
    assert (SEED.steps, SEED.batch_size, SEED.window, SEED.lr, SEED.warmup, SEED.clip) == (
        100,
        4,
        64,
        1e-3,
        10,
        1.0,
    )
    assert SEED.batches == {"batch_size": 4, "window": 64, "short_window": 0, "short_steps": 0}
    assert SEED.tokens == 25_600 and SEED.initialization == "torch" and SEED.weight_decay == 0


def test_the_learning_rate_rises_stays_and_falls_to_zero():
    rates = [learning_rate(s, RUN) for s in range(12)]
    assert rates[:3] == [pytest.approx(1e-2 / 3), pytest.approx(2e-2 / 3), 1e-2]
    assert max(rates) == rates[5] == 1e-2 and rates == sorted(rates[:3]) + rates[3:6] + sorted(
        rates[6:], reverse=True
    )
    assert 0 < rates[-1] < 2e-3
    assert learning_rate(11, replace(RUN, cooldown=0.0)) == 1e-2


def test_a_cosine_falls_in_half_a_wave_from_the_peak_to_zero():
    wave = replace(RUN, steps=100, warmup=0, cooldown=1.0, cooldown_shape="cosine")
    rates = [learning_rate(s, wave) / wave.lr for s in range(100)]
    assert rates == pytest.approx([(1 + math.cos(math.pi * s / 100)) / 2 for s in range(100)])
    stays = replace(wave, cooldown=0.0)
    assert learning_rate(99, stays) == wave.lr


def test_zeroed_blocks_begin_as_the_identity():
    model, scaled = fresh(initialization="zeroed"), fresh()
    x = torch.randn(2, 5, CFG.d_model)
    for block in model.blocks:
        assert torch.equal(block(x), x)
    same = [
        name for name, p in scaled.state_dict().items() if torch.equal(p, model.state_dict()[name])
    ]
    assert set(scaled.state_dict()) - set(same) == {
        f"blocks.{i}.{name}.weight"
        for i in range(CFG.n_layers)
        for name in ("attention.out", "ffn.down")
    }


def test_one_batch_can_be_learnt_by_heart():
    rows = train(fresh(), lambda step: batch(0), replace(RUN, steps=150, cooldown=0.0))
    assert rows[0]["loss_nats"] > 3.5 and rows[-1]["loss_nats"] < 0.1
    assert rows[-1]["step"] == 150 and rows[-1]["tokens"] == 150 * 64


def test_a_resumed_run_equals_one_that_was_never_stopped(tmp_path):
    straight = fresh()
    whole = train(straight, batch, RUN)

    def stop_at_nine(row):
        if row["step"] == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(fresh(), batch, RUN, checkpoint=tmp_path / "run.pt", every=5, on_step=stop_at_nine)
    resumed = fresh()
    seen = []
    rows = train(resumed, batch, RUN, checkpoint=tmp_path / "run.pt", every=5, on_step=seen.append)
    assert [r["step"] for r in seen] == list(range(6, 13))
    assert [r["loss_nats"] for r in rows] == [r["loss_nats"] for r in whole]
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert (
        train(fresh(), batch, RUN, checkpoint=tmp_path / "run.pt") == rows
    )  # finished: nothing left to do
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


def test_a_broken_or_foreign_checkpoint_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "run.pt"
    train(fresh(), batch, RUN, checkpoint=path)
    for cfg, data in ((replace(RUN, lr=2e-3), batch), (RUN, lambda step: batch(step + 1))):
        with pytest.raises(
            ValueError,
            match="belongs to another run, with other (recipe|batches|teacher): delete it",
        ):
            train(fresh(), data, cfg, checkpoint=path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is not a whole training checkpoint"):
        train(fresh(), batch, RUN, checkpoint=path)
    assert path.read_bytes() == whole[: len(whole) // 2]


def test_a_loss_that_is_not_finite_stops_and_names_the_step_and_the_last_good_checkpoint(tmp_path):
    model, path = fresh(), tmp_path / "run.pt"

    def poison(row):
        if row["step"] == 7:
            model.head.weight.data[0, 0] = math.nan

    with pytest.raises(
        NonFiniteError,
        match=r"^step 8: the loss nan is not finite: "
        r"lower lr 0.01, or .*; the last finite checkpoint is .*run.pt$",
    ):
        train(model, batch, RUN, checkpoint=path, every=5, on_step=poison)
    with pytest.raises(ValueError, match="head.weight of the model is not finite before the first"):
        train(model, batch, RUN)
    assert len(torch.load(path, weights_only=True)["rows"]) == 5


def test_a_teachers_gradient_is_that_of_the_divergence_and_vanishes_where_the_two_agree():
    teacher, student = fresh(seed=1), fresh(seed=2)
    kept = [p.clone() for p in teacher.parameters()]
    ids, one = batch(0), replace(RUN, steps=1, clip=1e9)
    law = teacher(ids[:, :-1]).flatten(0, 1).log_softmax(-1)
    own = student(ids[:, :-1]).flatten(0, 1).log_softmax(-1)
    wanted = torch.autograd.grad(
        F.kl_div(own, law.detach(), log_target=True, reduction="batchmean"),
        list(student.parameters()),
    )
    entropy = -(law.exp() * law).sum(-1).mean().item()
    divergence = (law.exp() * (law - own)).sum(-1).mean().item()
    row = train(student, batch, one, teacher=teacher)[0]
    assert row["loss_nats"] == pytest.approx(entropy + divergence, rel=1e-6)
    for p, gradient in zip(student.parameters(), wanted, strict=True):
        assert torch.allclose(p.grad, gradient, rtol=1e-4, atol=1e-7)
    assert train(fresh(seed=1), batch, one, teacher=teacher)[0]["gradient_norm"] < 1e-6
    assert all(torch.equal(a, b) for a, b in zip(kept, teacher.parameters(), strict=True))
    assert all(p.grad is None for p in teacher.parameters())


def test_a_teacher_belongs_to_the_run(tmp_path):
    path, teacher = tmp_path / "run.pt", fresh(seed=1)
    rows = train(fresh(), batch, RUN, teacher=teacher, checkpoint=path)
    assert (
        train(fresh(), batch, RUN, teacher=fresh(seed=1), checkpoint=path) == rows
    )  # the same teacher: finished
    for other in (None, fresh(seed=3)):
        with pytest.raises(
            ValueError,
            match="belongs to another run, with other (recipe|batches|teacher): delete it",
        ):
            train(fresh(), batch, RUN, teacher=other, checkpoint=path)
    with pytest.raises(
        ValueError,
        match="the teacher knows 60 tokens, the model 50: give a teacher of the same vocabulary",
    ):
        train(fresh(), batch, RUN, teacher=fresh(replace(CFG, vocab_size=60)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps 0 is not positive"),
        ({"lr": math.nan}, "lr nan is not positive"),
        ({"cooldown": 2}, "cooldown 2 is out of range: give 0 to 1"),
        ({"initialization": "zeros"}, "initialization 'zeros' is unknown"),
    ],
)
def test_an_impossible_run_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        replace(RUN, **change)
