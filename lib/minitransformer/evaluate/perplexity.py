"""Perplexity, bits per token and bits per byte."""

import math
import sys
import warnings
from dataclasses import dataclass

import numpy as np

from .ids import as_ids
from .losses import token_losses
from .stats import BLOCK, block_bootstrap, block_stderr

MOST_NATS = math.log(sys.float_info.max)


@dataclass(frozen=True)
class Perplexity:
    """exp(nll) over `tokens` scored tokens, inf where that is too large for a float; nll and its
    standard error in nats a token; 95 % interval of the value."""

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
    """Perplexity of any callable (B, T) ids -> (B, T, V) logits on the whole of `ids` (N,), a list,
    array or tensor: see `token_report` for the windows and what is refused.

    Warns when more than half of the tokens are one and the same: of a text that the tokenizer does
    not know, where it is <unk>, the value says nothing."""
    ids = as_ids(ids)
    result = summary(token_losses(model, ids, window, stride, batch_size))
    known, times = np.unique(ids, return_counts=True)
    share = times.max() / len(ids)
    if share > 0.5:
        warnings.warn(
            f"{share:.0%} of the {len(ids):,} tokens are id {known[times.argmax()]}: if that is"
            " <unk>, the tokenizer does not know this text and the perplexity says nothing of it",
            stacklevel=2,
        )
    return result


def summary(losses, block: int = BLOCK, n: int = 1000, seed: int = 0) -> Perplexity:
    """The `Perplexity` of per-token losses in text order (nats), its interval by block bootstrap.

    A value too large for a float is inf; nll stays exact. ValueError for no losses, or for NaN."""
    losses = np.asarray(losses, dtype=np.float64)
    if not losses.size or np.isnan(losses).any():
        found = f"{int(np.isnan(losses).sum()):,} of {losses.size:,} losses are NaN"
        raise ValueError(f"{found}: give losses of a model whose logits are finite")
    nll = float(losses.mean())
    if not math.isfinite(nll):  # a token had probability 0: nothing to resample
        return Perplexity(math.inf, nll, math.inf, len(losses), (math.inf, math.inf))
    if losses.max() < MOST_NATS:
        interval = block_bootstrap(losses, np.exp, block=block, n=n, seed=seed)
    else:  # in nats, since the quantiles of infinities are none
        with np.errstate(over="ignore"):
            low, high = np.exp(block_bootstrap(losses, block=block, n=n, seed=seed))
        interval = (float(low), float(high))
    value = math.exp(nll) if nll < MOST_NATS else math.inf
    return Perplexity(value, nll, block_stderr(losses, block), len(losses), interval)


def bits_per_byte(nll: float, tokens: int, n_bytes: int) -> float:
    """nll nats a token as bits a byte of the text those `tokens` spell: comparable across
    tokenizers."""
    if n_bytes < 1:
        raise ValueError(f"n_bytes {n_bytes} is not positive: give the UTF-8 length of the text")
    return nll * tokens / (n_bytes * math.log(2))
