"""A forward over a cache is all or nothing, for every kind: wherever an exception falls, nothing
has changed, and the same forward then gives the same bits."""

import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import minitransformer
from minitransformer.cache import KINDS, BlockPool, BlockTable, PagedCache, make_cache
from minitransformer.decode import (
    ModelDraft,
    PromptLookup,
    Sampling,
    beam,
    generate,
    last_logits,
    speculate,
    stream,
)
from minitransformer.model import ModelConfig, Transformer

CFG = ModelConfig(
    vocab_size=40, d_model=16, n_layers=2, n_heads=2, n_kv_heads=1, context=48, bias=False
)
OPTIONS = {
    "window": {"window": 6, "sinks": 2, "rollback": 2},
    "int4": {"residual": 3, "group": 4, "rollback": 2},
    "int2": {"residual": 3, "group": 4},
    **{kind: {"block_size": 4} for kind in ("paged", "paged-int8", "paged-int4")},
}
PLACES = ["positions", "mask", "embed", "before 0", "after 0", "before 1", "after 1", "norm"]


class Broken(BaseException):
    """Not an Exception, as KeyboardInterrupt is not."""


def make_model():
    torch.manual_seed(3)
    model = Transformer(CFG).eval().requires_grad_(False)
    for block in model.blocks:
        block.attention.q.weight *= 4
        block.attention.k.weight *= 4
    return model


MODEL = make_model()
IDS = torch.randint(0, 40, (2, 48), generator=torch.Generator().manual_seed(1))


def filled(kind, n=13, rows=2):
    cache = make_cache(CFG, kind, batch=rows, **OPTIONS.get(kind, {}))
    for a, b in ((0, n // 2), (n // 2, n - 1), (n - 1, n)) if n else ():
        MODEL.hidden(IDS[:rows, a:b], cache)
    return cache


def visible(cache):
    """Everything a later forward, or its owner, could see of a cache."""
    seen = {
        "pos": cache.pos,
        "batch": cache.batch,
        "nbytes": cache.nbytes,
        "state": cache.state[:4],
    }
    if isinstance(cache, PagedCache):
        pool, tables = cache.pool, cache.tables
        seen |= {
            "tables": [(list(table.blocks), table.length) for table in tables],
            "pool": (list(pool.references), list(pool.free), pool.used, pool.nbytes),
            "known": (dict(pool.known), dict(pool.prefixes)),
        }
        slots = [
            block * pool.block_size + i
            for table in tables
            for block in table.blocks
            for i in range(pool.block_size)
            if table.blocks.index(block) * pool.block_size + i < table.length
        ]
        layers = (
            [] if pool.store is None else [pool.store[:, i].flatten(1, 2)[:, slots] for i in (0, 1)]
        )
        seen["content"] = [x.clone() for x in layers]
    elif type(cache).__name__ == "WindowCache":
        seen["content"] = [x.clone() for layer in cache.layers for x in layer.store]
    else:  # what lies behind the cursor is not the cache's content
        stores = [x for layer in cache.layers for x in layer.store]
        if cache.pos and type(cache).__name__ in ("StaticCache", "DynamicCache"):
            stores = [x[:, :, : cache.pos] for x in stores]
        elif cache.pos and type(cache).__name__ == "Int8Cache":
            stores = [x[:, :, :, : cache.pos] for x in stores]
        elif cache.pos:
            groups = cache.finished(cache.pos) // cache.group
            stores = [x[:, :, :groups] if i % 8 < 6 else x for i, x in enumerate(stores)]
        seen["content"] = [x.clone() for x in stores]
    return seen


def same(a, b):
    assert {k: v for k, v in a.items() if k != "content"} == {
        k: v for k, v in b.items() if k != "content"
    }
    assert len(a["content"]) == len(b["content"])
    assert all(torch.equal(x, y) for x, y in zip(a["content"], b["content"], strict=True))


def raising(*_, **__):
    raise Broken


class at:
    """Break a forward at one place, on the n-th time that it comes there."""

    def __init__(self, monkeypatch, model, kind, place, n=0):
        self.n = n
        name, _, layer = place.partition(" ")
        cls = KINDS[kind]
        if name in ("positions", "mask"):
            whole = getattr(cls, name)
            monkeypatch.setattr(cls, name, lambda c, T: self.count() or whole(c, T))
        elif name in ("before", "after"):
            whole, i = cls.layer.update, int(layer)

            def update(own, k, v):
                if name == "before" and own.index == i:
                    self.count()
                seen = whole(own, k, v)
                if name == "after" and own.index == i:
                    self.count()
                return seen

            monkeypatch.setattr(cls.layer, "update", update)
        else:
            part = model.embedding if name == "embed" else getattr(model, name)
            self.hook = part.register_forward_hook(lambda *_: self.count())

    def count(self):
        self.n -= 1
        if self.n < 0:
            raise Broken


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [*PLACES, "head"])
def test_an_exception_anywhere_in_a_forward_changes_nothing(kind, place, monkeypatch):
    for n, T, forward in ((0, 5, last_logits), (20, 1, last_logits), (20, 5, Transformer.__call__)):
        cache, model = filled(kind, n), deepcopy(MODEL)
        twin, ids = deepcopy(cache), IDS[:, n : n + T]
        before = visible(cache)
        with monkeypatch.context() as patch:
            trap = at(patch, model, kind, place)
            with pytest.raises(Broken):
                forward(model, ids, cache)
            if hasattr(trap, "hook"):
                trap.hook.remove()
        same(visible(cache), before)
        assert torch.equal(model(ids, cache), model(ids, twin))
        assert cache.pos == twin.pos == n + T
        same(visible(cache), visible(twin))


@pytest.mark.parametrize("kind", KINDS)
def test_after_an_aborted_forward_any_other_goes_on_and_truncation_is_right(kind):
    for T, other in ((1, 3), (5, 1), (6, 2)):
        cache = filled(kind, 20)
        twin = deepcopy(cache)
        hook = MODEL.norm.register_forward_hook(raising)
        with pytest.raises(Broken):
            MODEL(IDS[:, 20 : 20 + T] + 0 * T, cache)
        hook.remove()
        for one in (cache, twin):
            one.truncate(19)
            one.select(torch.tensor([1, 0, 1]))
        ids = IDS[[1, 0, 1], 19 : 19 + other]
        assert torch.equal(MODEL(ids, cache), MODEL(ids, twin))


def lines(model, ids, cache, stop_at=None):
    """Run a forward; with `stop_at`, an exception before the line of that number is executed."""
    root, count = str(Path(minitransformer.__file__).parent), 0

    def trace(frame, event, _):
        nonlocal count
        if not frame.f_code.co_filename.startswith(root):
            return None
        if event == "line":
            if count == stop_at:
                sys.settrace(None)
                raise Broken
            count += 1
        return trace

    old = sys.gettrace()
    sys.settrace(trace)
    try:
        last_logits(model, ids, cache)
    finally:
        sys.settrace(old)
    return count


@pytest.mark.parametrize("T", [1, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_before_any_line_leaves_all_or_nothing(kind, T):
    start, ids = filled(kind, 12), IDS[:, 12 : 12 + T]
    before, after = visible(start), deepcopy(start)
    total = lines(MODEL, ids, after)
    logits = MODEL(IDS[:, 12 + T : 14 + T], deepcopy(after))
    committed = 0
    # The places of one forward, the last ones, where it is committed, without a gap.
    for stop_at in sorted({*range(0, total, 23), *range(total - 16, total)}):
        cache = deepcopy(start)
        with pytest.raises(Broken):
            lines(MODEL, ids, cache, stop_at)
        if cache.pos == 12:
            same(visible(cache) | {"known": 0}, before | {"known": 0})
            last_logits(MODEL, ids, cache)
        else:
            committed += 1
        assert torch.equal(MODEL(IDS[:, 12 + T : 14 + T], cache), logits)
    assert committed <= 5  # behind the one assignment


def speculated(draft):
    return lambda cache: speculate(MODEL, draft, IDS[:1, :12], 12, cache=cache).ids


DECODERS = {
    "generate": lambda cache: generate(MODEL, IDS[:1, :12], 12, cache=cache),
    "stream": lambda cache: torch.cat(list(stream(MODEL, IDS[:1, :12], 12, cache=cache)), dim=1),
    "sample": lambda cache: generate(
        MODEL,
        IDS[:1, :12],
        12,
        cache=cache,
        sampling=Sampling(),
        generator=torch.Generator().manual_seed(0),
    ),
    "beam": lambda cache: beam(MODEL, IDS[:1, :12], 12, width=3, cache=cache)[0].ids,
    "lookup": speculated(PromptLookup()),
    "draft": lambda cache: speculated(ModelDraft(MODEL))(cache),
}


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(list(KINDS)),
    decoder=st.sampled_from(list(DECODERS)),
    place=st.sampled_from([*PLACES, "head"]),
    n=st.integers(0, 12),
)
def test_a_decoder_that_is_interrupted_leaves_a_cache_of_whole_forwards(kind, decoder, place, n):
    options = OPTIONS.get(kind, {}) | (
        {"rollback": 4} if kind in ("window", "int4", "int2") else {}
    )
    cache = make_cache(CFG, kind, **options)
    fed = []  # what whole forwards have fed: the truth about what the cache holds
    run = type(cache).run

    def counted(own, T, body, device=None):
        nested = own.current is not None and own.current.open
        before = None if own is not cache or nested else visible(own)
        try:
            result = run(own, T, body, device)
        except BaseException:
            if before is not None:
                same(visible(own) | {"known": 0}, before | {"known": 0})
                fed.append("undone")
            raise
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(cache), "run", counted)
        trap = at(patch, MODEL, kind, place, n)
        try:
            DECODERS[decoder](cache)
            broken = False
        except Broken:
            broken = True
        finally:
            if hasattr(trap, "hook"):
                trap.hook.remove()
    assert len(fed) <= broken
    cache.truncate(0)  # and it serves again, as a new one would
    if cache.batch == 1:
        fresh = DECODERS[decoder](make_cache(CFG, kind, **options))
        assert torch.equal(DECODERS[decoder](cache), fresh)
    if isinstance(cache, PagedCache):
        cache.truncate(0)
        assert cache.pool.used == 0


def test_a_second_forward_inside_one_is_named():
    cache = filled("static", 4)

    def twice(_):
        MODEL.hidden(IDS[:, 4:5], cache)
        return MODEL.hidden(IDS[:, 4:5], cache)

    with pytest.raises(
        RuntimeError, match="a forward of 1 tokens inside one of 1 that is not over"
    ):
        cache.run(1, twice)
    assert cache.pos == 4


def test_questions_have_no_side_effects():
    for kind in KINDS:
        cache = filled(kind, 13)
        before = visible(cache)
        for T in (1, 3, 1):
            cache.positions(T), cache.mask(T)
        same(visible(cache), before)
        assert cache.current is None


def test_two_forwards_at_a_time_over_one_pool_are_named():
    pool = BlockPool(CFG, 8, 4)
    first, second = (PagedCache.over([BlockTable(pool)]) for _ in range(2))
    k = torch.zeros(1, 1, 2, 8)
    first[0].update(k, k), second[0].update(k, k)
    first.advance(2)
    with pytest.raises(RuntimeError, match="others took blocks of the pool"):
        second.advance(2)
