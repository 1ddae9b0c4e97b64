"""What the luck of a seed allows to be said: of models that are trained, the seed is the unit.

A comparison is paired by seed. Where several are made, Holm's correction over all of them decides
which words are used (Holm 1979), and every interval is Bonferroni's over as many, so that all hold
together at 95 %."""

from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import nct, t

from minitransformer.evaluate import holm, t_interval

from .words import minus

LEVEL, POWER = 0.05, 0.8
WORSE, BETTER, UNCLEAR = "worse", "better", "no evidence of a difference"


class Estimate(NamedTuple):
    """A number over seeds and its interval; both None where there was nothing to see."""

    value: float | None = None
    interval: tuple[float, float] | None = None


def family_level(comparisons: int) -> float:
    """The confidence of one interval, so that as many hold together at 95 %."""
    return 1 - LEVEL / max(comparisons, 1)


def mean(values, level: float = 1 - LEVEL) -> Estimate:
    """Mean of a value a seed, and its t interval."""
    if not len(values):
        return Estimate()
    found = t_interval(values, level)
    return Estimate(found.mean, found.interval)


def means(table: pd.DataFrame, by: list[str], column: str) -> pd.DataFrame:
    """Of each group of a table with a row a seed the `mean` of a column: `by`, it, low, high."""
    groups = table.groupby(by, sort=False)[column]
    found = [(key, mean(own)) for key, own in groups]
    rows = [(*key, own.value, *own.interval) for key, own in found]
    return pd.DataFrame(rows, columns=[*by, column, "low", "high"])


def one_more(values) -> Estimate:
    """Mean of a value a seed, and where a single further run falls with 95 %: the prediction
    interval."""
    if not len(values):
        return Estimate()
    found = t_interval(values)
    return Estimate(found.mean, found.one_more)


def one_more_perplexity(nats) -> Estimate:
    """`one_more` of losses as a perplexity; its interval is made in nats."""
    found = one_more(nats)
    if found.value is None:
        return found
    low, high = np.exp(found.interval)
    return Estimate(float(np.exp(found.value)), (float(low), float(high)))


def of(table: pd.DataFrame, name: str) -> Estimate:
    """The estimate of the row that the first column of a table calls `name`: the column before
    "low", with low and high."""
    row = table.set_index(table.columns[0]).loc[name]
    return Estimate(row.iloc[row.index.get_loc("low") - 1], (row.low, row.high))


def luck(values) -> str:
    """By how much losses spread, one a seed, and between which bounds a further one falls, in a
    sentence; "" for a single one."""
    if len(values) < 2:
        return ""
    low, high = one_more(values).interval
    return (
        f"Over {len(values)} shorter runs the validation loss has a standard deviation of "
        f"{np.std(values, ddof=1):.3f} nats; a further one falls with 95 % between {low:.3f} and "
        f"{high:.3f}."
    )


def smallest_shown(sd: float, n: int, comparisons: int = 1) -> float:
    """The difference that `n` pairs whose differences spread by `sd` show with 80 % power, at 5 %
    over so many comparisons (Bonferroni; exact, by the noncentral t)."""
    critical, df = t.isf(LEVEL / comparisons / 2, n - 1), n - 1
    shift = brentq(lambda shift: nct.sf(critical, df, shift) - POWER, 0, 4 * critical + 4)
    return float(shift * sd / np.sqrt(n))


def unsure(values) -> float:
    """The largest difference between two single trainings that their luck can make, with 95 %, by
    the spread of `values`, one a seed."""
    return float(np.sqrt(2) * np.std(values, ddof=1) * t.ppf(1 - LEVEL / 2, len(values) - 1))


def in_words(values, losses: dict[str, float]) -> str:
    """What models that were each trained once leave open of the differences between their `losses`,
    in a sentence or two, by the spread of `values`, one a seed of shorter trainings."""
    if len(values) < 2:
        return "Every model was trained once."
    least, pairs = unsure(values), list(combinations(losses, 2))
    clear = [(a, b) for a, b in pairs if abs(losses[a] - losses[b]) >= least]
    each = "; ".join(f"{a} and {b}" for a, b in clear)
    return (
        f"Every model was trained once: by the spread of {len(values)} shorter trainings that "
        f"differ in their seed, a difference of less than {least:.2f} nats is not surely the "
        f"models'. Of the {len(pairs)} pairs of trained models {len(clear)} are farther apart"
        + (f": {each}." if 0 < len(clear) < 4 else ".")
    )


def effects(losses: pd.DataFrame, default: str = "default") -> pd.DataFrame:
    """A row for each column but `default`, against it, paired by row: pairs, the smallest change
    that they show, the mean change and its interval over the family, p, Holm's p, what it says.

    `losses` has a row a seed and a column an arm, lower being better; one that a seed lacks (NaN)
    is compared over the seeds that it has, which is fair where none is missing for its loss."""
    rows, others = [], [name for name in losses if name != default]
    for name in others:
        change = (losses[name] - losses[default]).dropna()
        found, (low, high) = t_interval(change), mean(change, family_level(len(others))).interval
        row = {"change": name, "pairs": found.n}
        row["smallest_nats"] = smallest_shown(found.sd, found.n, len(others))
        row |= {"difference_nats": found.mean, "low": low, "high": high}
        rows.append(row | {"p": found.pvalue})
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table.p)
    table["reading"] = np.where(table.difference_nats > 0, WORSE, BETTER)
    table.loc[table.p_holm >= LEVEL, "reading"] = UNCLEAR
    return table


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """`effects` for readers: p after Holm alone, four decimals."""
    return table.drop(columns="p").rename(columns={"p_holm": "p after Holm"}).round(4)


def power(table: pd.DataFrame) -> str:
    """What change `effects` would show, in a sentence."""
    return (
        f"With {table.pairs.max()} paired seeds and {len(table)} comparisons a change shows from "
        f"{table.smallest_nats.min():.4f} nats up where the pairs spread least, and from "
        f"{table.smallest_nats.max():.4f} where they spread most."
    )


def undecided(table: pd.DataFrame, settled: list[str]) -> pd.DataFrame:
    """The changes of `effects` that neither these decide nor longer arms, which have `settled`
    some."""
    return table[(table.reading == UNCLEAR) & ~table.change.isin(settled)]


def unseen(none: pd.DataFrame) -> tuple[str, str, str, str]:
    """Changes of `effects` that are not decided, as a negative result: title, what was expected,
    what was found, why."""
    return (
        "choices that make no difference that can be seen",
        "Each might matter.",
        f"No evidence of a difference: {listed(none, UNCLEAR)}.",
        f"With {none.pairs.max()} paired seeds such a change must reach "
        f"{none.smallest_nats.min():.4f} to {none.smallest_nats.max():.4f} nats, by arm.",
    )


def listed(table: pd.DataFrame, *readings: str) -> str:
    """The changes of `effects` that have one of these readings, or are decided, with their size,
    the largest first; or none."""
    found = table[table.reading.isin(readings or (WORSE, BETTER))]
    found = found.sort_values("difference_nats", key=abs, ascending=False)
    sizes = [minus(f"{size:+.3f}") for size in found.difference_nats]
    told = [f"{name} {size} nats" for name, size in zip(found.change, sizes, strict=True)]
    return ", ".join(told) or "none"
