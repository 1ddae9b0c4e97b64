"""Where do the heads look?"""

import math

import numpy as np
import pandas as pd
import torch

from minitransformer.corpus import decode
from minitransformer.corpus.language import LETTERS

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
            k = block.attention.smear(k).repeat_interleave(q.shape[1] // k.shape[1], dim=1)
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


def map_of(data, p: torch.Tensor, test: np.ndarray, end: int | None = None) -> pd.DataFrame:
    """Attention in % of one head on the last tokens of the first window, or on those before `end`:
    queries down, attended tokens across."""
    T = p.shape[-1] if end is None else end
    shown = min(SHOWN, T)
    words = [decode(data.tokenizer, [int(i)]) for i in test[T - shown : T]]
    marks = [f"{i + 1:02d}" for i in range(shown)]
    names = [
        f"{mark} {word!r}" if word.isspace() or not word else f"{mark} {word}"
        for mark, word in zip(marks, words, strict=True)
    ]
    grid = 100 * p[0, T - shown : T, T - shown : T].numpy()
    return pd.DataFrame(grid, index=pd.Index(names, name="query"), columns=marks)


def recalled(language, ids: np.ndarray) -> np.ndarray:
    """Of windows of ids (B, T), the place of the token that an induction at the next place recalls,
    what the last one put behind the same key: (B, T); -1 where there is none, or its key is new."""
    spec, found = language.spec, np.full(ids.shape, -1)
    kinds = language.mechanism_of_class[language.class_of_id[ids]] == LETTERS.index("I")
    memory = language.class_of_id[ids] if spec.recall == "index" else np.zeros_like(ids)
    keys = language.index_of_id[ids] % spec.keys
    for row, (kind, own, key) in enumerate(zip(kinds, memory, keys, strict=True)):
        last = {}
        for t in np.flatnonzero(kind[1:]):  # the next token is recalled by the key that stands here
            found[row, t] = last.get((own[t + 1], key[t]), -1)
            last[own[t + 1], key[t]] = t + 1
    return found


def of_recall(language, heads: dict[str, torch.Tensor], test: np.ndarray) -> pd.DataFrame:
    """Mean attention in % of each head (a row), over the second half of the windows: where an
    induction comes next, on the token it recalls, on the key before that one, and on every token if
    all got the same; and from the token recalled back at its key, which is where a first look must
    have been for a second one to match the key."""
    B, T, _ = next(iter(heads.values())).shape
    target = recalled(language, test[: B * T].reshape(B, T).astype(np.int64))
    target[:, : T // 2] = -1
    row, at = np.nonzero(target > 0)
    recalled_at = target[row, at]
    looks = {
        "what followed": (at, recalled_at),
        "the key": (at, recalled_at - 1),
        "from there at the key": (recalled_at, recalled_at - 1),
    }
    table = {
        name: [100 * p[row, start, end].mean().item() for p in heads.values()]
        for name, (start, end) in looks.items()
    }
    table["even"] = float(np.mean(100 / (at + 1)))
    return pd.DataFrame(table, index=pd.Index(list(heads), name="head"))


def back_at_key(recall: pd.DataFrame, model: str) -> pd.Series:
    """What the heads of a model's first block spend on the key from what followed it, in %."""
    name = f"{model.replace(' model', '')}, 1."  # as `of_models` names its heads
    return recall["from there at the key"][recall.index.str.startswith(name)]


def shown(recall: pd.DataFrame, model: str, heads: int = 6) -> pd.DataFrame:
    """The heads of `of_recall` that look most at what followed, and that of a model's first block
    which looks back at the key, to be read."""
    names = [*most(recall, "what followed", heads).index, back_at_key(recall, model).idxmax()]
    return recall.loc[[*dict.fromkeys(names)]].add_suffix(", %").reset_index()


def strongest(table: pd.DataFrame, column) -> dict:
    """The head that looks most there, and what it spends on it, in %."""
    head = table[column].idxmax()
    return {"head": head, "at": column, "share": table[column][head]}


def in_words(recall: pd.DataFrame, model: str) -> str:
    """What `of_recall` found, in a sentence: of the head that looks most at what followed, and of
    the heads of the model called so, the plain one of two blocks. Less than twice what every token
    gets if all get the same is no look."""
    first, even = strongest(recall, "what followed"), recall.even.iloc[0]
    if first["share"] < 2 * even:
        top = first["share"]
        return f"No head looks there: the most is {top:.1f} %; {even:.1f} % if all get the same."
    own = recall["what followed"][recall.index.str.startswith(f"{model.replace(' model', '')},")]
    best = f" The {model}'s best head gives it {own.max():.0f} %."
    early = back_at_key(recall, model)
    back = f"head {early.idxmax()} looks back at the key with {early.max():.0f} %."
    if early.max() < 2 * even:
        back = f"no head of the {model}'s first block looks back at the key."
    return (
        f"Head {first['head']} gives what followed {first['share']:.0f} %."
        + best * (first["head"] not in own)
        + f" From what followed, where a first look must have been, {back}"
    )


def recall_map(data, p: torch.Tensor, test: np.ndarray) -> pd.DataFrame:
    """`map_of` one head, up to a query that recalls one of the tokens shown."""
    return map_of(data, p, test, recall_ends(data.language, test, p.shape[-1]))


def recall_ends(language, test: np.ndarray, window: int, shown: int = SHOWN) -> int:
    """How many tokens of the first window to show so that the last query recalls one of them: the
    latest that does, else all."""
    found = recalled(language, test[None, :window].astype(np.int64))[0]
    near = np.flatnonzero((found >= 0) & (found > np.arange(window) - shown + 1))
    near = near[near >= min(shown, window) - 1]
    return int(near[-1]) + 1 if len(near) else window
