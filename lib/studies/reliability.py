"""Does a model know what it knows?"""

import numpy as np
import pandas as pd

from minitransformer.evaluate import (
    block_bootstrap,
    by_group,
    calibration,
    expected_calibration_error,
)

from .seeds import Estimate

BINS = 10
LEAST = 100  # tokens of a bin that is spoken of
DRAWN = 30  # of one that is drawn


def bin_of(report) -> np.ndarray:
    """The bin of confidence that each token falls into, as an index."""
    return np.clip(np.ceil(report.confidence * BINS).astype(int) - 1, 0, BINS - 1)


def table(reports: dict) -> pd.DataFrame:
    """A row a system and bin of confidence: tokens, mean confidence, share that is right, and their
    gap in percentage points with a block-bootstrap interval, paired by token; `low` and `high`
    bound the share that is right."""
    parts = []
    for name, report in reports.items():
        part = calibration(report.confidence, report.correct, BINS)
        gap = by_group(report.correct - report.confidence, bin_of(report), range(BINS))
        percent = (100 * part[["low", "high"]]).map("{:.0f}".format)
        points = percent.low + " to " + percent.high + " %"
        part = part.drop(columns=["low", "high", "stderr"]).assign(bin=points, system=name)
        for column in ("mean", "low", "high"):
            part[f"gap_{column}"] = 100 * gap[column].to_numpy()
        parts.append(part)
    every = pd.concat(parts, ignore_index=True).rename(columns={"gap_mean": "gap_points"})
    for end in ("low", "high"):
        every[end] = every.confidence + every[f"gap_{end}"] / 100
    return every


def errors(reports: dict) -> dict[str, float]:
    """Expected calibration error of each system, as a share."""
    bins = {name: calibration(r.confidence, r.correct, BINS) for name, r in reports.items()}
    return {name: expected_calibration_error(own) for name, own in bins.items()}


def error(report) -> Estimate:
    """Expected calibration error of a system in percentage points, with a block-bootstrap interval
    over the text. What is resampled is a mean of distances, which chance can only lengthen: the
    upper end errs to the safe side, and the lower one is no higher than the estimate."""
    gap = report.correct - report.confidence
    gaps = gap[:, None] * (bin_of(report)[:, None] == np.arange(BINS))  # (N, BINS)
    low, high = block_bootstrap(gaps, lambda means: np.abs(means).sum(axis=1))
    value = 100 * float(np.abs(gaps.mean(axis=0)).sum())
    return Estimate(value, (min(100 * low, value), max(100 * high, value)))


def drawn(bins: pd.DataFrame) -> pd.DataFrame:
    """The bins of `table` with enough tokens to be drawn."""
    return bins[bins.tokens >= DRAWN]


def worst(bins: pd.DataFrame, least: int = LEAST) -> pd.Series:
    """Of all systems' bins with enough tokens (all, where none has) the one whose whole interval
    lies farthest from the diagonal, or nearest to leaving it: its row, the share that is right in
    %, and what that interval says: too sure, not sure enough, or sure enough."""
    rows = bins[bins.tokens >= least] if (bins.tokens >= least).any() else bins
    row = rows.loc[np.maximum(rows.gap_low, -rows.gap_high).idxmax()]
    said = (
        "too sure" if row.gap_high < 0 else "not sure enough" if row.gap_low > 0 else "sure enough"
    )
    return pd.concat([row, pd.Series({"right_percent": 100 * row.accuracy, "verdict": said})])
