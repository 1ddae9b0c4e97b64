"""Timings in fresh processes: one process shows the luck of its memory layout and of its minute.

A measurement runs whole in each of several new processes, one after another; what is reported is
the spread between them.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process

import numpy as np
import pandas as pd
import torch
from scipy.stats import t


def in_processes(
    measure: Callable[..., dict[str, pd.DataFrame]],
    processes: int,
    *arguments,
    threads: int = 1,
    done: Callable[[int], None] | None = None,
    **options,
) -> dict[str, pd.DataFrame]:
    """`measure(*arguments, **options)` in as many fresh processes, one after another.

    `measure` is a function of a module and returns tables of samples by name; a column `process`
    counts from 0. `done(1)` is called after each. An exception of a process is raised here.
    """
    if processes < 1:
        raise ValueError(f"processes {processes} measures nothing: give at least 1")
    found = []
    for _ in range(processes):
        spawn = get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn, initializer=end_with_parent) as pool:
            found.append(pool.submit(_measured, measure, threads, arguments, options).result())
        if done:
            done(1)
    return {
        name: pd.concat([tables[name].assign(process=i) for i, tables in enumerate(found)])
        for name in found[0]
    }


def end_with_parent() -> None:
    """Ends this process when the one that started it dies, however: a killed kernel leaves none."""

    def watch():
        parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _measured(measure, threads, arguments, options):
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    return measure(*arguments, **options)


def process_ratios(samples: pd.DataFrame, slow: str, fast: str) -> pd.Series:
    """Median of seconds(slow) / seconds(fast) of each process, paired by repeat; the index is the
    process. `samples` has the columns process, name, repeat, seconds."""
    wide = samples.pivot(index=["process", "repeat"], columns="name", values="seconds")
    return (wide[slow] / wide[fast]).groupby(level="process").median()


def process_medians(samples: pd.DataFrame) -> pd.DataFrame:
    """Median seconds of each name in each process: index process, columns name."""
    return samples.pivot_table(index="process", columns="name", values="seconds", aggfunc="median")


def over_processes(values, level: float = 0.95) -> dict[str, float]:
    """Geometric mean of one positive value a process with its interval, and how far apart they lie.

    The interval is Student's, of the logarithms; processes are its unit, so it says what another
    process of this machine in this hour would show. `spread` is the largest over the smallest. One
    process has no interval: `low` and `high` are NaN, and no bar is decided by it.
    """
    logs = np.log(np.asarray(values, dtype=float))
    mean, n = logs.mean(), len(logs)
    half = t.ppf((1 + level) / 2, n - 1) * logs.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
    return {
        "estimate": float(np.exp(mean)),
        "low": float(np.exp(mean - half)),
        "high": float(np.exp(mean + half)),
        "spread": float(np.exp(logs.max() - logs.min())),
        "processes": n,
    }


def speedup(samples: pd.DataFrame, slow: str, fast: str) -> dict[str, float]:
    """How many times `fast` is as fast as `slow`, over processes; see `over_processes`."""
    return over_processes(process_ratios(samples, slow, fast))
