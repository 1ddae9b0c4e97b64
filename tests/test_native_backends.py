"""`backend` of every decoder: the tokens are those of eager PyTorch, whichever computes."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import minitransformer.native as engine
import minitransformer.native.model as face
from covering import pairwise
from minitransformer.cache import BlockPool, make_cache
from minitransformer.decode import (
    ModelDraft,
    PromptLookup,
    Request,
    Sampling,
    Scheduler,
    beam,
    certify_tokens,
    generate,
    generate_batch,
    speculate,
    stream,
)
from minitransformer.decode.scheduler import AHEAD
from minitransformer.model import ModelConfig, Transformer
from minitransformer.native import BuildError, NativeModel, Rows
from minitransformer.quant import QuantScheme, quantize
from native_models import CONFIGS, FORCES, even_rope, ids_of, model_of, needs_compiler

pytestmark = needs_compiler
CFG = ModelConfig(vocab_size=33, d_model=32, n_layers=2, n_kv_heads=2, context=96)
DRAFT = replace(CFG, n_layers=1)
GREEDY, WARM, NARROW = Sampling(0.0), Sampling(1.1), Sampling(0.9, top_k=9, repetition_penalty=1.2)
NEW = 24


def generators(n, seed=1):
    return [torch.Generator().manual_seed(seed + i) for i in range(n)]


def streamed(model, ids, sampling, backend, cache="static", stop=()):
    options = {"sampling": sampling, "generator": generators(len(ids)), "backend": backend}
    return torch.cat([ids, *stream(model, ids, NEW, cache=cache, stop=stop, **options)], 1)


def generated(model, ids, sampling, backend, cache="static", stop=()):
    options = {"sampling": sampling, "generator": generators(len(ids)), "backend": backend}
    return generate(model, ids, NEW, cache=cache, stop=stop, **options)


def batched(model, ids, sampling, backend, cache="static", stop=()):
    prompts = [row[: 1 + 3 * i] for i, row in enumerate(ids)]
    options = {"sampling": sampling, "generator": generators(len(ids)), "backend": backend}
    return torch.cat(generate_batch(model, prompts, NEW, cache=cache, stop=stop, **options))


def speculated(model, ids, sampling, backend, cache="static", stop=(), **options):
    lookup = options.pop("lookup", False)
    draft = PromptLookup() if lookup else ModelDraft(model_of(DRAFT), backend=backend)
    options |= {"sampling": sampling, "generator": generators(1)[0], "backend": backend}
    return speculate(model, draft, ids[:1], NEW, cache=cache, stop=stop, **options).ids


def searched(model, ids, sampling, backend, cache="static", stop=()):
    options = {"width": 3, "backend": backend}
    return torch.cat([b.ids for b in beam(model, ids[:1], NEW, cache=cache, stop=stop, **options)])


def served(model, ids, sampling, backend, cache="paged", stop=(), blocks=20, **options):
    scheduler = Scheduler(model, BlockPool(model.cfg, blocks, 4), 2, backend=backend, **options)
    jobs = zip(ids, generators(len(ids)), strict=True)
    texts = [
        scheduler.submit(Request(row, NEW, sampling=sampling, generator=g, stop=stop))
        for row, g in jobs
    ]
    scheduler.run()
    return torch.cat([text.ids for text in texts])


DECODERS = {
    "generate": generated,
    "stream": streamed,
    "batch": batched,
    "speculate": speculated,
    "coupled": lambda *a, **k: speculated(*a, coupled=True, **k),
    "lookup": lambda *a, **k: speculated(*a, lookup=True, **k),
    "beam": searched,
    "scheduler": served,
    "a dry pool": lambda *a, **k: served(*a, blocks=9, **k),
}


@pytest.mark.parametrize(
    "name, sampling, stop", pairwise([*DECODERS], [GREEDY, WARM, NARROW], [(), (5, 11)])
)
def test_every_decoder_gives_the_eager_tokens(name, sampling, stop):
    model, ids = model_of(CFG), ids_of(CFG, 3, 8)
    eager, *others = (
        DECODERS[name](m, ids, sampling, backend, stop=stop)
        for m, backend in (
            (model, "eager"),
            (model, "native"),
            (model, "auto"),
            *((NativeModel(model, force=force), "native") for force in FORCES),
        )
    )
    assert all(torch.equal(other, eager) for other in others)


@settings(max_examples=25, deadline=None)
@given(
    CONFIGS,
    st.sampled_from(["generate", "stream", "coupled"]),
    st.sampled_from([GREEDY, WARM, NARROW]),
    st.integers(0, 99),
)
def test_decoders_agree_for_every_config(cfg, name, sampling, seed):
    """Tokens may part only where two are equally good to 1e-4: then the path of each is the
    oracle's, which `certify_tokens` proves for the decoders that draw as `generate` does."""
    assume(even_rope(cfg))
    model, ids = model_of(cfg), ids_of(cfg, 1, 6, seed)
    if name == "coupled":
        draft = ModelDraft(model, backend="native")
        options = {"coupled": True, "generator": generators(1)[0], "backend": "native"}
        made = speculate(model, draft, ids, NEW, sampling=sampling, **options).ids
    else:
        made = DECODERS[name](model, ids, sampling, "native")
    found = certify_tokens(
        model, [(made, 6)], "native", sampling=sampling, seeds=[1], tolerance=1e-4
    )
    assert found.passed


@pytest.mark.parametrize(
    "scheme", [None, QuantScheme(8), QuantScheme(4, "group", 32)], ids=["fp32", "int8", "int4"]
)
@pytest.mark.parametrize("positions", ["rope", "sinusoidal"])
def test_a_thousand_tokens_that_do_not_loop_are_the_oracles(scheme, positions):
    """Sampled, so that the text does not repeat itself, and certified with the noise given."""
    cfg = replace(CFG, position=positions, context=1024, vocab_size=97)
    model, ids = model_of(cfg), ids_of(cfg, 3, 4)
    model = model if scheme is None else quantize(model, scheme)
    made = generate(*(model, ids, 1000), sampling=WARM, generator=generators(3), backend="native")
    texts = [(row[None], 4) for row in made]
    found = certify_tokens(model, texts, "native", sampling=WARM, seeds=[1, 2, 3], tolerance=1e-4)
    assert found.passed and found.steps == 3000 and len(found.mismatches) < 5


@pytest.mark.parametrize("kind", ["window", "int8", "paged", "paged-int8", "paged-int4"])
def test_caches_are_given_and_resumed(kind):
    """An instance keeps the text, and a text goes on over a cache that the other backend filled."""
    model, ids = model_of(CFG), ids_of(CFG, 2, 7)
    texts = []
    for first, second in (("eager", "eager"), ("native", "eager"), ("eager", "native")):
        options = {"window": 9, "sinks": 2} if kind == "window" else {}
        cache = make_cache(CFG, kind, 2, **options)
        text = generate(model, ids, 9, cache=cache, backend=first)
        assert cache.pos == 15
        texts.append(generate(model, text, 9, cache=cache, resume=True, backend=second))
        assert cache.pos == 24
    if kind in ("window", "paged"):
        assert torch.equal(texts[0], texts[1]) and torch.equal(texts[0], texts[2])
    assert all(text.shape == (2, 25) for text in texts)


def test_recomputing_is_native_too():
    model, ids = model_of(CFG), ids_of(CFG, 2, 7)
    for sampling in (GREEDY, WARM):
        assert torch.equal(
            *(generated(model, ids, sampling, b, cache=None) for b in ("eager", "native"))
        )


@pytest.mark.parametrize("sampling", [GREEDY, WARM, NARROW])
@pytest.mark.parametrize("stop", [(), (5, 11)])
@pytest.mark.parametrize("share, blocks", [(True, 40), (False, 40), (False, 9)])
def test_an_engine_that_goes_on_by_itself_passes_nobody_over(
    sampling, stop, share, blocks, monkeypatch
):
    """Its forwards have the rows that they have in eager PyTorch: who waits is let in as soon as
    one leaves, and a dry pool preempts no earlier. Where nothing happens it comes back less."""
    model, ids, calls = model_of(CFG), ids_of(CFG, 5, 8), []
    whole = engine.advance
    monkeypatch.setattr(engine, "advance", lambda *a, **k: calls.append(a[3]) or whole(*a, **k))
    rows = {backend: [] for backend in ("eager", "native")}
    texts = [
        served(model, ids, sampling, backend, stop=stop, blocks=blocks, share=share, on_forward=to)
        for backend, to in (("eager", rows["eager"].append), ("native", rows["native"].append))
    ]
    assert torch.equal(*texts) and rows["native"] == rows["eager"]
    assert max(calls) <= AHEAD and (max(calls) > 1 or bool(stop))
    assert stop or blocks < 40 or len(calls) < len(rows["native"]) / 2


def test_requests_of_unlike_rules_run_side_by_side():
    model, ids = model_of(CFG), ids_of(CFG, 3, 8)
    texts = []
    for backend in ("eager", "native"):
        scheduler = Scheduler(model, BlockPool(CFG, 40, 4), 3, backend=backend)
        rules = [GREEDY, WARM, NARROW]
        jobs = [
            scheduler.submit(Request(row, NEW - 3 * i, sampling=rule, generator=g))
            for i, (row, rule, g) in enumerate(zip(ids, rules, generators(3), strict=True))
        ]
        scheduler.run()
        texts.append([job.ids.tolist() for job in jobs])
    assert texts[0] == texts[1]


class Broken(BaseException):
    pass


class Torn(list):
    """A list that tells of whatever is written to it."""

    def __init__(self, told):
        super().__init__()
        self.told = told

    def __setitem__(self, at, new):
        super().__setitem__(at, new)
        self.told()


@pytest.mark.parametrize("sampling", [GREEDY, WARM])
@pytest.mark.parametrize("place", ["clock", "forward", "engine", "tokens"])
def test_an_interrupt_of_an_engine_that_goes_on_by_itself_loses_nothing(
    sampling, place, monkeypatch
):
    model, ids, count, whole = model_of(CFG), ids_of(CFG, 3, 8), 0, engine.advance

    def tick(*_):
        nonlocal count
        count += 1
        if count in (2, 3, 6, 9, 40):
            raise Broken
        return float(count)

    pool, options = BlockPool(CFG, 20, 4), {"backend": "native", "share": False}
    options |= {"clock": {"clock": tick}, "forward": {"on_forward": tick}}.get(place, {})
    scheduler = Scheduler(model, pool, 2, **options)
    jobs = [
        scheduler.submit(Request(row, NEW, sampling=sampling, generator=g))
        for row, g in zip(ids, generators(3), strict=True)
    ]
    if place == "engine":
        monkeypatch.setattr(engine, "advance", lambda *a, **k: (whole(*a, **k), tick())[0])
    for job in jobs * (place == "tokens"):  # between those of one request and the next one's
        job.times = Torn(tick)
    for _ in range(60):
        try:
            scheduler.run()
            break
        except Broken:
            held = {block for job in scheduler.running for block in job.table.blocks}
            assert pool.used == len(held)
    assert not scheduler.busy and pool.used == 0 and count > 3
    alone = served(model, ids, sampling, "eager")
    assert torch.equal(torch.cat([job.ids for job in jobs]), alone)
    assert all(len(job.times) == NEW for job in jobs)


def test_beams_have_the_eager_scores():
    model, ids = model_of(CFG), ids_of(CFG, 1, 8)
    for width, penalty, stop in ((1, 0.0, ()), (5, 1.0, ()), (4, 0.6, (5, 11)), (40, 1.0, (3,))):
        options = {"width": width, "length_penalty": penalty, "stop": stop}
        eager, native = (beam(model, ids, NEW, backend=b, **options) for b in ("eager", "native"))
        assert [b.ids.tolist() for b in eager] == [b.ids.tolist() for b in native]
        for one, other in zip(eager, native, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-4)


class Nosy:
    """A draft that asks the model itself, in between, for the text's next tokens; the last is now
    and then another."""

    vocab_size = None

    def __init__(self, model, more=0):
        self.model, self.more = model, more

    def propose(self, ids, gamma, rule):
        if not (n := gamma + self.more):
            return ids[:, :0], None
        made = generate(self.model, ids, n, backend="native")[:, ids.shape[1] :]
        self.model(ids.flip(1))  # another text, where the engine keeps its own
        made[:, -1] = (made[:, -1] + ids.shape[1] % 2) % CFG.vocab_size
        return made, None


def test_a_draft_may_use_the_engine_that_judges_it():
    packed, ids = NativeModel(model_of(CFG)), ids_of(CFG, 1, 8)
    eager = generate(model_of(CFG), ids, NEW)
    packed(torch.cat([ids] * 4, dim=1))
    found = speculate(packed, Nosy(packed), ids, NEW, backend="native")
    rejected = sum(accepted < proposed for proposed, accepted in found.steps)
    assert torch.equal(found.ids, eager) and 0 < rejected < found.accepted
    rows, text = Rows(packed, 1, 20), ids_of(CFG, 1, 14, 2)
    rows.judged(text[:, :12], 1)
    packed(text.flip(1))
    judged = rows.judged(text, 3)
    torch.testing.assert_close(judged, packed(text)[0, -3:], rtol=1e-4, atol=1e-4)


def test_a_draft_that_proposes_what_cannot_be_is_refused():
    packed, ids = NativeModel(model_of(CFG)), ids_of(CFG, 1, 8)

    class Wrong:
        vocab_size = None

        def propose(self, ids, gamma, rule):
            return torch.full((1, 1), CFG.vocab_size), None

    with pytest.raises(ValueError, match="token 33 is outside the vocabulary of 33"):
        speculate(packed, Wrong(), ids, NEW, backend="native")
    with pytest.raises(ValueError, match="do not follow 1 of at most 31"):
        speculate(packed, Nosy(packed, more=30), ids, NEW, backend="native")


def test_texts_side_by_side_grow_from_those_that_are_kept():
    """Rows that were copied, moved and dropped have the logits of their texts alone."""
    packed = NativeModel(model_of(CFG))
    rows, texts = Rows(packed, 5, 20), [[3, 1, 4]]
    for kept in ([0, 0, 0], [2, 0], [1, 1, 0, 1, 1], [4, 2], [0]):
        rows.logits(texts)
        rows.select(kept)
        texts = [[*texts[row], 7 + i] for i, row in enumerate(kept)]
        found = rows.logits(texts)
        alone = torch.cat([packed(torch.tensor([text]))[:, -1] for text in texts])
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="6 texts side by side: the engine takes 5"):
        rows.select([0] * 6)
    for wrong in ([[1] * 21], [[1, 2], [3, 4]]):
        with pytest.raises(ValueError, match="do not follow 1 of at most 20"):
            rows.logits(wrong)


REFUSED = {
    "'dynamic'": lambda: (model_of(CFG), "dynamic"),
    "'int4'": lambda: (model_of(CFG), "int4"),
    "'int2'": lambda: (model_of(CFG), make_cache(CFG, "int2", 1)),
    "pads no rows": lambda: (model_of(CFG), make_cache(CFG, "static", 1, starts=[1])),
    "float64": lambda: (model_of(CFG), make_cache(CFG, "static", 1, dtype=torch.float64)),
    "float16": lambda: (model_of(CFG), make_cache(CFG, "paged", 1, dtype=torch.float16)),
    "weight of torch.float64": lambda: (deepcopy(model_of(CFG)).double(), "static"),
    "Odd": lambda: (odd(), "static"),
    "forward hook": lambda: (hooked(), "static"),
}


class Odd(Transformer):
    pass


def odd():
    torch.manual_seed(0)
    return Odd(CFG)


def hooked():
    model = deepcopy(model_of(CFG))
    model.blocks[0].ffn.register_forward_hook(lambda *a: None)
    return model


@pytest.mark.parametrize("words", REFUSED)
@pytest.mark.parametrize("decode", [generate, lambda *a, **k: list(stream(*a, **k)), beam])
def test_what_the_engine_does_not_know_is_one_line_and_eager_under_auto(words, decode):
    model, cache = REFUSED[words]()
    ids = ids_of(CFG, 1, 4)
    with pytest.raises(ValueError, match=words) as error:
        decode(model, ids, 5, cache=cache, backend="native")
    text = str(error.value)
    assert "\n" not in text and ("backend 'eager'" in text or "model.float()" in text)
    auto = decode(model, ids, 5, cache=cache, backend="auto")
    model, cache = REFUSED[words]()
    eager = decode(model, ids, 5, cache=cache)
    same = [x.ids.tolist() if hasattr(x, "ids") else x.tolist() for x in eager]
    assert same == [x.ids.tolist() if hasattr(x, "ids") else x.tolist() for x in auto]


def test_padded_and_paged_batches_and_pools_are_refused_in_one_line():
    model, prompts = model_of(CFG), [[1, 2], [3]]
    with pytest.raises(ValueError, match="no cache 'dynamic'"):
        generate_batch(model, prompts, 5, cache="dynamic", backend="native")
    pool = BlockPool(CFG, 8, dtype=torch.float64)
    with pytest.raises(ValueError, match="a cache of torch.float64"):
        Scheduler(model, pool, backend="native")
    assert Scheduler(model, pool, backend="auto").model is model
    with pytest.raises(ValueError, match="no cache 'int4'"):
        speculate(model, PromptLookup(), [1, 2], 5, cache="int4", backend="native")
    with pytest.raises(ValueError, match="no cache 'int2'"):
        ModelDraft(model, "int2", backend="native")


def test_auto_is_eager_where_there_is_no_compiler(monkeypatch):
    def nothing(variant):
        raise BuildError("no C compiler: install one")

    monkeypatch.setattr(face, "library", nothing)
    model, ids = model_of(CFG), ids_of(CFG, 3, 8)
    for decode in DECODERS.values():
        assert torch.equal(
            *(decode(model, ids, WARM, backend, stop=(5,)) for backend in ("eager", "auto"))
        )
        with pytest.raises(BuildError, match="no C compiler"):
            decode(model, ids, WARM, "native")


@pytest.mark.parametrize("backend", ["cuda", "", None, 3, ["native"]])
def test_an_unknown_backend_is_named(backend):
    for decode in DECODERS.values():
        with pytest.raises(ValueError, match="choose one of eager, native, auto"):
            decode(model_of(CFG), ids_of(CFG, 2, 4), GREEDY, backend)


def test_the_engine_has_the_weights_of_when_it_was_made():
    """A native model is a copy: blocks that it computed are found by it alone."""
    model = deepcopy(model_of(CFG))
    packed, ids = NativeModel(model), ids_of(CFG, 1, 20)[0]
    pool = BlockPool(CFG, 40, 4)
    before = generate(model, ids, NEW)
    shared = []
    for m in (packed, packed, model, NativeModel(model)):
        scheduler = Scheduler(m, pool)
        one = scheduler.submit(Request(ids, NEW))
        scheduler.run()
        assert torch.equal(one.ids, before[0])
        shared.append(one.shared)
    assert shared[0] == 0 and shared[1] > 0 and shared[2] == 0 and shared[3] == 0
    with torch.no_grad():
        model.head.weight.neg_()
    assert torch.equal(generate(packed, ids, NEW), before)
    assert not torch.equal(generate(model, ids, NEW, backend="native"), before)
