"""What do integer activations cost, on weights that are integers too?"""

from dataclasses import replace

import numpy as np
import pandas as pd

from minitransformer.evaluate import token_losses
from minitransformer.quant import QuantScheme, quantize

from . import seeds
from .arms import Text

FOUR, BOTH = "int4 weights", "int4 weights + int8 activations"


def formats() -> dict[str, QuantScheme]:
    """Formats of activations on int8 weights, and on int4 weights in groups of 32."""
    found = {"int8 weights": QuantScheme()}
    for granularity in ("tensor", "token"):
        for symmetric in (True, False):
            own = {"activation_granularity": granularity, "activation_symmetric": symmetric}
            found[named(granularity, symmetric)] = QuantScheme(activation_bits=8, **own)
    four = QuantScheme(bits=4, granularity="group", group_size=32)
    return found | {FOUR: four, BOTH: replace(four, activation_bits=8)}


def named(granularity: str, symmetric: bool) -> str:
    """The name of int8 activations on int8 weights."""
    return f"+ int8 activations by {granularity}, {'a' * (not symmetric)}symmetric"


def added(model, text: Text, own: np.ndarray) -> pd.DataFrame:
    """What each of `formats` adds to the losses `own` of a model, nats per token."""
    rows = []
    for name, scheme in formats().items():
        losses = token_losses(quantize(model, scheme), text.held_out, text.window)
        rows.append({"format": name, "added_nats": (losses - own).mean()})
    return pd.DataFrame(rows)


def over_seeds(added: pd.DataFrame) -> pd.DataFrame:
    """What each format adds: means over trained models with 95 % intervals."""
    return seeds.means(added, ["format"], "added_nats")


def zero_points(added: pd.DataFrame, level: float) -> seeds.Estimate:
    """Int8 activations by token: with zero-points minus without, nats per token."""
    return between(added, named("token", False), named("token", True), level)


def between(added: pd.DataFrame, name: str, other: str, level: float) -> seeds.Estimate:
    """What one format adds over another, paired by seed."""
    wide = added.pivot(index="seed", columns="format", values="added_nats")
    return seeds.mean(wide[name] - wide[other], level)
