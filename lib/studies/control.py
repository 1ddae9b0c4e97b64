"""What does the original report's number mean, on the kind of corpus that fits it?"""

import math

import numpy as np
import pandas as pd

from minitransformer.evaluate import smallest_effect, t_interval


def coincidences(ids: np.ndarray) -> dict[str, float]:
    """Pairs of places with the same two successive tokens in ids (N,), beside how many there would
    be if tokens of these frequencies were independent, and the ratio of the two."""
    ids = np.asarray(ids).astype(np.int64)
    _, times = np.unique(ids[:-1] * (ids.max() + 1) + ids[1:], return_counts=True)
    found, n, p = int((times * (times - 1) // 2).sum()), len(ids) - 1, np.bincount(ids) / len(ids)
    expected = n * (n - 1) / 2 * float((p**2).sum()) ** 2
    return {"pairs": found, "expected": expected, "ratio": found / expected}


def against_chance(corpora: dict[str, np.ndarray], tokens: int) -> pd.DataFrame:
    """`coincidences` of the first tokens of each corpus, a row each."""
    return pd.DataFrame(
        [{"corpus": name} | coincidences(ids[:tokens]) for name, ids in corpora.items()]
    )


def recipe_runs(runs: pd.DataFrame, vocab_size: int) -> pd.DataFrame:
    """The original's recipe from several initialisations (control.csv): first and test loss, each
    also above a uniform guess."""
    uniform = math.log(vocab_size)
    return pd.DataFrame(
        {
            "initialisation": runs["run"],
            "first_nats": runs["first_nats"],
            "first_above_uniform_nats": runs["first_nats"] - uniform,
            "test_nats": runs["test_nats"],
            "test_above_uniform_nats": runs["test_nats"] - uniform,
            "test_perplexity": runs["test_perplexity"],
        }
    )


def one_more(nats) -> dict[str, float]:
    """What one further run would score, at 95 %: its perplexity with the prediction interval of
    independent runs, made in nats; their number and standard deviation, and the difference in nats
    that two groups of as many would show."""
    t = t_interval(nats)
    low, high = np.exp(t.one_more)
    effect = smallest_effect(t.sd, t.n)
    return {"perplexity": math.exp(t.mean), "low": float(low), "high": float(high)} | {
        "n": t.n,
        "sd_nats": t.sd,
        "effect_nats": effect,
    }
