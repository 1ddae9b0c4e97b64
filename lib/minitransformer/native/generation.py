"""Many tokens without coming back: the engine's loop behind the signature of `decode.generate`."""

from ctypes import byref

import torch

from ..cache import Cache, make_cache
from .model import NativeModel
from .structs import Sampling

DRAWN = 64  # steps whose noise is drawn at once


def generate(
    model,
    ids: torch.Tensor,
    max_new_tokens: int,
    *,
    cache: str | Cache = "static",
    sampling=None,
    generator=None,
    stop: tuple[int, ...] = (),
) -> torch.Tensor:
    """Prompt and continuation, (B, T) -> (B, T + new), as `decode.generate` gives them up to
    rounding.

    `model` is a NativeModel or what one is made of. `cache` is a kind or an empty cache that the
    engine knows; "static" is its own. `sampling` has temperature, top_k, top_p and
    repetition_penalty, None is greedy. The noise is drawn as the eager path draws it, so that a
    seed gives the same tokens. Rows that met a stop token repeat it, and are fed no more."""
    model = model if isinstance(model, NativeModel) else NativeModel(model)
    B, T = model.check(ids)
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens {max_new_tokens} is not positive: give at least 1")
    fed = T + max_new_tokens - 1
    if cache == "static":
        model._within(fed)
        seen, limit = model.room(B, fed), model.cfg.context
    else:
        if isinstance(cache, str):
            cache = make_cache(model.cfg, cache, batch=B, capacity=fed)
        if cache.pos:
            raise ValueError(f"the cache holds {cache.pos} tokens: give an empty one")
        _, seen = model.join(cache, B, fed)
        limit = model.limit(cache)
    run = Run(model, seen, ids, sampling, generator, stop)
    new = run.steps(max_new_tokens, min(fed, limit))
    if isinstance(cache, Cache):
        cache.advance(T + new.shape[1] - 1)
    return torch.cat((ids, new), dim=1)


class Run:
    """The buffers of one generation, and its loop."""

    def __init__(self, model, seen, ids, sampling, generator, stop):
        self.model, self.seen, self.generator = model, seen, generator
        B, V = len(ids), model.cfg.vocab_size
        if any(not isinstance(token, int) or not 0 <= token < V for token in stop):
            raise ValueError(f"stop {tuple(stop)}: give token ids from 0 to {V - 1}")
        if isinstance(generator, (list, tuple)) and len(generator) != B:
            raise ValueError(f"{len(generator)} generators for {B} rows: give one, or one a row")
        self.sampling, self.noisy = Sampling(0.0, 1.0, 1.0, 0), False
        if sampling is not None:
            self.noisy = sampling.temperature > 0
            self.sampling = Sampling(
                *(sampling.temperature, 1.0 if sampling.top_p is None else sampling.top_p),
                *(sampling.repetition_penalty, int(sampling.top_k or 0)),
            )
        self.stop = torch.tensor(stop, dtype=torch.int32)
        self.done = torch.zeros(B, dtype=torch.uint8)
        self.logits, self.heap = torch.empty(B, V), torch.empty(V, dtype=torch.int32)
        self.hidden = torch.empty(B, model.cfg.d_model)
        self.present = None
        if self.sampling.penalty != 1:
            self.present = torch.zeros(B, V, dtype=torch.uint8).scatter_(1, ids.long(), 1)
        self.last = ids[:, -1].to(torch.int32)
        self.position = torch.full((B,), ids.shape[1] - 1, dtype=torch.int32)
        if ids.shape[1] > 1:
            places = torch.arange(ids.shape[1] - 1).expand(B, -1)
            model.feed(seen, ids[:, :-1], torch.arange(B)[:, None].expand_as(places), places, None)

    def steps(self, count: int, tokens: int) -> torch.Tensor:
        """Up to `count` new tokens, (B, new)."""
        out = torch.empty(count, len(self.last), dtype=torch.int32)
        made = 0
        while made < count:
            ask = min(DRAWN, count - made) if self.noisy else count - made
            states, noise = (self.states(), self.draw(ask)) if self.noisy else (None, None)
            got = self.call(ask, noise, out[made:], tokens)
            made += got
            if got < ask:  # every row is done: the generators stand where the eager loop leaves them
                if states is not None:
                    self.restore(states)
                    self.draw(got)
                break
        return out[:made].T.long()

    def call(self, steps, noise, out, tokens) -> int:
        m, none = self.model, lambda x: None if x is None else x.data_ptr()
        return m.raised(
            m.engine.generate(
                *(byref(m.struct), byref(self.seen.struct), byref(self.sampling)),
                *(len(self.last), steps, self.last.data_ptr(), self.position.data_ptr()),
                *(none(noise), none(self.present), self.stop.data_ptr(), len(self.stop)),
                *(self.done.data_ptr(), self.logits.data_ptr(), self.hidden.data_ptr()),
                *(self.heap.data_ptr(), out.data_ptr(), m.arena(tokens).data_ptr(), tokens),
            )
        )

    def draw(self, steps: int) -> torch.Tensor:
        """Exponential noise, (steps, B, V), drawn step by step as the eager path does."""
        noise = torch.empty(steps, *self.logits.shape)
        for one in noise:
            if isinstance(self.generator, (list, tuple)):
                for row, own in zip(one.split(1), self.generator, strict=True):
                    row.exponential_(generator=own)
            else:
                one.exponential_(generator=self.generator)
        return noise

    def generators(self):
        if isinstance(self.generator, (list, tuple)):
            return self.generator
        return [torch.default_generator if self.generator is None else self.generator]

    def states(self):
        return [own.get_state() for own in self.generators()]

    def restore(self, states):
        for own, state in zip(self.generators(), states, strict=True):
            own.set_state(state)
