"""Interpolated modified Kneser-Ney n-grams (Chen and Goodman 1999): the opponent every model here
must beat.

An n-gram is known by a dense integer: its rank among the sorted keys `rank of its first n-1 tokens
· V + last token`. So a table is a sorted int64 array, a look-up is a binary search, and everything
is one numpy call a level."""

from dataclasses import dataclass

import numpy as np

from ..fields import whole
from .ids import as_ids
from .losses import TokenReport


@dataclass(frozen=True)
class _Grams:
    """The distinct n-grams of one length in the training text."""

    keys: np.ndarray  # sorted; key // V is the rank of the prefix one level down
    counts: np.ndarray  # how often each occurs
    suffix: np.ndarray  # rank, one level down, of each without its first token


def count_grams(ids, order: int, vocab_size: int) -> list[_Grams]:
    """The n-grams of lengths 1 ... order of ids (N,); level n is at index n - 1."""
    ids = as_ids(ids, vocab_size)
    if len(ids) < max(order, 1):
        raise ValueError(
            f"{len(ids)} training token(s) hold no {order}-gram: give more text or lower the order"
        )
    # Rank of the n-gram that starts at each token; of n = 0 there is one.
    levels, rank = [], np.zeros(len(ids) + 1, dtype=np.int64)
    for n in range(1, order + 1):
        key = rank[: len(ids) - n + 1] * vocab_size + ids[n - 1 :]
        keys, first, inverse, counts = np.unique(
            key, return_index=True, return_inverse=True, return_counts=True
        )
        levels.append(_Grams(keys, counts, rank[first + 1]))
        rank = inverse
    return levels


class KneserNey:
    """A modified Kneser-Ney model of the given order; order 0 is the uniform guess, 1 the unigram,
    2 the bigram.

    Contexts cross line ends; one never seen falls back to the lower order. `levels` reuses
    `count_grams` of the same text."""

    def __init__(self, train_ids, order: int, vocab_size: int, levels: list[_Grams] | None = None):
        order = whole("order", order, 0)
        self.order, self.vocab_size = order, vocab_size
        self.levels = (count_grams(train_ids, order, vocab_size) if levels is None else levels)[
            :order
        ]
        # Below the top, an n-gram counts once for each different token seen before it.
        counts = [level.counts for level in self.levels]
        for n in range(order - 2, -1, -1):
            above = self.levels[n + 1]
            counts[n] = np.bincount(
                above.suffix[counts[n + 1] > 0], minlength=len(self.levels[n].keys)
            )
        self.p, self.backoff, self.best = [], [], []
        for n, count in enumerate(counts):
            self._fit(n, count)

    def _fit(self, n, count):
        """p(gram), back-off weight and most probable successor of each context, at level n (length
        n + 1)."""
        grams, contexts = self.levels[n], len(self.levels[n - 1].keys) if n else 1
        context = grams.keys // self.vocab_size
        total = np.bincount(context, weights=count, minlength=contexts)
        discount = _discounts(count)[np.minimum(count, 3)]
        backoff = np.bincount(context, weights=discount, minlength=contexts) / np.maximum(total, 1)
        backoff[total == 0] = 1.0  # nothing ever followed: the lower order decides alone
        lower = self.p[n - 1][grams.suffix] if n else 1 / self.vocab_size
        p = (
            np.maximum(count - discount, 0) / np.maximum(total, 1)[context]
            + backoff[context] * lower
        )
        self.p.append(p)
        self.backoff.append(backoff)
        self.best.append(_most_probable(context, contexts, p))

    def _walk(self, ids):
        """Per token of ids (N,): its probability, the most probable token and that one's
        probability."""
        ids = as_ids(ids, self.vocab_size)
        V, N = self.vocab_size, len(ids)
        p, top, top_p = np.full(N, 1 / V), np.zeros(N, dtype=np.int64), np.full(N, 1 / V)
        # Of the context of n tokens before each token, -1 if never seen.
        rank = np.zeros(N, dtype=np.int64)
        for n, grams in enumerate(self.levels):
            at = np.flatnonzero(rank >= 0)
            context = rank[at]
            p[at] *= self.backoff[n][context]
            top_p[at] *= self.backoff[n][context]
            gram = _find(grams.keys, context * V + ids[at])
            known = gram >= 0
            p[at[known]] = self.p[n][gram[known]]
            best = self.best[n][context]
            better = (best >= 0) & (self.p[n][best] > top_p[at])
            top[at[better]], top_p[at[better]] = (
                grams.keys[best[better]] % V,
                self.p[n][best[better]],
            )
            # The context of n + 1 tokens before token t is the gram of that length that ends at t -
            # 1.
            rank[:] = -1
            rank[at[at + 1 < N] + 1] = gram[at + 1 < N]
        return p, top, top_p

    def log_probs(self, ids) -> np.ndarray:
        """Natural log-probability of every token of ids (N,), the first one from an empty context;
        ValueError for ids outside the vocabulary."""
        return np.log(self._walk(ids)[0])

    def report(self, ids) -> TokenReport:
        """The same per-token arrays as `token_report` gives for a model: (N - 1,), the first token
        left out."""
        ids = as_ids(ids, self.vocab_size)
        if len(ids) < 2:
            raise ValueError(f"{len(ids)} token(s) leave nothing to predict: give at least 2")
        p, top, top_p = self._walk(ids)
        position = np.minimum(np.arange(1, len(p)), max(self.order - 1, 0))
        return TokenReport(-np.log(p[1:]), top[1:] == ids[1:], top_p[1:], position)


def best_order(
    train, valid, orders, vocab_size: int
) -> tuple[int, dict[int, KneserNey], dict[int, float]]:
    """The order of lowest loss on `valid` among `orders`; the model of each order, and its nats a
    token (all but the first)."""
    levels = count_grams(train, max(orders), vocab_size)
    models = {order: KneserNey(train, order, vocab_size, levels) for order in orders}
    losses = {order: float(model.report(valid).nll.mean()) for order, model in models.items()}
    return min(losses, key=losses.get), models, losses


def _discounts(count):
    """D(0 ... 3+) of Chen and Goodman (1999, eq. 26) from how many n-grams have count 1 ... 4.

    Where a text is too small to estimate one, or the estimate is not positive, Ney's single
    discount stands in: every discount is positive, so no word ever has probability 0."""
    k = np.bincount(np.minimum(count, 5), minlength=6)
    y = k[1] / (k[1] + 2 * k[2]) if k[1] else 0.5
    estimates = [min(i - (i + 1) * y * k[i + 1] / k[i], i) if k[i] else 0.0 for i in (1, 2, 3)]
    return np.array([0.0] + [d if d > 0 else y for d in estimates])


def _find(keys, wanted):
    """Index of each wanted key in the sorted keys, -1 where it is absent."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, at, -1)


def _most_probable(context, contexts, p):
    """The n-gram of highest p in each of `contexts` contexts (ties to the smaller token), -1 where
    nothing followed."""
    best = np.full(contexts, -1, dtype=np.int64)
    ascending = np.lexsort((-np.arange(len(p)), p))
    best[context[ascending]] = ascending  # the last written stays
    return best
