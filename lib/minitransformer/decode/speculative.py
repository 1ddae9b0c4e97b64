"""Speculative decoding: a cheap draft proposes, one forward of the model judges, and the law of the
tokens is the model's own.

A proposal x ~ q is accepted with probability min(1, p(x) / q(x)); at the first rejection the token
is drawn from the residual max(0, p - q), normalised; when all are accepted the same forward gives
one more (Leviathan et al. 2023, Chen et al. 2023). So a forward yields 1 to gamma + 1 tokens, each
distributed as p."""

from dataclasses import dataclass
from functools import partial
from itertools import takewhile

import torch
import torch.nn.functional as F

from ..cache import Cache
from ..fields import whole
from .backends import engine, is_native, on_backend
from .generation import chunks, last_logits
from .inputs import Ids, Stop, prepare
from .sampling import GREEDY, Sampling, distribution, greedy, noise, race


def acceptance(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Probability that each token is accepted when the draft proposes it: min(1, p/q), (..., V); 1
    where q never does."""
    return torch.where(q > 0, p / q, 1.0).clamp(max=1.0)


def residual(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """What a rejected proposal is replaced from: max(0, p - q) normalised, (..., V); p itself where
    nothing is left."""
    rest = (p - q).clamp(min=0.0)
    total = rest.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, rest / total, p)


def emitted(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """The law of the token that comes out, accepted or replaced, summed over every proposal: it
    must equal p, (..., V)."""
    accepted = q * acceptance(p, q)
    return accepted + (1 - accepted.sum(dim=-1, keepdim=True)) * residual(p, q)


@dataclass(frozen=True)
class Speculation:
    """ids (1, T + new), prompt included, and for every forward of the model how many tokens were
    (proposed, accepted)."""

    ids: torch.Tensor
    steps: tuple[tuple[int, int], ...]

    @property
    def forwards(self) -> int:
        """Forwards of the model, the prompt's among them; plain decoding needs one a token."""
        return len(self.steps)

    @property
    def accepted(self) -> int:
        return sum(accepted for _, accepted in self.steps)


@torch.no_grad()
def speculate(
    model,
    draft,
    ids: Ids,
    max_new_tokens: int,
    *,
    gamma: int = 4,
    cache: str | Cache | None = "static",
    sampling: Sampling = GREEDY,
    generator: torch.Generator | None = None,
    stop: Stop = (),
    resume: bool = False,
    coupled: bool = False,
    backend: str = "eager",
) -> Speculation:
    """Continue ids (1, T) as `generate` would, with up to `gamma` tokens of `draft` judged by each
    forward.

    Greedy: the tokens of `generate`, except that a forward over several tokens rounds otherwise
    than one over a single token, which can turn a near tie in float32. Sampling: the same
    distribution; the filters and the penalty apply to draft and model alike. `coupled` instead
    accepts a token iff the model itself draws it with the noise the draft was given (Daliri et al.
    2024): then the path is that of `generate` with the same generator, token by token. Rejected
    tokens are truncated from `cache`: a kind that evicts or rounds is made with rollback = gamma
    when it is named, and refused with less when it is given. `resume` and `backend` as in
    `stream`; a draft has a backend of its own. ValueError for several prompts, a gamma below 1,
    or a draft of another vocabulary."""
    asked = dict(sampling=sampling, generator=generator, stop=stop, resume=resume)
    gamma = whole("gamma", gamma)
    job = _prepared(model, draft, gamma, ids, max_new_tokens, cache, **asked)
    own, ids, model = cache == "static", job.ids, on_backend(model, backend, job.cache)
    end, steps = ids.shape[1] + job.new_tokens, []
    cache, judged, matched = job.cache, partial(_judged, model, job.cache), None
    if own and is_native(model, backend):
        rows = engine().Rows(model, 1, end - 1)
        cache, judged, matched = None, rows.judged, rows.matched if sampling == GREEDY else None
    matching = coupled or sampling.temperature == 0
    rule = _Matching(model, job) if matching else _Residual(sampling, job.generator)
    while ids.shape[1] < end:
        proposal, q = draft.propose(ids, min(gamma, end - ids.shape[1] - 1), rule)
        room = torch.cat((ids, proposal, ids[:, :1]), dim=1)  # there is room for one more
        text, n = room[:, :-1], 1 + proposal.shape[1]
        found = matched and matched(text, n)
        accepted, token = found or rule.judge(judged(text, n), ids, proposal, q)
        steps.append((proposal.shape[1], accepted))
        kept = ids.shape[1] + accepted
        if cache is not None and cache.pos > kept:
            cache.truncate(kept)
        room[:, kept] = token
        ids, old = room[:, : kept + 1], ids.shape[1]
        new = ids[0, old:].tolist() if job.stop else ()
        if met := [i for i, token in enumerate(new) if token in job.stop]:
            ids = ids[:, : old + met[0] + 1]
            break
    return Speculation(ids, tuple(steps))


def _prepared(model, draft, gamma, *asked, **options):
    """What `speculate` is asked for, checked."""
    job = prepare(model, *asked, **options, rollback=gamma, alone="speculation")
    if not hasattr(draft, "propose"):
        raise ValueError(f"a {type(draft).__name__} is no draft: give a ModelDraft of it")
    if draft.vocab_size not in (None, model.cfg.vocab_size):
        known = f"the draft knows {draft.vocab_size} tokens and the model {model.cfg.vocab_size}"
        raise ValueError(f"{known}: train both on one vocabulary")
    return job


def _judged(model, cache, text, n):
    """Logits after each of the last n tokens of a text that goes on behind the cache: (n, V)."""
    *first, last = chunks(text if cache is None else text[:, cache.pos :], cache)
    states = [model.hidden(part, cache) for part in first]

    def body(step):
        states.append(model.hidden(last, cache))
        return model.head(torch.cat(states, dim=1)[0, -n:])

    return body(None) if cache is None else cache.run(last.shape[1], body, last.device)


def _histories(ids, proposal, sampling):
    """What precedes each judged position, (g + 1, T + g), later proposals hidden behind a token
    that is there anyway; None where `sampling` does not look back."""
    if sampling.repetition_penalty == 1:
        return None
    g = proposal.shape[1]
    seen = torch.ones(g + 1, g, dtype=torch.bool, device=ids.device).tril(-1)
    return torch.cat((ids.expand(g + 1, -1), torch.where(seen, proposal, ids[:, :1])), dim=1)


class _Matching:
    """A proposal is accepted iff the model, greedy or with the noise of that position, chooses the
    same token."""

    def __init__(self, model, job):
        self.sampling, self.generator, self.start = job.sampling, job.generator, job.ids.shape[1]
        self.noise = []
        if self.sampling.temperature > 0:  # noise is of the model's type, whatever the draft's
            logits = last_logits(model, job.ids[:, -1:])
            self.like = distribution(logits, self.sampling)

    def choices(self, logits, previous, position):
        """The tokens (n, 1) chosen from logits (n, V) at `position` and after; the noise comes in
        the order of `generate`."""
        if self.sampling.temperature == 0:
            return greedy(logits, self.sampling, previous, position, along=True)
        first = position - self.start
        while len(self.noise) < first + len(logits):
            self.noise.append(noise(self.like, self.generator))
        return race(
            distribution(logits, self.sampling, previous, position, along=True),
            torch.cat(self.noise[first : first + len(logits)]),
        )

    def draw(self, logits, ids):
        return self.choices(logits, ids, ids.shape[1]), None

    def judge(self, logits, ids, proposal, _):
        own = self.choices(logits, _histories(ids, proposal, self.sampling), ids.shape[1])
        pairs = zip(own[:-1, 0].tolist(), proposal[0].tolist(), strict=True)
        accepted = len([*takewhile(lambda pair: pair[0] == pair[1], pairs)])
        return accepted, own[accepted : accepted + 1]


class _Residual:
    """A proposal is accepted with probability min(1, p/q), and the first rejected one drawn anew
    from the residual."""

    def __init__(self, sampling, generator):
        self.sampling, self.generator = sampling, generator

    def draw(self, logits, ids):
        q = distribution(logits, self.sampling, ids, ids.shape[1])
        return race(q, noise(q, self.generator)), q

    def judge(self, logits, ids, proposal, q):
        histories = _histories(ids, proposal, self.sampling)
        p = distribution(logits, self.sampling, histories, ids.shape[1], along=True)  # (g + 1, V)
        q = F.one_hot(proposal[0], p.shape[1]) if q is None else q
        # The draft says nothing of the last position: its residual is p.
        q = F.pad(q.to(p.dtype), (0, 0, 0, 1))
        chance = acceptance(p[:-1], q[:-1]).gather(1, proposal.T)[:, 0]  # (g,)
        uniform = torch.rand(len(chance), generator=self.generator, dtype=p.dtype, device=p.device)
        accepted = int((uniform < chance).cumprod(dim=0).sum())
        rest = residual(p[accepted : accepted + 1], q[accepted : accepted + 1])
        return accepted, race(rest, noise(rest, self.generator))
