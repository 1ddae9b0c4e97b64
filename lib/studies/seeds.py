"""What the luck of a seed allows to be said: of models that are trained, the seed is the unit.

A comparison is paired by seed. Where several are made, Holm's correction over all of them decides
which words are used (Holm 1979), and every interval is Bonferroni's over as many, so that all hold
together at 95 %.
"""

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


def one_more(values) -> Estimate:
    """Mean of a value a seed, and where a single further run falls with 95 %: the prediction
    interval."""
    if not len(values):
        return Estimate()
    found = t_interval(values)
    return Estimate(found.mean, found.one_more)


def smallest_shown(sd: float, n: int, comparisons: int = 1) -> float:
    """The difference that `n` pairs whose differences spread by `sd` show with 80 % power, at 5 %
    over so many comparisons (Bonferroni; exact, by the noncentral t)."""
    critical, df = t.isf(LEVEL / comparisons / 2, n - 1), n - 1
    shift = brentq(lambda shift: nct.sf(critical, df, shift) - POWER, 0, 4 * critical + 4)
    return float(shift * sd / np.sqrt(n))


def unsure(values) -> float:
    """The largest difference between two single trainings that their luck can make, with 95 %, by
    the spread of `values`, one a seed."""
    n = len(values)
    return float(np.sqrt(2) * np.std(values, ddof=1) * t.ppf(1 - LEVEL / 2, n - 1))


def told(values) -> str:
    """What models that were each trained once leave open, in a sentence."""
    if len(values) < 2:
        return "Every model was trained once."
    return (
        f"Every model was trained once: by the spread of {len(values)} shorter trainings that "
        f"differ in their seed, a difference of less than {unsure(values):.2f} nats is not surely "
        "the models'."
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
        row |= {"difference_nats": found.mean, "low": low, "high": high, "p": found.pvalue}
        rows.append(row)
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table.p)
    table["reading"] = np.where(table.difference_nats > 0, WORSE, BETTER)
    table.loc[table.p_holm >= LEVEL, "reading"] = UNCLEAR
    return table


def least_of(table: pd.DataFrame, reading: str) -> tuple[float, float]:
    """Of the changes that have this reading, the smallest and the largest of the least differences
    that would have shown, in nats."""
    least = table[table.reading == reading].smallest_nats
    return least.min(), least.max()


def listed(table: pd.DataFrame, *readings: str) -> str:
    """The changes that have one of these readings, with their size, the largest first; or none."""
    found = table[table.reading.isin(readings)]
    found = found.sort_values("difference_nats", key=abs, ascending=False)
    sizes = [minus(f"{size:+.3f}") for size in found.difference_nats]
    told = [f"{name} {size} nats" for name, size in zip(found.change, sizes, strict=True)]
    return ", ".join(told) or "none"
