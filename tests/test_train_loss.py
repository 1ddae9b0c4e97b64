"""The loss and its gradient are those of PyTorch, in the memory of the logits."""

import pytest
import torch
import torch.nn.functional as F

from minitransformer.train import loss


@pytest.mark.parametrize("at_once", [1, 40, 2**20])  # one row, several with a rest, all
@pytest.mark.parametrize("spread", [1.0, 80.0])
def test_loss_and_gradient_are_those_of_pytorch(at_once, spread, monkeypatch):
    monkeypatch.setattr(loss, "AT_ONCE", at_once)
    torch.manual_seed(0)
    logits = (spread * torch.randn(11, 17)).requires_grad_()
    targets = torch.randint(17, (11,))
    expected = F.cross_entropy(logits, targets, reduction="sum") * 0.3
    expected.backward()
    own = logits.detach().clone()
    found = loss.cross_entropy_(own, targets, 0.3)
    assert found.shape == ()
    torch.testing.assert_close(found, expected.detach())
    torch.testing.assert_close(own, logits.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_is_not_finite_shows(value):
    logits = torch.zeros(3, 4)
    logits[1, 2] = value
    assert not loss.cross_entropy_(logits, torch.tensor([0, 2, 3]), 1.0).isfinite()
