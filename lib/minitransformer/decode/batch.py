"""Batches of prompts of unequal length: padded into one rectangle, or paged so that nothing is
padded."""

import torch

from ..cache import KINDS, BlockPool, PagedCache, make_cache
from .generation import GREEDY, prepare, stream
from .sampling import Sampling
from .scheduler import Request, Scheduler


def generate_batch(
    model,
    prompts: list[torch.Tensor],
    max_new_tokens: int,
    *,
    cache: str = "static",
    sampling: Sampling = GREEDY,
    generator: list[torch.Generator] | None = None,
    stop: tuple[int, ...] = (),
) -> list[torch.Tensor]:
    """Prompts (T_b,) to prompts and continuations (T_b + new_b,), each what it would be alone, up
    to rounding.

    `cache` "static" or "dynamic" pads on the left and computes every row to the end; a paged kind
    computes each prompt by itself, shares prefixes, and lets a row leave at its stop token, which
    ends it. `generator` is one a row."""
    if not prompts or (generator is not None and len(generator) != len(prompts)):
        raise ValueError(
            f"{len(prompts)} prompts with generators {generator}: give prompts, and None or one generator for each"
        )
    requests = [
        Request(prompt, max_new_tokens, sampling=sampling, generator=own, stop=stop)
        for prompt, own in zip(prompts, generator or [None] * len(prompts), strict=True)
    ]
    kind = KINDS.get(cache)
    if kind is not None and issubclass(kind, PagedCache):
        return _paged(model, requests, kind.bits)
    return _padded(model, requests, cache, generator)


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
    for prompt in prompts:
        prepare(model, prompt[None], one.max_new_tokens, None)
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
