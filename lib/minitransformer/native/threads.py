"""How many threads a model has, and how large work must be for a second one to pay here."""

import os
import time
from ctypes import byref
from functools import cache

import torch

from ..fields import whole
from .build import library
from .pack import LANES
from .structs import Matrix, Model

MOST_THREADS = 64
COLUMNS, ROWS = 256, 1024  # of the largest product that is timed: 1 MiB
TRIES = 9


def shared(threads: int | None, variant: str) -> tuple[int, int]:
    """The threads of a model, and the bytes that each must be given. A number is that number, each
    given whatever there is; None is PyTorch's, each given what was measured to pay, or one where
    nothing does. ValueError for what is no number of threads."""
    if threads is not None:
        return whole("threads", threads, 1, MOST_THREADS), 1
    most = min(torch.get_num_threads(), cores(), MOST_THREADS)
    pays = pays_above(variant) if most > 1 else None
    return (1, 1) if pays is None else (most, pays // 2)


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def pays_above(variant: str = "native") -> int | None:
    """Bytes of a product from which on two threads are a tenth faster than one, at every size
    tried; None where they are at none. Measured when it is first asked for in a process, in
    milliseconds: what other work leaves of the machine counts."""
    found, rows = None, ROWS
    weights, x, y = torch.ones(ROWS * COLUMNS), torch.ones(COLUMNS), torch.empty(ROWS)
    while rows >= 16 * LANES:
        one, two = product_seconds(library(variant), weights, x, y, rows)
        if two > 0.9 * one:
            break
        found, rows = 4 * rows * COLUMNS, rows // 2
    return found


def product_seconds(engine, weights, x, y, rows: int) -> list[float]:
    """The least seconds of a product of so many rows on one thread and on two, tried in turn, each
    after one of its own kind."""
    matrix = Matrix(data=weights.data_ptr(), rows=rows, columns=COLUMNS, bits=32, group=1)
    matrix.column, matrix.panel = LANES, LANES * COLUMNS
    least, sides = [float("inf")] * 2, []
    for threads in (1, 2):
        model = Model(threads=threads, grain=1, heads=1, kv_heads=1, head_dim=LANES, width=COLUMNS)
        sides.append((model, torch.zeros(engine.engine_arena(byref(model), 1, 0))))
    for _ in range(TRIES):
        for i, (model, arena) in enumerate(sides):
            call = byref(model), byref(matrix), x.data_ptr(), 1, y.data_ptr(), arena.data_ptr()
            engine.engine_multiply(*call)
            began = time.perf_counter()
            engine.engine_multiply(*call)
            least[i] = min(least[i], time.perf_counter() - began)
    return least
