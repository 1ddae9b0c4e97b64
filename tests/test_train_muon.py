"""Muon moves the matrices of the blocks and AdamW the rest, with one schedule and one state."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from minitransformer.quant import QuantScheme
from minitransformer.train import learning_rate, optimizer, plan, prepare_qat, train
from minitransformer.train.muon import Muon, orthogonal, product_type
from training import RUN, batch, equal, fresh, losses

MUON = replace(RUN, optimizer="muon")


def test_each_parameter_is_moved_by_one_of_the_two():
    model = fresh()
    muon, decayed, rest = optimizer(model, MUON).param_groups
    names = {p: name for name, p in model.named_parameters()}
    moved = [{names[p] for p in group["params"]} for group in (muon, decayed, rest)]
    assert sorted(set.union(*moved)) == sorted(names.values())
    assert sum(map(len, moved)) == len(names)
    assert moved[0] == {n for n, p in model.named_parameters() if "blocks" in n and p.ndim == 2}
    assert moved[1] == {"head.weight"} and "embedding.weight" in moved[2]
    assert [g["weight_decay"] for g in (muon, decayed, rest)] == [0.1, 0.1, 0.0]


def test_a_step_of_muon_has_nearly_equal_singular_values_and_adamws_size():
    model, cfg = fresh(), replace(MUON, weight_decay=0.0, steps=1)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    train(model, batch, cfg)
    for name, p in model.named_parameters():
        if p.ndim != 2 or "blocks" not in name:
            continue
        step = (before[name] - p.detach()) / learning_rate(0, cfg)
        values = torch.linalg.svdvals(step) / (0.2 * max(p.shape) ** 0.5)
        assert 0.3 < values.median() < 1.3 and values.max() < 1.3, name
        assert 0.1 < step.square().mean().sqrt() < 0.3, name  # AdamW's is about 0.2 to 0.4


@pytest.fixture(params=[False, True])
def bfloat16(request, monkeypatch):
    """Whether the processor has instructions that multiply bfloat16."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": request.param})
    return request.param


@pytest.mark.parametrize("shape", [(48, 32), (32, 48), (32, 32)])
def test_it_steps_as_pytorchs_own_does_but_for_the_rounding_to_bfloat16(shape, bfloat16):
    torch.manual_seed(0)
    first, gradients = torch.randn(shape), [torch.randn(shape) for _ in range(3)]
    ours, theirs = (nn.Parameter(first.clone()) for _ in range(2))
    given = {"lr": 0.1, "weight_decay": 0.1}
    pair = [
        (ours, Muon([ours], **given)),
        (theirs, torch.optim.Muon([theirs], adjust_lr_fn="match_rms_adamw", **given)),
    ]
    for gradient in gradients:
        for p, opt in pair:
            p.grad = gradient.clone()
            opt.step()
    moved = (theirs - first).detach().norm()
    assert 0 < (ours - theirs).detach().norm() < 0.03 * moved
    assert ours.dtype == torch.float32


def test_it_rounds_to_bfloat16_where_that_is_quick(bfloat16):
    matrices = torch.randn(2, 8, 8)
    assert product_type(matrices) == (torch.bfloat16 if bfloat16 else torch.float32)
    rounded = orthogonal(matrices).bfloat16().float()
    assert torch.equal(rounded, orthogonal(matrices)) == bfloat16


@pytest.mark.parametrize("shape", [(48, 32), (32, 48)])
def test_matrices_that_are_moved_together_move_as_alone(shape):
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape)
    alone = torch.cat([orthogonal(m[None]) for m in matrices])
    torch.testing.assert_close(orthogonal(matrices), alone, rtol=0, atol=1e-2)


def test_it_learns_and_is_another_run_than_adamw():
    rows = train(fresh(), lambda step: batch(0), replace(MUON, steps=60))
    assert rows[-1]["loss_nats"] < 0.2 * rows[0]["loss_nats"]
    assert losses(train(fresh(), batch, MUON))[1:] != losses(train(fresh(), batch, RUN))[1:]


@pytest.mark.parametrize("step", range(1, RUN.steps + 1))
@pytest.mark.parametrize("quantized", [False, True])
def test_an_interrupted_run_goes_on_to_the_bit(tmp_path, step, quantized):
    def start():
        return prepare_qat(fresh(), QuantScheme(4)) if quantized else fresh()

    def stop(row):
        if row["step"] == step:
            raise KeyboardInterrupt

    straight, resumed, path = start(), start(), tmp_path / "run.pt"
    whole = train(straight, batch, MUON)
    with pytest.raises(KeyboardInterrupt):
        train(start(), batch, MUON, checkpoint=path, every=2, on_step=stop)
    rows = train(resumed, batch, MUON, checkpoint=path, every=2)
    assert losses(rows) == losses(whole) and equal(resumed, straight)
    kept = torch.load(path, weights_only=True)["optimizer"]
    assert any("momentum_buffer" in own for own in kept["state"].values())
    assert any("exp_avg_sq" in own for own in kept["state"].values())


def test_a_checkpoint_of_the_other_optimizer_is_refused(tmp_path):
    path = tmp_path / "run.pt"
    train(fresh(), batch, MUON, checkpoint=path)
    with pytest.raises(ValueError, match="belongs to another run, with other recipe"):
        train(fresh(), batch, RUN, checkpoint=path)


def test_where_it_does_not_fit_it_is_refused_by_name():
    assert plan("good", optimizer="muon").optimizer == "muon"
    with pytest.raises(ValueError, match="optimizer 'moun' is unknown.*did you mean 'muon'"):
        plan("good", optimizer="moun")
    with pytest.raises(ValueError, match="muon moves the matrices of blocks, and Linear has none"):
        optimizer(nn.Linear(2, 2), MUON)
