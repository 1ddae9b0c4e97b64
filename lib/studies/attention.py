"""Where do the heads look?"""

import math

import numpy as np
import pandas as pd
import torch

from minitransformer.corpus import decode

REACH, SHOWN = 12, 20  # distances of the table, tokens of the map


def probabilities(model, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Attention of every head, (B, T, T), by "block.head", recomputed from the blocks' own
    projections; ids (B, T)."""
    T = ids.shape[1]
    hidden, found = torch.ones(T, T, dtype=torch.bool).triu(1), {}
    with torch.no_grad():
        x, rope = model.embed(ids, torch.arange(T), T)
        for i, block in enumerate(model.blocks):
            q, k, _ = block.attention.project(block.attention_norm(x), rope)
            k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)  # (B, H, T, D)
            scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(hidden, -math.inf)
            p = scores.softmax(-1)  # (B, H, T, T)
            found |= {f"{i + 1}.{h + 1}": p[:, h] for h in range(p.shape[1])}
            x = block(x, rope)
    return found


def of_models(models: dict, test: np.ndarray, window: int, batch: int = 16) -> dict:
    """`probabilities` of several models on the first windows of the test split, by "model, block.
    head"."""
    T = min(window, len(test), *(model.cfg.context for model in models.values()))
    ids = torch.as_tensor(test[: len(test) // T * T].astype(np.int64)).view(-1, T)[:batch]
    return {
        f"{name.replace(' model', '')}, {head}": p
        for name, model in models.items()
        for head, p in probabilities(model, ids).items()
    }


def by_distance(heads: dict[str, torch.Tensor]) -> pd.DataFrame:
    """Mean attention in % of each head (a row) at each distance from the token being predicted (a
    column), over the second half of the windows: a query's own token is at distance 1."""
    T = next(iter(heads.values())).shape[-1]
    half, reach = T // 2, min(REACH, T // 2)
    diagonals = {
        d + 1: [100 * p[:, half:].diagonal(half - d, -2, -1).mean().item() for p in heads.values()]
        for d in range(reach)
    }
    return pd.DataFrame(diagonals, index=pd.Index(list(heads), name="head"))


def most(table: pd.DataFrame, at: int, heads: int = 12) -> pd.DataFrame:
    """The rows of `by_distance` that look most at one distance, the first of them first."""
    return table.loc[table[at].sort_values(ascending=False, kind="stable").index[:heads]]


def distance(data, table: pd.DataFrame) -> int:
    """The distance to look at: that of the language's offset; of a text the one behind the
    previous token on which a head spends most."""
    if data.kind == "language" and data.language.spec.offset in table.columns:
        return data.language.spec.offset
    behind = table.iloc[:, 1:] if table.shape[1] > 1 else table
    return int(behind.max().idxmax())


def map_of(data, p: torch.Tensor, test: np.ndarray) -> pd.DataFrame:
    """Attention in % of one head on the last tokens of the first window: queries down, attended
    tokens across."""
    T = p.shape[-1]
    shown = min(SHOWN, T)
    words = [decode(data.tokenizer, [int(i)]) for i in test[T - shown : T]]
    marks = [f"{i + 1:02d}" for i in range(shown)]
    names = [
        f"{mark} {word!r}" if word.isspace() or not word else f"{mark} {word}"
        for mark, word in zip(marks, words, strict=True)
    ]
    grid = 100 * p[0, T - shown :, T - shown :].numpy()
    return pd.DataFrame(grid, index=pd.Index(names, name="query"), columns=marks)
