"""What a certificate says, and how it is derived from margins and differences."""

import math
from dataclasses import dataclass

import torch

# Logit differences that rounding explains; other types have no limit but a given one.
TOLERANCES = {"float64": 1e-10, "float32": 1e-3}


@dataclass(frozen=True)
class Certificate:
    """Identity with an oracle over `steps` tokens of `prompts` prompts; steps are numbered from 0
    through them all.

    `error` is the largest logit difference, `margin` the smallest distance of the oracle's two best
    tokens, `near_ties` the steps that were not certified, `mismatches` those whose token is not the
    oracle's; `dtype` the precision of the run. `subject` is what was certified, in words,
    `compared` what of it, and `oracle` against what."""

    kind: str
    dtype: str
    steps: int
    error: float
    margin: float
    near_ties: tuple[int, ...]
    mismatches: tuple[int, ...]
    subject: str = ""
    compared: str = "logits"
    oracle: str = "recomputation"
    prompts: int = 1
    tolerance: float = math.inf

    @property
    def passed(self) -> bool:
        """The difference is within `tolerance`, and every other token falls on a near tie, where
        rounding decides."""
        return self.error < self.tolerance and set(self.mismatches) <= set(self.near_ties)

    @property
    def verdict(self) -> str:
        """ "certified", "identical" (uncertified near ties gave the same token), "near ties" (some
        did not) or "different"."""
        if not self.passed:
            return "different"
        return "near ties" if self.mismatches else "identical" if self.near_ties else "certified"

    def row(self) -> dict:
        """The fields for a table: near ties and mismatches counted, the verdict last."""
        counts = {
            "near_ties": len(self.near_ties),
            "mismatches": len(self.mismatches),
            "verdict": self.verdict,
        }
        return vars(self) | counts


def judged(runs, kind, tolerance, dtype, **words):
    """A certificate from each run's oracle scores (n, V), chosen tokens (n,) and differences
    (n,)."""
    margins = []
    for scores, tokens, difference in runs:
        best = scores.topk(2, dim=-1).values
        margins.append((best[:, 0] - best[:, 1], tokens != scores.argmax(dim=-1), difference))
    return certificate(margins, kind, tolerance, dtype, **words)


def certificate(runs, kind, tolerance, dtype, **words):
    """A certificate from each run's margins (n,), mismatches (n,) and differences (n,), computed
    in `dtype`."""
    margin, mismatch, difference = (torch.cat(parts) for parts in zip(*runs, strict=True))
    near = (~(2 * difference < margin)).nonzero()[:, 0].tolist()
    dtype = str(dtype).removeprefix("torch.")
    tolerance = TOLERANCES.get(dtype, math.inf) if tolerance is None else tolerance
    other = tuple(mismatch.nonzero()[:, 0].tolist())
    return Certificate(
        kind,
        dtype,
        len(margin),
        float(difference.max()),
        float(margin.min()),
        tuple(near),
        other,
        prompts=len(runs),
        tolerance=tolerance,
        **words,
    )
