"""The engine against the eager model: every configuration, format and cache, logits and tokens."""

from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cache_models import takes
from minitransformer.cache import make_cache
from minitransformer.decode import Sampling, beam, certify
from minitransformer.decode import generate as eager_generate
from minitransformer.evaluate import perplexity
from minitransformer.model import ModelConfig
from minitransformer.native import NativeModel, generate
from minitransformer.quant import QuantScheme, quantize
from native_models import (
    CONFIGS,
    FORCES,
    ROUNDED,
    WEIGHT_ONLY,
    apart,
    even_rope,
    ids_of,
    model_of,
    needs_compiler,
)

pytestmark = [needs_compiler, pytest.mark.usefixtures("no_grad")]
KINDS = {
    "static": {},
    "window": {"window": 9, "sinks": 3},
    "int8": {},
    "paged": {"block_size": 4},
    "paged-int8": {"block_size": 4},
    "paged-int4": {"block_size": 4},
}
EXACT = ("static", "window", "paged")


@pytest.fixture
def no_grad():
    with torch.no_grad():
        yield


def near_rounding(native, eager, unrounded):
    """What differs is less than what rounding does by itself: a number beside a step's middle may
    fall to its other side, which is one step for that number, where rounding moved them all."""
    error, rounding = (native - eager).norm(), (eager - unrounded).norm()
    assert error <= max(rounding, 1e-4 * eager.norm()), (error, rounding)


@settings(max_examples=30, deadline=None)
@given(CONFIGS, st.sampled_from(FORCES), st.integers(1, 2), st.sampled_from([1, 2, 9, 70]))
def test_fp32_logits_are_the_models(cfg, force, batch, n):
    assume(even_rope(cfg))
    model, ids = model_of(cfg), ids_of(cfg, batch, n)
    assert apart(NativeModel(model, force=force)(ids), model(ids)) < 1e-4


@settings(max_examples=30, deadline=None)
@given(CONFIGS, st.sampled_from(FORCES), st.sampled_from(WEIGHT_ONLY))
def test_logits_of_quantized_weights_are_the_models(cfg, force, scheme):
    assume(even_rope(cfg))
    model, ids = quantize(model_of(cfg), scheme), ids_of(cfg, 2, 20)
    assert apart(NativeModel(model, force=force)(ids), model(ids)) < 1e-4


@settings(max_examples=30, deadline=None)
@given(CONFIGS, st.sampled_from(FORCES), st.sampled_from(ROUNDED))
def test_logits_of_rounded_activations_are_within_their_rounding(cfg, force, scheme):
    assume(even_rope(cfg))
    model, ids = quantize(model_of(cfg), scheme), ids_of(cfg, 2, 20)
    plain = quantize(model_of(cfg), replace(scheme, activation_bits=None))
    near_rounding(NativeModel(model, force=force)(ids), model(ids), plain(ids))


@settings(max_examples=30, deadline=None)
@given(
    CONFIGS,
    st.sampled_from(FORCES),
    st.sampled_from(list(KINDS)),
    st.lists(st.integers(1, 11), min_size=1, max_size=5),
    st.integers(1, 3),
)
def test_caches_of_every_kind_are_shared(cfg, force, kind, pieces, batch):
    """Fed in pieces to a cache of the library, alternately by the engine and by the eager model."""
    assume(even_rope(cfg) and takes(kind, cfg))
    model, total = model_of(cfg), sum(pieces)
    engine, ids = NativeModel(model, force=force), ids_of(cfg, batch, total)
    caches = [make_cache(cfg, kind, batch, total, **KINDS[kind]) for _ in range(3)]
    plain = make_cache(cfg, "static", batch, total)
    runs = ([engine] * len(pieces), [engine, model] * len(pieces), [model] * len(pieces))
    native, mixed, eager = (
        torch.cat([m(part, c) for m, part in zip(run, ids.split(pieces, 1), strict=False)], 1)
        for run, c in zip(runs, caches, strict=True)
    )
    assert all(c.pos == total for c in caches)
    if kind in EXACT:
        assert apart(native, eager) < 1e-4 and apart(mixed, eager) < 1e-4
    else:
        unrounded = torch.cat([model(part, plain) for part in ids.split(pieces, 1)], 1)
        near_rounding(native, eager, unrounded)
        near_rounding(mixed, eager, unrounded)


def test_shared_caches_are_cut_and_reordered():
    cfg = ModelConfig(vocab_size=30, d_model=32, context=64)
    model, ids = model_of(cfg), ids_of(cfg, 3, 20)
    engine = NativeModel(model)
    for kind in ("static", "paged", "int8"):
        one, other = (make_cache(cfg, kind, 3, 30) for _ in range(2))
        for m, cache in ((engine, one), (model, other)):
            m(ids, cache)
            cache.truncate(11)
            cache.select(torch.tensor([2, 0, 2]))
            m(ids[:, :5], cache)
        a, b = engine(ids[:, 5:8], one), model(ids[:, 5:8], other)
        assert apart(a, b) < (1e-4 if kind != "int8" else 2e-2)


def test_rows_of_a_step_are_tokens_of_any_sequence():
    """Prompt chunks, a draft's tokens and single steps of four sequences, all in one call."""
    cfg = ModelConfig(vocab_size=30, d_model=32, n_layers=2, n_kv_heads=2, context=64)
    model = model_of(cfg)
    engine, texts = NativeModel(model), [ids_of(cfg, 1, n, seed=n) for n in (3, 9, 1, 14)]
    for kind in ("static", "paged"):
        cache = make_cache(cfg, kind, 4, 20)
        if kind == "paged":
            for table in cache.tables:
                table.reserve(20)
        rows = [(int(t), s, p) for s, text in enumerate(texts) for p, t in enumerate(text[0])]
        logits = torch.cat(
            [engine.step(*zip(*rows[i : i + 7], strict=True), cache) for i in (0, 7, 14, 21)]
        )
        expected = torch.cat([model(text)[0] for text in texts])
        assert apart(logits, expected) < 1e-4


def explained(engine, model, ids, start):
    """Every token of `ids` from `start` on is the eager model's best, or within twice the largest
    difference of logits there: the rule of the certificate."""
    a, b = (m(ids[:, :-1])[:, start - 1 :] for m in (engine, model))
    lacking = b.amax(-1) - b.gather(2, ids[:, start:, None])[..., 0]
    return (lacking <= 2 * (a - b).abs().amax(-1)).all()


@settings(max_examples=25, deadline=None)
@given(
    CONFIGS,
    st.sampled_from(FORCES),
    st.sampled_from([None, *WEIGHT_ONLY[:2], *ROUNDED[:6]]),
    st.integers(1, 4),
)
def test_greedy_tokens_are_the_models(cfg, force, scheme, batch):
    assume(even_rope(cfg))
    model, ids = model_of(cfg), ids_of(cfg, batch, 5)
    model = model if scheme is None else quantize(model, scheme)
    engine = NativeModel(model, force=force)
    made = generate(engine, ids, 40)
    assert made.shape == (batch, 45) and torch.equal(made[:, :5], ids)
    assert explained(engine, model, made, 5)
    if scheme is None:
        expected = eager_generate(model, ids, 40)
        ties = (made != expected).any(1)
        assert torch.equal(made, expected) or explained(engine, model, made[ties], 5)


SAMPLINGS = [
    Sampling(0.9),
    Sampling(1.3, top_k=5),
    Sampling(1.0, top_k=1),
    Sampling(0.7, top_p=0.8),
    Sampling(1.0, top_k=9, top_p=0.6, repetition_penalty=1.3),
    Sampling(0.0, repetition_penalty=1.7),
    Sampling(1.1, top_p=1.0, repetition_penalty=0.8),
]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
@pytest.mark.parametrize("own", [False, True])
def test_a_seed_gives_the_tokens_of_the_eager_path(sampling, own):
    cfg = ModelConfig(vocab_size=33, d_model=32, context=128)
    model, ids = model_of(cfg), ids_of(cfg, 3, 4)
    texts, after = [], []
    for run in (eager_generate, generate):
        seeds = [torch.Generator().manual_seed(s) for s in (1, 2, 3)]
        g = seeds if own else seeds[0]
        texts.append(run(model, ids, 80, sampling=sampling, generator=g, stop=(3, 7)))
        after.append(torch.rand(4, generator=seeds[0]))
    assert torch.equal(*texts)
    assert torch.equal(*after)  # the generator stands where the eager loop leaves it


def test_a_penalty_pushes_negative_logits_down():
    """All logits are negative here: dividing them would favour what is there already."""
    cfg = ModelConfig(vocab_size=33, d_model=32, context=128)
    model, ids = deepcopy(model_of(cfg)), ids_of(cfg, 2, 4)
    model.head.bias -= 30
    for sampling in (
        Sampling(0.0, repetition_penalty=1.02),
        Sampling(1.0, repetition_penalty=1.02),
    ):
        texts = []
        for run in (eager_generate, generate):
            g = torch.Generator().manual_seed(1)
            texts.append(run(model, ids, 60, sampling=sampling, generator=g))
        assert torch.equal(*texts)


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_norms_of_small_numbers_have_their_epsilon(norm):
    cfg = ModelConfig(vocab_size=33, d_model=32, norm=norm, context=32)
    model, ids = deepcopy(model_of(cfg)), ids_of(cfg, 2, 9)
    model.embedding.weight *= 1e-3
    assert apart(NativeModel(model)(ids), model(ids)) < 1e-4


def test_global_noise_and_stops():
    cfg = ModelConfig(vocab_size=33, d_model=32, context=256)
    model, ids = model_of(cfg), ids_of(cfg, 2, 3)
    for stop in ((), (5,), tuple(range(33))):
        texts = []
        for run in (eager_generate, generate):
            torch.manual_seed(4)
            texts.append(run(model, ids, 100, sampling=Sampling(1.0), stop=stop))
        assert torch.equal(*texts)
    assert texts[0].shape[1] == 4  # all are stop tokens: one step


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("force", FORCES)
def test_generation_over_every_cache(force, kind):
    cfg = ModelConfig(vocab_size=33, d_model=32, context=40)
    model, ids = model_of(cfg), ids_of(cfg, 2, 6)
    n = 100 if kind == "window" else 30
    options = {"capacity": 36, **KINDS[kind]}
    native, eager = (make_cache(cfg, kind, 2, **options) for _ in range(2))
    engine = NativeModel(model, force=force)
    a, b = generate(engine, ids, n, cache=native), eager_generate(model, ids, n, cache=eager)
    assert native.pos == eager.pos == 6 + n - 1
    if kind in EXACT:
        assert torch.equal(a, b)
    else:
        assert a.shape == b.shape and (a[:, :8] == b[:, :8]).float().mean() > 0.9
    assert torch.equal(a, generate(engine, ids, n, cache=make_cache(cfg, kind, 2, **options)))


def moved(cache):
    """The same cache at other addresses; what lay at the old ones is gone."""
    holder = getattr(cache, "pool", None)
    old = [holder.store] if holder else [x for pair in cache.state.stores for x in pair]
    new = [x.clone() for x in old]
    for x in old:
        x.zero_()
    if holder:
        holder.store = new[0]
    else:
        pairs = tuple(zip(new[::2], new[1::2], strict=True))
        cache.state = cache.state._replace(stores=pairs)


CHANGES = {
    "nothing": lambda cache: None,
    "truncated": lambda cache: cache.truncate(cache.pos - 1),
    "emptied": lambda cache: cache.truncate(0),
    "selected": lambda cache: cache.select(torch.tensor([1, 0, 1])),
    "fewer rows": lambda cache: cache.select(torch.tensor([1])),
    "moved": moved,
    "a larger pool": lambda cache: cache.pool.grow(8) if hasattr(cache, "pool") else None,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", CHANGES)
def test_views_are_kept_no_longer_than_their_storage(kind, change):
    """An engine that knows a cache already reads and writes what one does that sees it first."""
    cfg = ModelConfig(vocab_size=33, d_model=32, n_layers=2, context=40)
    model, found = model_of(cfg), []
    for fresh in (False, True):
        engine, cache = NativeModel(model), make_cache(cfg, kind, 2, 36, **KINDS[kind])
        engine(ids_of(cfg, 2, 6), cache)
        engine(ids_of(cfg, 2, 1, seed=8), cache)
        CHANGES[change](cache)
        asked = [lambda e, c, n=n: e(ids_of(cfg, c.batch, n, seed=9), c) for n in (1, 3)]
        asked.append(lambda e, c: e.step([5], [c.batch - 1], [c.pos - 1], c))
        asked.append(lambda e, c: e.last_logits(ids_of(cfg, c.batch, 2, seed=10), c))
        found.append([ask(NativeModel(model) if fresh else engine, cache) for ask in asked])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_states_kept_between_calls_are_nobody_elses():
    """What a call gave stays as it was, though few rows share a buffer and many have their own."""
    cfg = ModelConfig(vocab_size=33, d_model=32, context=96)
    model = model_of(cfg)
    engine = NativeModel(model)
    several = [ids_of(cfg, b, n) for b, n in ((1, 1), (1, 8), (3, 2), (2, 40), (1, 90))]
    ways = (engine, engine.hidden, engine.last_logits)
    made = [[way(ids) for way in ways] for ids in several]
    for ids, (logits, states, last) in zip(several, made, strict=True):
        assert apart(logits, model(ids)) < 1e-4 and torch.equal(logits, engine.head(states))
        assert apart(last, logits[:, -1]) < 1e-5


def test_it_stands_in_for_the_model():
    cfg = ModelConfig(vocab_size=33, d_model=32, context=64)
    model = model_of(cfg)
    engine, ids = NativeModel(quantize(model, QuantScheme(8))), ids_of(cfg, 1, 6)
    assert certify(NativeModel(model), ids, 20, "static", oracle=lambda x: model(x)[:, -1]).passed
    found = [
        [b.ids.tolist() for b in beam(m, ids, 8, width=3)] for m in (NativeModel(model), model)
    ]
    assert found[0] == found[1]
    text = ids_of(cfg, 1, 200)[0]
    one, other = (perplexity(m, text, 32).value for m in (NativeModel(model), model))
    assert one == pytest.approx(other, rel=1e-5)
    assert engine.nbytes < 0.5 * NativeModel(model).nbytes


def test_threads_do_not_meet():
    cfg = ModelConfig(vocab_size=33, d_model=32, context=128)
    model = model_of(cfg)
    engine = NativeModel(model)
    prompts = [ids_of(cfg, 1 + s % 3, 4 + s, seed=s) for s in range(12)]
    alone = [generate(engine, ids, 60) for ids in prompts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda ids: generate(engine, ids, 60), prompts))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
