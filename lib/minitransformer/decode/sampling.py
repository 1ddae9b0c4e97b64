"""From logits to the next token: greedy, or sampled from a filtered distribution."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..fields import real, settle, whole

Generators = torch.Generator | Sequence[torch.Generator] | None  # one for all, or one a row
After = int | list[int] | None  # tokens before the choice, for messages


@dataclass(frozen=True)
class Sampling:
    """How to choose a token. Temperature 0 is greedy; `top_p` is nucleus sampling (Holtzman et al.
    2020); `repetition_penalty` divides positive and multiplies negative logits of tokens already
    present (Keskar et al. 2019).

    Raises ValueError naming the field, its value and the remedy."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self):
        settle(self, temperature=real("temperature", self.temperature))
        if 0 < self.temperature < 1e-6:
            raise ValueError(f"temperature {self.temperature} is below 1e-6: give 0 (greedy)")
        if self.top_k is not None:
            settle(self, top_k=whole("top_k", self.top_k))
        if self.top_p is not None:
            settle(self, top_p=real("top_p", self.top_p, 0, 1, above=True))
        penalty = real("repetition_penalty", self.repetition_penalty, above=True)
        settle(self, repetition_penalty=penalty)


GREEDY = Sampling(temperature=0.0)


def widened(logits: torch.Tensor) -> torch.Tensor:
    """Logits of half precision in float32, others as they are: a choice is made from sums and
    quotients, which half precision loses."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def checked(top: torch.Tensor, after: After = None, along: bool = False) -> torch.Tensor:
    """The largest logits of rows, (B, 1), if there is a choice in every row; -inf for some tokens
    is a mask, and legal.

    ValueError for NaN, for +inf, and for a row of nothing but -inf. `after` tells how many tokens
    stand before the choice: in every row, in each (a list), or, `along` a text, in the first."""
    if math.isfinite(top.sum(dtype=torch.float64).item()):
        return top
    row = int((~top.isfinite()).flatten().nonzero()[0])
    before = after[row] if isinstance(after, list) else after
    where = "" if before is None else f" after {before + along * row} tokens"
    where += f", in row {row}" if len(top) > 1 and not along else ""
    if float(top.flatten()[row]) == -math.inf:
        raise ValueError(f"the logits{where} are all -inf: leave at least one token unmasked")
    raise ValueError(f"the logits hold NaN or infinity{where}: check the model's weights")


def penalized(
    logits: torch.Tensor, sampling: Sampling, previous: torch.Tensor | None = None
) -> torch.Tensor:
    """Logits (B, V) with the repetition penalty on the tokens in `previous` (B, T)."""
    logits = widened(logits)
    if sampling.repetition_penalty == 1 or previous is None:
        return logits
    seen = logits.gather(1, previous)
    seen = torch.where(
        seen > 0, seen / sampling.repetition_penalty, seen * sampling.repetition_penalty
    )
    return logits.scatter(1, previous, seen)


def greedy(
    logits: torch.Tensor,
    sampling: Sampling = GREEDY,
    previous: torch.Tensor | None = None,
    after: After = None,
    along: bool = False,
) -> torch.Tensor:
    """The likeliest token of each row, of equals the first: logits (B, V) -> (B, 1)."""
    top, token = penalized(logits, sampling, previous).max(dim=-1, keepdim=True)
    checked(top, after, along)
    return token


def distribution(
    logits: torch.Tensor,
    sampling: Sampling,
    previous: torch.Tensor | None = None,
    after: After = None,
    along: bool = False,
) -> torch.Tensor:
    """Probabilities the next token is drawn from: logits (B, V), previous tokens (B, T) -> (B, V);
    greedy is one-hot. In float32 at least.

    Exactly `top_k` tokens are kept: of equal logits the lower ids, as argmax does. ValueError as
    of `checked`."""
    logits = penalized(logits, sampling, previous)
    top, token = logits.max(dim=-1, keepdim=True)
    checked(top, after, along)
    if sampling.temperature == 0:
        return torch.zeros_like(logits).scatter(1, token, 1.0)
    logits = (logits - top) / sampling.temperature
    if sampling.top_k is None and (sampling.top_p is None or sampling.top_p == 1):
        return logits.softmax(dim=-1)
    ordered, index = logits.sort(dim=-1, descending=True, stable=True)
    if sampling.top_k is not None:
        ordered[:, sampling.top_k :] = -torch.inf
    ordered = ordered.softmax(dim=-1)
    if sampling.top_p is not None:
        before = ordered.cumsum(dim=-1) - ordered  # the first token to pass top_p is kept
        ordered = ordered.masked_fill(before >= sampling.top_p, 0.0)
        ordered = ordered / ordered.sum(dim=-1, keepdim=True)
    return torch.zeros_like(logits).scatter(1, index, ordered)


def noise(p: torch.Tensor, generator: Generators = None) -> torch.Tensor:
    """Exponential noise of the shape of p (B, V); `generator` may be one torch.Generator, or one a
    row."""
    if isinstance(generator, (list, tuple)):
        return torch.cat([noise(row[None], g) for row, g in zip(p, generator, strict=True)])
    return torch.empty_like(p).exponential_(generator=generator)


def race(p: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """A draw from p (B, V) as the winner of an exponential race, argmax p/E -> (B, 1); what has no
    probability wins against no noise.

    The Gumbel-max trick, -log E being Gumbel noise: with the noise given, sampling is as
    deterministic as greedy."""
    return torch.where(p > 0, p / noise, -1.0).argmax(dim=-1, keepdim=True)


def choose(
    logits: torch.Tensor,
    sampling: Sampling,
    previous: torch.Tensor | None = None,
    generator: Generators = None,
    after: After = None,
) -> torch.Tensor:
    """One token a row: logits (B, V) -> (B, 1). `generator` may be one torch.Generator, or one a
    row. ValueError as of `checked`, which `after` is for."""
    if sampling.temperature == 0:
        return greedy(logits, sampling, previous, after)
    p = distribution(logits, sampling, previous, after)
    return race(p, noise(p, generator))
