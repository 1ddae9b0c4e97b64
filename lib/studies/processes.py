"""Timings in fresh processes: one process shows the luck of its memory layout and of its minute.

A chapter's measurements run whole in each of several new processes, one after another; what is
reported is the spread between them.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context, parent_process

import numpy as np
import pandas as pd
import torch
from scipy.stats import t


class Processes:
    """`count` fresh processes, each of which runs all the measurements of a chapter once, one after
    another. All start at once and import side by side while the chapter goes on: nothing is timed
    before the last of them has, and until its turn a process takes no step.

    One alone has no interval and decides nothing: it is a thread of this process, which need not
    import again, unless it has to be `apart`. `progress(total, description)` gives a bar with an
    `update`, as `nb.progress` does."""

    def __init__(
        self, count: int, threads: int = 1, progress: Callable | None = None, apart: bool = False
    ):
        if count < 1:
            raise ValueError(f"processes {count} measures nothing: give at least 1")
        self.count, self.threads, self.progress = count, threads, progress
        self.begin, self.where = _started, "fresh processes"
        if count == 1 and not apart:  # what a thread sets of gradients is its own
            self.begin, self.where = partial(ThreadPoolExecutor, 1), "a thread"
        self.started = [self.begin() for _ in range(count)]
        self.imported = [pool.submit(int) for pool in self.started]  # they have this module

    def run(self, *measures: Callable[[], dict[str, pd.DataFrame]]) -> dict[str, pd.DataFrame]:
        """Every one of `measures` in every process: tables of samples by name, with a column
        `process` that counts from 0.

        A measure is a function of a module, or a `partial` of one, that returns such tables; no
        name may be another's. Where the function has another as its attribute `ready`, all
        processes call that with the same arguments before anything is timed. An exception of a
        process is raised here.
        """
        bar = self.progress and self.progress(self.count, f"timing in {self.where}")
        found, pools = [], self.started or [self.begin() for _ in range(self.count)]
        self.started = []
        with ExitStack() as until:
            until.callback(torch.set_num_threads, torch.get_num_threads())
            for pool in pools:
                until.enter_context(pool)
            wait([pool.submit(_ready, measures) for pool in pools])
            for pool in pools:
                with pool:
                    found.append(pool.submit(_measured, measures, self.threads).result())
                if bar:
                    bar.update(1)
        return {
            name: pd.concat([tables[name].assign(process=i) for i, tables in enumerate(found)])
            for name in found[0]
        }


def in_processes(
    measure: Callable[..., dict[str, pd.DataFrame]],
    processes: int,
    *arguments,
    threads: int = 1,
) -> dict[str, pd.DataFrame]:
    """`measure(*arguments)` in `processes` fresh processes, in one too; see `Processes`."""
    return Processes(processes, threads, apart=True).run(partial(measure, *arguments))


def _started() -> ProcessPoolExecutor:
    """A pool of one process, which begins with its first job and imports this module."""
    return ProcessPoolExecutor(1, get_context("spawn"), initializer=end_with_parent)


def _ready(measures) -> None:
    """What the measures have done before anything is timed; to be given them imports their
    modules."""
    for measure in measures:
        alone = measure if isinstance(measure, partial) else partial(measure)
        if hasattr(alone.func, "ready"):
            alone.func.ready(*alone.args, **alone.keywords)


def end_with_parent() -> None:
    """Ends this process when the one that started it dies, however: a killed kernel leaves none."""

    def watch():
        parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _measured(measures, threads: int) -> dict[str, pd.DataFrame]:
    torch.set_grad_enabled(False)
    found = {}
    for measure in measures:
        torch.set_num_threads(threads)  # a measure may set its own
        tables = measure()
        if twice := found.keys() & tables.keys():
            raise ValueError(f"two measures return {min(twice)!r}: give each table its own name")
        found |= tables
    return found


def process_ratios(samples: pd.DataFrame, slow: str, fast: str) -> pd.Series:
    """Median of seconds(slow) / seconds(fast) of each process, paired by repeat; the index is the
    process. `samples` has the columns process, name, repeat, seconds."""
    wide = samples.pivot(index=["process", "repeat"], columns="name", values="seconds")
    return (wide[slow] / wide[fast]).groupby(level="process").median()


def process_medians(samples: pd.DataFrame) -> pd.DataFrame:
    """Median seconds of each name in each process: index process, columns name."""
    return samples.pivot_table(index="process", columns="name", values="seconds", aggfunc="median")


def per_token(whole, short, more: int, one: int = 1):
    """Seconds of a token: a loop of `more` less one of `one`, and with it the call and the prompt;
    where noise is more than that, all of the longer loop, and no time that was made up."""
    each = (whole - short) / (more - one)
    return each.where(each > 0, whole / more)


def average(values, level: float = 0.95) -> dict[str, float]:
    """Plain mean of one value a process, of whatever sign, with Student's interval. Of differences:
    the means of parts add up to that of the whole."""
    values, n = np.asarray(values, dtype=float), len(values)
    half = t.ppf((1 + level) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
    middle = values.mean()
    return {"estimate": middle, "low": middle - half, "high": middle + half}


def over_processes(values, level: float = 0.95) -> dict[str, float]:
    """Geometric mean of one positive value a process with its interval, and how far apart they lie.

    The interval is Student's, of the logarithms; processes are its unit, so it says what another
    process of this machine in this hour would show. `spread` is the largest over the smallest. One
    process has neither: they are NaN, and no bar is decided by it.
    """
    logs = np.log(np.asarray(values, dtype=float))
    found = {key: float(np.exp(end)) for key, end in average(logs, level).items()}
    spread = float(np.exp(logs.max() - logs.min())) if len(logs) > 1 else np.nan
    return found | {"spread": spread, "processes": len(logs)}


def as_columns(name: str, found: dict[str, float]) -> dict[str, float]:
    """What a table shows of `over_processes`'s result: `name`, its interval, and the spread."""
    return {name: found["estimate"], **{key: found[key] for key in ("low", "high", "spread")}}


def one_more(found) -> tuple[float, float]:
    """Where one more process would fall, at the same level: the prediction interval that belongs to
    the interval of the mean in `over_processes`'s result; NaN where one process has none."""
    half = np.log(found["high"] / found["estimate"]) * np.sqrt(found["processes"] + 1)
    return found["estimate"] / np.exp(half), found["estimate"] * np.exp(half)


def mean(found: dict[str, float]) -> tuple[float, tuple[float, float]]:
    """The estimate of `over_processes`, and the interval of the mean."""
    return found["estimate"], (found["low"], found["high"])


def speedup(samples: pd.DataFrame, slow: str, fast: str) -> dict[str, float]:
    """How many times `fast` is as fast as `slow`, over processes; see `over_processes`."""
    return over_processes(process_ratios(samples, slow, fast))


def gain(samples: pd.DataFrame, slow: str, fast: str) -> tuple[float, tuple[float, float]]:
    """`speedup` as its estimate and the interval of the mean."""
    return mean(speedup(samples, slow, fast))


def percent_off(case: pd.Series, ratio: pd.Series, low: pd.Series, high: pd.Series) -> pd.DataFrame:
    """By how many per cent a case, measured over predicted, lies off 1, either way: case,
    off_percent, and as low and high the least and the most that lie in its interval."""
    off, low, high = (100 * (end - 1) for end in (ratio, low, high))
    near = np.where(low * high <= 0, 0.0, np.minimum(low.abs(), high.abs()))
    far = np.maximum(low.abs(), high.abs())
    return pd.DataFrame({"case": case, "off_percent": off.abs(), "low": near, "high": far})
