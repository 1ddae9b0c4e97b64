"""Speculation: the rule sums to the model's law, greedy and coupled paths are the model's own, and
every forward is counted."""

import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.cache import make_cache
from minitransformer.decode import (
    ModelDraft,
    PromptLookup,
    Sampling,
    acceptance,
    emitted,
    generate,
    residual,
    speculate,
)
from minitransformer.decode.sampling import noise, race
from minitransformer.decode.speculative import _histories, _Residual
from minitransformer.quant import QuantScheme, quantize
from peaked import CFG, peaked

PROMPT = torch.tensor([[3, 7, 11, 3, 7]])
FILTERED = Sampling(temperature=1.4, top_k=9, top_p=0.9, repetition_penalty=1.3)


def rejected(found):
    return sum(accepted < proposed for proposed, accepted in found.steps)


@pytest.fixture(scope="module")
def model():
    return peaked()


@pytest.fixture(scope="module")
def drafts(model):
    small = peaked(replace(CFG, d_model=8, n_layers=1, n_heads=2, n_kv_heads=None), seed=1)
    return {
        "itself": ModelDraft(model),
        "small": ModelDraft(small, cache="dynamic"),
        "lookup": PromptLookup(),
        "int4": ModelDraft(quantize(deepcopy(model).float(), QuantScheme(bits=4))),
    }


def simplex(V):
    return (
        st.lists(st.one_of(st.just(0.0), st.floats(1e-9, 1.0)), min_size=V, max_size=V)
        .filter(any)
        .map(lambda x: torch.tensor(x, dtype=torch.float64) / sum(x))
    )


@settings(max_examples=60, deadline=None)
@given(
    pair=st.integers(1, 6).flatmap(lambda V: st.tuples(simplex(V), simplex(V))), hot=st.booleans()
)
def test_acceptance_and_replacement_sum_to_the_models_law(pair, hot):
    p, q = pair
    q = torch.nn.functional.one_hot(q.argmax(), len(q)).double() if hot else q
    assert (emitted(p, q) - p).abs().max() < 1e-12
    assert (q * acceptance(p, q) - torch.minimum(p, q)).abs().max() < 1e-15
    rest = residual(p, q)
    assert abs(float(rest.sum()) - 1) < 1e-12 and rest.min() >= 0
    assert torch.equal(residual(p, p), p)


def test_replacement_from_p_instead_of_the_residual_would_be_noticed():
    p, q = torch.tensor([0.7, 0.2, 0.1]).double(), torch.tensor([0.1, 0.2, 0.7]).double()
    accepted = q * acceptance(p, q)
    assert (accepted + (1 - accepted.sum()) * p - p).abs().max() > 0.1
    torch.testing.assert_close(residual(p, q), torch.tensor([1.0, 0, 0]).double())


@pytest.mark.parametrize("name", ["itself", "small", "lookup", "int4"])
@pytest.mark.parametrize(
    ("gamma", "cache"), [(1, "static"), (4, "dynamic"), (7, "static"), (3, None)]
)
def test_greedy_tokens_are_those_of_plain_decoding_and_forwards_are_counted(
    model, drafts, name, gamma, cache
):
    plain = generate(model, PROMPT, 40, cache=None)
    found = speculate(model, drafts[name], PROMPT, 40, gamma=gamma, cache=cache)
    assert torch.equal(found.ids, plain)
    assert found.accepted + found.forwards == 40
    assert all(0 <= accepted <= proposed <= gamma for proposed, accepted in found.steps)
    if name == "itself":
        assert found.forwards == math.ceil(40 / (gamma + 1)) and not rejected(found)


@pytest.mark.parametrize("name", ["itself", "small", "lookup", "int4"])
@pytest.mark.parametrize("sampling", [Sampling(), FILTERED])
def test_with_shared_noise_the_path_is_the_models_own_token_by_token(model, drafts, name, sampling):
    for seed in range(2):
        plain = generate(
            model,
            PROMPT,
            30,
            sampling=sampling,
            generator=torch.Generator().manual_seed(seed),
            cache=None,
        )
        again = torch.Generator().manual_seed(seed)
        own = speculate(
            model, drafts[name], PROMPT, 30, sampling=sampling, generator=again, coupled=True
        )
        assert torch.equal(own.ids, plain)
        assert name != "itself" or own.accepted and not rejected(own)


def test_shared_noise_agrees_at_least_as_often_as_its_bound():
    p, q = (
        torch.tensor([[0.5, 0.3, 0.2]]).expand(20_000, 3),
        torch.tensor([[0.2, 0.3, 0.5]]).expand(20_000, 3),
    )
    shared = noise(p, torch.Generator().manual_seed(0))
    same = (race(p, shared) == race(q, shared)).double().mean()
    tv = 0.3
    assert (
        (1 - tv) / (1 + tv) - 0.01 < same <= 1 - tv + 0.01
    )  # Daliri et al. 2024; three standard errors


def test_a_draft_that_is_the_model_is_always_accepted_with_filters_and_penalty(model, drafts):
    found = speculate(
        model,
        drafts["itself"],
        PROMPT,
        40,
        sampling=FILTERED,
        generator=torch.Generator().manual_seed(0),
    )
    assert found.forwards == 8 and not rejected(found)
    plain = speculate(
        model,
        drafts["small"],
        PROMPT,
        40,
        sampling=FILTERED,
        generator=torch.Generator().manual_seed(0),
    )
    assert plain.ids.shape == (1, 45) and plain.accepted and rejected(plain)


@pytest.mark.parametrize("certain", [False, True])
def test_judged_tokens_follow_the_models_law(certain):
    p = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]]).double()
    q = torch.tensor([[0.2, 0.3, 0.5], [0.5, 0.4, 0.1]]).double()
    generator, n = torch.Generator().manual_seed(0), 1500
    rule, ids = _Residual(Sampling(), generator), torch.tensor([[0]])
    first, second = torch.zeros(3), torch.zeros(3)
    for _ in range(n):
        proposal = (
            torch.tensor([[1, 2]]) if certain else torch.multinomial(q, 1, generator=generator).T
        )
        accepted, token = rule.judge(p.log(), ids, proposal, None if certain else q)
        out = [*proposal[0, :accepted].tolist(), int(token)]
        first[out[0]] += 1
        if len(out) > 1:
            second[out[1]] += 1
    assert (
        first / n - p[0]
    ).abs().max() < 0.05  # four standard errors; replacing from p itself is off by 0.16
    assert (second / second.sum() - p[1]).abs().max() < 0.08


def test_a_stop_token_inside_an_accepted_draft_ends_the_text_there(model, drafts):
    free = generate(model, PROMPT, 30, cache=None)
    for at in range(5, 14):
        stop = (int(free[0, at]),)
        plain = generate(model, PROMPT, 30, cache=None, stop=stop)
        assert torch.equal(speculate(model, drafts["itself"], PROMPT, 30, stop=stop).ids, plain)
        assert torch.equal(speculate(model, drafts["small"], PROMPT, 30, stop=stop).ids, plain)


def test_gamma_shrinks_at_the_end_and_where_the_drafts_own_context_ends(model, drafts):
    full = speculate(
        model, drafts["itself"], PROMPT, 44, gamma=9
    )  # the last token fills the context of 48
    assert torch.equal(full.ids, generate(model, PROMPT, 44, cache=None)) and full.steps[-1] == (
        3,
        3,
    )
    short = ModelDraft(peaked(replace(CFG, context=20)))
    early = speculate(model, short, PROMPT, 40)
    assert torch.equal(early.ids, generate(model, PROMPT, 40, cache=None))
    assert early.steps[0] == (4, 4) and early.steps[-1] == (0, 0)
    alone = speculate(model, drafts["itself"], PROMPT, 1)
    assert alone.steps == ((0, 0),)


def test_a_draft_may_serve_one_text_after_another(model, drafts):
    for prompt in (PROMPT, PROMPT[:, :2], PROMPT.flip(1), PROMPT):
        assert torch.equal(
            speculate(model, drafts["small"], prompt, 20).ids,
            generate(model, prompt, 20, cache=None),
        )


def test_a_draft_keeps_of_its_cache_what_a_fresh_one_would_compute(model, drafts):
    class Fresh(ModelDraft):
        def propose(self, *arguments):
            return ModelDraft(self.model).propose(*arguments)

    kept, fresh = (
        speculate(model, draft, PROMPT, 40)
        for draft in (drafts["small"], Fresh(drafts["small"].model))
    )
    assert kept.steps == fresh.steps and kept.accepted and rejected(kept)


def test_a_cache_that_takes_few_tokens_at_once_is_fed_in_pieces(model, drafts):
    cache = make_cache(CFG, "static")
    cache.chunk = 2
    assert torch.equal(
        speculate(model, drafts["itself"], PROMPT, 20, cache=cache).ids,
        generate(model, PROMPT, 20, cache=None),
    )


def test_a_cache_that_cannot_roll_back_would_be_noticed(model, drafts, monkeypatch):
    cache = make_cache(CFG, "static")
    monkeypatch.setattr(cache, "truncate", lambda pos: setattr(cache, "pos", cache.pos - 1))
    wrong = False
    try:
        found = speculate(model, drafts["small"], PROMPT, 30, cache=cache)
        wrong = not torch.equal(found.ids, generate(model, PROMPT, 30, cache=None))
    except (ValueError, RuntimeError):
        wrong = True
    assert wrong


def test_lookup_copies_what_followed():
    lookup = PromptLookup(ngram=2)
    ids = torch.tensor([[1, 2, 3, 4, 9, 1, 2, 5, 6, 7, 1, 2]])
    assert lookup.propose(ids, 3)[0].tolist() == [[5, 6, 7]]  # the latest of two places
    assert lookup.propose(ids, 6)[0].tolist() == [
        [3, 4, 9, 1, 2, 5]
    ]  # the latest with six tokens after it
    assert lookup.propose(torch.tensor([[8, 5, 6, 5]]), 3)[0].tolist() == [
        [6, 5]
    ]  # a shorter n-gram, a short copy
    assert lookup.propose(torch.tensor([[1, 2, 3]]), 3)[0].shape == (1, 0)
    assert lookup.propose(torch.tensor([[1]]), 3)[0].shape == (1, 0)


def test_each_judged_position_sees_what_precedes_it_only():
    seen = [
        set(row.tolist())
        for row in _histories(torch.tensor([[1, 2]]), torch.tensor([[5, 6]]), FILTERED)
    ]
    assert seen == [{1, 2}, {1, 2, 5}, {1, 2, 5, 6}]


def test_bad_requests_are_named(model, drafts):
    with pytest.raises(ValueError, match="the draft knows 25 tokens and the model 24: train both"):
        speculate(model, ModelDraft(peaked(replace(CFG, vocab_size=25))), PROMPT, 5)
    with pytest.raises(ValueError, match="gamma 0 is not positive: give at least 1"):
        speculate(model, drafts["lookup"], PROMPT, 5, gamma=0)
    with pytest.raises(ValueError, match="continues one prompt, and 2 were given"):
        speculate(model, drafts["lookup"], PROMPT.expand(2, -1), 5)
    with pytest.raises(ValueError, match="a prompt of 5 and 45 new tokens pass context 48"):
        speculate(model, drafts["lookup"], PROMPT, 45)
    with pytest.raises(ValueError, match="ngram 0 is not positive: give at least 1"):
        PromptLookup(0)
