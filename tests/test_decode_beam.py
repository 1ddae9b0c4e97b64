"""Beam search: exhaustive when wide enough, greedy when narrow, the same over every cache, and
scored as it says."""

import itertools

import pytest
import torch

from minitransformer.decode import beam, generate
from minitransformer.model import ModelConfig
from peaked import CFG, peaked

TINY = ModelConfig(vocab_size=4, d_model=16, n_layers=1, n_heads=2, context=12)
PROMPT = torch.tensor([[3, 1]])


def log_probability(model, ids, start):
    with torch.no_grad():
        return float(
            model(ids[None])[0, start - 1 : -1].log_softmax(-1).gather(1, ids[start:, None]).sum()
        )


def every_continuation(model, steps, stop, penalty):
    """The oracle: all V^n continuations, cut after a stop token, each scored by one forward."""
    found = {}
    for tokens in itertools.product(range(4), repeat=steps):
        end = next((i + 1 for i, t in enumerate(tokens) if t in stop), steps)
        ids = torch.cat((PROMPT[0], torch.tensor(tokens[:end])))
        found[tuple(ids.tolist())] = log_probability(model, ids, 2) / end**penalty
    return sorted(found.items(), key=lambda item: -item[1])


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("stop", "penalty"), [((), 1.0), ((2,), 0.0), ((2,), 1.0), ((0, 2), 2.0)])
def test_a_beam_as_wide_as_the_tree_finds_the_best_of_all(stop, penalty, seed):
    model = peaked(TINY, seed)
    truth = every_continuation(model, 4, stop, penalty)
    found = beam(model, PROMPT, 4, width=4**4, length_penalty=penalty, stop=stop)
    assert len(found) == len(truth)
    for ours, (ids, score) in zip(found[:20], truth[:20], strict=True):
        assert ours.score == pytest.approx(score, abs=1e-10) and tuple(ours.ids.tolist()) == ids


def test_a_beam_of_one_is_greedy_stop_tokens_included():
    model, prompt = peaked(), torch.tensor([[3, 7, 11]])
    free = generate(model, prompt, 20, cache=None)
    assert torch.equal(beam(model, prompt, 20, width=1)[0].ids, free[0])
    for stop in ((int(free[0, 8]),), (int(free[0, 5]), int(free[0, 12]))):
        greedy = generate(model, prompt, 20, cache=None, stop=stop)[0]
        assert torch.equal(beam(model, prompt, 20, width=1, stop=stop)[0].ids, greedy)


@pytest.mark.parametrize("kind", ["static", "dynamic", "paged"])
@pytest.mark.parametrize("stop", [(), (2, 5)])
def test_over_a_cache_beams_are_those_of_recomputation(kind, stop):
    for seed in range(3):
        model = peaked(seed=seed)
        cached, slow = (beam(model, PROMPT, 15, width=5, stop=stop, cache=c) for c in (kind, None))
        assert [b.ids.tolist() for b in cached] == [b.ids.tolist() for b in slow]
        assert max(abs(a.score - b.score) for a, b in zip(cached, slow, strict=True)) < 1e-10


def test_a_beam_whose_cache_was_not_reordered_would_be_noticed(monkeypatch):
    from minitransformer.cache.static import StaticLayer

    whole = StaticLayer.select
    monkeypatch.setattr(StaticLayer, "select", lambda self, rows: whole(self, rows * 0))
    model = peaked()
    cached, slow = (beam(model, PROMPT, 15, width=5, cache=c) for c in ("static", None))
    assert max(abs(a.score - b.score) for a, b in zip(cached, slow, strict=True)) > 1e-3


def test_scores_are_log_probabilities_over_a_power_of_the_length():
    model = peaked()
    for penalty in (0.0, 0.6, 1.0):
        beams = beam(model, PROMPT, 9, width=4, length_penalty=penalty, stop=(2, 5, 7))
        assert len(beams) == 4 and len({len(b.ids) for b in beams}) > 1
        assert [b.score for b in beams] == sorted((b.score for b in beams), reverse=True)
        for b in beams:
            assert b.log_probability == pytest.approx(log_probability(model, b.ids, 2), abs=1e-10)
            assert b.score == pytest.approx(b.log_probability / (len(b.ids) - 2) ** penalty)
    ranked = (
        beam(model, PROMPT, 9, width=8, length_penalty=0.0),
        beam(model, PROMPT, 9, width=2, length_penalty=0.0),
    )
    assert ranked[0][0].score >= ranked[1][0].score - 1e-12


def test_all_beams_may_stop_early_and_the_search_with_them():
    beams = beam(peaked(), PROMPT, 40, width=3, stop=tuple(range(CFG.vocab_size)))
    assert [len(b.ids) for b in beams] == [3, 3, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width 0 is not positive: give at least 1"),
        ({"length_penalty": -0.5}, "length_penalty -0.5 is out of range: give at least 0"),
        ({"length_penalty": float("nan")}, "length_penalty nan is out of range: give at least 0"),
    ],
)
def test_impossible_searches_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        beam(peaked(), PROMPT, 5, **options)
    with pytest.raises(ValueError, match="continues one prompt, and 2 were given"):
        beam(peaked(), PROMPT.expand(2, -1), 5)
