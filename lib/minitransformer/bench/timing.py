"""Timing: interleaved repeats, medians with intervals, and the two speeds of the machine that bound
everything else."""

import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from scipy.stats import binom

from ..fields import choice, real, whole


def interleaved(
    functions: dict[str, Callable[[], object]], repeats: int, warmup: int = 1, before: int = 0
) -> pd.DataFrame:
    """Time every function `repeats` times in turn, A B C C B A …, so that drift meets all alike.

    Returns raw samples, one row each: name, repeat, seconds. Warm-up calls are not kept. `before`:
    untimed calls of a function before each timed one, which then finds in the processor's caches
    what its own last call left there, and not what another function did. ValueError for no
    function or no repeat."""
    repeats, warmup = whole("repeats", repeats), whole("warmup", warmup, 0)
    before = whole("before", before, 0)
    if not functions:
        raise ValueError("there is no function to time: give at least one")
    for _ in range(warmup):
        for function in functions.values():
            function()
    rows = []
    for repeat in range(repeats):
        order = list(functions.items())
        for name, function in order if repeat % 2 == 0 else reversed(order):
            for _ in range(before):
                function()
            began = time.perf_counter()
            function()
            rows.append({"name": name, "repeat": repeat, "seconds": time.perf_counter() - began})
    return pd.DataFrame(rows)


def median_interval(values, level: float = 0.95) -> tuple[float, float, float]:
    """Median and its distribution-free interval from order statistics; the whole range where n is
    too small for `level`. ValueError for no values, or one that is no number."""
    x = np.sort(np.asarray(values, dtype=float).reshape(-1))
    n, level = len(x), real("level", level, 0, 1)
    if n == 0 or np.isnan(x[-1]):  # sorting puts NaN last
        raise ValueError(f"{n} values with {np.isnan(x).sum()} NaN have no median: give numbers")
    outside = int(binom.ppf((1 - level) / 2, n, 0.5))  # largest k with P(X < k) <= (1 - level)/2
    low = max(outside - 1, 0)
    return float(np.median(x)), float(x[low]), float(x[n - 1 - low])


def ratio(samples: pd.DataFrame, slow: str, fast: str) -> tuple[float, float, float]:
    """Median and interval of seconds(slow) / seconds(fast), paired by repeat."""
    wide = samples.pivot(index="repeat", columns="name", values="seconds")
    for name in (slow, fast):
        choice("name", name, list(wide.columns))
    return median_interval(wide[slow] / wide[fast])


def best_of(function: Callable[[], object], repeats: int, inner: int) -> float:
    """Seconds of one call: the smallest mean of `inner` calls among `repeats`, for limits, which
    noise can only raise."""
    repeats, inner, times = whole("repeats", repeats), whole("inner", inner), []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(inner):
            function()
        times.append((time.perf_counter() - began) / inner)
    return min(times)


def read_seconds(nbytes: int, repeats: int = 20) -> float:
    """Seconds to read `nbytes` of FP32 from wherever they live: those of PyTorch's sum, less those
    of such a call for four bytes."""
    nbytes = whole("nbytes", nbytes, high=2**62)
    x = torch.ones(max(nbytes // 4, 1))
    taken = best_of(x.sum, repeats, max(1, min(1000, int(2e7 // nbytes))))
    return max(taken - best_of(x[:1].sum, repeats, 1000), taken / 100)  # noise may hide few bytes


def matmul_flops_per_second(n: int = 1024, repeats: int = 5) -> float:
    """FP32 operations a second of an n x n x n matrix product: the compute limit of this machine
    and library."""
    n = whole("n", n)
    a, b = torch.rand(n, n), torch.rand(n, n)
    return 2 * n**3 / best_of(lambda: a @ b, repeats, 1)
