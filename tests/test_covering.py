"""Every pair is in the few cases, and they are few."""

from itertools import combinations

from covering import pairwise


def test_every_two_values_of_two_axes_meet_and_the_rows_are_few():
    axes = ["abc", [0, 1], (None, 2.0, "x", "y"), "pq"]
    rows = pairwise(*axes)
    for (i, one), (j, other) in combinations(enumerate(axes), 2):
        assert {(r[i], r[j]) for r in rows} == {(a, b) for a in one for b in other}
    assert 12 <= len(rows) <= 16 and rows == pairwise(*axes)  # of 48
    assert pairwise("ab", "xy") == [(a, b) for a in "ab" for b in "xy"]
