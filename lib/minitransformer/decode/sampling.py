"""From logits to the next token: greedy, or sampled from a filtered distribution."""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Sampling:
    """How to choose a token. Temperature 0 is greedy; `top_p` is nucleus sampling (Holtzman et al.
    2020); `repetition_penalty` divides positive and multiplies negative logits of tokens already
    present (Keskar et al. 2019).

    Raises ValueError naming the field, its value and the remedy.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self):
        if not (self.temperature == 0 or 1e-6 <= self.temperature < math.inf):
            raise ValueError(
                f"temperature {self.temperature} is negative, infinite or below 1e-6: give 0 (greedy) or more"
            )
        if self.top_k is not None and (not self.top_k >= 1 or self.top_k % 1):
            raise ValueError(
                f"top_k {self.top_k} keeps no token, or a part of one: give at least 1, or None for all"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(
                f"top_p {self.top_p} is outside (0, 1]: give a share of the probability, or None for all"
            )
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(
                f"repetition_penalty {self.repetition_penalty} is not positive and finite: 1 is none"
            )


def penalized(
    logits: torch.Tensor, sampling: Sampling, previous: torch.Tensor | None = None
) -> torch.Tensor:
    """Logits (B, V) with the repetition penalty on the tokens in `previous` (B, T)."""
    if sampling.repetition_penalty == 1 or previous is None:
        return logits
    seen = logits.gather(1, previous)
    seen = torch.where(
        seen > 0, seen / sampling.repetition_penalty, seen * sampling.repetition_penalty
    )
    return logits.scatter(1, previous, seen)


def distribution(
    logits: torch.Tensor, sampling: Sampling, previous: torch.Tensor | None = None
) -> torch.Tensor:
    """Probabilities the next token is drawn from: logits (B, V), previous tokens (B, T) -> (B, V);
    greedy is one-hot.

    Exactly `top_k` tokens are kept: of equal logits the lower ids, as argmax does. ValueError for
    NaN or infinite logits."""
    logits = penalized(logits, sampling, previous)
    if sampling.temperature == 0:
        return torch.zeros_like(logits).scatter(1, logits.argmax(dim=-1, keepdim=True), 1.0)
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / sampling.temperature
    if sampling.top_k is None and (sampling.top_p is None or sampling.top_p == 1):
        p = logits.softmax(dim=-1)
    else:
        ordered, index = logits.sort(dim=-1, descending=True, stable=True)
        if sampling.top_k is not None:
            ordered[:, int(sampling.top_k) :] = -torch.inf
        ordered = ordered.softmax(dim=-1)
        if sampling.top_p is not None:
            before = ordered.cumsum(dim=-1) - ordered  # the first token to pass top_p is kept
            ordered = ordered.masked_fill(before >= sampling.top_p, 0.0)
            ordered = ordered / ordered.sum(dim=-1, keepdim=True)
        p = torch.zeros_like(logits).scatter(1, index, ordered)
    if not torch.isfinite(p).all():
        raise ValueError(
            "the logits hold NaN or infinity: no distribution to draw from; check the model's weights"
        )
    return p


def noise(p: torch.Tensor, generator=None) -> torch.Tensor:
    """Exponential noise of the shape of p (B, V); `generator` may be one torch.Generator, or one a
    row."""
    if isinstance(generator, (list, tuple)):
        return torch.cat([noise(row[None], g) for row, g in zip(p, generator, strict=True)])
    return torch.empty_like(p).exponential_(generator=generator)


def race(p: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """A draw from p (B, V) as the winner of an exponential race, argmax p/E -> (B, 1).

    The Gumbel-max trick, -log E being Gumbel noise: with the noise given, sampling is as
    deterministic as greedy."""
    return (p / noise).argmax(dim=-1, keepdim=True)


def choose(logits: torch.Tensor, sampling: Sampling, previous=None, generator=None) -> torch.Tensor:
    """One token a row: logits (B, V) -> (B, 1). `generator` may be one torch.Generator, or one a
    row."""
    if sampling.temperature == 0:
        return penalized(logits, sampling, previous).argmax(dim=-1, keepdim=True)
    p = distribution(logits, sampling, previous)
    return race(p, noise(p, generator))
