"""From logits to the next token: greedy, or sampled from a filtered distribution."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Sampling:
    """How to choose a token. Temperature 0 is greedy; `top_p` is nucleus sampling (Holtzman et al. 2020);
    `repetition_penalty` divides positive and multiplies negative logits of tokens already present (Keskar et al. 2019).

    Raises ValueError naming the field, its value and the remedy.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self):
        if self.temperature < 0:
            raise ValueError(f"temperature {self.temperature} is negative: give 0 (greedy) or more")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k {self.top_k} keeps no token: give at least 1, or None for all")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p {self.top_p} is outside (0, 1]: give a share of the probability, or None for all")
        if not self.repetition_penalty > 0:
            raise ValueError(f"repetition_penalty {self.repetition_penalty} is not positive: 1 is none")


def distribution(logits: torch.Tensor, sampling: Sampling, previous: torch.Tensor | None = None) -> torch.Tensor:
    """Probabilities the next token is drawn from: logits (B, V), previous tokens (B, T) -> (B, V); greedy is one-hot."""
    if sampling.repetition_penalty != 1 and previous is not None:
        seen = logits.gather(1, previous)
        seen = torch.where(seen > 0, seen / sampling.repetition_penalty, seen * sampling.repetition_penalty)
        logits = logits.scatter(1, previous, seen)
    if sampling.temperature == 0:
        return torch.zeros_like(logits).scatter(1, logits.argmax(dim=-1, keepdim=True), 1.0)
    logits = logits / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        kth = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    p = logits.softmax(dim=-1)
    if sampling.top_p is not None and sampling.top_p < 1:
        ordered, index = p.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered  # the first token to pass top_p is kept
        p = torch.zeros_like(p).scatter(1, index, ordered.masked_fill(before >= sampling.top_p, 0.0))
        p = p / p.sum(dim=-1, keepdim=True)
    return p


def choose(logits: torch.Tensor, sampling: Sampling, previous=None, generator=None) -> torch.Tensor:
    """One token a row: logits (B, V) -> (B, 1). `generator` may be one torch.Generator, or one a row."""
    if sampling.temperature == 0 and sampling.repetition_penalty == 1:
        return logits.argmax(dim=-1, keepdim=True)
    p = distribution(logits, sampling, previous)
    if isinstance(generator, (list, tuple)):
        return torch.cat([torch.multinomial(row[None], 1, generator=g) for row, g in zip(p, generator, strict=True)])
    return torch.multinomial(p, 1, generator=generator)
