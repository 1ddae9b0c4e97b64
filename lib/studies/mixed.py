"""Not every matrix needs the same bits: sensitivities, and a search under a limit of bytes."""

from functools import partial

import numpy as np
import pandas as pd

from minitransformer.quant import (
    computed_bytes,
    load_scheme,
    quantize,
    save_scheme,
    search,
    sensitivity,
)

from .formats import formats
from .scores import Scores, estimate, losses
from .words import with_interval


def palette() -> dict:
    """The formats a matrix may have."""
    named = {f"int{b}": f"int{b} g32 asym" for b in (2, 3, 4)} | {"int8": "int8 channel"}
    return {name: formats()[form] for name, form in named.items()}


def felt(model, ids, window: int) -> tuple[pd.DataFrame, list]:
    """Perplexity added, in per cent, when one matrix alone is quantized, on validation ids: a
    table, and what `search` takes."""
    names = {scheme: name for name, scheme in palette().items()}
    alone = sensitivity(model, palette().values(), partial(nats, ids=ids, window=window), "mse")
    rows = [(row["layer"], names[row["scheme"]], 100 * np.expm1(row["nats"])) for row in alone]
    return pd.DataFrame(rows, columns=["layer", "scheme", "added_percent"]), alone


def nats(model, ids, window: int) -> float:
    return float(losses(model, ids, window).mean())


def grid(table: pd.DataFrame) -> pd.DataFrame:
    """Matrices down, formats across."""
    wide = table.pivot(index="layer", columns="scheme", values="added_percent")
    return wide.loc[table.layer.unique(), ["int2", "int3", "int4"]]


def under_budgets(model, alone, scores: Scores) -> tuple[pd.DataFrame, dict]:
    """Mixtures in the bytes of int3 and half-way to int4: what single matrices promise, what is
    measured, and the gap to int3 everywhere; and the schemes by budget."""
    three, four = (computed_bytes(model.cfg, palette()[f"int{b}"]) for b in (3, 4))
    scores.add("int3 clipped", quantize(model, palette()["int3"], "mse"))
    rows, schemes = [], {}
    for name, limit in {"int3 bytes": three, "half-way to int4": (three + four) // 2}.items():
        found = search(model.cfg, alone, limit)
        schemes[name] = found.scheme
        scores.add(f"mixed, {name}", quantize(model, found.scheme, "mse"))
        row = {"budget": name, "bytes": found.nbytes, "limit_bytes": limit}
        row["promised_percent"] = 100 * np.expm1(found.predicted_nats)
        row |= scores.added(f"mixed, {name}")
        gap = scores.added(f"mixed, {name}", "int3 clipped")
        rows.append(row | {f"over_int3_{key}": value for key, value in gap.items()})
    return pd.DataFrame(rows), schemes


def in_file(path, scheme, cfg) -> tuple[int, int]:
    """(1 or 0, 1): whether a mixed scheme read back from its file is the one that was saved."""
    return int(load_scheme(save_scheme(path, scheme), cfg) == scheme), 1


def moved(scheme: dict) -> dict[str, int]:
    """How many matrices of a mixed scheme are not int3, and how many there are."""
    named = spent(scheme).format
    return {"moved": int((named != "int3").sum()), "all": len(named)}


def kept(scheme: dict) -> str:
    """What the search left as it was, in words; "" where it changed a matrix."""
    return "" if moved(scheme)["moved"] else "the search keeps int3 everywhere"


def over_int3(mix: pd.DataFrame) -> tuple[float, tuple[float, float]]:
    """What the mixture in the bytes of int3 adds to int3 everywhere, in %, with its interval."""
    return estimate(mix.iloc[0], "over_int3_")


def in_words(mix: pd.DataFrame, scheme: dict) -> str:
    """What the search finds in the bytes of int3, in a clause."""
    if kept(scheme):
        return "in the bytes of int3 the search finds no mixture better than int3 everywhere"
    change, ends = over_int3(mix)
    return f"mixed precision in as many bytes changes int3 by {with_interval(change, *ends, ' %')}"


def spent(scheme: dict) -> pd.DataFrame:
    """Which format each matrix got."""
    names = {own: name for name, own in palette().items()}
    rows = [(layer, names[own]) for layer, own in scheme.items()]
    return pd.DataFrame(rows, columns=["layer", "format"])
