"""Perplexity, bits per token and bits per byte."""

import math
from dataclasses import dataclass

import numpy as np

from .losses import token_losses
from .stats import BLOCK, block_bootstrap, block_stderr


@dataclass(frozen=True)
class Perplexity:
    """exp(nll) over `tokens` scored tokens; nll and its standard error in nats a token; 95 %
    interval of the value."""

    value: float
    nll: float
    stderr: float
    tokens: int
    interval: tuple[float, float]

    @property
    def bits(self) -> float:
        """Bits per token."""
        return self.nll / math.log(2)


def perplexity(
    model, ids, window: int, stride: int | None = None, batch_size: int = 8
) -> Perplexity:
    """Perplexity of any callable (B, T) ids -> (B, T, V) logits on the whole of `ids`: see
    `token_report` for the windows."""
    return summary(token_losses(model, ids, window, stride, batch_size))


def summary(losses, block: int = BLOCK, n: int = 1000, seed: int = 0) -> Perplexity:
    """The `Perplexity` of per-token losses in text order (nats), its interval by block
    bootstrap."""
    losses = np.asarray(losses, dtype=np.float64)
    nll = float(losses.mean())
    interval = block_bootstrap(losses, np.exp, block=block, n=n, seed=seed)
    return Perplexity(math.exp(nll), nll, block_stderr(losses, block), len(losses), interval)


def bits_per_byte(nll: float, tokens: int, n_bytes: int) -> float:
    """nll nats a token as bits a byte of the text those `tokens` spell: comparable across
    tokenizers."""
    if n_bytes < 1:
        raise ValueError(f"n_bytes {n_bytes} is not positive: give the UTF-8 length of the text")
    return nll * tokens / (n_bytes * math.log(2))
