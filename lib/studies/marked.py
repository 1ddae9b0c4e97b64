"""What does a model lose on each token of a text, one by one, and what did it expect instead?"""

import numpy as np
import pandas as pd
import torch

from minitransformer.corpus import decode
from minitransformer.evaluate import losses

from .error_budget import kinds
from .standing import oracle, stride

TOKENS = 300
OFTEN = ("under 10", "10 to 99", "100 to 999", "1,000 to 9,999", "10,000 or more")


def text(
    data, model, report, opponent, window: int, against: str = "n-gram", count: int = TOKENS
) -> pd.DataFrame:
    """`count` tokens from the middle of the test split on, a row a token: its kind, what the model
    lost on it by its `report`, what the oracle lost (of a text, the report `opponent`, called
    `against`), the excess, and the likeliest of the other tokens. All losses in nats.

    `window` is the one that the report was made with. Few kinds, so that each can have a colour:
    of a text, how often its token stands in the training split."""
    test, floor = data.splits["test"], oracle(data)
    count = min(count, len(test) - 1)
    first = min((len(test) - 1) // 2, len(test) - 1 - count)
    part, ids = slice(first, first + count), test[first + 1 : first + 1 + count]
    name, least = ("floor", floor) if floor is not None else (against, opponent.nll)
    other, share = others(model, test, window, range(first, first + count))
    rows = {
        "token": [_seen(data, one) for one in ids],
        "kind": _kinds(data)[part],
        "loss_nats": report.nll[part],
        f"{name.replace(' ', '_')}_nats": least[part],
        "excess_nats": report.nll[part] - least[part],
        "likeliest_other": [_seen(data, one) for one in other],
        "its_probability_percent": 100 * share,
    }
    return pd.DataFrame(rows)


def others(model, ids, window: int, wanted: range) -> tuple[np.ndarray, np.ndarray]:
    """Of each `wanted` prediction the likeliest token that is not the right one and its
    probability, in the windows of the evaluation: ids (N,) -> twice (len(wanted),)."""
    n, best, share = len(ids) - 1, [], []
    text = torch.as_tensor(np.asarray(ids, dtype=np.int64))
    for (start,), scored in losses.windows(n, window, stride(window), batch_size=1):
        end = start + min(window, n)
        rows = range(max(end - scored, wanted.start), min(end, wanted.stop))
        if rows:
            rows = torch.tensor(rows)
            with torch.no_grad():
                p = model(text[None, start:end])[0, rows - start].softmax(-1)  # (rows, V)
            p[torch.arange(len(rows)), text[rows + 1]] = 0
            top = p.max(-1)
            best.append(top.indices.numpy())
            share.append(top.values.double().numpy())
    return np.concatenate(best), np.concatenate(share)


def for_sentence(table: pd.DataFrame) -> dict:
    """The token on which a model loses most above what it is held against (`best`), and the share
    in % of what it loses where it loses more that falls on the tenth of all that costs most."""
    excess = table.excess_nats.sort_values(ascending=False)
    top = table.loc[excess.index[0]]
    share = 100 * excess.iloc[: max(len(excess) // 10, 1)].sum() / excess[excess > 0].sum()
    best = "the oracle" if "floor_nats" in table else "the best n-gram"
    return {"best": best, "kind": str(top.kind), "excess": top.excess_nats, "share": share}


def _kinds(data) -> pd.Categorical:
    """The kind of each test token but the first; of a text in five bands."""
    kind, names = kinds(data)
    if data.kind != "language":
        kind, names = np.clip(kind - 1, 0, len(OFTEN) - 1), list(OFTEN)
    return pd.Categorical.from_codes(kind, names, ordered=True)


def _seen(data, one) -> str:
    return decode(data.tokenizer, np.asarray([one]))
