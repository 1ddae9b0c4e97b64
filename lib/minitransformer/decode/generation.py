"""Generation: the naive loop that recomputes everything (the oracle), and the same loop over a
cache."""

from collections.abc import Iterator

import torch

from ..cache import Cache
from .backends import engine, is_native, on_backend
from .inputs import Ids, Stop, prepare
from .sampling import GREEDY, Generators, Sampling, choose, greedy


def last_logits(model, ids: torch.Tensor, cache: Cache | None = None) -> torch.Tensor:
    """Logits after the last token only: (B, T) -> (B, V); the head is applied to one position, and
    belongs to the forward, which is all or nothing. A model may have a way of its own."""
    if hasattr(model, "last_logits"):
        return model.last_logits(ids, cache)
    if cache is None:
        return model.head(model.hidden(ids)[:, -1])

    def body(step):
        return model.head(model.hidden(ids, cache)[:, -1])

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
            f"{ids.shape[1]} tokens in chunks of {chunk}: "
            "give at least one token, and a chunk of at least 1"
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
    ids: Ids,
    max_new_tokens: int,
    *,
    cache: str | Cache | None = "static",
    sampling: Sampling = GREEDY,
    generator: Generators = None,
    stop: Stop = (),
    resume: bool = False,
    backend: str = "eager",
) -> Iterator[torch.Tensor]:
    """Yield the new tokens one step at a time, each (B, 1); a row that met a stop token repeats it.

    `ids` (B, T), or (T,) for one row, is the prompt. `cache` is None (naive recomputation), a kind,
    or an empty cache; with `resume` one that holds the beginning of `ids`, of which only the rest
    is computed. Ends after `max_new_tokens`, or when every row has stopped. ValueError for a
    request that cannot be served, before the first token, and for logits that hold no choice.

    `backend` "native" computes in the engine of `minitransformer.native`, compiled on first use:
    the same tokens up to rounding, for the caches that it knows; "auto" does where it can, and is
    "eager" elsewhere. Give a `NativeModel` to pack the weights once. BuildError where "native" has
    no C compiler."""
    asked = dict(sampling=sampling, generator=generator, stop=stop, resume=resume)
    job = prepare(model, ids, max_new_tokens, cache, **asked)
    return loop(on_backend(model, backend, job.cache), job)


@torch.no_grad()
def loop(model, job):
    """`stream` of a `Job` by a model that is on its backend."""
    ids, cache, stop = job.ids, job.cache, job.stop
    new = ids if cache is None else ids[:, cache.pos :]
    done = torch.zeros(ids.shape[0], 1, dtype=torch.bool, device=ids.device)
    for _ in range(job.new_tokens):
        logits = last_logits(model, ids) if cache is None else prefill(model, new, cache)
        token = choose(logits, job.sampling, ids, job.generator, after=ids.shape[1])
        if stop:
            token = torch.where(done, new[:, -1:], token)
            done |= torch.isin(token, torch.tensor(stop, device=ids.device))
        ids, new = torch.cat((ids, token), dim=1), token
        yield token
        if stop and done.all():
            return


def generate(
    model,
    ids: Ids,
    max_new_tokens: int,
    *,
    cache: str | Cache | None = "static",
    sampling: Sampling = GREEDY,
    generator: Generators = None,
    stop: Stop = (),
    resume: bool = False,
    backend: str = "eager",
) -> torch.Tensor:
    """Prompt and continuation, (B, T) -> (B, T + new), new <= max_new_tokens; the options are those
    of `stream`. Under "native" the whole loop runs in the engine, without coming back."""
    asked = dict(sampling=sampling, generator=generator, stop=stop, resume=resume)
    job = prepare(model, ids, max_new_tokens, cache, **asked)
    model = on_backend(model, backend, job.cache)
    if cache is None or resume or not is_native(model, backend):
        return torch.cat([job.ids, *loop(model, job)], dim=1)
    return engine().generate(
        *(model, job.ids, job.new_tokens),
        cache="static" if isinstance(cache, str) and cache == "static" else job.cache,
        sampling=job.sampling,
        generator=job.generator,
        stop=job.stop,
    )


def generate_all_positions(model, ids: Ids, max_new_tokens: int) -> torch.Tensor:
    """The original report's uncached loop: greedy, with the head applied to every position at every
    step."""
    job = prepare(model, ids, max_new_tokens, None)
    ids = job.ids
    with torch.no_grad():
        for _ in range(job.new_tokens):
            logits = model.head(model.hidden(ids))[:, -1]
            ids = torch.cat((ids, greedy(logits, after=ids.shape[1])), dim=1)
    return ids
