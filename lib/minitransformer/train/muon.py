"""Muon for the matrices of the blocks, AdamW for everything else: two optimizers that act as one.

Muon (Jordan et al. 2024) moves a matrix by its momentum with all singular values made nearly equal.
The step is scaled to the root mean square of AdamW's (Liu et al. 2025), so that one learning rate
and one schedule serve both. Embeddings, head, norms and biases are AdamW's, as its authors say."""

import torch


class MuonAdamW(torch.optim.Optimizer):
    """`muon` and `adamw` with one state and one list of groups, in this order: saved, loaded and
    looked at like any optimizer."""

    def __init__(self, muon: torch.optim.Muon, adamw: torch.optim.AdamW):
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
