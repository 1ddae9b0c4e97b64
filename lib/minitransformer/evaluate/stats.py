"""Uncertainty: block bootstrap over tokens, paired differences, t intervals over seeds, Holm's
correction, group means.

Losses of neighbouring tokens depend on one another, so tokens are resampled in contiguous blocks
(Künsch 1989; circular, Politis and Romano 1992); runs with different seeds are independent, so they
get Student's t."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

BLOCK = 512  # tokens: longer than the dependence a training window can create


@dataclass(frozen=True)
class Difference:
    """Mean of a - b over `n` pairs, its standard error and 95 % interval, in the unit of a and
    b."""

    mean: float
    interval: tuple[float, float]
    stderr: float
    n: int


@dataclass(frozen=True)
class TInterval:
    """Mean of `n` independent values, their standard deviation, 95 % interval, and the p-value of
    "the mean is 0"."""

    mean: float
    interval: tuple[float, float]
    sd: float
    pvalue: float
    n: int

    @property
    def one_more(self) -> tuple[float, float]:
        """Where one further value would fall, at the same level: the prediction interval, wider
        than that of the mean by sqrt(1 + n)."""
        half = (self.interval[1] - self.mean) * math.sqrt(1 + self.n)
        return self.mean - half, self.mean + half


def _block(n: int, block: int) -> int:
    """The block length used on `n` tokens: the one asked for, less when the text has not even eight
    of them."""
    if n < 1 or block < 1:
        raise ValueError(f"{n} values in blocks of {block}: both must be at least 1")
    return max(1, min(block, n // 8))


def _resampled_means(values, block, n, seed):
    """Column means of `n` circular block resamples: (N, K) -> (n, K)."""
    N = len(values)
    block = _block(N, block)
    sums = np.cumsum(
        np.concatenate([np.zeros((1, values.shape[1])), values, values[: block - 1]]), axis=0
    )
    # The mean of the block that starts at each token: (N, K).
    means = (sums[block:] - sums[:-block]) / block
    k = math.ceil(N / block)
    starts = np.random.default_rng(seed).integers(0, N, size=(n, k))
    centre = values.mean(axis=0)
    # k blocks may hold a few tokens more than N: rescale the spread to N tokens.
    return centre + (means[starts].mean(axis=1) - centre) * math.sqrt(k * block / N)


def block_bootstrap(
    values, statistic=None, block: int = BLOCK, n: int = 1000, seed: int = 0, level: float = 0.95
):
    """Interval (low, high) of a function of means over tokens in text order, by circular block
    bootstrap.

    values (N,) or (N, K). statistic maps the resampled means, (n,) or (n, K), to (n,); None is the
    mean itself, `np.exp` makes perplexities of losses, `lambda m: m[:, 0] / m[:, 1]` a ratio.
    `seed` may be a numpy Generator."""
    values = np.asarray(values, dtype=np.float64)
    means = _resampled_means(values[:, None] if values.ndim == 1 else values, block, n, seed)
    means = means[:, 0] if values.ndim == 1 else means
    drawn = means if statistic is None else statistic(means)
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def block_stderr(values, block: int = BLOCK) -> float:
    """Standard error of the mean of values in text order, from the spread of the means of adjacent
    blocks."""
    values = np.asarray(values, dtype=np.float64)
    block = _block(len(values), block)
    k = len(values) // block
    if k < 2:
        return float("nan")
    means = values[: k * block].reshape(k, block).mean(axis=1)
    return float(means.std(ddof=1) * math.sqrt(block / len(values)))


def paired_difference(a, b, block: int = BLOCK, n: int = 1000, seed: int = 0) -> Difference:
    """Mean of a - b over the same tokens (losses in nats, in text order), with a block-bootstrap
    interval."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(
            f"shapes {a.shape} and {b.shape} cannot be paired: give two arrays over the same tokens"
        )
    d = a - b
    return Difference(
        float(d.mean()),
        block_bootstrap(d, block=block, n=n, seed=seed),
        block_stderr(d, block),
        len(d),
    )


def recovered(own, worse, full, block: int = BLOCK) -> tuple[float, float, float]:
    """What `own` recovers of the loss from `full` to `worse`, in %, with a 95 % interval (block
    bootstrap): (share, low, high).

    Three arrays of losses over the same tokens, in text order: 100 where `own` is as good as
    `full`, 0 where as bad as `worse`."""
    both = np.stack([own - full, worse - full], axis=1)
    if not both[:, 1].mean():
        raise ValueError(
            "worse and full lose the same on average: there is nothing to recover, compare them"
            " with paired_difference"
        )

    def share(means):
        return 100 * (1 - means[..., 0] / means[..., 1])

    return float(share(both.mean(axis=0))), *block_bootstrap(both, share, block)


def beats_oracle(losses, oracle_losses, block: int = BLOCK) -> float:
    """By how many standard errors the losses lie below the oracle's on the same tokens: above 3,
    something leaks.

    Nobody beats the true probabilities on average, so a large positive score means that a
    prediction saw its answer (a shifted target, a hole in the causal mask, a test split seen in
    training)."""
    d = paired_difference(oracle_losses, losses, block, n=1)
    return d.mean / d.stderr if d.stderr else math.copysign(math.inf, d.mean) if d.mean else 0.0


def t_interval(x, level: float = 0.95) -> TInterval:
    """Student's t interval of the mean of independent values (seeds, or paired differences by
    seed), df = n - 1."""
    x = np.asarray(x, dtype=np.float64)
    n = len(x)
    if n < 2:
        raise ValueError(f"{n} value(s) have no spread: give at least 2 runs")
    mean, sd = float(x.mean()), float(x.std(ddof=1))
    half = float(scipy_stats.t.ppf((1 + level) / 2, n - 1)) * sd / math.sqrt(n)
    score = mean / (sd / math.sqrt(n)) if sd else math.copysign(math.inf, mean) if mean else 0.0
    return TInterval(
        mean, (mean - half, mean + half), sd, float(2 * scipy_stats.t.sf(abs(score), n - 1)), n
    )


def holm(pvalues) -> np.ndarray:
    """Holm's (1979) step-down adjusted p-values, in the order given: reject where adjusted <=
    alpha."""
    p = np.asarray(pvalues, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.minimum(1.0, p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(steps)
    return adjusted


def by_group(
    values, groups, names, block: int = BLOCK, n: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Means of values (N,) per group, groups (N,) being indices into `names`; one row a group that
    occurs.

    Columns: group, tokens, share (of all tokens), mean, low, high. The bootstrap resamples blocks
    of the whole text, so both how often a group occurs and what it costs vary."""
    values, groups = np.asarray(values, dtype=np.float64), np.asarray(groups)
    rows = []
    for i, name in enumerate(names):
        inside = groups == i
        if inside.any():
            low, high = block_bootstrap(
                np.stack([values * inside, inside], axis=1), _ratio, block, n, seed
            )
            rows.append(
                (
                    name,
                    int(inside.sum()),
                    float(inside.mean()),
                    float(values[inside].mean()),
                    low,
                    high,
                )
            )
    return pd.DataFrame(rows, columns=["group", "tokens", "share", "mean", "low", "high"])


def by_position(values, position, edges, **options) -> pd.DataFrame:
    """Means of values per bin of position: bin i holds edges[i] <= position < edges[i + 1];
    `by_group` with a `position` column.

    `position` of a row is the mean position of the tokens in the bin; tokens outside the edges are
    left out of every bin."""
    position = np.asarray(position)
    bins = np.digitize(position, edges) - 1
    names = [f"{a}-{b - 1}" for a, b in zip(edges[:-1], edges[1:], strict=False)]
    table = by_group(values, bins, names, **options)
    table.insert(
        1,
        "position",
        [float(position[bins == names.index(name)].mean()) for name in table["group"]],
    )
    return table


def _ratio(means):
    with np.errstate(
        invalid="ignore"
    ):  # a resample may miss a rare group: it is left out of the quantiles
        return means[:, 0] / means[:, 1]
