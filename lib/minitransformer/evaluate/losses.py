"""What every token costs: sliding windows over a whole split, each token but the first scored
exactly once."""

from dataclasses import dataclass

import numpy as np
import torch

from ..fields import whole
from .ids import as_ids


@dataclass(frozen=True)
class TokenReport:
    """Per scored token, in text order, as arrays of one length (number of tokens - 1).

    nll: nats. correct: the most probable token was the right one. confidence: its probability.
    position: tokens of context the prediction saw inside its window (1 ... window)."""

    nll: np.ndarray
    correct: np.ndarray
    confidence: np.ndarray
    position: np.ndarray


def windows(n: int, window: int, stride: int, batch_size: int):
    """Batches of window starts over `n` inputs, with how many of the last inputs of each window are
    scored.

    The first window scores all of its inputs; every later one starts `stride` further and scores
    only what is new, so each of its predictions sees at least `window - stride` tokens; the last is
    moved back to end with the text."""
    window = min(window, n)
    yield [0], window
    full = range(stride, n - window + 1, stride)
    for i in range(0, len(full), batch_size):
        yield full[i : i + batch_size], stride
    done = window + len(full) * stride
    if done < n:
        yield [n - window], n - done


def token_report(
    logits_fn, ids, window: int, stride: int | None = None, batch_size: int = 8
) -> TokenReport:
    """Score `ids` (N,) by any callable (B, T) integer ids -> (B, T, V) logits; `stride` None is
    window // 2.

    ids: a list, array or tensor, see `as_ids`. A module is called on the device of its parameters,
    anything else on the CPU. ValueError when there are fewer than two tokens, ids outside the
    vocabulary, or the window, the stride or the batch size does not fit."""
    window, batch_size = whole("window", window), whole("batch_size", batch_size)
    stride = whole("stride", max(1, window // 2) if stride is None else stride, 1, window)
    ids = _two_or_more(logits_fn, ids)
    n = len(ids) - 1
    parts = [[], [], [], []]
    with torch.no_grad():
        for starts, scored in windows(n, window, stride, batch_size):
            for part, values in zip(
                parts, _score(logits_fn, ids, starts, min(window, n), scored), strict=False
            ):
                part.append(values)
    return TokenReport(*(np.concatenate(part) for part in parts))


def token_losses(
    logits_fn, ids, window: int, stride: int | None = None, batch_size: int = 8
) -> np.ndarray:
    """The nats of every token but the first, (N - 1,): see `token_report`."""
    return token_report(logits_fn, ids, window, stride, batch_size).nll


@torch.no_grad()
def stream_losses(model, ids, cache, chunk: int = 64, on_chunk=None) -> np.ndarray:
    """The nats of every token but the first, (N - 1,), of a text fed through one `cache` of batch
    1, however long; ValueError as for `token_report`.

    Each prediction sees what the cache kept. At most `chunk` tokens a forward, fewer where the
    cache's own `chunk` says so; `on_chunk(cache)` is called after each."""
    chunk, ids = whole("chunk", chunk), _two_or_more(model, ids)
    if cache.pos:
        raise ValueError(f"the cache holds {cache.pos} tokens: empty it by cache.truncate(0)")
    parts, size = [], min(chunk, cache.chunk or chunk)
    for start in range(0, len(ids) - 1, size):
        part = ids[start : min(start + size, len(ids) - 1)]
        logits = model(part[None].to(_device(model)), cache)[0].log_softmax(
            dim=-1, dtype=torch.float64
        )  # (T, V)
        target = ids[start + 1 : start + 1 + len(part), None]
        as_ids(target[:, 0], logits.shape[-1])
        target = target.to(logits.device)
        parts.append(-logits.gather(1, target)[:, 0].cpu().numpy())
        if on_chunk is not None:
            on_chunk(cache)
    return np.concatenate(parts)


def _two_or_more(logits_fn, ids) -> torch.Tensor:
    """ids as int64 (N,), N >= 2, within the vocabulary of a model that says what it is."""
    ids = as_ids(ids, getattr(getattr(logits_fn, "cfg", None), "vocab_size", None))
    if len(ids) < 2:
        raise ValueError(f"{len(ids)} token(s) leave nothing to predict: give at least 2")
    return torch.from_numpy(ids)


def _score(logits_fn, ids, starts, window, scored):
    """nll, correct, confidence and position of the last `scored` predictions of each window,
    flattened in text order."""
    rows = torch.tensor(list(starts))[:, None] + torch.arange(window)  # (B, T)
    logits = logits_fn(ids[rows].to(_device(logits_fn)))[:, window - scored :]  # (B, scored, V)
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    target = ids[rows[:, window - scored :] + 1]  # (B, scored)
    as_ids(target.flatten(), logits.shape[-1])
    target = target.to(logits.device)
    top, best = logits.max(dim=-1)
    total = torch.logsumexp(logits, dim=-1)
    nll = total - logits.gather(-1, target[..., None])[..., 0]
    position = np.tile(np.arange(window - scored + 1, window + 1), len(rows))
    confidence = (top - total).exp()
    nll, correct, confidence = (
        x.flatten().cpu().numpy() for x in (nll.double(), best == target, confidence.double())
    )
    return nll, correct, confidence, position


def _device(logits_fn):
    """Where a module's parameters (or, quantized, its buffers) live; the CPU for a plain
    callable."""
    if not isinstance(logits_fn, torch.nn.Module):
        return torch.device("cpu")
    tensor = next(logits_fn.parameters(), None)
    tensor = next(logits_fn.buffers(), None) if tensor is None else tensor
    return torch.device("cpu") if tensor is None else tensor.device
