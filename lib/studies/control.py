"""What does the original report's number mean, on the kind of corpus that fits it?"""

import math

import numpy as np
import pandas as pd


def coincidences(ids: np.ndarray) -> dict[str, float]:
    """Pairs of places with the same two successive tokens in ids (N,), beside how many there would
    be if tokens of these frequencies were independent, and the ratio of the two."""
    ids = np.asarray(ids).astype(np.int64)
    _, times = np.unique(ids[:-1] * (ids.max() + 1) + ids[1:], return_counts=True)
    found, n = int((times * (times - 1) // 2).sum()), len(ids) - 1
    counts = np.bincount(ids)
    alike = (counts * (counts - 1)).sum() / (len(ids) * n)  # of two places that differ
    expected = n * (n - 1) / 2 * float(alike) ** 2
    return {"pairs": found, "expected": expected, "ratio": found / expected}


def against_chance(corpora: dict[str, np.ndarray], tokens: int) -> pd.DataFrame:
    """`coincidences` of the first tokens of each corpus, a row each."""
    rows = [{"corpus": name} | coincidences(ids[:tokens]) for name, ids in corpora.items()]
    return pd.DataFrame(rows)


def settings(chance) -> dict:
    """What the original report says of its corpus, of the control that is made like it."""
    sizes = {split: len(ids) for split, ids in chance.splits.items() if len(ids)}
    total = sum(sizes.values())
    return {
        "tokens": total,
        "test tokens": sizes["test"],
        "split": " / ".join(f"{100 * n / total:g}" for n in sizes.values()),
        "seed and salt": f"SEED {chance.meta['seed']}, SALT {chance.meta['salt']}",
        "SHA-256": chance.sha256,
    }


def held_against(chance, perplexity: float) -> dict[str, float]:
    """A perplexity stated, beside what the control allows: `above` a uniform guess over its
    `words`, in nats, and the perplexity of a perfect model, `floor`."""
    words, floor = chance.vocab_size, round(math.exp(chance.floor_nats))
    above = math.log(perplexity / words)
    return {"stated": perplexity, "words": words, "floor": floor, "above": above}


def beside(stated: float, ends: tuple[float, float]) -> str:
    """Where a perplexity lies to the interval of one further run, in words."""
    low, high = ends
    if low <= stated <= high:
        return "inside it"
    gap, side = (low / stated, "below") if stated < low else (stated / high, "above")
    return f"{math.log(gap):.2f} nats {side} it"


def fall(began: float, ended: float) -> dict[str, float]:
    """By how much a loss fell: in `nats`, and in `percent` of where it began."""
    return {"nats": began - ended, "percent": 100 * (began - ended) / began}


def recipe_runs(runs: pd.DataFrame, vocab_size: int) -> pd.DataFrame:
    """The original's recipe from several seeds (control.csv): first and test loss, each
    also above a uniform guess."""
    uniform = math.log(vocab_size)
    table = runs[["seed", "first_nats", "test_nats", "test_perplexity"]]
    table.insert(2, "first_above_uniform_nats", table.first_nats - uniform)
    table.insert(4, "test_above_uniform_nats", table.test_nats - uniform)
    return table
