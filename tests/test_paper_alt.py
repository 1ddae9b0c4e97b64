"""Alternative texts say what the figure shows, from the data that it draws."""

import pandas as pd

from paper import figures

CURVES = pd.DataFrame(
    {"t": [1, 10, 100] * 2, "us": [5.0, 50.0, 20.0, 1.0, 2.0, 3.0], "loop": ["a"] * 3 + ["b"] * 3}
)
POINTS = pd.DataFrame({"f": ["int8", "int4"], "b": [4.0, 2.0], "q": [0.1, 1.5], "h": [0.2, 2.0]})


def test_lines_tell_their_ends_and_turns():
    fig = figures.lines(
        CURVES, "t", "us", "loop", xlabel="tokens", ylabel="µs", limits=[(3.0, "floor")]
    )
    assert fig.alt == (
        "Lines of µs over tokens. a: from 5.00 at 1 up to 50.0 at 10 to 20.0 at 100; "
        "b: from 1.00 at 1 to 3.00 at 100. Also drawn: floor."
    )
    swing = pd.DataFrame({"t": [1, 2, 3, 4], "us": [7.0, 5.0, 9.0, 8.0]})
    told = figures.lines(swing, "t", "us", None, xlabel="t", ylabel="u").alt
    assert "one line: from 7.00 at 1 down to 5.00 at 2 up to 9.00 at 3 to 8.00 at 4." in told
    changed = CURVES.assign(us=CURVES.us * 2)
    assert figures.lines(changed, "t", "us", "loop", xlabel="t", ylabel="u").alt != fig.alt


def test_points_and_rows_tell_each_value_with_its_interval():
    fig = figures.pareto(POINTS, "b", "q", "f", "q", "h", xlabel="bytes", ylabel="loss")
    assert "int8: 4.00 and 0.100 [0.100, 0.200]; int4" in fig.alt
    assert "int4: 1.50" in figures.dots(POINTS, "f", "q", xlabel="loss").alt
    assert "int4: 1.50" in figures.bars(POINTS, "f", "q", xlabel="loss").alt
    many = pd.DataFrame({"f": [f"n{i}" for i in range(20)], "q": range(1, 21)})
    assert "and 8 more." in figures.bars(many, "f", "q", xlabel="loss").alt


def test_matrices_panels_and_reserves_tell_where_their_ends_lie():
    frame = pd.DataFrame([[1.0, 2.0], [3.0, 9.0]], index=["r", "s"], columns=["c", "d"])
    assert "2 by 2, from 1.00 at r, c to 9.00 at s, d" in figures.heatmap(frame, label="nats").alt
    held = pd.DataFrame(
        {"t": [16, 64], "u": [1.0, 4.0], "r": [8.0, 8.0], "f": ["FP32"] * 2, "h": ["MHA"] * 2}
    )
    words = ("static", "paged")
    text = figures.reserves(
        held, "t", "u", "r", "f", "h", xlabel="tokens", ylabel="KiB", words=words
    ).alt
    assert "at 64. MHA, FP32: static 8.00, paged 4.00." in text
