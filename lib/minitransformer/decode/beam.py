"""Beam search: the best few continuations kept side by side, the cache reordered as they overtake
one another."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..cache import Cache
from ..fields import real, whole
from .backends import engine, is_native, on_backend
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
    width, length_penalty = whole("width", width), real("length_penalty", length_penalty)
    model = on_backend(model, backend, job.cache)
    prompt, V = job.ids.shape[1], model.cfg.vocab_size
    if own := cache == "static" and is_native(model, backend):
        memory = engine().Rows(model, min(width, V**job.new_tokens), prompt + job.new_tokens - 1)
    else:
        memory = _Cached(model, job)
    texts, total, finished = job.ids.tolist(), [0.0], []  # of those alive, and their log p
    for _ in range(job.new_tokens):
        k = width - len(finished)
        best = memory.best(texts, total, k) if own and on_step is None else None
        if best is None:  # or the engine finds no choice: then it is said why
            best = _best(memory.logits(texts), texts, total, k, on_step)
        grown = [([*texts[place // V], place % V], value, place // V) for value, place in best]
        finished += [(text, value) for text, value, _ in grown if text[-1] in job.stop]
        alive = [one for one in grown if one[0][-1] not in job.stop]
        if not alive:
            break
        texts, total, rows = (list(part) for part in zip(*alive, strict=True))
        memory.select(rows)
    found = [
        Beam(job.ids.new_tensor(text), log_p / (len(text) - prompt) ** length_penalty, log_p)
        for text, log_p in [*finished, *((text, value) for text, value, _ in alive)]
    ]
    return sorted(found, key=lambda b: -b.score)


def _best(logits, texts, total, k, on_step):
    """(log p, index into (W, V)) of the k likeliest of logits (W, V), if possible, best first."""
    before = torch.tensor(total, dtype=torch.float64, device=logits.device)
    candidates = before[:, None] + logits.log_softmax(dim=-1, dtype=torch.float64)
    value, index = candidates.flatten().topk(min(k, candidates.numel()))
    values, places = value.tolist(), index.tolist()
    if not math.isfinite(values[0]):  # it is the first, if any is no number
        checked(widened(logits).amax(dim=-1, keepdim=True), after=len(texts[0]))
    possible = len(values) - values.count(-math.inf)  # the others are last
    if on_step is not None:
        on_step(index.new_tensor(texts), candidates, index[:possible])
    return zip(values[:possible], places[:possible], strict=True)


class _Cached:
    """The texts of a search over a cache, or recomputed where there is none."""

    def __init__(self, model, job):
        self.model, self.cache, self.like = model, job.cache, job.ids

    def logits(self, texts):
        """Logits after the last token of each: (W, V)."""
        if self.cache is None:
            return last_logits(self.model, self.like.new_tensor(texts))
        new = [text[self.cache.pos :] for text in texts]
        return prefill(self.model, self.like.new_tensor(new), self.cache)

    def select(self, rows):
        """Go on from these, repeats allowed."""
        if self.cache is not None:
            self.cache.select(self.like.new_tensor(rows))
