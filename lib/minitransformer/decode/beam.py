"""Beam search: the best few continuations kept side by side, the cache reordered as they overtake
one another."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..cache import Cache, whole
from .backends import on_backend
from .generation import last_logits, prefill
from .inputs import Ids, Stop, prepare
from .sampling import checked, widened


@dataclass(frozen=True)
class Beam:
    """One continuation: ids (T + n,), prompt included, their `score`, and `log_probability` = Σ log
    p of the n new tokens."""

    ids: torch.Tensor
    score: float
    log_probability: float


@torch.no_grad()
def beam(
    model,
    ids: Ids,
    max_new_tokens: int,
    *,
    width: int = 4,
    length_penalty: float = 1.0,
    stop: Stop = (),
    cache: str | Cache | None = "static",
    resume: bool = False,
    backend: str = "eager",
    on_step: Callable | None = None,
) -> list[Beam]:
    """The `width` best continuations found of ids (1, T), best first.

    score = Σ log p / n^length_penalty over the n new tokens, the stop token among them: 0 ranks by
    probability, 1 by its geometric mean a token (Wu et al. 2016 use ((5 + n) / 6) for n). A
    continuation that meets a stop token is finished and keeps its place, so the beam narrows
    (Sutskever et al. 2014): width 1 is greedy, and width >= V^n is an exhaustive search.
    `on_step(ids, candidates, kept)` sees every choice: the live continuations (W, S), the
    log-probabilities (W, V) of each with one token more, and the indices into those, flattened, of
    the ones kept. `cache`, `resume` and `backend` are those of `stream`. ValueError for more than
    one prompt, a width below 1, a negative length penalty, or logits that hold no choice."""
    job = prepare(model, ids, max_new_tokens, cache, stop=stop, resume=resume, alone="beam search")
    ids, cache, stop = job.ids, job.cache, torch.tensor(job.stop, dtype=torch.long).to(job.ids)
    if whole("width", width, -1) < 1:
        raise ValueError(f"width {width} keeps no continuation: give at least 1, which is greedy")
    if not 0 <= length_penalty < math.inf:
        raise ValueError(
            f"length_penalty {length_penalty} is negative or infinite: give 0 (none) or more"
        )
    model = on_backend(model, backend, cache)
    prompt, finished, new = ids.shape[1], [], ids if cache is None else ids[:, cache.pos :]
    # log p of each live continuation: (W,)
    total = torch.zeros(1, dtype=torch.float64, device=ids.device)
    for _ in range(job.new_tokens):
        logits = last_logits(model, ids) if cache is None else prefill(model, new, cache)
        checked(widened(logits).amax(dim=-1, keepdim=True), after=ids.shape[1])
        candidates = total[:, None] + logits.log_softmax(dim=-1, dtype=torch.float64)  # (W, V)
        total, index = _best(candidates.flatten(), width - len(finished))
        if on_step is not None:
            on_step(ids, candidates, index)
        rows, new = index // logits.shape[1], index[:, None] % logits.shape[1]
        ids = torch.cat((ids[rows], new), dim=1)
        if len(stop) and (ended := torch.isin(new[:, 0], stop)).any():
            finished += zip(ids[ended], total[ended].tolist(), strict=True)
            live = ~ended
            ids, total, new, rows = ids[live], total[live], new[live], rows[live]
        if not len(ids):
            break
        if cache is not None:
            cache.select(rows)
    found = [*finished, *zip(ids, total.tolist(), strict=True)]
    beams = [
        Beam(row, log_p / (len(row) - prompt) ** length_penalty, log_p) for row, log_p in found
    ]
    return sorted(beams, key=lambda b: -b.score)


def _best(candidates, n):
    """The n most probable of the candidates that can happen, and where they stand."""
    value, index = candidates.topk(min(n, len(candidates)))
    return value[value > -math.inf], index[value > -math.inf]
