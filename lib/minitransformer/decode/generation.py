"""Generation: the naive loop that recomputes everything (the oracle), and the same loop over a
cache."""

from collections.abc import Iterator

import torch

from ..cache import Cache, make_cache
from .sampling import Sampling, choose

GREEDY = Sampling(temperature=0.0)


def last_logits(model, ids: torch.Tensor, cache: Cache | None = None) -> torch.Tensor:
    """Logits after the last token only: (B, T) -> (B, V); the head is applied to one position."""
    if cache is None:
        return model.head(model.hidden(ids)[:, -1])
    body = lambda _: model.head(model.hidden(ids, cache)[:, -1])  # noqa: E731
    return cache.run(ids.shape[1], body, ids.device)


def chunks(
    ids: torch.Tensor, cache: Cache | None, chunk: int | None = None
) -> tuple[torch.Tensor, ...]:
    """Ids (B, T) in pieces of at most `chunk` tokens and of what the cache takes in one forward."""
    limit = min(
        n for n in (chunk, None if cache is None else cache.chunk, ids.shape[1]) if n is not None
    )
    if limit < 1:
        raise ValueError(
            f"{ids.shape[1]} tokens in chunks of {chunk}: give at least one token, and a chunk of at least 1"
        )
    return ids.split(limit, dim=1) if limit < ids.shape[1] else (ids,)


def prefill(model, ids: torch.Tensor, cache: Cache, chunk: int | None = None) -> torch.Tensor:
    """Feed ids (B, T) to the cache in chunks and return the logits after the last token, (B, V).

    Every chunk size gives the same logits but for rounding; a small one bounds the memory of a long
    prompt's forward."""
    *first, last = chunks(ids, cache, chunk)
    for part in first:
        model.hidden(part, cache)
    return last_logits(model, last, cache)


def stream(
    model,
    ids: torch.Tensor,
    max_new_tokens: int,
    *,
    cache: str | Cache | None = "static",
    sampling: Sampling = GREEDY,
    generator=None,
    stop: tuple[int, ...] = (),
) -> Iterator[torch.Tensor]:
    """Yield the new tokens one step at a time, each (B, 1); a row that met a stop token repeats it.

    `ids` (B, T) is the prompt. `cache` is None (naive recomputation), a kind, or an empty cache.
    Ends after `max_new_tokens`, or when every row has stopped. ValueError for an empty prompt or
    one that leaves no room."""
    cache = prepare(model, ids, max_new_tokens, cache)
    return _steps(model, ids, max_new_tokens, cache, sampling, generator, stop)


@torch.no_grad()
def _steps(model, ids, max_new_tokens, cache, sampling, generator, stop):
    new, done = ids, torch.zeros(ids.shape[0], 1, dtype=torch.bool, device=ids.device)
    for _ in range(max_new_tokens):
        logits = last_logits(model, ids) if cache is None else prefill(model, new, cache)
        token = choose(logits, sampling, ids, generator)
        if stop:
            token = torch.where(done, new[:, -1:], token)
            done |= torch.isin(token, torch.tensor(stop, device=ids.device))
        ids, new = torch.cat((ids, token), dim=1), token
        yield token
        if stop and done.all():
            return


def generate(
    model, ids: torch.Tensor, max_new_tokens: int, *, backend: str = "eager", **options
) -> torch.Tensor:
    """Prompt and continuation, (B, T) -> (B, T + new), new <= max_new_tokens; the options are those
    of `stream`."""
    if backend != "eager":
        raise ValueError(f"backend {backend!r} is unknown: choose eager")
    return torch.cat([ids, *stream(model, ids, max_new_tokens, **options)], dim=1)


def generate_all_positions(model, ids: torch.Tensor, max_new_tokens: int) -> torch.Tensor:
    """The seed report's uncached loop: greedy, with the head applied to every position at every
    step."""
    with torch.no_grad():
        for _ in range(max_new_tokens):
            ids = torch.cat((ids, model(ids)[:, -1].argmax(dim=-1, keepdim=True)), dim=1)
    return ids


def prepare(
    model, ids: torch.Tensor, max_new_tokens: int, cache: str | Cache | None
) -> Cache | None:
    """The cache of a generation, made when `cache` names a kind; ValueError for a request that
    cannot be served."""
    if ids.ndim != 2 or ids.shape[1] == 0:
        raise ValueError(
            f"the prompt has shape {tuple(ids.shape)}: give at least one token, as (batch, tokens)"
        )
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens {max_new_tokens} is not positive: give at least 1")
    if isinstance(cache, str):
        cache = make_cache(
            model.cfg, cache, batch=ids.shape[0], capacity=ids.shape[1] + max_new_tokens
        )
    # A cache that limits the chunk counts positions inside itself: its text may be longer than the
    # context.
    if (cache is None or cache.chunk is None) and ids.shape[
        1
    ] + max_new_tokens - 1 > model.cfg.context:
        raise ValueError(
            f"a prompt of {ids.shape[1]} and {max_new_tokens} new tokens pass context {model.cfg.context}: shorten one of them"
        )
    return cache
