"""Batches of prompts of unequal length: padded into one rectangle, or paged so that nothing is
padded."""

from collections.abc import Sequence

import torch

from ..cache import KINDS, BlockPool, PaddedCache, PagedCache, make_cache
from .generation import stream
from .inputs import Ids, Stop, kind, prepare
from .request import Request
from .sampling import GREEDY, Sampling
from .scheduler import Scheduler


def generate_batch(
    model,
    prompts: Sequence[Ids],
    max_new_tokens: int,
    *,
    cache: str = "static",
    sampling: Sampling = GREEDY,
    generator: Sequence[torch.Generator] | None = None,
    stop: Stop = (),
) -> list[torch.Tensor]:
    """Prompts (T_b,), tensors or lists of ids, to prompts and continuations (T_b + new_b,), each
    what it would be alone, up to rounding.

    `cache` "static" or "dynamic" pads on the left and computes every row to the end; a paged kind
    computes each prompt by itself, shares prefixes, and lets a row leave at its stop token, which
    ends it. `generator` is one a row."""
    if not len(prompts) or not (generator is None or _one_each(generator, len(prompts))):
        raise ValueError(
            f"{len(prompts)} prompts with generators {generator}: "
            "give prompts, and None or one generator for each"
        )
    made = kind(cache)
    if not issubclass(made, (PaddedCache, PagedCache)):
        fit = ", ".join(n for n, k in KINDS.items() if issubclass(k, (PaddedCache, PagedCache)))
        raise ValueError(f"cache {cache!r} neither pads nor pages a batch: choose one of {fit}")
    requests = []
    for ids, own in zip(prompts, generator or [None] * len(prompts), strict=True):
        job = prepare(model, ids, max_new_tokens, None, sampling=sampling, generator=own, stop=stop)
        if len(job.ids) > 1:
            raise ValueError(f"a prompt of {len(job.ids)} rows: give each as a prompt of its own")
        requests.append(
            Request(job.ids[0], job.new_tokens, sampling=sampling, generator=own, stop=job.stop)
        )
    if issubclass(made, PagedCache):
        return _paged(model, requests, made.bits)
    return _padded(model, requests, cache, generator)


def _one_each(generator, n):
    return isinstance(generator, (list, tuple)) and len(generator) == n


def _paged(model, requests, bits):
    pool = BlockPool(model.cfg, 1, bits=bits)
    pool.grow(
        sum(pool.blocks_for(len(request.prompt) + request.max_new_tokens) for request in requests)
    )
    scheduler = Scheduler(model, pool, len(requests))
    served = [scheduler.submit(request) for request in requests]
    scheduler.run()
    return [one.ids for one in served]


def _padded(model, requests, kind, generator):
    prompts, one = [request.prompt for request in requests], requests[0]
    longest = max(map(len, prompts))
    starts = torch.tensor([longest - len(prompt) for prompt in prompts], device=prompts[0].device)
    # Padded with the prompt's own first token: hidden from attention, and nothing new to a
    # repetition penalty.
    ids = torch.stack(
        [torch.cat((prompt[:1].expand(longest - len(prompt)), prompt)) for prompt in prompts]
    )
    cache = make_cache(model.cfg, kind, len(prompts), longest + one.max_new_tokens, starts=starts)
    steps = stream(
        model,
        ids,
        one.max_new_tokens,
        cache=cache,
        sampling=one.sampling,
        generator=generator,
        stop=one.stop,
    )
    rows = torch.cat(list(steps), dim=1)  # (B, new), stop tokens repeated
    return [
        torch.cat((prompt, row[: _end(row.tolist(), one.stop)]))
        for prompt, row in zip(prompts, rows, strict=True)
    ]


def _end(tokens, stop):
    """How many tokens there are up to the first stop token, which counts."""
    return next((i + 1 for i, token in enumerate(tokens) if token in stop), len(tokens))
