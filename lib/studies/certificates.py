"""Is the cached, batched, speculative or quantized-cache text the oracle's, at every step?"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch

from minitransformer.checkpoint import load
from minitransformer.decode import (
    ModelDraft,
    PromptLookup,
    Sampling,
    certify,
    certify_acceptance,
    certify_beam,
    certify_tokens,
    generate_batch,
    in_float64,
    oracle_logits,
    speculate,
)

from .speculation import int4
from .texts import TRAINED, arrays, as_row
from .words import CACHES
from .workers import at_once, side_by_side, ticks

EXACT = ("dynamic", "static", "paged")  # kinds that change nothing but the time
SMALL = {  # options under which short texts fill a window and finish groups
    "window": {"window": 24, "sinks": 4},
    "int4": {"residual": 16, "group": 16},
    "int2": {"residual": 16, "group": 16},
}
WARM = Sampling(temperature=1.0)
DRAFT = "model-draft"  # the folder of the small model that proposes
BEAM_TOKENS = 12


def chunked(model, drafts, prompts, tokens):
    """A prompt fed in pieces of three tokens."""
    own = {"oracle": model, "against": "recomputation"}
    yield certify(model, torch.cat(list(prompts)), tokens, "static", chunk=3, **own)


def speculative(model, drafts, prompts, tokens):
    """Greedy speculation with each draft, sampling with shared noise, and the law it keeps."""
    judge = partial(certify_tokens, model)
    for name, draft in {**drafts, "prompt lookup": None}.items():
        make = PromptLookup if draft is None else partial(ModelDraft, draft)
        texts = [(speculate(model, make(), p, tokens).ids, p.shape[1]) for p in prompts]
        yield judge(texts, "speculative", subject=f"speculation with {name}")
    draft = next(iter(drafts.values()))
    texts = [(sampled(model, draft, p, tokens, i), p.shape[1]) for i, p in enumerate(prompts)]
    seeds = list(range(len(texts)))
    shared = "speculation, sampled with shared noise"
    yield judge(texts, "speculative", sampling=WARM, seeds=seeds, subject=shared)
    law = Sampling(temperature=0.8, top_p=0.95)
    yield certify_acceptance(model, draft, [ids for ids, _ in texts], law)


def sampled(model, draft, prompt, tokens, seed):
    """Sampled ids (1, T + tokens) by speculation whose noise is shared with plain sampling."""
    noise = {"generator": torch.Generator().manual_seed(seed), "coupled": True}
    return speculate(model, ModelDraft(draft), prompt, tokens, sampling=WARM, **noise).ids


def batched(model, drafts, prompts, tokens, kinds=("static", "paged", "paged-int8")):
    """Prompts of unequal length in one batch, over each kind."""
    uneven = [p[0, i % 3 :] for i, p in enumerate(prompts)]
    for kind in kinds:
        rows = generate_batch(model, uneven, tokens, cache=kind)
        texts = [(ids[None], len(p)) for ids, p in zip(rows, uneven, strict=True)]
        own = {}
        if kind not in EXACT:
            oracle = partial(oracle_logits, model, kind=kind)
            own = {"oracle": oracle, "against": "fake-quantized keys and values"}
        subject = f"unequal prompts in a batch, {kind} cache"
        yield certify_tokens(model, texts, "batch", subject=subject, **own)


def beams(model, drafts, prompts, tokens):
    """Beams of width 4 from four prompts, over no more tokens than a text of them needs."""
    yield certify_beam(model, prompts[:4], min(tokens, BEAM_TOKENS), width=4)


# Every way of decoding, against the oracle in float64, of (model, drafts by name, prompts, tokens).
WAYS = {"chunked": chunked, "speculative": speculative, "batched": batched, "beams": beams}


@dataclass(frozen=True)
class Check:
    """One kind of cache, or one of the `WAYS` of decoding, of the model of a folder."""

    model: str
    folder: str
    what: str

    def __str__(self):
        return f"{self.model}, {self.what}"


def checks(kinds, models: dict[str, str] = TRAINED) -> list[Check]:
    """Every kind of cache and every way of decoding, for each of the models."""
    whats = (*kinds, *WAYS)
    return [Check(name, folder, what) for name, folder in models.items() for what in whats]


def every(root, prompts, tokens: int, plan: list[Check], threads: int = 1, progress=None):
    """All of the plan's checks over the same prompts, ids (1, T) of one length, `threads` of them
    at once (see `side_by_side` and `ticks`): a row a check, precision and draft. Each model is
    drafted for by that of `root`/model-draft and by its own int4 copy; beams start from four
    prompts."""
    workers, done = at_once(threads, len(plan)), ticks(progress, len(plan), "certificates")
    given = (root, arrays(prompts), tokens)
    found = side_by_side(checked, plan, given, workers=workers, done=done, cost=weight)
    return pd.DataFrame([row for rows in found for row in rows])


def weight(check: Check) -> int:
    """What goes text by text takes longest, and so begins first."""
    return int(check.what == "speculative")


@torch.no_grad()
def checked(check: Check, given, tick: Callable[[int], None]) -> list[dict]:
    """The rows of one check."""
    root, texts, tokens = given
    prompts = [as_row(text) for text in texts]
    model, draft = load(root / check.folder)[0], load(root / DRAFT)[0]
    if check.what in WAYS:
        drafts = {"a draft model": draft, "its own int4": int4(model)}
        found = WAYS[check.what](in_float64(model), drafts, prompts, tokens)
    else:
        found = cached(model, prompts, tokens, check.what)
    rows = [{"model": check.model, **each.row()} for each in found]
    tick(1)
    return rows


def cached(model, prompts, tokens, kind):
    """A kind of cache against its oracle: in float64, in float32 too where it is exact."""
    double, ids = in_float64(model), torch.cat(list(prompts))
    for judged in (model, double) if kind in EXACT else (double,):
        own = {"oracle": judged, "against": "recomputation"} if kind in EXACT else {}
        yield certify(judged, ids, tokens, kind, **own, **SMALL.get(kind, {}))


def summary(certificates: pd.DataFrame) -> pd.DataFrame:
    """One row a subject: its worst verdict, steps, and the difference and margin of the one model
    where these are nearest."""
    order = ["certified", "identical", "near ties", "different"]
    by = ["subject", "compared", "oracle", "dtype"]
    shown = {f"{kind} cache": f"{name} cache" for kind, name in CACHES.items()}
    certificates = certificates.replace({"subject": shown})
    groups = certificates.groupby(by, sort=False)
    found = groups[["steps", "near_ties", "mismatches"]].sum()
    found["verdict"] = groups.verdict.agg(lambda verdicts: max(verdicts, key=order.index))
    found = found.rename(columns={"mismatches": "other_tokens"}).reset_index()
    share = certificates.assign(share=certificates.error / certificates.margin)
    first = {"by": ["share", "error", "margin"], "ascending": [False, False, True]}
    nearest = share.sort_values(**first).drop_duplicates(by)
    nearest = nearest[[*by, "error", "margin"]].rename(columns={"error": "difference"})
    columns = [*by, "verdict", "steps", "difference", "margin", "near_ties", "other_tokens"]
    return found.merge(nearest, on=by)[columns]


def agreement(certificates: pd.DataFrame) -> dict:
    """What the chapter's bars ask: steps with the oracle's token, the largest differences, and in
    float32 twice the difference and the margin of the one check where these are nearest."""
    exact = certificates[certificates.compared != "probabilities"]
    single = exact[(exact.dtype == "float32") & exact.kind.isin(EXACT)]
    double = exact[exact.dtype == "float64"]
    same = double[double.verdict.isin(["certified", "identical"])]
    near = single.iloc[(single.error / single.margin).argmax()]
    return {
        "float32_same": int(single.steps.sum() - single.mismatches.sum()),
        "float32_certified": int(single.steps.sum() - single.near_ties.sum()),
        "float32_steps": int(single.steps.sum()),
        "float32_error": float(single.error.max()),
        "nearest": (2 * float(near.error), float(near.margin)),
        "float64_same": int(same.steps.sum()),
        "float64_steps": int(double.steps.sum()),
        "float64_error": float(double.error.max()),
        "law_error": float(certificates[certificates.compared == "probabilities"].error.max()),
    }


STATEMENT = (
    "At every certified step the two best tokens are further apart than twice the largest "
    "difference of logits. Drawn: twice the difference as error, and the margin, of the model and "
    "cache in float32 where they are nearest."
)


def proof(found: dict, asked: str) -> tuple:
    """What the chapter's certificate shows of `agreement`: its statement, its lines, whether it
    holds, and what is drawn."""
    holds = found["float32_same"] == found["float32_steps"]
    return STATEMENT, rows(found, asked), holds, found["nearest"]


def rows(found: dict, asked: str) -> list[tuple]:
    """The lines of the chapter's certificate: what, measured, bound; `asked`: the float64 bar's."""
    same, certified = (f"{found[f'float32_{what}']:,}" for what in ("same", "certified"))
    steps = f"of {found['float32_steps']:,}"
    return [
        ("steps with the same token", same, steps),
        ("steps certified; the rest are near ties", certified, steps),
        ("largest difference, float64", found["float64_error"], asked),
        ("largest difference, float32", found["float32_error"], ""),
    ]
