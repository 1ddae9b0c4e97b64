"""Many tokens without coming back: the engine's loop behind the signature of `decode.generate`."""

from ctypes import byref, c_int32, c_int64, c_uint8

import torch

from ..cache import BlockTable, Cache, PagedCache, make_cache, reserve
from .checks import check_ids, check_length, raised
from .model import NativeModel
from .structs import Sampling
from .views import pool_view, view

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
    B, T, _ = check_ids(ids, model.cfg)
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens {max_new_tokens} is not positive: give at least 1")
    fed = T + max_new_tokens - 1
    if cache == "static":
        check_length(fed, model.cfg)
        seen = model.room(B, fed)
    else:
        if isinstance(cache, str):
            cache = make_cache(model.cfg, cache, batch=B, capacity=fed)
        if cache.pos:
            raise ValueError(f"the cache holds {cache.pos} tokens: give an empty one")
        model.join(cache, B, fed)
        tables = cache.tables if isinstance(cache, PagedCache) else []
        for table in tables:
            table.reserve(fed)
        seen = view(cache)
    run = Run(model, seen, list(ids), max_new_tokens, sampling, generator, stop)
    if cache == "static":
        return run.ids[:, : T + run.steps(max_new_tokens, fed)]
    made = 0
    try:
        made = T + run.steps(max_new_tokens, seen.seen(fed)) - 1
    finally:  # all of it has happened, or nothing
        for table in tables:
            table.length = made
            table.truncate(made)
        cache.state = cache.state._replace(pos=made, first=cache.hold(made))
    return run.ids[:, : made + 1]


def generate_batch(
    model,
    prompts: list[torch.Tensor],
    max_new_tokens: int,
    *,
    sampling=None,
    generator=None,
    stop: tuple[int, ...] = (),
) -> list[torch.Tensor]:
    """Prompts (T_b,) of any lengths and their continuations, (T_b + new,), over the engine's own
    cache: each is fed as it is, and nothing is padded. The rest as `generate` has it."""
    model = model if isinstance(model, NativeModel) else NativeModel(model)
    for ids in prompts:
        check_ids(ids[None], model.cfg)
    fed = max(map(len, prompts)) + max_new_tokens - 1
    check_length(fed, model.cfg)
    seen = model.room(len(prompts), fed)
    run = Run(model, seen, prompts, max_new_tokens, sampling, generator, stop)
    made = run.steps(max_new_tokens, fed)
    return [row[: len(ids) + made] for row, ids in zip(run.ids, prompts, strict=True)]


def advance(
    model: NativeModel,
    tables: list[BlockTable],
    unfed: list[list[int]],
    steps: int,
    *,
    sampling=None,
    generator=None,
    stop: tuple[int, ...] = (),
    texts: list[torch.Tensor] | None = None,
) -> list[list[int]]:
    """Up to `steps` tokens more of each of some texts over one pool, in one call; after a stop
    token there are none.

    `unfed` are the tokens of each that its table does not hold, one at least; `texts` are all of
    them, where `sampling` looks back. The tables get room and what is fed; their lengths are the
    caller's to set. PoolExhausted leaves all as it is."""
    held, new = [table.length for table in tables], max(map(len, unfed)) + steps - 1
    check_length(max(held) + new, model.cfg)
    reserve(tables, new)
    seen = pool_view(tables[0].pool, [table.blocks for table in tables], model.own().views)
    run = Run(model, seen, unfed, steps, sampling, generator, stop, held, texts)
    made = run.steps(steps, max(held) + new)
    found = []
    for row, n, ids in zip(run.rows, held, unfed, strict=True):
        tokens = row[n + len(ids) :][:made].tolist()
        end = next((i + 1 for i, token in enumerate(tokens) if token in stop), made)
        found.append(tokens[:end])
    return found


class Run:
    """The buffers of one generation, and its loop.

    `held`: how many tokens of each text the cache has, None for none; the prompts are what comes
    after those, and `texts` (None: the prompts) all of them."""

    def __init__(
        self, model, seen, prompts, steps, sampling, generator, stop, held=None, texts=None
    ):
        self.model, self.seen, self.generator = model, seen, generator
        B, V = len(prompts), model.cfg.vocab_size
        if any(not isinstance(token, int) or not 0 <= token < V for token in stop):
            raise ValueError(f"stop {tuple(stop)}: give token ids from 0 to {V - 1}")
        if isinstance(generator, (list, tuple)) and len(generator) != B:
            raise ValueError(f"{len(generator)} generators for {B} rows: give one, or one a row")
        self.sampling, self.noisy = Sampling(0.0, 1.0, 1.0, 0), False
        if sampling is not None:
            self.noisy = sampling.temperature > 0
            self.sampling = Sampling(
                *(sampling.temperature, 1.0 if sampling.top_p is None else sampling.top_p),
                *(sampling.repetition_penalty, min(int(sampling.top_k or 0), V)),
            )
        held = held or [0] * B
        lengths = [n + len(ids) for n, ids in zip(held, prompts, strict=True)]
        self.lengths, self.fed = (c_int64 * B)(*lengths), (c_int64 * B)(*held)
        self.ids = torch.empty(B, max(lengths) + steps, dtype=torch.int64)
        self.rows, self.done = self.ids.numpy(), (c_uint8 * B)()
        for row, n, ids in zip(self.rows, held, prompts, strict=True):
            row[n : n + len(ids)] = ids
        self.stop, self.present = (c_int32 * len(stop))(*stop), None
        if self.sampling.penalty != 1:
            self.present = torch.zeros(B, V, dtype=torch.uint8)
            for row, text in zip(self.present, texts or prompts, strict=True):
                row[text.long()] = 1

    def steps(self, count: int, tokens: int) -> int:
        """Choose up to `count` tokens a row; how many there are."""
        made = 0
        while made < count:
            ask = min(DRAWN, count - made) if self.noisy else count - made
            states, noise = (self.states(), self.draw(ask)) if self.noisy else (None, None)
            got = self.call(ask, noise, tokens)
            made += got
            self.lengths[:] = [length + got for length in self.lengths]
            self.fed[:] = [length - 1 for length in self.lengths]
            if got < ask:  # every row is done: generators stand where the eager loop leaves them
                if states is not None:
                    self.restore(states)
                    self.draw(got)
                break
        return made

    def call(self, steps, noise, tokens) -> int:
        """One call of the engine for up to `steps` tokens a row, of texts of up to `tokens`; how
        many it made. `noise` (steps, B, V), None is greedy."""
        m, (B, stride) = self.model, self.ids.shape
        noise, present = (None if x is None else x.data_ptr() for x in (noise, self.present))
        return raised(
            m.engine.engine_generate(
                *(m.reference, self.seen.reference, byref(self.sampling), B),
                *(self.ids.data_ptr(), stride, self.fed, self.lengths),
                *(steps, noise, present),
                *(self.stop, len(self.stop), self.done, m.arena(tokens, B), tokens),
            )
        )

    def draw(self, steps: int) -> torch.Tensor:
        """Exponential noise, (steps, B, V), drawn step by step as the eager path does."""
        noise = torch.empty(steps, len(self.ids), self.model.cfg.vocab_size)
        for one in noise:
            if isinstance(self.generator, (list, tuple)):
                for row, own in zip(one.split(1), self.generator, strict=True):
                    row.exponential_(generator=own)
            else:
                one.exponential_(generator=self.generator)
        return noise

    def generators(self) -> list[torch.Generator]:
        """Those that noise is drawn from."""
        if isinstance(self.generator, (list, tuple)):
            return list(self.generator)
        return [torch.default_generator if self.generator is None else self.generator]

    def states(self) -> list[torch.Tensor]:
        """What `restore` takes to draw the same noise again."""
        return [own.get_state() for own in self.generators()]

    def restore(self, states):
        for own, state in zip(self.generators(), states, strict=True):
            own.set_state(state)
