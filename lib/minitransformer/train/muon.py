"""Muon for the matrices of the blocks, AdamW for everything else: two optimizers that act as one.

Muon (Jordan et al. 2024) moves a matrix by its momentum with all singular values made nearly equal.
The step is scaled to the root mean square of AdamW's (Liu et al. 2025), so that one learning rate
and one schedule serve both. Embeddings, head, norms and biases are AdamW's, as its authors say."""

import math

import torch

COEFFICIENTS, ITERATIONS = (3.4445, -4.775, 2.0315), 5  # Jordan et al. 2024


class Muon(torch.optim.Muon):
    """PyTorch's with `match_rms_adamw`, but that it multiplies in the type of the weights.

    PyTorch rounds to bfloat16 first, which a processor without instructions for it pays for with
    several times the time of a whole training step; FP32 costs it a few percent."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                mean = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p.grad))
                mean.lerp_(p.grad, 1 - momentum)
                update = orthogonal(p.grad.lerp(mean, momentum))
                p.mul_(1 - lr * group["weight_decay"])
                p.add_(update, alpha=-lr * 0.2 * math.sqrt(max(p.shape)))


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix with its singular values moved near 1, by the Newton-Schulz iteration."""
    a, b, c = COEFFICIENTS
    turned = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if turned else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if turned else x


class MuonAdamW(torch.optim.Optimizer):
    """`muon` and `adamw` with one state and one list of groups, in this order: saved, loaded and
    looked at like any optimizer."""

    def __init__(self, muon: Muon, adamw: torch.optim.AdamW):
        self.parts = (muon, adamw)
        super().__init__([*muon.param_groups, *adamw.param_groups], {})
        self._share()

    def __setstate__(self, state):
        super().__setstate__(state)
        self._share()  # what was loaded took the place of what they share

    def _share(self):
        muon, adamw = self.parts
        muon.state = adamw.state = self.state
        muon.param_groups, adamw.param_groups = self.param_groups[:1], self.param_groups[1:]

    def step(self, closure=None):
        for part in self.parts:
            part.step()


def hidden_matrices(model) -> list[torch.nn.Parameter]:
    """What Muon moves; ValueError for a model without."""
    named = model.named_parameters()
    found = [p for name, p in named if p.ndim == 2 and "blocks." in name]
    if not found:
        raise ValueError(
            f"muon moves the matrices of blocks, and {type(model).__name__} has none: choose adamw"
        )
    return found
