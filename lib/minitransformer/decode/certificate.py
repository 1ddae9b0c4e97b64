"""Proof that fast decoding is the slow oracle's: not that texts look the same, but that they could
not differ.

A step is certified where 2·max|Δlogit| is below the margin of the oracle's two best tokens; all
steps together certify the text, by induction. Sampling is certified likewise: with its noise given,
it is greedy on log p - log E."""

import math
from collections.abc import Callable
from functools import partial

import torch

from ..cache import KINDS, make_cache
from ..fields import choice, whole
from .beam import beam
from .generation import last_logits, prefill
from .oracle import EXACT, all_logits, oracle_logits
from .sampling import GREEDY, Sampling, distribution, noise, penalized
from .speculative import emitted
from .verdict import Certificate, certificate, judged

ORACLES = dict.fromkeys(EXACT, "recomputation") | {"window": "recomputation under a windowed mask"}


@torch.no_grad()
def certify(
    model,
    prompt: torch.Tensor | list[torch.Tensor],
    steps: int,
    kind: str,
    *,
    oracle: Callable | None = None,
    against: str | None = None,
    chunk: int | None = None,
    tolerance: float | None = None,
    **options,
) -> Certificate:
    """Decode `steps` greedy tokens after each `prompt` over a cache of `kind`, every step's logits
    against the oracle's.

    Prompts of one length, (B, T), are rows of one cache; those in a list have a cache each.
    `oracle(ids)` gives the logits after the last of ids (B, S), as (B, V), or after every one, as
    (B, S, V): then one call serves whole texts; `against` names it. None is the kind's own: for one
    that changes nothing, recomputation step by step (the naive loop), else `oracle_logits`.
    `options` are the cache's; `chunk` splits the prompt. `tolerance` None: 1e-10 in float64, 1e-3
    in float32, where a quantized kind needs more: rounding can move a number to the next code."""
    prompts = _some([prompt] if isinstance(prompt, torch.Tensor) else prompt)
    steps, kind = whole("steps", steps), choice("cache kind", kind, KINDS)
    if oracle is None:
        seen = {name: value for name, value in options.items() if name in KINDS[kind].options}
        oracle = (
            partial(last_logits, model)
            if kind in EXACT
            else partial(oracle_logits, model, kind=kind, **seen)
        )
        against = against or ORACLES.get(kind, "fake-quantized keys and values")
    runs = []
    for ids in prompts:
        start, new, cached = ids.shape[1], ids, []
        cache = make_cache(model.cfg, kind, batch=len(ids), capacity=start + steps, **options)
        for _ in range(steps):
            cached.append(prefill(model, new, cache, chunk))
            new = cached[-1].argmax(dim=-1, keepdim=True)
            ids = torch.cat((ids, new), dim=1)
        scores, logits = _reference(oracle, ids, start), torch.stack(cached, dim=1)  # (B, n, V)
        runs += zip(scores, ids[:, start:], (scores - logits).abs().amax(dim=-1), strict=True)
    words = [
        f"{name} {value}" for name, value in (options | ({"chunk": chunk} if chunk else {})).items()
    ]
    return judged(
        runs,
        kind,
        tolerance,
        logits.dtype,
        subject=", ".join([f"{kind} cache", *words]),
        oracle=against or "a given oracle",
    )


@torch.no_grad()
def certify_tokens(
    model,
    texts: list[tuple[torch.Tensor, int]],
    kind: str,
    *,
    sampling: Sampling = GREEDY,
    seeds: list[int] | None = None,
    oracle: Callable | None = None,
    against: str = "recomputation",
    subject: str = "",
    tolerance: float | None = None,
) -> Certificate:
    """Certify the tokens of any decoder: each text is ids (1, T + n) with the length T of its
    prompt.

    Every token must be the one that the oracle chooses after the tokens before it, greedily, or
    with the noise of a generator of its text's seed, as `generate` and coupled speculation draw it.
    Only tokens are seen, so `error` is the least logit difference that would explain them: half of
    what the worst lacks to the oracle's best, 0 when all agree. `oracle` as in `certify`; None is
    one forward over the whole text."""
    if sampling.temperature > 0 and (seeds is None or len(seeds) != len(texts)):
        raise ValueError(
            f"{len(texts)} sampled texts with seeds {seeds}: give the seed of each text's generator"
        )
    runs = []
    for i, (ids, start) in enumerate(_some(texts)):
        scores = _reference(oracle or partial(all_logits, model), ids, start)[0]
        dtype = scores.dtype
        generator = None if seeds is None else torch.Generator(ids.device).manual_seed(seeds[i])
        rows = [
            _scores(row[None], sampling, ids[:, : start + step], generator)
            for step, row in enumerate(scores)
        ]
        scores, tokens = torch.cat(rows), ids[0, start:]
        lacking = scores.amax(dim=-1) - scores.gather(1, tokens[:, None])[:, 0]
        runs.append((scores, tokens, lacking / 2))
    return judged(
        runs, kind, tolerance, dtype, subject=subject or kind, compared="tokens", oracle=against
    )


@torch.no_grad()
def certify_beam(
    model,
    prompts: list[torch.Tensor],
    steps: int,
    *,
    cache: str = "static",
    oracle: Callable | None = None,
    against: str = "recomputation",
    tolerance: float | None = None,
    **options,
) -> Certificate:
    """Every choice of a beam search over a cache of kind `cache`: are the candidates it keeps the
    oracle's best ones?

    A step is a choice: `error` is the largest difference of the log-probabilities of all candidates
    from those that the oracle gives them, Σ log p of each continuation by one forward over it, and
    `margin` the distance between the worst candidate kept and the best one dropped, by the oracle.
    Where 2·error < margin the same are kept; so by induction nothing is lost that recomputation
    would have kept. The texts found are then ranked by equal numbers. `oracle(ids)` (B, S) -> (B,
    S, V) None is the model without a cache; `options` are those of `beam`."""
    oracle, runs = oracle or partial(all_logits, model), []

    def judge(choices, start, ids, candidates, kept):
        logits = oracle(ids)[:, start - 1 :]
        log_p = logits.log_softmax(dim=-1, dtype=torch.float64)  # (W, n + 1, V)
        total = log_p[:, :-1].gather(2, ids[:, start:, None]).sum(dim=(1, 2))
        truth = (total[:, None] + log_p[:, -1]).flatten()
        dropped = truth.clone()
        dropped[kept] = -math.inf
        # Infinite where nothing is dropped, negative where the wrong one is.
        margin = truth[kept].min() - dropped.max()
        choices.append((margin.abs(), margin < 0, (truth - candidates.flatten()).abs().max()))

    for ids in _some(prompts):
        dtype = last_logits(model, ids).dtype
        choices = []
        beam(
            model, ids, steps, cache=cache, on_step=partial(judge, choices, ids.shape[1]), **options
        )
        runs.append([torch.stack(parts) for parts in zip(*choices, strict=True)])
    named = [f"{name} {value}" for name, value in options.items()]
    words = ", ".join([f"beam search over a {cache} cache", *named])
    return certificate(
        runs, "beam", tolerance, dtype, subject=words, compared="candidates kept", oracle=against
    )


@torch.no_grad()
def certify_acceptance(
    model,
    draft,
    texts: list[torch.Tensor],
    sampling: Sampling,
    *,
    kind: str = "speculative sampling",
    tolerance: float = 1e-12,
) -> Certificate:
    """The law of speculated tokens is the model's: max |emitted - p| over every position of `texts`
    (1, T), summed exactly.

    p and q are what model and draft model give there under `sampling`, in float64. There is no
    path, so no margin and no tie."""
    runs = []
    for ids in _some(texts):
        p, q = (
            distribution(all_logits(each, ids)[0].double(), sampling) for each in (model, draft)
        )  # (T, V)
        error = (emitted(p, q) - p).abs().amax(dim=-1)
        runs.append(
            (torch.full_like(error, math.inf), torch.zeros_like(error, dtype=torch.bool), error)
        )
    words = {"subject": "accept or resample", "compared": "probabilities"}
    words["oracle"] = "the model's distribution"
    return certificate(runs, kind, tolerance, torch.float64, **words)


def _some(texts):
    """The texts, one at least."""
    if not len(texts):
        raise ValueError("no text is given, and nothing can be certified: give one at least")
    return texts


def _reference(oracle, ids, start):
    """The oracle's logits for each token from `start` on: (B, n, V)."""
    whole = oracle(ids[:, :-1])
    if whole.ndim == 3:
        return whole[:, start - 1 :]
    return torch.stack(
        [*(oracle(ids[:, :t]) for t in range(start, ids.shape[1] - 1)), whole], dim=1
    )


def _scores(logits, sampling, previous, generator):
    """What the choice maximises, (1, V): penalized logits, or with noise log p - log E."""
    if sampling.temperature == 0:
        return penalized(logits, sampling, previous)
    p = distribution(logits, sampling, previous)
    return torch.where(p > 0, p.log() - noise(p, generator).log(), -math.inf)
