"""Labels cover no mark and no other label, whatever the data."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.patches import Rectangle

from paper import figures
from paper.boxes import ink, overlaps
from paper.canvas import canvas, narrow, styled
from paper.labels import placed_apart


def test_spread_keeps_order_and_room_and_stays_in_the_frame():
    placed = placed_apart([50, 49, 10, 99.5], [10] * 4, 0, 100)
    assert sorted(range(4), key=lambda i: placed[i]) == [2, 1, 0, 3]
    assert min(abs(a - b) for i, a in enumerate(placed) for b in placed[i + 1 :]) >= 10 - 1e-9
    assert max(placed) <= 95 and min(placed) >= 5
    assert len(placed_apart([1, 1, 1], [50] * 3, 0, 100)) == 3  # more than fits: still apart


# Shapes of the report's two most crowded figures: file or memory in KiB against rise in % or ms.
QUALITY = [
    ("int8 channel", 463.1, 0.01), ("int4 tensor", 235.4, 11.079), ("int4 g128", 242.4, 1.818),
    ("int4 g32", 263.1, 1.260), ("int4 g32 asym", 271.1, 0.861), ("int4 full range", 263.1, 0.98),
    ("int4 GPTQ", 271.1, 0.31), ("int4 QAT", 271.1, 0.157), ("nf4 g64", 239.1, 1.69),
    ("int3 g32 asym", 215.4, 3.72), ("int3 full range", 207.9, 4.16), ("int3 GPTQ", 215.4, 1.36),
    ("int3 QAT", 215.4, 0.52), ("mixed 1", 211.2, 3.76), ("mixed 2", 249.6, 1.56),
    ("int2 g32 asym", 156.7, 23.9), ("int2 GPTQ", 156.7, 9.05), ("int2 QAT", 156.7, 2.23),
]  # fmt: skip
SPEED = [
    ("fp32", 1783.4, 0.533), ("int8 channel, each call", 460.6, 1.079),
    ("int8, int8pack", 462.6, 0.601),
    ("int8 channel, onnxruntime", 499.0, 0.717), ("int4 g128, each call", 240.0, 2.31),
    ("int4 g32, each call", 261.0, 2.30), ("int4 g128, int4pack", 248.0, 0.651),
    ("int4 g32, int4pack", 284.0, 0.655), ("int4 g128, onnxruntime", 281.0, 0.742),
    ("int4 g32, onnxruntime", 377.0, 0.757), ("int2 g32, onnxruntime", 263.0, 0.816),
    ("int2 g32, each call", 150.0, 2.21),
]  # fmt: skip
SCATTER = [
    (f"point {i}", *xy) for i, xy in enumerate(np.random.default_rng(7).uniform(1, 9, (24, 2)))
]


@pytest.mark.parametrize("points", [QUALITY, SPEED, SCATTER], ids=["quality", "speed", "scatter"])
def test_crowded_labels_cover_no_mark_no_limit_s_name_and_no_other_label(points):
    df = pd.DataFrame(points, columns=["name", "x", "y"])
    fig = figures.pareto(
        df, "x", "y", "name", xlabel="x", ylabel="y", log="xy", limits=[(1.2, "bar")], height=4.6
    )
    ax = fig.axes[0]
    found = [text.get_window_extent() for text in ax.texts if text.get_text()]
    assert len(found) == len(df) + 1 and overlaps(fig) == []
    assert all(ax.bbox.x0 - 1 < b.x0 and b.x1 < ax.bbox.x1 + 5 for b in found)


# Of a page: KiB, per cent. Three marks so near each other that the labels of some stand far off.
NEAR = [
    ("fp32", 1785, 0.01), ("int8 channel", 463, 0.0114), ("int4 g128", 242, 2.11),
    ("int4 g32", 263, 1.34), ("nf4 g64", 249, 1.62), ("int2 GPTQ", 157, 12.9),
    ("int3 GPTQ", 215, 2.14), ("int4 GPTQ", 271, 0.474), ("int4 QAT", 271, 0.209),
    ("int3 QAT", 215, 0.762), ("int2 QAT", 157, 3.19),
]  # fmt: skip


def test_a_line_from_a_label_to_its_mark_passes_over_no_other():
    with narrow():
        df = pd.DataFrame(NEAR, columns=["name", "x", "y"])
        ax = figures.pareto(
            df, "x", "y", "name", xlabel="x", ylabel="y", log="xy", height=2.6
        ).axes[0]
    joins = [line for line in ax.lines if line.get_linewidth() == 0.6]
    discs = ink(ax).discs
    for line in joins:
        start, end = line.get_transform().transform(line.get_xydata())
        path = start + np.linspace(0, 1, 50)[:, None] * (end - start)
        away = np.hypot(*(path[:, None] - discs[None, :, :2]).transpose(2, 0, 1))
        assert (away >= discs[:, 2]).all()
    assert joins and overlaps(ax.figure) == []


def test_a_limit_s_name_stands_beside_its_own_line_where_another_is_near():
    df = pd.DataFrame({"n": ["guess", "model", "oracle"], "y": [1000.0, 30.0, 24.8]})
    limits = [(24.8, "the oracle"), (32.6, "all but one")]
    fig = figures.ladder(df, "n", "y", xlabel="perplexity", limits=limits, beyond="below")
    (ax,) = fig.axes
    label = next(text for text in ax.texts if text.get_text() == "the oracle")
    own, other = (ax.transData.transform((x, 0))[0] for x, _ in limits)
    box = label.get_window_extent()
    assert overlaps(fig) == [] and min(abs(box.x0 - own), abs(box.x1 - own)) < 8
    assert not box.x0 < other < box.x1


def test_where_a_line_s_label_had_to_move_each_is_joined_to_its_end():
    def joined(ends):
        rows = [(x, y if x else 5.0, str(y)) for y in ends for x in (0, 1)]
        df = pd.DataFrame(rows, columns=["x", "y", "g"])
        (ax,) = figures.lines(df, "x", "y", "g", xlabel="x", ylabel="y").axes
        return len(ax.lines) - len(ends)

    assert joined([1.0, 5.0, 9.0]) == 0 and joined([1.0, 1.1, 9.0]) == 3


def test_a_label_does_not_stand_on_a_limit_that_crosses_the_axis():
    df = pd.DataFrame({"x": [1.0, 2, 3], "y": [1.0, 1.0, 1.0], "n": ["one", "two", "three"]})
    fig = figures.pareto(
        df, "x", "y", "n", xlabel="x", ylabel="y", front=False, limits=[(1.0, "no gain")]
    )
    assert overlaps(fig) == []


def test_spread_moves_labels_as_little_as_it_can():
    assert placed_apart([50, 50], [10, 10], 0, 100) == [45, 55]  # about their middle, not upwards
    assert placed_apart([20, 50, 80], [10] * 3, 0, 100) == [20, 50, 80]


@given(
    st.lists(st.tuples(st.floats(0, 300), st.floats(8, 30)), max_size=9),
    st.floats(-50, 50),
    st.floats(60, 400),
)
def test_spread_labels_never_touch_and_stay_inside_where_they_fit(labels, low, size):
    wanted, heights = [y for y, _ in labels], [h for _, h in labels]
    placed = placed_apart(wanted, heights, low, low + size)
    ends = sorted((y - h / 2, y + h / 2) for y, h in zip(placed, heights, strict=True))
    assert all(a[1] <= b[0] + 1e-6 for a, b in zip(ends, ends[1:], strict=False))
    if ends and sum(heights) <= size:
        assert ends[0][0] >= low - 1e-6 and ends[-1][1] <= low + size + 1e-6


def drawing(text, xy, **options):
    """A figure of one text, in the middle of axes that hold a point, a line and a bar."""
    with styled():
        fig, ax = canvas(3.0)
        ax.set(xlim=(0, 10), ylim=(0, 10), xticks=[], yticks=[])
        ax.plot([2], [8], "o", ms=8)
        ax.plot([0, 10], [2, 2])
        ax.barh([5], [3], 1, left=6)
        ax.text(*xy, text, ha="center", va="center", **options)
        ax.text(1, 5, "another", va="center")
    return fig


@pytest.mark.parametrize(
    ("xy", "told"),
    [
        ((5, 8.5), []),
        ((2, 8), ["'label' covers a point"]),
        ((5, 2), ["'label' covers a line"]),
        ((9, 5), ["'label' covers a bar"]),
        ((1.5, 5), ["'label' covers 'another'"]),
        ((-1.5, 7), ["'label' leaves the figure"]),
    ],
)
def test_what_a_label_covers_is_told(xy, told):
    assert overlaps(drawing("label", xy)) == told


def test_a_label_of_two_axes_counts_for_both():
    with styled():
        fig, axes = canvas(3.0, 2)
        for ax in axes:
            ax.set(xticks=[], yticks=[])
        axes[1].plot([0.5], [0.5], "o", ms=9)
        axes[0].annotate("far", (0.5, 0.5), xycoords=axes[1].transData, ha="center", va="center")
    assert overlaps(fig) == ["'far' covers a point"]


WORDS = "int4 int8 group window static cache model 1-block grouped queries of (MHA) asym".split()
NAMES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)
HALF = st.floats(0.01, 0.3)


def frames(points, fewest=2):
    """Tables of named points with intervals."""
    rows = st.lists(st.tuples(NAMES, *points, HALF), min_size=fewest, max_size=12)

    def table(rows):
        df = pd.DataFrame(rows, columns=["n", *"xy"[-len(points) :], "h"])
        df["n"] = [f"{name} {place}" for place, name in enumerate(df.n)]
        return df.assign(lo=df.y * (1 - df.h), hi=df.y * (1 + df.h))

    return rows.map(table)


LOGARITHMIC = st.floats(-2, 1.5).map(lambda power: 10.0**power)


@settings(max_examples=8, deadline=None)
@given(frames([st.floats(100, 900), LOGARITHMIC]), st.booleans(), st.booleans())
def test_points_are_named_beside_them(df, limited, least):
    fig = figures.pareto(
        df, "x", "y", "n", "lo", "hi", xlabel="file, KiB", ylabel="%", log="xy", height=4.6,
        limits=[(1, "1 %")] * limited, least=0.05 if least else None,
    )  # fmt: skip
    assert overlaps(fig) == []


@settings(max_examples=8, deadline=None)
@given(frames([st.floats(-1, 1)]), st.sampled_from([(), (0,), (0, 0.5)]), st.booleans())
def test_rows_are_named_beside_them(df, limits, hatched):
    limits = [(value, f"limit {value}") for value in limits]
    beyond = "below" if hatched else None
    ends = df[["lo", "hi"]].agg(["min", "max"], axis=1)
    df = df.assign(lo=ends["min"], hi=ends["max"])
    named = dict(xlabel="nats", limits=limits, beyond=beyond)
    assert overlaps(figures.dots(df, "n", "y", "lo", "hi", **named)) == []
    df = df.assign(y=df.y.abs(), lo=0.9 * df.y.abs(), hi=1.1 * df.y.abs())
    assert overlaps(figures.bars(df[:6], "n", "y", None, "lo", "hi", **named)) == []


WALK = st.lists(st.floats(-0.4, 0.4), min_size=12, max_size=12).map(np.cumsum)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(NAMES, WALK, st.integers(5, 12)), min_size=1, max_size=5), st.booleans())
def test_lines_are_named_at_their_ends(walks, log):
    x = np.geomspace(16, 4096, 12)
    rows = [
        (*point, f"{name} {place}")
        for place, (name, walk, length) in enumerate(walks)
        for point in zip(x[:length], np.exp(walk[:length]), strict=True)
    ]
    df = pd.DataFrame(rows, columns=["x", "y", "n"])
    fig = figures.lines(
        df, "x", "y", "n", xlabel="tokens", ylabel="µs", log="xy" if log else "x",
        limits=[(0.7 * df.y.min(), "floor")], xlimits=[(256, "context")],
    )  # fmt: skip
    assert overlaps(fig) == []


@settings(max_examples=8, deadline=None)
@given(
    st.lists(NAMES, min_size=1, max_size=14), st.lists(NAMES, min_size=1, max_size=12),
    st.integers(1, 2), st.booleans(), st.integers(-4, 4),
)  # fmt: skip
def test_matrices_are_named_beside_them(rows, columns, panels, annotate, power):
    values = np.arange(len(rows) * len(columns), dtype=float).reshape(len(rows), -1) * 10.0**power
    frame = pd.DataFrame(values, index=rows, columns=columns)
    shown = {f"panel {i}": frame for i in range(panels)} if panels > 1 else frame
    fig = figures.heatmap(shown, label="times FP32", ylabel="head", annotate=annotate)
    assert overlaps(fig) == []


def test_a_figure_becomes_taller_where_its_labels_find_no_room():
    df = pd.DataFrame({"x": np.repeat([1.0, 2, 3, 4], 9), "y": np.tile(np.arange(9.0), 4)})
    df["n"] = [f"a rather long name {i}" for i in range(len(df))]
    fig = figures.pareto(df, "x", "y", "n", xlabel="x", ylabel="y", front=False, height=2.0)
    assert fig.get_figheight() > 2.0 and overlaps(fig) == []
    assert len([text for text in fig.axes[0].texts if text.get_text()]) == len(df)


def test_what_lies_behind_a_filled_box_is_not_covered_and_what_is_written_into_it_neither():
    with styled():
        fig, ax = canvas(3.0)
        ax.set(xlim=(0, 10), ylim=(0, 10), xticks=[], yticks=[])
        ax.plot([0, 10], [5, 5], zorder=2)
        box = Rectangle((3, 3), 4, 4, facecolor="white", zorder=3)
        ax.add_patch(box)
        ax.text(5, 5, "written", ha="center", va="center", zorder=4)
        assert overlaps(fig) == []
        box.set_zorder(1)
        assert overlaps(fig) == ["'written' covers a line"]
        ax.text(3, 6, "across", ha="center", va="center")
    assert "'across' covers a bar" in overlaps(fig)
