"""How often does each token come, and what does that alone leave to be predicted?"""

import math

import numpy as np
import pandas as pd


def by_rank(splits: dict[str, np.ndarray], points: int = 80) -> pd.DataFrame:
    """Share of each split's tokens in % by rank of frequency, at some `points` log-spaced ranks."""
    curves = []
    for name, ids in splits.items():
        ranked = np.sort(np.bincount(ids))[::-1]
        ranked = 100 * ranked[ranked > 0] / len(ids)
        places = np.unique(np.geomspace(1, len(ranked), points).astype(int))
        shares = ranked[places - 1]
        curves.append(pd.DataFrame({"corpus": name, "rank": places, "share_percent": shares}))
    return pd.concat(curves, ignore_index=True)


def bits(ids: np.ndarray) -> float:
    """Entropy in bits of the frequencies of ids (N,), corrected for their number by Miller (1955):
    (types - 1) / 2N nats."""
    p = np.bincount(ids) / len(ids)
    p = p[p > 0]
    return float(-np.sum(p * np.log2(p)) + (len(p) - 1) / (2 * math.log(2) * len(ids)))
