"""The memory of the process, as the operating system counts it: caches, temporaries and what the
allocator keeps."""

import ctypes
import gc
from collections.abc import Callable, Iterable

import pandas as pd
import psutil

from ..fields import whole


def process_growth(make: Callable[[], Iterable], steps: int, looks: int = 32) -> pd.DataFrame:
    """Resident bytes added since before `make()` while the `steps` things that it returns come:
    tokens, process_bytes.

    Looked at after the first, at each of `looks` even parts, and after the last. What `make`
    allocates counts; so does, as noise, what the rest of this process takes or gives back
    meanwhile. Where the C library can (glibc's `malloc_trim`), what earlier work has freed goes
    back to the system first: else it is taken again, and no growth is seen."""
    steps, looks = whole("steps", steps), whole("looks", looks)
    gc.collect()
    _give_back()
    process, rows = psutil.Process(), []
    before = process.memory_info().rss
    every = max(steps // looks, 1)
    for i, _ in enumerate(make(), 1):
        if i == 1 or i % every == 0 or i == steps:
            rows.append({"tokens": i, "process_bytes": process.memory_info().rss - before})
    return pd.DataFrame(rows)


def _give_back():
    """Freed memory back to the system, where the C library has a call for it."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # no glibc; Windows has no handle of the process
        pass
