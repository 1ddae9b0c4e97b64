"""Muon for the matrices of the blocks, AdamW for everything else: two optimizers that act as one.

Muon (Jordan et al. 2024) moves a matrix by its momentum with all singular values made nearly equal.
The step is scaled to the root mean square of AdamW's (Liu et al. 2025), so that one learning rate
and one schedule serve both. Embeddings, head, norms and biases are AdamW's, as its authors say."""

import math

import torch

COEFFICIENTS, ITERATIONS = (3.4445, -4.775, 2.0315), 5  # Jordan et al. 2024


class Muon(torch.optim.Muon):
    """PyTorch's with `match_rms_adamw`, but that matrices of one shape are moved together, and that
    it rounds to bfloat16 only where that is quicker, see `product_type`."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            lr, decay, by_shape = group["lr"], group["weight_decay"], {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for shape, matrices in by_shape.items():
                updates = orthogonal(torch.stack([self._mean(p, group) for p in matrices]))
                for p, update in zip(matrices, updates, strict=True):
                    p.mul_(1 - lr * decay).add_(update, alpha=-lr * 0.2 * math.sqrt(max(shape)))

    def _mean(self, p, group):
        """The gradient with Nesterov's momentum, whose running mean moves on."""
        mean = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p.grad))
        mean.lerp_(p.grad, 1 - group["momentum"])
        return p.grad.lerp(mean, group["momentum"])


def product_type(matrices: torch.Tensor) -> torch.dtype:
    """What the products of `orthogonal` are computed in: bfloat16 where instructions for it make it
    several times as fast, on GPUs and on processors with AMX. On others it would take several times
    as long as a whole training step, and their own type is kept."""
    device = matrices.device.type
    quick = device == "cuda" or (device == "cpu" and torch.cpu.get_capabilities().get("amx_bf16"))
    return torch.bfloat16 if quick else matrices.dtype


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Matrices (N, rows, columns) with their singular values moved near 1, by the Newton-Schulz
    iteration."""
    a, b, c = COEFFICIENTS
    turned = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if turned else matrices
    x = (x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)).to(product_type(matrices))
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if turned else x).to(matrices.dtype)


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
