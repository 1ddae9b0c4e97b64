"""Is every number of a run still a number? Only then is a step taken or a checkpoint written."""

import math

import torch
from torch.nn.utils import get_total_norm


class NonFiniteError(RuntimeError):
    """A loss, a gradient, a weight or the optimizer's state left the finite numbers; the message
    names it, the step, and the last finite checkpoint."""


@torch.no_grad()
def non_finite(tensors: dict[str, torch.Tensor]) -> str | None:
    """The name of the first tensor that holds an infinity or a NaN, None when all are finite; of
    a tensor in parts, this process's part counts."""
    parts = {n: t.to_local() if hasattr(t, "to_local") else t for n, t in tensors.items()}
    own = {name: t for name, t in parts.items() if t.is_floating_point() and t.numel()}
    # The norm of squares takes a tenth of the largest value's time; that of huge numbers is
    # infinite too, and so no more than a reason to look.
    if not own or math.isfinite(get_total_norm(own.values()).item()):
        return None
    return next((name for name, t in own.items() if not torch.isfinite(t).all()), None)


def gradients(model) -> dict[str, torch.Tensor]:
    """Name -> gradient of every parameter that has one."""
    named = model.named_parameters()
    return {f"the gradient of {name}": p.grad for name, p in named if p.grad is not None}


def state(model, opt) -> dict[str, torch.Tensor]:
    """Name -> tensor of what a step changes: the weights, and the optimizer's moments of each."""
    named = dict(model.named_parameters())
    moments = {
        f"the optimizer's {key} of {name}": value
        for name, p in named.items()
        for key, value in opt.state.get(p, {}).items()
        if torch.is_tensor(value)
    }
    return named | moments
