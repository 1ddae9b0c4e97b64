"""A batch that a GPU's memory does not hold is computed in parts: the same loss and gradient, said
once, and gone on with after an interruption; what does not fit at all is one line."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minitransformer.train import train
from minitransformer.train.backward import Backward
from minitransformer.train.ranks import Alone
from training import RUN, equal, fresh, losses

FULL = replace(RUN, batch_size=7)
TOO_MUCH = "CUDA out of memory. Tried to allocate 2.00 GiB."


def rows_of(count):
    """Batches of `count` rows, a pure function of the step."""

    def batch(step):
        return torch.randint(0, 23, (count, 9), generator=torch.Generator().manual_seed(step))

    return batch


def holding(most, seed=0):
    """A model of whose batches the memory holds `most` rows, and what it was asked."""
    model, asked = fresh(seed), []

    def measure(module, arguments):
        asked.append(len(arguments[0]))
        if asked[-1] > most:
            raise torch.OutOfMemoryError(TOO_MUCH)

    model.register_forward_pre_hook(measure)
    return model, asked


@given(rows=st.integers(1, 9), most=st.integers(1, 9), teacher=st.booleans())
def test_parts_add_up_to_the_whole(rows, most, teacher):
    whole, (parted, asked), ids = fresh(), holding(most), rows_of(rows)(3)
    other = fresh(1) if teacher else None
    wanted = Backward(whole, whole, FULL, other, Alone())(ids)
    backward = Backward(parted, parted, FULL, other, Alone())
    assert torch.allclose(backward(ids), wanted, rtol=1e-6)
    for a, b in zip(whole.parameters(), parted.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-6)
    computed = asked[next(i for i, n in enumerate(asked) if n <= most) :]
    assert sum(computed) == rows and max(computed) == min(backward.rows or rows, rows) <= most
    assert max(computed) * 2 > min(most, rows)  # halved, and no more often than needed


def test_a_run_in_parts_has_the_losses_of_the_whole_and_says_it_once():
    model, asked = holding(3)
    rows, plain = train(model, rows_of(7), FULL), train(fresh(), rows_of(7), FULL)
    assert losses(rows) == pytest.approx(losses(plain), rel=1e-5)
    assert [row.get("micro_batch") for row in rows] == [2] + [None] * (FULL.steps - 1)
    assert asked == [7, 4, 2, 2, 2, 1] + [2, 2, 2, 1] * (FULL.steps - 1)


def test_what_a_part_had_added_is_taken_back_when_the_next_does_not_fit():
    """The second part fails in its backward pass, once; as if other programs had the memory."""
    model, (parted, asked) = fresh(), holding(4)

    def in_backward(module, arguments, logits):
        if len(asked) == 3:
            logits.register_hook(fail)

    def fail(gradient):
        raise torch.OutOfMemoryError(TOO_MUCH)

    parted.register_forward_hook(in_backward)
    ids = rows_of(7)(0)
    for net in (model, parted):
        Backward(net, net, FULL, None, Alone())(ids)
    assert asked == [7, 4, 3, 2, 2, 2, 1]
    for a, b in zip(model.parameters(), parted.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-6)


def test_an_interrupted_run_goes_on_in_the_same_parts_to_the_bit(tmp_path):
    def stop(row):
        if row["step"] == 5:
            raise KeyboardInterrupt

    straight, path = holding(3)[0], tmp_path / "run.pt"
    whole = train(straight, rows_of(7), FULL)
    with pytest.raises(KeyboardInterrupt):
        train(holding(3)[0], rows_of(7), FULL, checkpoint=path, every=2, on_step=stop)
    resumed, asked = holding(3)
    rows = train(resumed, rows_of(7), FULL, checkpoint=path, every=2)
    assert losses(rows) == losses(whole) and equal(resumed, straight)
    assert max(asked) == 2 and sum("micro_batch" in row for row in rows) == 1


def test_a_row_that_does_not_fit_ends_the_run_in_one_line(tmp_path):
    model, before = holding(0)[0], [p.clone() for p in fresh().parameters()]
    with pytest.raises(MemoryError) as caught:
        train(model, rows_of(7), FULL, checkpoint=tmp_path / "run.pt")
    assert str(caught.value) == (
        "step 1: the memory of cpu does not hold a row of 8 tokens: "
        "give a shorter window, or a smaller model"
    )
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_processes_that_share_a_run_do_not_halve_alone():
    """Their gradients are averaged while they are computed, so one cannot begin again."""
    ranks, (model, asked) = Alone(), holding(3)
    ranks.size, ranks.share = 2, lambda ids: ids[::2]
    message = "does not hold 4 rows of 8 tokens: give a shorter window, or a smaller batch_size"
    with pytest.raises(MemoryError, match=f"{message}, or more processes$"):
        Backward(model, model, FULL, None, ranks)(rows_of(7)(0))
    assert asked == [4]


def test_an_optimizer_without_room_for_its_state_is_one_line_too(monkeypatch):
    def step(self, closure=None):
        raise torch.OutOfMemoryError(TOO_MUCH)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(MemoryError, match="^step 1: CUDA out of memory"):
        train(fresh(), rows_of(7), FULL)
