"""Ids, losses and models that nobody should give: one line of error, or inf, never a wrong
number."""

import math
import warnings

import numpy as np
import pytest
import torch

from minitransformer.cache import make_cache
from minitransformer.evaluate import (
    KneserNey,
    Monitor,
    best_order,
    calibration,
    count_grams,
    log_steps,
    perplexity,
    recovered,
    stream_losses,
    summary,
    token_losses,
    token_report,
)
from minitransformer.model import ModelConfig, Transformer

V = 7
IDS = np.random.default_rng(0).integers(0, V, 60)


def flat(ids):
    return torch.zeros(*ids.shape, V)


def model():
    torch.manual_seed(0)
    return Transformer(ModelConfig(vocab_size=V, d_model=8, n_heads=2, context=64))


def streamed(ids):
    net = model()
    return stream_losses(net, ids, make_cache(net.cfg, "dynamic"))


TAKES_IDS = {
    "token_report": lambda ids: token_report(flat, ids, 8),
    "token_losses": lambda ids: token_losses(flat, ids, 8),
    "token_losses of a model": lambda ids: token_losses(model(), ids, 8),
    "stream_losses": streamed,
    "perplexity": lambda ids: perplexity(flat, ids, 8),
    "count_grams": lambda ids: count_grams(ids, 2, V),
    "KneserNey": lambda ids: KneserNey(ids, 2, V),
    "log_probs": lambda ids: KneserNey(IDS, 3, V).log_probs(ids),
    "report": lambda ids: KneserNey(IDS, 3, V).report(ids),
    "best_order, train": lambda ids: best_order(ids, IDS, range(3), V),
    "best_order, valid": lambda ids: best_order(IDS, ids, range(3), V),
}
WRONG = {
    "id V": [*IDS[:20].tolist(), V],
    "an id far out": [1, 2, 10**12, 3],
    "negative": [1, 2, -1, 3],
    "floats": [1.0, 2.0, 3.0],
    "two rows": [[1, 2, 3], [4, 5, 6]],
    "ragged rows": [[1, 2, 3], [4, 5]],
    "a string": "abc",
    "booleans": [True, False, True],
    "none": None,
}


@pytest.mark.parametrize("taker", TAKES_IDS)
@pytest.mark.parametrize("wrong", WRONG)
def test_ids_that_are_none_are_refused_in_one_line(taker, wrong):
    with pytest.raises(ValueError, match=r"^ids .*give .*") as error:
        TAKES_IDS[taker](WRONG[wrong])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("taker", TAKES_IDS)
def test_a_list_an_array_a_tensor_and_a_row_are_the_same(taker):
    def plain(x):
        if isinstance(x, np.ndarray):
            return x.tolist()
        if hasattr(x, "__dict__"):
            return {k: plain(v) for k, v in vars(x).items()}
        return [plain(y) for y in x] if isinstance(x, (list, tuple)) else repr(x)[:9]

    wanted = plain(TAKES_IDS[taker](IDS))
    forms = [IDS.tolist(), IDS.astype(np.int16), torch.tensor(IDS), torch.tensor(IDS)[None]]
    for given in (*forms, IDS[::-1][::-1], IDS.astype(np.uint64)):
        assert plain(TAKES_IDS[taker](given)) == wanted


@pytest.mark.parametrize("ids", [[], [3]])
@pytest.mark.parametrize("taker", ["token_report", "stream_losses", "perplexity", "report"])
def test_fewer_than_two_tokens_leave_nothing_to_predict(taker, ids):
    with pytest.raises(ValueError, match=f"{len(ids)} token"):
        TAKES_IDS[taker](ids)


def test_sizes_that_are_none_are_refused():
    with pytest.raises(ValueError, match="batch_size 0 is not positive"):
        token_report(flat, IDS, 8, batch_size=0)
    with pytest.raises(ValueError, match="chunk 0 is not positive"):
        stream_losses(model(), IDS, make_cache(model().cfg, "dynamic"), chunk=0)
    with pytest.raises(ValueError, match="window 0 is not positive: give at least 1"):
        token_report(flat, IDS, 0)
    with pytest.raises(ValueError, match="window '8' is not a whole number"):
        perplexity(flat, IDS, "8")
    with pytest.raises(ValueError, match="stride 9 is not supported: give 1 to 8"):
        token_report(flat, IDS, 8, 9)
    for odd in (math.inf, -math.inf, math.nan):
        with pytest.raises(ValueError, match="3 confidences .* give at least one of each, all fi"):
            calibration([0.5, odd, 0.5], [1, 0, 1])
    with pytest.raises(ValueError, match="last 0"):
        log_steps(0)
    with pytest.raises(ValueError, match="0 confidences"):
        calibration([], [])
    with pytest.raises(ValueError, match="NaN"):
        calibration([math.nan], [True])
    with pytest.raises(ValueError, match="nothing to recover"):
        recovered(np.ones(50), np.ones(50), np.ones(50))


@pytest.mark.parametrize("scale, finite", [(700.0, True), (1e3, False), (1e30, False)])
def test_a_very_bad_model_has_infinite_perplexity_and_its_nats(scale, finite):
    """exp of more than 709 nats is no float."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p = perplexity(lambda ids: scale * torch.eye(V)[ids], (np.arange(200) % V), 16)
    assert math.isfinite(p.value) == finite and p.nll == pytest.approx(scale, rel=1e-6)
    assert math.isfinite(p.interval[1]) == finite and p.interval[0] <= p.value
    assert p.bits == pytest.approx(scale / math.log(2), rel=1e-6)


def test_an_impossible_token_is_inf_and_nan_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p = summary([1.0] * 50 + [math.inf])
    assert p.value == p.nll == math.inf and p.interval == (math.inf, math.inf)
    with pytest.raises(ValueError, match="1 of 51 losses are NaN"):
        summary([1.0] * 50 + [math.nan])
    with pytest.raises(ValueError, match="0 of 0 losses"):
        summary([])


def test_a_text_that_is_one_token_warns_and_others_do_not():
    with pytest.warns(UserWarning, match=r"90% of the 100 tokens are id 1: if that is <unk>"):
        perplexity(flat, [1] * 90 + [2] * 10, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        perplexity(flat, [1, 2] * 50, 8)


def test_a_group_that_does_not_occur_is_no_nan_in_the_learning_curve():
    groups, oracle = np.zeros(60, int), -np.ones(60)
    monitor = Monitor(flat, IDS, 8, [1], names=("always", "never"), groups=groups, oracle=oracle)
    row = monitor({"step": 1})
    assert set(row) == {"valid_nats", "excess_always_nats"} and all(
        map(math.isfinite, row.values())
    )


def test_a_text_is_not_scored_behind_another_one():
    net = model()
    cache = make_cache(net.cfg, "dynamic")
    once = stream_losses(net, IDS, cache)
    with pytest.raises(ValueError, match="the cache holds 59 tokens: empty it by cache.truncate"):
        stream_losses(net, IDS, cache)
    cache.truncate(0)
    assert np.array_equal(stream_losses(net, IDS, cache), once)
