"""Few cases in place of a whole product: every two values of every two axes meet in one of them."""

from itertools import combinations, product


def pairwise(*axes) -> list[tuple]:
    """Rows of one value an axis, chosen greedily from the whole product until every pair of values
    of different axes stands in one; always the same rows.

    Faults that depend on one or two settings, which are nearly all, are found by them."""
    rows = [*product(*(range(len(axis)) for axis in axes))]
    pairs = {row: {*combinations(enumerate(row), 2)} for row in rows}
    missing, chosen = set().union(*pairs.values()), []
    while missing:
        best = max(rows, key=lambda row: len(pairs[row] & missing))
        missing -= pairs[best]
        chosen.append(tuple(axis[i] for axis, i in zip(axes, best, strict=True)))
    return chosen
