"""Batches of prompts of unequal length: padded into one rectangle, or paged so that nothing is
padded."""

from collections.abc import Sequence

import torch

from ..cache import KINDS, BlockPool, PaddedCache, PagedCache, make_cache
from .backends import engine, is_native, on_backend
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
    backend: str = "eager",
) -> list[torch.Tensor]:
    """Prompts (T_b,), tensors or lists of ids, to prompts and continuations (T_b + new_b,), each
    what it would be alone, up to rounding.

    `cache` "static" or "dynamic" pads on the left and computes every row to the end; a paged kind
    computes each prompt by itself, shares prefixes, and lets a row leave at its stop token, which
    ends it. `generator` is one a row, `backend` as in `stream`: in the engine "static" pads
    nothing, and the whole loop runs without coming back."""
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
        return _paged(model, requests, made.bits, backend)
    one = requests[0]
    options = {"sampling": sampling, "generator": generator, "stop": one.stop}
    model = on_backend(model, backend, make_cache(model.cfg, cache))
    if is_native(model, backend):
        texts = engine().generate_batch(
            model, [request.prompt for request in requests], one.max_new_tokens, **options
        )
    else:
        texts = _padded(model, requests, cache, options)
    return [
        text[: len(request.prompt) + _end(text[len(request.prompt) :].tolist(), one.stop)]
        for request, text in zip(requests, texts, strict=True)
    ]


def _one_each(generator, n):
    return isinstance(generator, (list, tuple)) and len(generator) == n


def _paged(model, requests, bits, backend):
    pool = BlockPool(model.cfg, 1, bits=bits)
    pool.grow(
        sum(pool.blocks_for(len(request.prompt) + request.max_new_tokens) for request in requests)
    )
    scheduler = Scheduler(model, pool, len(requests), backend=backend)
    served = [scheduler.submit(request) for request in requests]
    scheduler.run()
    return [one.ids for one in served]


def _padded(model, requests, kind, options):
    """Prompts and continuations, stop tokens repeated."""
    prompts, new = [request.prompt for request in requests], requests[0].max_new_tokens
    longest = max(map(len, prompts))
    starts = torch.tensor([longest - len(prompt) for prompt in prompts], device=prompts[0].device)
    # Padded with the prompt's own first token: hidden from attention, and nothing new to a
    # repetition penalty.
    ids = torch.stack(
        [torch.cat((prompt[:1].expand(longest - len(prompt)), prompt)) for prompt in prompts]
    )
    cache = make_cache(model.cfg, kind, len(prompts), longest + new, starts=starts)
    rows = torch.cat(list(stream(model, ids, new, cache=cache, **options)), dim=1)  # (B, new)
    return [torch.cat((prompt, row)) for prompt, row in zip(prompts, rows, strict=True)]


def _end(tokens, stop):
    """How many tokens there are up to the first stop token, which counts."""
    return next((i + 1 for i, token in enumerate(tokens) if token in stop), len(tokens))
