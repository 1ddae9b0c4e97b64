"""Decoders and caches in hostile hands: what can be served is served rightly, anything else is
refused in one line that names thing, value and remedy."""

import ast
import inspect
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import minitransformer
from minitransformer.cache import KINDS, BlockPool, PagedCache, make_cache
from minitransformer.decode import (
    ModelDraft,
    PromptLookup,
    Request,
    Sampling,
    Scheduler,
    beam,
    certify,
    certify_acceptance,
    certify_beam,
    certify_tokens,
    choose,
    distribution,
    generate,
    generate_all_positions,
    generate_batch,
    speculate,
    stream,
    weights_of,
)
from minitransformer.decode.sampling import race
from minitransformer.model import ModelConfig, Transformer

CFG = ModelConfig(
    vocab_size=40, d_model=16, n_layers=1, n_heads=2, n_kv_heads=1, context=48, bias=False
)
BATCHED = ("static", "dynamic", "paged", "paged-int8", "paged-int4")
HALVES = (torch.float16, torch.bfloat16)


def make_model(dtype=torch.float64, seed=3, cfg=CFG):
    torch.manual_seed(seed)
    model = Transformer(cfg).eval().requires_grad_(False)
    for block in model.blocks:
        block.attention.q.weight *= 4
        block.attention.k.weight *= 4
    return model.to(dtype)


MODEL = make_model()
PROMPT = torch.randint(0, 40, (1, 9), generator=torch.Generator().manual_seed(1))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def served(model, prompt, n, share=True, pool=None, **options):
    scheduler = Scheduler(model, pool or BlockPool(CFG, 40, 4), share=share)
    one = scheduler.submit(Request(prompt, n, **options))
    scheduler.run()
    return one.ids[None]


# Every way to continue a prompt by n tokens, greedily: (model, prompt, n) -> ids (1, T + n).
DECODERS = {
    "generate": generate,
    "naive": lambda m, p, n: generate(m, p, n, cache=None),
    "all positions": generate_all_positions,
    "stream": lambda m, p, n: torch.cat([torch.as_tensor(p).view(1, -1), *stream(m, p, n)], dim=1),
    "beam": lambda m, p, n: beam(m, p, n, width=1)[0].ids[None],
    "lookup": lambda m, p, n: speculate(m, PromptLookup(), p, n).ids,
    "draft": lambda m, p, n: speculate(m, ModelDraft(m), p, n).ids,
    "batch": lambda m, p, n: generate_batch(m, [p], n)[0][None],
    "paged batch": lambda m, p, n: generate_batch(m, [p], n, cache="paged")[0][None],
    "scheduler": served,
}
SAMPLED = {
    "generate": lambda m, p, s: generate(m, p, 12, sampling=s, generator=seeded()),
    "coupled": lambda m, p, s: (
        speculate(m, ModelDraft(m), p, 12, sampling=s, generator=seeded(), coupled=True).ids
    ),
    "batch": lambda m, p, s: generate_batch(m, [p], 12, sampling=s, generator=[seeded()])[0][None],
    "scheduler": lambda m, p, s: served(m, p, 12, sampling=s, generator=seeded()),
}
# Over a given cache: (model, ids, cache, options) -> ids.
OVER = {
    "generate": lambda m, p, c, **o: generate(m, p, 5, cache=c, **o),
    "stream": lambda m, p, c, **o: torch.cat([p, *stream(m, p, 5, cache=c, **o)], dim=1),
    "beam": lambda m, p, c, **o: beam(m, p, 5, width=1, cache=c, **o)[0].ids[None],
    "speculate": lambda m, p, c, **o: speculate(m, PromptLookup(), p, 5, cache=c, **o).ids,
}


def one_line(error):
    text = str(error.value)
    assert "\n" not in text and 15 < len(text) < 400
    return text


# 1. A used cache


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(list(KINDS)),
    first=st.sampled_from(list(OVER)),
    then=st.sampled_from(list(OVER)),
)
def test_a_used_cache_is_refused_or_resumed_by_name(kind, first, then):
    rollback = {"rollback": 4} if "rollback" in KINDS[kind].options else {}
    cache = make_cache(CFG, kind, **rollback)
    text = OVER[first](MODEL, PROMPT, cache)
    with pytest.raises(ValueError, match="tokens of another text: empty it by") as error:
        OVER[then](MODEL, PROMPT, cache)
    one_line(error)
    resumed = OVER[then](MODEL, text, cache, resume=True)
    fresh = OVER[then](MODEL, text, make_cache(CFG, kind, **rollback))
    assert torch.equal(resumed, fresh)
    with pytest.raises(ValueError, match="the text to resume has 9: give the whole text"):
        OVER[then](MODEL, PROMPT, cache, resume=True)
    cache.truncate(0)
    assert torch.equal(OVER[first](MODEL, PROMPT, cache), text)


@pytest.mark.parametrize("decoder", OVER)
def test_a_cache_that_is_too_small_is_refused_before_the_first_token(decoder):
    small, wide = make_cache(CFG, capacity=12), make_cache(CFG, batch=2)
    with pytest.raises(ValueError, match="13 tokens do not fit a cache of capacity 12"):
        OVER[decoder](MODEL, PROMPT, small)
    with pytest.raises(ValueError, match="a cache of batch 2 does not fit 1 prompts"):
        OVER[decoder](MODEL, PROMPT, wide)
    assert small.pos == wide.pos == 0


# 2. Logits that hold no choice


class Poisoned:
    """A model whose logits after `at` tokens are `value`, at all tokens or but one."""

    def __init__(self, at, value, spare=False):
        self.cfg, self.at, self.value, self.spare = CFG, at, value, spare

    def hidden(self, ids, cache=None):
        T = ids.shape[1]
        positions = torch.arange(T)[None].expand(len(ids), T)
        if cache is not None:
            k = torch.zeros(len(ids), 1, T, 8, dtype=torch.float64)

            def body(step):
                step[0].update(k, k)
                return step.positions.expand(len(ids), T)

            positions = cache.run(T, body)
        return torch.stack((positions + 1.0, ids * 1.0), dim=-1)

    def head(self, states):
        after, token = states[..., :1], states[..., 1:]
        logits = -((torch.arange(40.0) - (token * 7 + 3) % 40) ** 2)
        bad = torch.full_like(logits, self.value)
        if self.spare:
            bad[..., 5] = 1.0
        return torch.where(after == self.at, bad, logits)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("decoder", DECODERS)
def test_logits_without_a_choice_are_refused_with_their_place(decoder, value):
    words = "hold NaN or infinity" if value != -math.inf else "are all -inf"
    for at in (9, 14):
        place = rf"the logits after {at} tokens,? ?.*{words}|the logits {words} after {at} tokens"
        with pytest.raises(ValueError, match=place) as error:
            DECODERS[decoder](Poisoned(at, value), PROMPT, 12)
        one_line(error)
    assert DECODERS[decoder](Poisoned(30, value), PROMPT, 12).shape == (1, 21)


@pytest.mark.parametrize("decoder", DECODERS)
def test_minus_infinity_masks_some_tokens(decoder):
    masked = DECODERS[decoder](Poisoned(12, -math.inf, spare=True), PROMPT, 6)
    assert masked[0, 12] == 5
    if decoder in SAMPLED:
        assert SAMPLED[decoder](Poisoned(12, -math.inf, spare=True), PROMPT, Sampling())[0, 12] == 5


def test_a_beam_keeps_nothing_that_cannot_happen():
    found = beam(Poisoned(9, -math.inf, spare=True), PROMPT, 1, width=4)
    assert [b.ids[-1].item() for b in found] == [5] and found[0].score == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_distribution_of_broken_logits_is_refused_greedy_too(value, temperature):
    logits = torch.zeros(3, 4)
    logits[1, 2] = value
    with pytest.raises(ValueError, match="the logits hold NaN or infinity, in row 1"):
        distribution(logits, Sampling(temperature))
    with pytest.raises(ValueError, match="after 7 tokens, in row 1"):
        choose(logits, Sampling(temperature), after=7)
    with pytest.raises(ValueError, match="all -inf, in row 1|in row 1 are all -inf"):
        distribution(
            torch.where(torch.arange(3)[:, None] == 1, -math.inf, logits * 0 + 1), Sampling()
        )


# 3. Half precision


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64])
def test_what_has_no_probability_never_wins(dtype):
    p = torch.tensor([[0.0, 0.25, 0.0, 0.75]], dtype=dtype).expand(2**12, 4)
    tiny = torch.finfo(dtype).tiny
    for extreme in (0.0, tiny, 1.0, torch.finfo(dtype).max, math.inf):
        noise = torch.ones_like(p)
        noise[:, ::2] = extreme
        assert (race(p, noise) % 2 == 1).all()
        assert (race(p, torch.full_like(p, extreme)) % 2 == 1).all()
    logits = p.clamp(min=1e-30).log()
    for seed in range(4 if dtype in HALVES else 1):  # 2^22 races in half precision
        drawn = choose(logits.repeat(64, 1), Sampling(top_k=1), generator=seeded(seed))
        assert (drawn == 3).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), dtype=st.sampled_from(HALVES), top_p=st.floats(0.05, 0.999))
def test_the_nucleus_of_half_precision_logits_is_the_smallest_that_suffices(seed, dtype, top_p):
    logits = (3 * torch.randn(1, 600, generator=seeded(seed))).to(dtype)
    p, exact = distribution(logits, Sampling(top_p=top_p))[0], logits.double().softmax(-1)[0]
    kept = p > 0
    assert p.dtype == torch.float32 and abs(float(p.sum()) - 1) < 1e-5
    mass, least = float(exact[kept].sum()), float(exact[kept].min())
    assert mass >= top_p - 1e-5 and mass - least < top_p + 1e-5
    assert float(exact[~kept].max()) <= least


def test_float32_draws_are_those_of_the_plain_formula():
    logits = torch.randn(64, 50, generator=seeded(5))
    p = (logits - logits.amax(-1, keepdim=True)).softmax(-1)
    plain = (p / torch.empty_like(p).exponential_(generator=seeded(9))).argmax(-1, keepdim=True)
    assert torch.equal(choose(logits, Sampling(), generator=seeded(9)), plain)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_models_go_through_every_decoder_and_kind(dtype, kind):
    model = make_model(dtype)
    for decode in (
        lambda: generate(model, PROMPT, 30, cache=kind),
        lambda: generate(model, PROMPT, 30, cache=kind, sampling=Sampling(top_p=0.9)),
        lambda: beam(model, PROMPT, 20, cache=kind, width=2)[0].ids[None],
        lambda: speculate(model, PromptLookup(), PROMPT, 30, cache=kind).ids,
        lambda: speculate(model, ModelDraft(model, kind), PROMPT, 30, sampling=Sampling()).ids,
        lambda: generate_batch(
            model, [PROMPT[0], [3]], 9, cache=kind if kind in BATCHED else "paged"
        )[0][None],
    ):
        ids = decode()
        assert ids.dtype == torch.int64 and torch.equal(ids[:, :9], PROMPT) and ids.max() < 40


# 4. A pool under other weights


@pytest.mark.parametrize("change", ["other model", "in place", "behind autograd", "state dict"])
def test_a_pool_forgets_prefixes_when_the_weights_change(change):
    model, pool, other = make_model(), BlockPool(CFG, 40, 4), make_model(seed=8)
    first = served(model, PROMPT, 6, pool=pool)
    scheduler = Scheduler(model, pool)
    again = scheduler.submit(Request(PROMPT[0], 6))
    scheduler.run()
    assert again.shared == 8 and torch.equal(again.ids[None], first)  # equal weights share
    if change == "other model":
        model = other
    elif change == "in place":
        model.blocks[0].attention.v.weight.mul_(-3)
    elif change == "behind autograd":
        model.blocks[0].attention.v.weight.data.mul_(-3)
    else:
        model.load_state_dict(other.state_dict())
    scheduler = Scheduler(model, pool)
    changed = scheduler.submit(Request(PROMPT[0], 6))
    scheduler.run()
    assert changed.shared == 0
    assert torch.equal(changed.ids[None], generate(model, PROMPT, 6, cache=None))


def test_what_was_computed_under_older_weights_is_not_remembered_under_newer():
    model, pool = make_model(), BlockPool(CFG, 40, 4)
    scheduler = Scheduler(model, pool)
    scheduler.submit(Request(PROMPT[0], 8))
    scheduler.step()
    pool.clear()
    model.blocks[0].attention.v.weight.data.mul_(-3)
    scheduler.run()
    assert not pool.known and pool.used == 0
    assert torch.equal(served(model, PROMPT, 6, pool=pool), generate(model, PROMPT, 6, cache=None))


def test_a_cleared_pool_finds_nothing():
    pool = BlockPool(CFG, 40, 4)
    served(MODEL, PROMPT, 6, pool=pool)
    assert pool.match(PROMPT[0].tolist()).length == 8
    pool.clear()
    assert pool.match(PROMPT[0].tolist()).length == 0 and not pool.prefixes


# 5. The scheduler


class Stop(BaseException):
    pass


@settings(max_examples=40, deadline=None)
@given(
    breaks=st.lists(st.integers(0, 60), min_size=1, max_size=5),
    share=st.booleans(),
    blocks=st.integers(7, 14),
    data=st.data(),
)
def test_interrupted_requests_go_on_with_the_tokens_they_would_have_had(
    breaks, share, blocks, data
):
    place = data.draw(st.sampled_from(["before", "after", "choice", "clock", "free"]))
    sampling = Sampling(temperature=1.2, top_k=30, repetition_penalty=1.3)
    requests = [
        Request(PROMPT[0, :n], new, sampling=s, generator=g)
        for n, new, s, g in (
            (9, 8, Sampling(0.0), None),
            (5, 9, sampling, seeded(1)),
            (9, 1, sampling, seeded(2)),
            (3, 10, Sampling(0.0), None),
            (7, 6, sampling, seeded(3)),
        )
    ]
    alone = [
        generate(
            MODEL,
            r.prompt,
            r.max_new_tokens,
            sampling=r.sampling,
            generator=None
            if r.generator is None
            else torch.Generator().set_state(r.generator.get_state()),
        )[0]
        for r in requests
    ]
    count, pool = 0, BlockPool(CFG, blocks, 4)

    def tick(*_):
        nonlocal count
        count += 1
        if count - 1 in breaks:
            raise Stop

    scheduler = Scheduler(MODEL, pool, 3, share=share)
    if place == "clock":
        scheduler.clock = lambda: tick() or float(count)
    if place == "after":
        scheduler.on_forward = tick
    everyone = [scheduler.submit(request) for request in requests]
    with pytest.MonkeyPatch.context() as patch:
        if place == "choice":
            from minitransformer.decode import scheduler as module

            def chosen(*arguments):
                token = choose(*arguments)
                tick()
                return token

            patch.setattr(module, "choose", chosen)
        if place == "free":
            put = BlockPool.put
            patch.setattr(BlockPool, "put", lambda own, *a: (put(own, *a), tick())[0])
        hook = MODEL.blocks[0].ffn.register_forward_hook(tick) if place == "before" else None
        for _ in range(400):
            try:
                scheduler.run()
                break
            except Stop:
                held = {b for one in scheduler.running for b in one.table.blocks}
                assert pool.used == len(held)  # no block in vain
                assert set(scheduler.running).isdisjoint(scheduler.waiting)
        if hook:
            hook.remove()
    assert not scheduler.busy and pool.used == 0
    for one, ids in zip(everyone, alone, strict=True):
        assert torch.equal(one.ids, ids) and len(one.times) == len(one.tokens)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generator": 42}, r"generator 42 is no torch.Generator: .*manual_seed\(42\)"),
        ({"prompt": "text"}, "the prompt 'text' is text, and a model reads ids"),
        ({"prompt": [1, 40]}, "token id 40 is outside the vocabulary of 40"),
        ({"prompt": [[1], [2]]}, "a prompt of 2 rows"),
        ({"max_new_tokens": 1.5}, "max_new_tokens 1.5 is not a whole number"),
        ({"sampling": 0.7}, "sampling 0.7 is no Sampling"),
        ({"stop": "a"}, "stop 'a' is not a whole number"),
        ({"stop": (3, 40)}, "stop 40 is outside the vocabulary of 40"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused_when_it_is_submitted(change, message):
    scheduler = Scheduler(MODEL, BlockPool(CFG, 9, 4))
    with pytest.raises(ValueError, match=message) as error:
        scheduler.submit(replace(Request([1, 2, 3], 4), **change))
    one_line(error)
    assert not scheduler.busy and scheduler.pool.used == 0


def test_a_request_may_bring_its_generator_in_a_list():
    drawn = {"sampling": Sampling(), "generator": seeded()}
    alone = generate(MODEL, IDS, 12, **drawn)
    assert torch.equal(served(MODEL, IDS, 12, sampling=Sampling(), generator=[seeded()]), alone)


@pytest.mark.parametrize("backend", ["eager", "auto"])
def test_a_pool_of_another_model_is_refused_before_anyone_waits(backend):
    with pytest.raises(ValueError, match="a pool of .* does not fit a cache of") as error:
        Scheduler(MODEL, BlockPool(replace(CFG, n_layers=2), 9, 4), backend=backend)
    one_line(error)


# 6. Speculation over every kind


LONG = replace(CFG, context=96)  # the groups of 32 tokens behind a residual of 32 are exchanged


@pytest.mark.parametrize("kind", KINDS)
def test_speculation_rolls_every_kind_back_or_refuses_before_the_first_token(kind):
    gamma, options = 4, {"rollback": 3} if "rollback" in KINDS[kind].options else {}
    model, other = make_model(cfg=LONG), make_model(seed=9, cfg=LONG)
    if kind == "window":
        options["window"] = 40
    plain = generate(model, PROMPT, 66, cache=kind)
    for draft in (PromptLookup(), ModelDraft(other, kind)):
        found = speculate(model, draft, PROMPT, 66, gamma=gamma, cache=kind)
        assert torch.equal(found.ids, plain)
        assert any(accepted < proposed for proposed, accepted in found.steps)
        shorter = PROMPT[:, :3]  # a draft serves another text, as far back as it must
        own = generate(model, shorter, 20, cache=kind)
        assert torch.equal(speculate(model, draft, shorter, 20, gamma=gamma, cache=kind).ids, own)
    if "rollback" in KINDS[kind].options:
        given_cache = make_cache(LONG, kind, **options)
        with pytest.raises(
            ValueError, match=f"cannot take back {gamma} tokens: make_cache"
        ) as error:
            speculate(model, PromptLookup(), PROMPT, 36, gamma=gamma, cache=given_cache)
        one_line(error)
        assert given_cache.pos == 0


# 7. Types and devices of caches


@pytest.mark.parametrize("kind", KINDS)
def test_a_cache_of_any_type_serves_a_model_of_any_type(kind):
    for of_model in (torch.float64, torch.float32, torch.bfloat16):
        model = make_model(of_model)
        own = model(PROMPT, make_cache(CFG, kind))
        for of_cache in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
            cache = make_cache(CFG, kind, dtype=of_cache)
            parts = [model(PROMPT[:, a:b], cache) for a, b in ((0, 6), (6, 7), (7, 9))]
            logits = torch.cat(parts, dim=1)
            assert logits.dtype == of_model
            assert (logits - own).abs().max() < (
                0.6 if kind in ("int4", "int2", "paged-int4") else 0.2
            )


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, "float16", 16, torch.complex64])
def test_a_cache_of_an_impossible_type_is_refused(dtype):
    with pytest.raises(ValueError, match="cache dtype .* choose one of torch.float64") as error:
        make_cache(CFG, "static", dtype=dtype)
    one_line(error)


@pytest.mark.parametrize("kind", ["static", "dynamic", "window", "paged"])
def test_a_cache_takes_the_device_of_the_model(kind):
    model = Transformer(CFG).to("meta")
    cache, ids = make_cache(CFG, kind), torch.zeros(1, 9, dtype=torch.long, device="meta")
    for a, b in ((0, 5), (5, 6), (6, 9)):
        assert model(ids[:, a:b], cache).device.type == "meta"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch": 1.5}, "cache batch 1.5 is not a whole number"),
        ({"capacity": "8"}, "cache capacity '8' is not a whole number"),
        ({"kind": None}, "cache kind None is unknown"),
        ({"kind": "int4", "group": 2.5}, "group 2.5 is not a whole number"),
        ({"kind": "window", "window": "all"}, "window 'all' is not a whole number"),
        ({"kind": "paged", "block_size": 1.5}, "block_size 1.5 is not a whole number"),
    ],
)
def test_impossible_caches_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_cache(CFG, **arguments)


# 8. What a caller may type

IDS = [3, 1, 4, 1, 5]
ACCEPTED = {
    "list": IDS,
    "tuple": tuple(IDS),
    "nested": [IDS],
    "array": np.array(IDS),
    "int32 array": np.array(IDS, dtype=np.int32),
    "uint16 array": np.array(IDS, dtype=np.uint16),
    "row": torch.tensor(IDS),
    "int32": torch.tensor([IDS], dtype=torch.int32),
    "uint8": torch.tensor([IDS], dtype=torch.uint8),
}
REFUSED = {
    "text": ("hello", "is text, and a model reads ids: give minitransformer.encode"),
    "bytes": (b"hello", "is text, and a model reads ids"),
    "empty": ([], r"the prompt has shape \(1, 0\): give at least one token"),
    "empty row": (torch.zeros(1, 0, dtype=torch.long), r"the prompt has shape \(1, 0\)"),
    "a number": (3, r"the prompt has shape \(\)"),
    "None": (None, "the prompt is no rectangle of token ids"),
    "floats": ([1.0, 2.0], "the prompt is of torch.float32, and token ids are whole numbers"),
    "bools": ([True], "the prompt is of torch.bool"),
    "too great": ([1, 40], "token id 40 is outside the vocabulary of 40: ids go from 0 to 39"),
    "negative": ([-1, 3], "token id -1 is outside the vocabulary of 40"),
    "cube": (torch.zeros(1, 2, 3, dtype=torch.long), r"the prompt has shape \(1, 2, 3\)"),
}


@pytest.mark.parametrize("decoder", DECODERS)
def test_ids_may_come_as_anything_that_holds_them(decoder):
    oracle = generate(MODEL, torch.tensor([IDS]), 4, cache=None)
    for name, ids in ACCEPTED.items():
        if decoder == "stream" and name in ("nested", "uint16 array"):
            continue  # the test's own cat, not the stream
        found = DECODERS[decoder](MODEL, ids, 4)
        assert torch.equal(found.long(), oracle), name


@pytest.mark.parametrize("decoder", DECODERS)
def test_ids_that_are_none_are_refused_in_one_line(decoder):
    for ids, message in REFUSED.values():
        with pytest.raises(ValueError, match=message) as error:
            if decoder == "stream":
                stream(MODEL, ids, 4)
            else:
                DECODERS[decoder](MODEL, ids, 4)
        one_line(error)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("n", [0, -3, 2.5, "4", None])
def test_impossible_numbers_of_tokens_are_refused_in_one_line(decoder, n):
    with pytest.raises(ValueError, match="max_new_tokens .* give at least 1") as error:
        DECODERS[decoder](MODEL, IDS, n)
    assert str(n) in one_line(error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"generator": 42}, r"generator 42 is no torch.Generator: give .*manual_seed\(42\)"),
        ({"generator": [seeded(), seeded()]}, "2 generators for 1 rows"),
        ({"sampling": {"top_k": 3}}, "is no Sampling"),
        ({"stop": 40}, "stop 40 is outside the vocabulary of 40: ids go from 0 to 39"),
        ({"stop": [3, 2**70]}, "stop 1180591620717411303424 is not supported: give 0 to"),
        ({"stop": "x"}, "stop 'x' is not a whole number"),
        ({"cache": 5}, "cache 5 is no cache: give a kind, a Cache, or None"),
        ({"cache": "ring"}, "cache kind 'ring' is unknown: choose one of dynamic"),
    ],
)
def test_impossible_options_are_refused_in_one_line(options, message):
    for decode in (generate, stream, lambda *a, **o: speculate(a[0], PromptLookup(), *a[1:], **o)):
        with pytest.raises(ValueError, match=message) as error:
            decode(MODEL, IDS, 4, **options)
        one_line(error)


def test_stop_tokens_may_be_one_id_or_several_of_any_kind():
    free = generate(MODEL, IDS, 8)[0].tolist()
    stopped = generate(MODEL, IDS, 8, stop=free[7])
    for stop in ([free[7]], (free[7],), torch.tensor(free[7]), np.array([free[7]])):
        assert torch.equal(generate(MODEL, IDS, 8, stop=stop), stopped)


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in BATCHED])
def test_a_batch_over_a_kind_that_neither_pads_nor_pages_is_refused(kind):
    with pytest.raises(ValueError, match=f"cache '{kind}' neither pads nor pages a batch: choose"):
        generate_batch(MODEL, [IDS, [1]], 4, cache=kind)
    with pytest.raises(ValueError, match="cache kind .* is unknown: choose one of"):
        generate_batch(MODEL, [IDS], 4, cache=make_cache(CFG))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": "hot"}, "temperature 'hot' is not a number: give at least 0"),
        ({"temperature": None}, "temperature None is not a number"),
        ({"top_k": True}, "top_k True is not a whole number: give at least 1"),
        ({"top_k": 2**32 + 1}, "top_k 4294967297 is not supported: give 1 to 2147483647"),
        ({"top_k": -1}, "top_k -1 is not positive: give at least 1"),
        ({"top_k": math.inf}, "top_k inf is not a whole number"),
        ({"top_p": 2}, "top_p 2 is out of range: give a number above 0, at most 1"),
        ({"repetition_penalty": math.nan}, "repetition_penalty nan is not positive: give a finite"),
    ],
)
def test_impossible_sampling_is_refused_when_it_is_made(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        Sampling(**arguments)
    one_line(error)


def test_sampling_takes_numbers_of_any_library():
    given_ = Sampling(np.float32(0.5), np.int64(3), np.float64(0.5), np.int32(2))
    assert given_ == Sampling(0.5, 3, 0.5, 2.0) and Sampling(top_k=5.0).top_k == 5
    assert [type(x) for x in vars(given_).values()] == [float, int, float, float]


def test_signatures_show_every_option():
    names = {"cache", "sampling", "generator", "stop", "resume"}
    for decode in (generate, stream, speculate):
        parameters = inspect.signature(decode).parameters
        assert names <= set(parameters)
        assert not [p for p in parameters.values() if p.kind is p.VAR_KEYWORD]


# 9. Tracing


@pytest.mark.parametrize("position", ["rope", "sinusoidal", "none"])
def test_the_forward_can_be_exported(position):
    torch.manual_seed(0)
    model, ids = Transformer(replace(CFG, position=position)).eval(), torch.randint(0, 40, (1, 7))
    exported = torch.export.export(model, (ids,)).module()
    torch.testing.assert_close(exported(ids), model(ids))
    with pytest.raises(ValueError, match="49 tokens are longer than context 48"):
        model(torch.zeros(1, 49, dtype=torch.long))


# 10. Types of the package's root


def test_what_type_checkers_read_is_what_is_exported():
    source = Path(minitransformer.__file__).read_text(encoding="utf-8")
    block = next(n for n in ast.parse(source).body if isinstance(n, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    read = {
        alias.asname: (node.module, alias.name) for node in block.body for alias in node.names
    }  # the alias equal to the name makes it an export
    table = minitransformer._EXPORTS
    assert read == {name: (module, name) for name, module in table.items()}
    assert sorted(read) == minitransformer.__all__
    for name in table:
        assert getattr(minitransformer, name).__name__ == name


# 11. Models that are none of torch's


class Duck:
    """All that decoding may ask of a model: a configuration, states, and a head."""

    def __init__(self, model):
        self.cfg, self.hidden, self.head = model.cfg, model.hidden, model.head


def test_a_model_is_what_has_states_and_a_head():
    duck = Duck(MODEL)
    plain = generate(MODEL, PROMPT, 12)
    for decode in DECODERS.values():
        assert torch.equal(decode(duck, PROMPT, 12), plain)
    for name, decode in SAMPLED.items():
        for sampling in (Sampling(), Sampling(top_p=0.9)):
            assert torch.equal(decode(duck, PROMPT, sampling), decode(MODEL, PROMPT, sampling)), (
                name
            )
    assert certify(duck, PROMPT, 8, "static").verdict == "certified"
    assert certify_tokens(duck, [(plain, 9)], "x").dtype == "float64"
    assert certify_beam(duck, [PROMPT], 5).verdict == "certified"
    assert certify_acceptance(duck, Duck(make_model(seed=4)), [PROMPT], Sampling()).passed
    assert weights_of(duck) == weights_of(duck) != weights_of(Duck(MODEL))
    with pytest.raises(ValueError, match="looks into a Transformer's blocks, and Duck has none"):
        certify(duck, PROMPT, 8, "int8")


def test_a_certificate_says_the_precision_of_the_run():
    for dtype in HALVES:
        model = make_model(dtype)
        found = certify_tokens(model, [(generate(model, PROMPT, 6), 9)], "x")
        assert found.dtype == str(dtype).removeprefix("torch.")


def test_uneven_rows_are_not_resumed_as_one_text():
    pool = BlockPool(CFG, 20, 4)
    rows = [make_cache(CFG, "paged", pool=pool) for _ in range(2)]
    for n, row in zip((3, 6), rows, strict=True):
        MODEL.hidden(PROMPT[:, :n], row)
    both = PagedCache.over([row.tables[0] for row in rows])
    with pytest.raises(ValueError, match="rows of the paged cache are of unequal length"):
        generate(MODEL, PROMPT.expand(2, -1), 3, cache=both, resume=True)


# 12. What is for another model, and what is none


@pytest.mark.parametrize(
    ("other", "kind", "told"),
    [
        ({"n_layers": 2}, "static", "a cache of n_layers 2 does not fit a model of n_layers 1"),
        ({"position": "none"}, "window", "a cache of position none does not fit a model of"),
        ({"rope_theta": 500.0}, "window", "rope_theta 500.0 does not fit a model of rope_theta"),
        ({"d_head": 16}, "int8", "a cache of head_dim 16 does not fit a model of head_dim 8"),
    ],
)
@pytest.mark.parametrize("decoder", OVER)
def test_a_cache_of_another_model_is_refused_and_stays_empty(decoder, other, kind, told):
    cache = make_cache(replace(CFG, **other), kind)
    for call in (OVER[decoder], lambda m, p, c: m(p, c), lambda m, p, c: m.hidden(p, c)):
        with pytest.raises(ValueError, match=f"{told}.*: make it with this model's config"):
            call(MODEL, PROMPT, cache)
    assert cache.pos == 0 and cache.nbytes == 0
    options = {"rollback": 4} if kind == "window" else {}
    fits = make_cache(replace(CFG, context=96), kind, **options)  # what it stores is the same
    assert torch.equal(OVER[decoder](MODEL, PROMPT, fits)[:, :9], PROMPT)


def test_nothing_is_truncated_in_the_middle_of_a_token():
    cache = make_cache(CFG)
    MODEL.hidden(PROMPT, cache)
    with pytest.raises(ValueError, match="cannot truncate to 4.5: the cache holds 9 tokens"):
        cache.truncate(4.5)
    assert cache.pos == 9


def test_whole_numbers_of_any_kind_serve_every_decoder():
    oracle = generate(MODEL, PROMPT, 4)
    for decode in DECODERS.values():
        assert torch.equal(decode(MODEL, PROMPT, 4.0), oracle)
    found = speculate(MODEL, PromptLookup(2.0), PROMPT, 4, gamma=np.int64(3))
    assert torch.equal(found.ids, oracle)
    assert torch.equal(beam(MODEL, PROMPT, 4, width=1.0)[0].ids[None], oracle)


def test_what_cannot_propose_choose_or_be_certified_is_named():
    for call, message in (
        (lambda: speculate(MODEL, MODEL, PROMPT, 4), "a Transformer is no draft: give a ModelD"),
        (lambda: speculate(MODEL, ModelDraft(MODEL), PROMPT, 4, gamma="2"), "gamma '2' is not a"),
        (lambda: beam(MODEL, PROMPT, 4, length_penalty="x"), "length_penalty 'x' is not a number"),
        (lambda: beam(MODEL, PROMPT, 4, width="4"), "width '4' is not a whole number: give at le"),
        (lambda: certify(MODEL, PROMPT, 4, "statik"), r"'statik' is unknown.*mean 'static'"),
        (lambda: certify(MODEL, PROMPT, 0, "static"), "steps 0 is not positive"),
        (lambda: certify(MODEL, [], 4, "static"), "no text is given, and nothing can be cert"),
        (lambda: certify_tokens(MODEL, [], "x"), "no text is given"),
        (lambda: certify_beam(MODEL, [], 4), "no text is given"),
        (lambda: certify_acceptance(MODEL, MODEL, [], Sampling()), "no text is given"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            call()
        one_line(error)
