"""Certificates: given to what is equal, refused to what is not, for caches, chunks, beams,
speculation and sampled paths."""

from copy import deepcopy
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cache_models import takes
from minitransformer.cache import KINDS, make_cache
from minitransformer.decode import (
    Certificate,
    ModelDraft,
    PromptLookup,
    Sampling,
    certify,
    certify_acceptance,
    certify_beam,
    certify_tokens,
    generate,
    generate_batch,
    last_logits,
    oracle_logits,
    prefill,
    speculate,
    stream,
)
from peaked import CFG, peaked

PROMPTS = [torch.tensor([[3, 7, 11, 3, 7, 2, 9, 9]]), torch.tensor([[5, 1, 0, 23]])]
SAMPLED = Sampling(temperature=1.3, top_k=12, top_p=0.95, repetition_penalty=1.2)


@pytest.fixture(scope="module")
def model():
    return peaked()


CONFIGS = st.builds(
    partial(replace, CFG),
    n_kv_heads=st.sampled_from([1, 2, 4]),
    qk_norm=st.booleans(),
    smeared_keys=st.booleans(),
    bias=st.booleans(),
    tied=st.booleans(),
    position=st.sampled_from(["rope", "sinusoidal", "none"]),
    norm=st.sampled_from(["layernorm", "rmsnorm"]),
    ffn=st.sampled_from(["relu", "gelu", "relu2", "swiglu"]),
)


OPTIONS = {
    "window": {"window": 5, "sinks": 2, "rollback": 4},
    "paged": {"block_size": 4},
    "int4": {"residual": 4, "group": 4, "rollback": 4},
    "int2": {"residual": 4, "group": 4, "rollback": 4},
}


@settings(max_examples=15, deadline=None)
@given(cfg=CONFIGS, kind=st.sampled_from(list(KINDS)), chunk=st.integers(1, 9))
def test_every_kind_is_certified_on_every_model_at_every_split_of_the_prompt(cfg, kind, chunk):
    assume(takes(kind, cfg))
    found = certify(peaked(cfg), PROMPTS, 8, kind, chunk=chunk, **OPTIONS.get(kind, {}))
    assert found.verdict == "certified" and found.error < 1e-10
    assert (found.steps, found.prompts, found.kind, found.dtype) == (16, 2, kind, "float64")
    assert found.subject.startswith(f"{kind} cache, ") and found.subject.endswith(f"chunk {chunk}")
    assert found.oracle.startswith("fake-quantized" if "int" in kind else "recomputation")


@pytest.mark.parametrize("kind", ["window", "int8", "int4", "int2", "paged-int8", "paged-int4"])
def test_a_kind_that_changes_what_is_seen_is_not_recomputation_but_its_own_oracle(model, kind):
    options = {"dtype": torch.float64, **OPTIONS.get(kind, {})}
    assert certify(model, PROMPTS, 20, kind, **options).verdict == "certified"
    plain = certify(model, PROMPTS, 20, kind, oracle=model, **options)
    assert plain.verdict == "different" and plain.oracle == "a given oracle"


@settings(max_examples=8, deadline=None)
@given(
    cfg=CONFIGS,
    kind=st.sampled_from(["static", "dynamic", "paged"]),
    gamma=st.integers(1, 6),
    width=st.integers(1, 5),
)
def test_every_decoder_is_certified_on_every_model(cfg, kind, gamma, width):
    model, draft = peaked(cfg), ModelDraft(peaked(seed=1))
    assert certify_beam(model, PROMPTS, 6, cache=kind, width=width).verdict == "certified"
    texts = [
        (speculate(model, draft, p, 12, gamma=gamma, cache=kind).ids, p.shape[1]) for p in PROMPTS
    ]
    assert certify_tokens(model, texts, "speculative").verdict == "certified"
    both = torch.cat((PROMPTS[0], PROMPTS[0].flip(1)))
    texts = [(row[None], 8) for row in generate(model, both, 12, cache=kind)]
    assert certify_tokens(model, texts, "batch").verdict == "certified"


@pytest.mark.parametrize("kind", ["window", "int8", "int4", "int2", "paged-int8", "paged-int4"])
def test_speculation_over_a_kind_of_its_own_oracle_is_certified_against_that(model, kind):
    texts, options = [], OPTIONS.get(kind, {})
    for prompt in PROMPTS:
        cache = make_cache(CFG, kind, capacity=40, **options)
        texts.append(
            (
                speculate(model, ModelDraft(peaked(seed=1)), prompt, 25, gamma=3, cache=cache).ids,
                prompt.shape[1],
            )
        )
    oracle = partial(oracle_logits, model, kind=kind, **options)
    assert certify_tokens(model, texts, "speculative", oracle=oracle).verdict == "certified"


def test_a_window_is_certified_and_speculates_past_the_context(model):
    assert certify(model, PROMPTS[0], 80, "window", window=8).verdict == "certified"
    cache = make_cache(CFG, "window", window=8, rollback=4)
    found = speculate(model, PromptLookup(), PROMPTS[0], 80, gamma=4, cache=cache)
    assert torch.equal(
        found.ids, generate(model, PROMPTS[0], 80, cache=make_cache(CFG, "window", window=8))
    )
    assert found.ids.shape == (1, 88) and found.accepted > 0


def test_one_forward_may_be_the_oracle_and_gives_the_same(model):
    whole = certify(model, PROMPTS[0], 20, "static", oracle=model, against="one forward")
    steps = certify(model, PROMPTS[0], 20, "static")
    assert whole.oracle == "one forward" and steps.oracle == "recomputation"
    assert whole.verdict == steps.verdict == "certified"
    assert (
        whole.margin == pytest.approx(steps.margin, abs=1e-10) and whole.steps == steps.steps == 20
    )


@pytest.mark.parametrize("kind", list(KINDS))
def test_prompts_of_one_length_may_share_a_cache_and_each_row_is_judged(model, kind):
    ids, options = torch.cat((PROMPTS[0], PROMPTS[0].flip(1))), OPTIONS.get(kind, {})
    both, each = (
        certify(model, prompts, 15, kind, **options) for prompts in (ids, list(ids.split(1)))
    )
    assert both.verdict == "certified" and both.margin == pytest.approx(each.margin, abs=1e-10)
    assert (both.steps, both.prompts) == (each.steps, each.prompts) == (30, 2)
    wrong = certify(
        model, ids, 15, kind, oracle=lambda x: model(x).roll(1, dims=0), **options
    )  # the other row's logits
    assert wrong.verdict == "different"


def test_another_oracle_gives_no_certificate(model):
    other = certify(
        model,
        PROMPTS[0],
        20,
        "static",
        oracle=partial(last_logits, peaked(seed=5)),
        against="another model",
    )
    assert (
        other.verdict == "different"
        and not other.passed
        and other.mismatches
        and other.oracle == "another model"
    )
    assert set(other.mismatches) <= set(
        other.near_ties
    )  # where tokens differ, 2·max|Δlogit| cannot be below the margin


def test_the_options_of_a_cache_are_passed_and_recorded(model):
    assert certify(model, PROMPTS, 5, "static", device="cpu").subject == "static cache, device cpu"
    with pytest.raises((TypeError, ValueError), match="colour"):
        certify(model, PROMPTS, 5, "static", colour="red")


def test_a_cache_of_lower_precision_passes_only_within_the_tolerance_asked_for(model, monkeypatch):
    from minitransformer.cache.static import StaticLayer

    whole = StaticLayer.update
    monkeypatch.setattr(
        StaticLayer, "update", lambda self, k, v: whole(self, k.half().double(), v.half().double())
    )
    half = certify(model, PROMPTS, 10, "static", tolerance=0.1)
    assert half.passed and 1e-6 < half.error < 0.1 and half.tolerance == 0.1
    assert certify(model, PROMPTS, 10, "static").verdict == "different"


def test_verdicts_tell_ties_from_errors():
    def certificate(error, near, other, tolerance=1e-3):
        return Certificate("static", "float32", 9, error, 0.1, near, other, tolerance=tolerance)

    assert certificate(1e-6, (), ()).verdict == "certified"
    assert certificate(1e-6, (3,), ()).verdict == "identical"
    assert (
        certificate(1e-6, (3,), (3,)).verdict == "near ties"
        and certificate(1e-6, (3,), (3,)).passed
    )
    assert certificate(1e-6, (3,), (4,)).verdict == "different"
    assert (
        certificate(1.0, (), ()).verdict == "different"
        and certificate(float("nan"), (), ()).verdict == "different"
    )
    row = certificate(1e-6, (3, 5), (3,)).row()
    assert (row["near_ties"], row["mismatches"], row["verdict"], row["steps"]) == (
        2,
        1,
        "near ties",
        9,
    )


@pytest.mark.parametrize("chunk", [1, 2, 3, 8, 50, None])
@pytest.mark.parametrize("own", [None, 3])
def test_every_chunk_size_prefills_to_the_same_logits(model, chunk, own):
    cache = make_cache(CFG, "static", batch=2)
    cache.chunk = own
    ids = torch.cat((PROMPTS[0], PROMPTS[0].flip(1)))
    with torch.no_grad():
        torch.testing.assert_close(
            prefill(model, ids, cache, chunk), last_logits(model, ids), atol=1e-12, rtol=0
        )
    assert cache.pos == 8


def test_a_cache_that_takes_few_tokens_at_once_may_pass_the_context(model):
    cache = make_cache(CFG, "static", capacity=60)
    with pytest.raises(ValueError, match="a prompt of 8 and 50 new tokens pass context 48"):
        generate(model, PROMPTS[0], 50, cache=cache)
    cache.chunk = 4
    stream(model, PROMPTS[0], 50, cache=cache)  # its positions are its own affair
    with pytest.raises(ValueError, match="8 tokens in chunks of 0: give at least one token"):
        prefill(model, PROMPTS[0], make_cache(CFG, "static"), chunk=0)


def test_speculated_and_plain_texts_are_certified_by_their_tokens(model):
    texts = [(speculate(model, ModelDraft(peaked(seed=1)), p, 30).ids, p.shape[1]) for p in PROMPTS]
    found = certify_tokens(
        model, texts, "speculative", subject="draft model, gamma 4", against="one forward"
    )
    assert found.verdict == "certified" and found.error == 0 and found.margin > 0
    assert (found.steps, found.prompts, found.compared, found.subject) == (
        60,
        2,
        "tokens",
        "draft model, gamma 4",
    )
    stepwise = certify_tokens(model, texts, "speculative", oracle=partial(last_logits, model))
    assert stepwise.verdict == "certified" and stepwise.margin == pytest.approx(
        found.margin, abs=1e-10
    )


@pytest.mark.parametrize("cache", ["static", "paged"])
@pytest.mark.parametrize("sampling", [Sampling(temperature=0), SAMPLED])
def test_batches_of_unequal_prompts_are_certified_row_by_row(model, cache, sampling):
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    rows = generate_batch(
        model, [p[0] for p in PROMPTS], 20, cache=cache, sampling=sampling, generator=generators
    )
    texts = [(row[None], prompt.shape[1]) for row, prompt in zip(rows, PROMPTS, strict=True)]
    found = certify_tokens(model, texts, "batch", sampling=sampling, seeds=[0, 1])
    assert found.verdict == "certified" and found.steps == 40


def test_a_wrong_token_is_found_where_it_stands(model):
    ids = generate(model, PROMPTS[0], 20)
    ids[0, 8 + 19] = (ids[0, 8 + 19] + 1) % CFG.vocab_size
    wrong = certify_tokens(model, [(ids, 8)], "speculative")
    assert (
        wrong.mismatches == wrong.near_ties == (19,)
        and wrong.verdict == "different"
        and wrong.error > 1e-3
    )


@pytest.mark.parametrize("way", ["plain", "lookup", "draft"])
def test_sampled_paths_are_certified_with_their_noise(model, way):
    texts = []
    for seed, prompt in enumerate(PROMPTS):
        options = {"sampling": SAMPLED, "generator": torch.Generator().manual_seed(seed)}
        if way == "plain":
            texts.append((generate(model, prompt, 25, **options), prompt.shape[1]))
        else:
            draft = PromptLookup() if way == "lookup" else ModelDraft(peaked(seed=1))
            texts.append(
                (speculate(model, draft, prompt, 25, coupled=True, **options).ids, prompt.shape[1])
            )
    assert (
        certify_tokens(model, texts, "sampled", sampling=SAMPLED, seeds=[0, 1]).verdict
        == "certified"
    )
    assert (
        certify_tokens(model, texts, "sampled", sampling=SAMPLED, seeds=[0, 2]).verdict
        == "different"
    )
    with pytest.raises(ValueError, match=r"2 sampled texts with seeds \[0\]: give the seed"):
        certify_tokens(model, texts, "sampled", sampling=SAMPLED, seeds=[0])


def test_every_choice_of_a_beam_is_certified(model, monkeypatch):
    found = certify_beam(model, PROMPTS, 12, width=3)
    assert (
        found.verdict == "certified"
        and (found.steps, found.prompts) == (24, 2)
        and found.error < 1e-10 < found.margin
    )
    assert (
        found.subject == "beam search over a static cache, width 3"
        and found.compared == "candidates kept"
    )
    stopped = certify_beam(model, PROMPTS, 12, width=3, stop=(2, 5))
    assert stopped.verdict == "certified" and stopped.steps <= 24
    everything = certify_beam(
        model, PROMPTS, 1, cache="dynamic", width=CFG.vocab_size
    )  # nothing is dropped
    assert everything.margin == float("inf") and everything.steps == 2
    other = certify_beam(
        model, PROMPTS, 12, width=3, oracle=peaked(seed=5), against="another model"
    )
    assert other.verdict == "different" and other.mismatches and other.oracle == "another model"
    shifted = certify_beam(
        model, PROMPTS, 12, width=3, oracle=lambda ids: model(ids) * 1.000001
    )  # the same choices
    assert shifted.verdict == "different" and not shifted.mismatches and 1e-9 < shifted.error < 1e-3
    from minitransformer.cache.static import StaticLayer

    whole = StaticLayer.select
    monkeypatch.setattr(StaticLayer, "select", lambda self, rows: whole(self, rows * 0))
    assert certify_beam(model, PROMPTS, 12, width=3).verdict == "different"


def test_a_beam_that_keeps_the_wrong_candidates_gets_no_certificate(model, monkeypatch):
    best = torch.Tensor.topk
    monkeypatch.setattr(
        torch.Tensor, "topk", lambda x, k: [part[1:] for part in best(x, k + 1)]
    )  # all but the very best
    found = certify_beam(model, PROMPTS, 5, width=3)
    assert (
        found.verdict == "different" and found.mismatches and found.error < 1e-10
    )  # the numbers were right, the choice was not


def test_the_acceptance_rule_is_certified_on_real_distributions(model):
    draft = peaked(seed=1)
    for sampling in (
        Sampling(),
        Sampling(temperature=0.7, top_k=5, top_p=0.9),
        Sampling(temperature=0),
    ):
        found = certify_acceptance(
            deepcopy(model).float(), draft, PROMPTS, sampling
        )  # the rule itself is tried in float64
        assert found.verdict == "certified" and found.error < 1e-12
        assert (found.steps, found.dtype) == (12, "float64")


def test_a_wrong_acceptance_rule_gets_no_certificate(model, monkeypatch):
    from minitransformer.decode import speculative

    monkeypatch.setattr(speculative, "residual", lambda p, q: p)
    assert certify_acceptance(model, peaked(seed=1), PROMPTS, Sampling()).verdict == "different"
