"""Which passages of one split stand in another? Long ones would be a leak."""

import numpy as np
import pandas as pd

BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
LENGTHS = (2, 4, 8, 16, 32, 64)  # tokens


def fingerprints(ids: np.ndarray, lengths=LENGTHS) -> list[np.ndarray]:
    """For each length a 64-bit polynomial hash of the passage of so many tokens that starts at each
    token: ids (N,) -> (N - length + 1,), from sums that all lengths share."""
    n = len(ids)
    up, down = (np.cumprod(np.full(n, b, np.uint64)) for b in (BASE, pow(BASE, -1, 2**64)))
    sums = np.zeros(n + 1, np.uint64)
    np.cumsum((np.asarray(ids).astype(np.uint64) + np.uint64(1)) * up, out=sums[1:])
    return [(sums[k:] - sums[:-k]) * down[: n - k + 1] for k in lengths]


def shared(train: np.ndarray, test: np.ndarray, lengths=LENGTHS) -> pd.DataFrame:
    """Share in % of the passages of `test` that stand in `train` too, by length in tokens."""
    rows = []
    for length, known, asked in zip(
        lengths, fingerprints(train, lengths), fingerprints(test, lengths), strict=True
    ):
        known.sort()
        found = known[np.searchsorted(known, asked).clip(max=len(known) - 1)] == asked
        rows.append((length, len(asked), 100 * float(found.mean())))
    return pd.DataFrame(rows, columns=["length", "passages", "in_training_percent"])
