"""What decoding n tokens takes in operations, with and without a cache: a count, not a time."""

import numpy as np
import pandas as pd


def counted(lengths) -> pd.DataFrame:
    """A row a length and loop, after a prompt of one token: tokens that pass through the model, and
    query-key pairs of one attention head."""
    rows = []
    for n in lengths:
        fed = np.arange(1, n + 1)  # tokens in the sequence at each step
        for loop, passes in (("recomputing", fed), ("cached", np.ones(n, int))):
            # each of the last `passes` tokens sees itself and all before it
            pairs = fed * (fed + 1) // 2 - (fed - passes) * (fed - passes + 1) // 2
            rows.append((n, loop, int(passes.sum()), int(pairs.sum())))
    return pd.DataFrame(rows, columns=["new_tokens", "loop", "token_passes", "attention_pairs"])


def exponent(table: pd.DataFrame, loop: str, column: str) -> float:
    """The power of n that a count of `counted` follows, from its shortest length to its longest."""
    own = table[table.loop == loop].set_index("new_tokens")[column]
    return float(np.log(own.iloc[-1] / own.iloc[0]) / np.log(own.index[-1] / own.index[0]))


def times_fewer(table: pd.DataFrame, tokens: int) -> float:
    """How many times fewer tokens pass through the model with a cache."""
    own = table[table.new_tokens == tokens].set_index("loop").token_passes
    return float(own["recomputing"] / own["cached"])
