"""Decoding: cached tokens equal recomputed ones, sampling draws from the distribution it says, and
bad input is named."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.cache import make_cache
from minitransformer.decode import (
    Certificate,
    Sampling,
    certify,
    choose,
    distribution,
    generate,
    generate_all_positions,
    stream,
)
from minitransformer.model import ModelConfig, Transformer

CFG = ModelConfig(vocab_size=50, d_model=32, n_layers=2, n_heads=4, context=40)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    return Transformer(CFG).eval()


PROMPT = torch.tensor([[4, 9, 11], [7, 7, 30]])


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_cached_greedy_tokens_are_the_oracles(model, cache):
    oracle = generate(model, PROMPT, 30, cache=None)
    assert oracle.shape == (2, 33)
    assert torch.equal(generate(model, PROMPT, 30, cache=cache), oracle)
    assert torch.equal(generate_all_positions(model, PROMPT, 30), oracle)
    own = make_cache(CFG, cache, batch=2)
    assert torch.equal(generate(model, PROMPT, 30, cache=own), oracle)


def test_sampled_tokens_with_one_generator_a_row_equal_single_runs(model):
    sampling = Sampling(temperature=1.3, top_k=20, top_p=0.95, repetition_penalty=1.2)
    both = generate(
        model,
        PROMPT,
        20,
        sampling=sampling,
        generator=[torch.Generator().manual_seed(s) for s in (1, 2)],
    )
    for row in (0, 1):
        alone = generate(
            model,
            PROMPT[row : row + 1],
            20,
            sampling=sampling,
            generator=torch.Generator().manual_seed(row + 1),
        )
        assert torch.equal(alone[0], both[row])


def test_a_stop_token_ends_its_row_and_all_stops_end_the_stream(model):
    free = generate(model, PROMPT, 12)
    stop = (int(free[0, 5]), int(free[1, 8]))
    steps = list(stream(model, PROMPT, 12, stop=stop))
    assert len(steps) < 12
    out = torch.cat([PROMPT, *steps], dim=1)
    for row in out:
        hits = [i for i in range(3, len(row)) if int(row[i]) in stop]
        assert hits and len(set(row[hits[0] :].tolist())) == 1


def test_filters_keep_what_they_say():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.15, 0.1]]))
    torch.testing.assert_close(
        distribution(logits, Sampling(top_k=2)), torch.tensor([[2 / 3, 1 / 3, 0, 0]])
    )
    torch.testing.assert_close(
        distribution(logits, Sampling(top_p=0.6)), torch.tensor([[2 / 3, 1 / 3, 0, 0]])
    )
    torch.testing.assert_close(
        distribution(logits, Sampling(top_p=0.5)), torch.tensor([[1.0, 0, 0, 0]])
    )
    torch.testing.assert_close(
        distribution(logits, Sampling(top_k=9, top_p=1.0)), torch.tensor([[0.5, 0.25, 0.15, 0.1]])
    )
    torch.testing.assert_close(
        distribution(logits, Sampling(temperature=0.5)),
        torch.tensor([[0.25, 0.0625, 0.0225, 0.01]]) / 0.345,
    )
    assert distribution(logits, Sampling(temperature=0)).tolist() == [[1, 0, 0, 0]]


def test_top_k_keeps_exactly_k_and_of_equals_the_first():
    logits = torch.tensor([[1.0, 2.0, 2.0, 2.0, 0.0], [3.0, 3.0, 3.0, 3.0, 3.0]])
    kept = distribution(logits, Sampling(top_k=2)) > 0
    assert kept.tolist() == [[False, True, True, False, False], [True, True, False, False, False]]
    assert torch.equal(
        distribution(logits, Sampling(top_k=1)), distribution(logits, Sampling(temperature=0))
    )


def slow_distribution(logits, sampling, previous):
    """One row in plain Python: penalty, temperature, top-k, top-p, each as it is defined."""
    penalty, z = sampling.repetition_penalty, logits.tolist()
    z = [(z / penalty if z > 0 else z * penalty) if i in previous else z for i, z in enumerate(z)]
    z = [z / sampling.temperature for z in z]
    order = sorted(range(len(z)), key=lambda i: -z[i])[: sampling.top_k]
    total, mass, p = sum(math.exp(z[i] - z[order[0]]) for i in order), 0.0, [0.0] * len(z)
    for i in order:
        if sampling.top_p is None or mass < sampling.top_p:
            p[i] = math.exp(z[i] - z[order[0]]) / total
        mass += math.exp(z[i] - z[order[0]]) / total
    return [x / sum(p) for x in p]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    temperature=st.floats(0.1, 3),
    top_k=st.none() | st.integers(1, 9),
    top_p=st.none() | st.floats(0.05, 1),
    penalty=st.floats(0.5, 2),
)
def test_every_filter_is_its_definition_on_every_row_at_once(
    seed, temperature, top_k, top_p, penalty
):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(3, 8, generator=generator, dtype=torch.float64)
    previous = torch.randint(0, 8, (3, 4), generator=generator)
    sampling = Sampling(temperature, top_k, top_p, penalty)
    slow = [
        slow_distribution(row, sampling, set(seen.tolist()))
        for row, seen in zip(logits, previous, strict=True)
    ]
    assert (
        distribution(logits, sampling, previous) - torch.tensor(slow, dtype=torch.float64)
    ).abs().max() < 1e-12


def test_a_cold_temperature_is_greedy_and_broken_logits_are_named():
    logits = torch.tensor([[1e4, 1e4 - 1.0, -torch.inf]])
    assert distribution(logits, Sampling(temperature=1e-6)).tolist() == [[1, 0, 0]]
    for bad in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="the logits hold NaN or infinity"):
            choose(torch.tensor([[0.0, bad]]), Sampling())


def test_the_repetition_penalty_weakens_what_was_said():
    logits, seen = torch.tensor([[2.0, 1.5, -1.0]]), torch.tensor([[0, 2]])
    penalized = distribution(logits, Sampling(repetition_penalty=2.0), seen)
    torch.testing.assert_close(penalized, torch.tensor([[1.0, 1.5, -2.0]]).softmax(-1))
    assert choose(logits, Sampling(temperature=0, repetition_penalty=2.0), seen).item() == 1


def test_draws_follow_the_distribution():
    logits = torch.log(torch.tensor([[0.6, 0.3, 0.1]])).expand(20_000, 3)
    drawn = choose(logits, Sampling(), generator=torch.Generator().manual_seed(0)).flatten()
    share = torch.bincount(drawn, minlength=3) / 20_000
    assert (
        share - torch.tensor([0.6, 0.3, 0.1])
    ).abs().max() < 0.015  # more than four standard errors


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_the_certificate_holds_and_in_float64_to_1e_10(model, kind):
    single = certify(model, PROMPT[:1], 30, kind)
    assert (
        single.passed and single.steps == 30 and single.dtype == "float32" and not single.near_ties
    )
    assert 2 * single.error < single.margin
    double = certify(Transformer(CFG).double().eval(), PROMPT[:1], 30, kind)
    assert double.error < 1e-10 and double.dtype == "float64"


def test_a_broken_cache_gets_no_certificate(model, monkeypatch):
    from minitransformer.cache.static import StaticLayer

    whole = StaticLayer.update
    monkeypatch.setattr(StaticLayer, "update", lambda self, k, v: whole(self, k, v * 1.5))
    broken = certify(model, PROMPT[:1], 30, "static")
    assert not broken.passed and broken.mismatches and broken.near_ties
    assert not Certificate("static", "float32", 1, 0.0, 1.0, (), (0,)).passed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -1}, "temperature -1 is out of range: give at least 0"),
        ({"temperature": math.nan}, "temperature nan is out of range"),
        ({"temperature": math.inf}, "temperature inf is not finite"),
        ({"temperature": 1e-9}, "temperature 1e-09 is below 1e-6: give 0"),
        ({"top_k": 0}, "top_k 0 is not positive: give at least 1"),
        ({"top_k": 2.5}, "top_k 2.5 is not a whole number"),
        ({"top_k": math.nan}, "top_k nan is not a whole number"),
        ({"top_p": math.nan}, "top_p nan is not positive: give a number above 0, at most 1"),
        ({"top_p": 0.0}, "top_p 0.0 is not positive: give a number above 0, at most 1"),
        ({"top_p": 1.1}, "top_p 1.1 is out of range: give a number above 0, at most 1"),
        ({"repetition_penalty": 0}, "repetition_penalty 0 is not positive"),
        ({"repetition_penalty": math.inf}, "repetition_penalty inf is not finite"),
    ],
)
def test_impossible_sampling_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**arguments)


def test_bad_prompts_are_named(model):
    with pytest.raises(ValueError, match=r"the prompt has shape \(1, 0\): give at least one token"):
        generate(model, PROMPT[:1, :0], 5)
    with pytest.raises(ValueError, match="max_new_tokens 0 is not positive"):
        generate(model, PROMPT, 0)
    with pytest.raises(ValueError, match="a prompt of 3 and 39 new tokens pass context 40"):
        generate(model, PROMPT, 39)
    with pytest.raises(ValueError, match="backend 'cuda-graph' is unknown: choose one of eager"):
        generate(model, PROMPT, 5, backend="cuda-graph")
