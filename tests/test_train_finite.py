"""No step is taken, kept or written that is not finite, wherever in a run and whatever it is that
leaves the numbers."""

import math
from functools import cache

import pytest
import torch

from covering import pairwise
from minitransformer.quant import QuantScheme
from minitransformer.train import NonFiniteError, loop, optimizer, prepare_qat, train
from minitransformer.train.finite import non_finite
from training import RUN, batch, equal, fresh, losses

NAME = "blocks.0.ffn.up.weight"
PLACES = [1, 4, 7]  # first, middle and last step
MODELS = {
    "fp32": fresh,
    "int4 qat": lambda: prepare_qat(fresh(), QuantScheme(4, "group", 8)),
    "bf16": lambda: fresh().bfloat16(),
}


def parameter(model):
    named = dict(model.named_parameters())
    return named.get(NAME, named.get(f"{NAME}.full"))


def at(step, value, spoil):
    """A hook that calls spoil(tensor) the `step`-th time."""
    count = 0

    def hook(*arguments):
        nonlocal count
        count += 1
        return spoil(arguments[-1], value) if count == step else None

    return hook


def filled(tensor, value):
    with torch.no_grad():
        spoilt = tensor.clone()
        spoilt.view(-1)[0] = value
    return spoilt


def break_loss(model, step, value, monkeypatch):
    model.register_forward_hook(at(step, value, lambda logits, v: logits + v))
    return "the loss"


def break_gradient(model, step, value, monkeypatch):
    parameter(model).register_hook(at(step, value, filled))
    return f"the gradient of {NAME}"


def after(model, step, monkeypatch, spoil):
    def hooked(*arguments):
        opt, hook = optimizer(*arguments), at(step, None, lambda opt, _: spoil(opt))
        opt.register_step_post_hook(lambda opt, *_: hook(opt))
        return opt

    monkeypatch.setattr(loop, "optimizer", hooked)


def break_state(model, step, value, monkeypatch):
    def spoil(opt):
        opt.state[parameter(model)]["exp_avg_sq"].view(-1)[0] = value

    after(model, step, monkeypatch, spoil)
    return f"the optimizer's exp_avg_sq of {NAME}"


def break_weight(model, step, value, monkeypatch):
    def spoil(opt):
        parameter(model).data.view(-1)[0] = value

    after(model, step, monkeypatch, spoil)
    return NAME


@cache
def undisturbed(kind):
    """(model, rows) of the whole run."""
    model = MODELS[kind]()
    return model, train(model, batch, RUN)


FAULTS = [break_loss, break_gradient, break_state, break_weight]


@pytest.mark.parametrize(
    "fault, kind, step, value", pairwise(FAULTS, [*MODELS], PLACES, [math.nan, math.inf])
)
def test_the_run_stops_at_the_step_names_what_and_resumes(
    tmp_path, monkeypatch, fault, kind, step, value
):
    (straight, whole), path = undisturbed(kind), tmp_path / "run.pt"
    broken, taken = MODELS[kind](), []
    with monkeypatch.context() as patch:
        what = fault(broken, step, value, patch)
        with pytest.raises(NonFiniteError) as caught:
            train(broken, batch, RUN, checkpoint=path, every=2, on_step=taken.append)
    message = str(caught.value)
    assert message.startswith(f"step {step}: {what}") and "is not finite: lower lr 0.01" in message
    assert "\n" not in message and len(taken) == step - 1
    if step == 1:
        assert "no checkpoint was written yet" in message and not path.exists()
    else:
        assert f"the last finite checkpoint is {path}" in message
        state = torch.load(path, weights_only=True)
        assert len(state["rows"]) == (step - 1) // 2 * 2 and non_finite(state["model"]) is None
    resumed = MODELS[kind]()
    rows = train(resumed, batch, RUN, checkpoint=path)
    assert losses(rows) == losses(whole) and equal(resumed, straight)


@pytest.mark.parametrize("fault", [break_loss, break_gradient])
def test_a_step_is_not_taken_at_all_on_a_loss_or_gradient_that_is_not_finite(monkeypatch, fault):
    model, before = fresh(), []
    fault(model, 3, math.inf, monkeypatch)

    def keep(row):
        before[:] = [p.clone() for p in model.parameters()]

    with pytest.raises(NonFiniteError, match="^step 3"):
        train(model, batch, RUN, on_step=keep)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_finite_gradients_whose_norm_overflows_are_no_step_either():
    model = fresh()
    parameter(model).register_hook(at(2, 1e30, lambda g, v: torch.full_like(g, v)))
    with pytest.raises(NonFiniteError, match="^step 2: the norm of the gradient is not finite"):
        train(model, batch, RUN)


@pytest.mark.parametrize("checkpoint", [True, False])
def test_what_on_step_writes_into_the_weights_of_the_last_step_is_seen(tmp_path, checkpoint):
    model, path = fresh(), tmp_path / "run.pt"

    def poison(row):
        if row["step"] == RUN.steps:
            model.head.bias.data[3] = math.nan

    with pytest.raises(NonFiniteError, match="^step 7: head.bias is not finite"):
        train(model, batch, RUN, checkpoint=path if checkpoint else None, on_step=poison)
    assert not path.exists()


def test_a_grid_that_outgrows_the_type_of_its_scales_stops_the_run_by_name():
    model = prepare_qat(fresh(), QuantScheme(8))

    def grow(row):
        if row["step"] == 3:
            model.head.weight.full.data.mul_(1e9)

    with pytest.raises(NonFiniteError, match="^step 4: a scale of .* overflows float16"):
        train(model, batch, RUN, on_step=grow)


def test_what_could_not_be_trained_on_is_refused_before_the_first_step():
    poisoned, teacher = fresh(), fresh(1)
    poisoned.norm.weight.data[0] = math.inf
    for net, other, what in ((poisoned, None, "the model"), (fresh(), poisoned, "the teacher")):
        with pytest.raises(ValueError, match=f"norm.weight of {what} is not finite before the"):
            train(net, batch, RUN, teacher=other)
    with pytest.raises(ValueError, match="embedding.weight is float16, whose range"):
        train(fresh().half(), batch, RUN)
    half = train(fresh(), batch, RUN, teacher=teacher.half())  # a teacher only answers
    assert losses(half) == pytest.approx(
        losses(train(fresh(), batch, RUN, teacher=fresh(1))), rel=1e-2
    )


def test_huge_weights_are_finite_though_the_sum_of_their_squares_is_not():
    huge = {"small": torch.ones(3), "huge": torch.full((4,), 1e30)}
    assert non_finite(huge) is None
    for bad in (math.inf, -math.inf, math.nan):
        assert non_finite(huge | {"bad": torch.tensor([1.0, bad])}) == "bad"
