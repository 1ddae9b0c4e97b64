"""Proof that cached decoding is uncached decoding: not that texts look the same, but that they could not differ."""

from dataclasses import dataclass

import torch

from ..cache import make_cache
from .generation import last_logits


@dataclass(frozen=True)
class Certificate:
    """Greedy identity over `steps` tokens: certified where 2·max|Δlogit| is below the margin of the two best tokens.

    `error` is the largest logit difference, `margin` the smallest margin, `near_ties` the steps that were not
    certified, `mismatches` those whose argmax differs; `dtype` the precision of the run.
    """

    kind: str
    dtype: str
    steps: int
    error: float
    margin: float
    near_ties: tuple[int, ...]
    mismatches: tuple[int, ...]

    @property
    def passed(self) -> bool:
        """Every step gave the same token."""
        return not self.mismatches


@torch.no_grad()
def certify(model, prompt: torch.Tensor, steps: int, kind: str) -> Certificate:
    """Decode `steps` greedy tokens from `prompt` (1, T) by recomputation, and compare the cache's logits at every step."""
    cache = make_cache(model.cfg, kind, batch=1, capacity=prompt.shape[1] + steps)
    ids, new = prompt, prompt
    error, margins, near_ties, mismatches = 0.0, [], [], []
    for step in range(steps):
        oracle, cached = last_logits(model, ids)[0], last_logits(model, new, cache)[0]
        best = oracle.topk(2).values
        difference, margin = float((oracle - cached).abs().max()), float(best[0] - best[1])
        error = max(error, difference)
        margins.append(margin)
        if not 2 * difference < margin:
            near_ties.append(step)
        if int(oracle.argmax()) != int(cached.argmax()):
            mismatches.append(step)
        new = oracle.argmax().view(1, 1)
        ids = torch.cat((ids, new), dim=1)
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    return Certificate(kind, dtype, steps, error, min(margins), tuple(near_ties), tuple(mismatches))
