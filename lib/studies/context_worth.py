"""What is each further token of context worth?"""

import math

import numpy as np
import pandas as pd

from minitransformer.corpus import bits_after
from minitransformer.evaluate import by_position, token_report

from .standing import oracle

MOST = 200  # whole windows: enough for a curve


def curve(data, models: dict, most: int = MOST) -> pd.DataFrame:
    """Mean loss by tokens of context seen, a row a model and a bin of places, from windows of each
    model's whole context, side by side.

    Paired with the oracle, where there is one: the mean of the differences, with the oracle's own
    mean added back, so that the text's ups and downs do not widen the intervals."""
    test, floor, parts = data.splits["test"], oracle(data), []
    for name, model in models.items():
        held = min(model.cfg.context, len(test) - 1)
        report = token_report(model, test[: most * held + 1], held, held)
        edges = np.unique(np.r_[1, 2, 3, 4, 6, 2 ** np.arange(3, 16) + 1].clip(max=held + 1))
        nats = report.nll
        if floor is not None:
            nats = nats - floor[: len(nats)] + floor.mean()
        part = by_position(nats, report.position, edges.tolist())
        parts.append(part.rename(columns={"mean": "loss_nats"}).assign(system=name))
    return pd.concat(parts, ignore_index=True)


def for_sentence(where: pd.DataFrame, trained: int) -> dict:
    """Of the system of a curve whose loss rises most from the last bin whole within the window of
    training (`near`) to the last of all (`far`): both rows, and its loss after one token."""
    ends = where.group.str.rpartition("-")[2].astype(int)
    near, far = (rows.groupby("system").last() for rows in (where[ends <= trained], where))
    system = (far.loss_nats - near.loss_nats).idxmax()
    first = where[where.system == system].loss_nats.iloc[0]
    return {"system": system, "first": first, "near": near.loc[system], "far": far.loc[system]}


def limits(data, where: pd.DataFrame) -> list:
    """What bounds the curves: the oracle, and nearly the best that can be done with so much
    context, as the figure draws them; [] where nobody knows."""
    floor = oracle(data)
    if floor is None:
        return []
    seen = np.unique(where.position.round()).astype(int)
    best = math.log(2) * bits_after(data.language, seen)
    return [(float(floor.mean()), "oracle"), ((seen, best), "nearly the best with this context")]
