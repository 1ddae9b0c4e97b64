"""Jobs side by side, in worker processes of one thread each.

Matrices as small as these leave a second thread little to do: two jobs of one thread are done
sooner than one job of two threads after another. A job runs on one thread wherever it runs, so
what it finds does not depend on how many run beside it."""

import ctypes
import os
import platform
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context

import torch

from .processes import end_with_parent

LOOK_S = 0.2  # how often progress is told
# mallopt's names (malloc.h) for how large a block must be to get pages of its own from the system,
# and how much free memory at the end of the heap goes back to it.
MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
LARGE = 1 << 25  # bytes, the most that glibc takes for the first
_own = {}  # in a worker process: what it was given when it began


class JobFailed(RuntimeError):
    """A job raised; the message names it and says what, on one line."""


class WorkerDied(RuntimeError):
    """A worker process ended in the middle of a job; the message names what was at work."""


class Stopped(Exception):
    """Ends a job whose result nobody waits for."""


def at_once(threads: int, jobs: int) -> int:
    """How many jobs run side by side: one a thread, no more than there are cores or jobs."""
    return max(min(threads, os.cpu_count() or 1, jobs), 1)


def ticks(progress: Callable | None, total: int, what: str) -> Callable[[int], None] | None:
    """What is told of steps taken: the `update` of a bar of so many, `progress(total, what)` as
    `nb.progress` gives it; None where nobody asks."""
    return progress(total, what).update if progress else None


def side_by_side(
    job: Callable, items: Sequence, shared, *, workers: int = 1, done=None, cost=None
) -> list:
    """[job(item, shared, tick) for item in items], in their order, in `workers` fresh processes;
    one worker is this process itself.

    `job` is a function of a module; `shared`, the items and the results are pickled and hold no
    tensors. A job calls `tick(steps it has taken)` as it goes, and `done` is told how many more
    steps all have taken. What has the largest `cost(item)` begins first. What a dead worker left is
    done once more; a second death, as the first failure, ends all: WorkerDied or JobFailed, which
    name the item by its str. So does an interrupt, and no worker outlives this process."""
    done = done or (lambda steps: None)
    if workers <= 1:
        return _in_turn(job, items, shared, done)
    found, spawn = {}, get_context("spawn")
    order = sorted(range(len(items)), key=lambda i: -cost(items[i]) if cost else i)
    taken = spawn.Array("q", [-1] * len(items) + [0, 0], lock=False)
    begin = partial(ProcessPoolExecutor, workers, spawn, _enter, (shared, taken))
    try:
        _beside(begin, job, items, order, taken, found, done)
    except WorkerDied:
        _beside(begin, job, items, order, taken, found, done)
    return [found[i] for i in range(len(items))]


def _beside(begin, job, items, order, taken, found, done):
    """Puts into `found` what is not there. `taken`: steps of each, those told, whether to stop."""
    rest = [i for i in order if i not in found]
    for i in rest:
        taken[i] = -1
    futures = {}
    with begin() as pool:
        try:
            futures |= {pool.submit(_run, job, i, items[i]): i for i in rest}
            # The pool watches the workers that it had when a submit last woke it, and wakes before
            # it starts one: without a submit more, the death of the last would go unseen.
            pool.submit(int)
            _gather(futures, items, taken, found, done)
        except WorkerDied:  # the pool has ended the others
            raise
        except BaseException:
            taken[-1] = 1  # leaving the block waits until all have seen it
            for future in futures:
                future.cancel()
            raise


def _in_turn(job, items, shared, done):
    found = []
    with one_thread():
        for item in items:
            try:
                found.append(job(item, shared, _ticker(done)))
            except Exception as error:
                raise JobFailed(_line(item, error)) from error
    return found


def _ticker(done):
    """Takes how many steps were taken in all, and tells how many more."""
    told = 0

    def tick(steps):
        nonlocal told
        done(steps - told)
        told = steps

    return tick


@contextmanager
def one_thread():
    """One thread of torch and gradients on; both as they were afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.enable_grad():
            yield
    finally:
        torch.set_num_threads(before)


def _gather(futures, items, taken, found, done):
    """Puts results in `found` as they come; raises what the first failed job says."""
    pending = set(futures)
    while pending:
        ended, pending = wait(pending, LOOK_S, FIRST_COMPLETED)
        now = sum(max(steps, 0) for steps in taken[:-2])
        now = max(now, taken[-2])  # it is less where a job begins anew
        done(now - taken[-2])
        taken[-2] = now
        for future in ended:
            i = futures[future]
            try:
                found[i] = future.result()
            except BrokenProcessPool as error:
                begun = [i for i in futures.values() if taken[i] >= 0 and i not in found]
                raise WorkerDied(_death([str(items[i]) for i in begun])) from error
            except Exception as error:
                raise JobFailed(_line(items[i], error)) from error


def _line(item, error) -> str:
    return f"{item}: {type(error).__name__}: {' '.join(str(error).split())}"


def _death(begun) -> str:
    where = f"at {' or '.join(begun)}" if begun else "before its first job"
    return (
        f"a worker process died {where}, probably out of memory: close other programs, or lower "
        "threads, so that fewer run at once"
    )


def _enter(shared, taken) -> None:
    """What a worker does first; an interrupt is the parent's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    keep_memory()
    torch.set_num_threads(1)
    _own.update(shared=shared, taken=taken)


def keep_memory() -> bool:
    """Whether this process keeps the memory that it frees, for the next tensor: by default glibc
    gives large blocks back at once, and every step of a training pays a fault for each of their
    pages again (4,800 of them, a tenth of its time, at the paper's shape)."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_THRESHOLD, LARGE) and mallopt(TRIM_THRESHOLD, 2**31 - 1))


def _run(job, i, item):
    taken = _own["taken"]

    def tick(steps):
        if taken[-1]:
            raise Stopped
        taken[i] = steps

    tick(0)
    return job(item, _own["shared"], tick)
