"""The vectorised Kneser-Ney against the dictionary it replaces, and against the literature's
corpora when they are there."""

import math
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from minitransformer.evaluate import KneserNey, best_order, count_grams

CORPORA = os.environ.get("CORPORA_DIR", "")
needs_corpora = pytest.mark.skipif(
    not CORPORA, reason="CORPORA_DIR names no folder with tinyshakespeare/ and wikitext-2/"
)


class Dictionary:
    """Interpolated modified Kneser-Ney, one n-gram at a time (Chen and Goodman 1999): the slow
    oracle."""

    def __init__(self, train, order, V):
        self.order, self.V, counts = order, V, [None] * (order + 1)
        counts[order] = Counter(zip(*[train[i:] for i in range(order)], strict=False))
        for n in range(order - 1, 0, -1):
            counts[n] = Counter(gram[1:] for gram in counts[n + 1])
        self.counts, self.discount, self.total, self.backoff = counts, {}, {}, {}
        for n in range(1, order + 1):
            of = Counter(min(c, 5) for c in counts[n].values())
            k = [of.get(i, 0) for i in range(6)]
            y = k[1] / (k[1] + 2 * k[2]) if k[1] else 0.5
            D = [0] + [
                min(max(i - (i + 1) * y * k[i + 1] / k[i], 0), i) if k[i] else 0 for i in (1, 2, 3)
            ]
            D = [0] + [d or y for d in D[1:]]  # never 0: an unseen word keeps a probability
            total, backoff = {}, {}
            for gram, c in counts[n].items():
                total[gram[:-1]] = total.get(gram[:-1], 0) + c
                backoff[gram[:-1]] = backoff.get(gram[:-1], 0.0) + D[min(c, 3)]
            self.discount[n], self.total[n], self.backoff[n] = D, total, backoff

    def p(self, history, word):
        p = 1 / self.V
        for n in range(1, min(self.order, len(history) + 1) + 1):
            context = tuple(history[len(history) - n + 1 :])
            total = self.total[n].get(context)
            if total:
                c = self.counts[n].get((*context, word), 0)
                p = (max(c - self.discount[n][min(c, 3)], 0) + self.backoff[n][context] * p) / total
        return p


def text(seed, n, V=9):
    """A skewed, dependent sequence: some n-grams frequent, some unique, some never."""
    rng = np.random.default_rng(seed)
    steps = rng.zipf(1.6, n) % V
    return (np.cumsum(steps) * (rng.random(n) < 0.7) % V).astype(np.int16)


@pytest.mark.parametrize("order", range(1, 7))
@pytest.mark.parametrize("n", [12, 80, 700])
def test_it_is_the_dictionary(order, n):
    V = 11  # two words more than the text uses
    train, test = (
        text(order, n),
        np.concatenate([text(99, 60), [10, 3, 9, 9], text(order, n)[-6:], [4]]),
    )
    slow = Dictionary(train.tolist(), order, V)
    want = [math.log(slow.p(test[:t].tolist(), int(w))) for t, w in enumerate(test)]
    model = KneserNey(train, order, V)
    np.testing.assert_allclose(model.log_probs(test), want, rtol=1e-12)
    report = model.report(test)
    np.testing.assert_allclose(report.nll, np.negative(want[1:]), rtol=1e-12)
    for t in range(1, len(test)):
        p = [slow.p(test[:t].tolist(), w) for w in range(V)]
        assert report.confidence[t - 1] == pytest.approx(max(p), rel=1e-12)
        if sum(x > max(p) * (1 - 1e-12) for x in p) == 1:
            assert report.correct[t - 1] == (int(np.argmax(p)) == test[t])


@pytest.mark.parametrize("order", [0, 1, 2, 4])
def test_probabilities_sum_to_one(order):
    model = KneserNey(text(1, 400), order, 11)
    for context in (
        [],
        [0],
        [10],
        [1, 2, 3],
        text(1, 400)[-3:].tolist(),
        text(1, 400)[20:26].tolist(),
    ):
        total = sum(math.exp(model.log_probs([*context, w])[-1]) for w in range(11))
        assert total == pytest.approx(1, abs=1e-12)


def test_no_word_is_impossible_however_regular_the_text():
    assert np.isfinite(
        KneserNey(np.tile([0, 1, 2], 50), 3, 11).log_probs([0, 1, 2, 9, 0, 0, 10, 10])
    ).all()


def test_order_zero_is_the_uniform_guess():
    report = KneserNey(text(1, 50), 0, 11).report(text(2, 20))
    assert report.nll == pytest.approx(math.log(11)) and report.confidence == pytest.approx(1 / 11)
    assert report.position.tolist() == [0] * 19


def test_position_counts_the_context_an_order_can_use():
    assert KneserNey(text(1, 50), 3, 11).report(text(2, 6)).position.tolist() == [1, 2, 2, 2, 2]


def test_the_order_is_tuned_on_validation():
    train, valid = text(1, 3000), text(2, 500)
    best, models, losses = best_order(train, valid, range(6), 11)
    assert list(losses) == [0, 1, 2, 3, 4, 5] and all(
        losses[best] <= loss for loss in losses.values()
    )
    for order, model in models.items():  # shared counts change nothing
        alone = KneserNey(train, order, 11).log_probs(valid)
        np.testing.assert_array_equal(model.log_probs(valid), alone)
        assert losses[order] == pytest.approx(-alone[1:].mean(), rel=1e-12)


@pytest.mark.parametrize(
    "ids, order, match",
    [
        ([1, 2], 3, "no 3-gram"),
        ([], 0, "0 training"),
        ([1, 11], 1, "1 to 11"),
        ([-1, 2], 1, "-1 to 2"),
    ],
)
def test_what_cannot_be_counted_is_refused(ids, order, match):
    with pytest.raises(ValueError, match=match):
        count_grams(ids, order, 11)


def test_a_negative_order_is_refused():
    with pytest.raises(ValueError, match="order -1"):
        KneserNey([1, 2], -1, 11)


@needs_corpora
def test_tiny_shakespeare_at_order_7():
    letters = (Path(CORPORA) / "tinyshakespeare/input.txt").read_text(encoding="utf-8")
    known = sorted(set(letters))
    ids = np.array([known.index(letter) for letter in letters])
    cut = int(0.9 * len(ids))  # nanoGPT's split
    best, models, losses = best_order(ids[:cut], ids[cut:], range(1, 9), len(known))
    assert best == 7 and -models[7].log_probs(ids[cut:]).mean() == pytest.approx(1.5165, abs=5e-5)
    assert list(losses.values()) == pytest.approx(
        [3.3473, 2.4835, 2.0381, 1.7191, 1.5612, 1.5226, 1.5165, 1.5192], abs=6e-5
    )


@needs_corpora
def test_wikitext_2_at_order_5():
    def words(part):
        lines = (Path(CORPORA) / f"wikitext-2/{part}.txt").read_text(encoding="utf-8").splitlines()
        return [word for line in lines for word in (*line.split(), "<eos>")]

    train, test = words("train"), words("test")
    index = {word: i for i, word in enumerate(dict.fromkeys([*train, *words("valid"), *test]))}
    assert (len(index), len(test)) == (33_278, 245_569)
    train, test = (np.array([index[word] for word in part]) for part in (train, test))
    levels = count_grams(train, 5, len(index))
    for order, want in ((1, 911.7), (2, 264.0), (3, 224.4), (5, 217.8)):
        assert math.exp(
            -KneserNey(train, order, len(index), levels).log_probs(test).mean()
        ) == pytest.approx(want, abs=0.06)
