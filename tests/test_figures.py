"""Every figure function draws from a DataFrame, with limits, intervals and labels that cover
nothing; the bytes repeat."""

import struct

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text

from paper import figures
from paper.boxes import overlaps
from paper.canvas import INK, PALETTE, assign, canvas, narrow, png_bytes, styled
from paper.layout import set_scale
from paper.matrix import ABOVE, BELOW, FAINT, _Shade, luminance, over
from paper.svg import DARK
from paper.ticks import _decades, written

LINES = pd.DataFrame(
    {
        "n": [10, 50, 200] * 3,
        "kind": ["naive"] * 3 + ["static"] * 3 + ["original's own"] * 3,
        "s": [1, 1, 1, 1.1, 2, 4, 1, 1.9, 3.9],
    }
).assign(lo=lambda d: d.s * 0.9, hi=lambda d: d.s * 1.1)
ROWS = pd.DataFrame(
    {
        "name": ["uniform", "original recipe", "model"],
        "ppl": [1004.0, 640.0, 41.5],
        "lo": [np.nan, 630, 41],
        "hi": [np.nan, 650, 42],
    }
)


def texts(fig):
    """What is written in the figure's axes, by text."""
    fig.canvas.draw()
    found = {t.get_text(): t for ax in fig.axes for t in ax.findobj(Text)}
    return found


def boxes(fig, names):
    found = texts(fig)
    return [found[name].get_window_extent() for name in names]


def disjoint(found):
    return not any(a.overlaps(b) for i, a in enumerate(found) for b in found[i + 1 :])


def test_lines_label_their_ends_without_overlap_and_name_the_limit():
    fig = figures.lines(
        LINES,
        "n",
        "s",
        "kind",
        "lo",
        "hi",
        xlabel="tokens",
        ylabel="speed-up, times",
        log="xy",
        limits=[(20, "roofline"), (([10, 200], [4, 50]), "FLOP ratio")],
        seed=[(50, 1.95, "seed: 1.95×")],
    )
    found = texts(fig)
    names = ["naive", "static", "original's own", "roofline", "FLOP ratio", "seed: 1.95×"]
    assert disjoint(boxes(fig, names))
    assert "tokens (log scale)" in found and "speed-up, times (log scale)" in found
    assert {"10", "50", "200"} <= set(found)  # the values themselves are the ticks
    assert found["original's own"].get_color() == PALETTE["vermilion"][1]
    assert all(box.x1 <= fig.bbox.x1 for box in boxes(fig, names[:3]))
    assert len(fig.axes[0].collections) == 3  # the bands


def test_lines_without_groups_have_no_end_labels_and_keep_given_ticks():
    fig = figures.lines(
        LINES[:3],
        "n",
        "s",
        xlabel="tokens",
        ylabel="loss",
        xticks=[10, 100],
        limits=[(0.5, "floor")],
        markers=False,
    )
    found = texts(fig)
    assert {"floor", "10", "100"} <= set(found) and "" not in {
        t.get_text() for t in fig.axes[0].texts
    }
    assert fig.axes[0].get_ylim()[0] < 0.5 and fig.axes[0].lines[0].get_marker() in (
        "None",
        "",
        None,
    )


def test_reserves_draw_what_is_used_below_what_is_held_in_panels_of_one_scale():
    df = pd.DataFrame(
        [
            {"n": n, "heads": h, "format": f, "used": k * n, "held": k * 512}
            for h, c in (("MHA", 4), ("MQA", 1))
            for f, k in (("fp32", 4 * c), ("int8", c))
            for n in (16, 100, 512)
        ]
    )
    fig = figures.reserves(
        df,
        "n",
        "used",
        "held",
        "format",
        "heads",
        xlabel="tokens",
        ylabel="KiB",
        words=("static", "paged"),
    )
    first, last = fig.axes
    assert len(first.lines) == len(last.lines) == 4 and first.get_ylim() == last.get_ylim()
    assert {"KiB (log scale)", "MHA", "MQA", "static", "paged", "fp32", "int8"} <= set(texts(fig))
    assert "tokens (log scale)" in texts(fig)
    assert disjoint(boxes(fig, ["static", "paged", "fp32", "int8"])) and len(first.collections) == 1
    assert (
        first.lines[0].get_ydata().tolist() == [4 * 4 * 512] * 3
        and first.lines[1].get_ydata()[0] == 4 * 4 * 16
    )


def test_lines_name_upright_limits():
    df = pd.DataFrame({"m": [1, 10, 100], "us": [1.0, 1.1, 9.0]})
    fig = figures.lines(
        df, "m", "us", xlabel="tokens", ylabel="µs", log="xy", xlimits=[(12.5, "t*")]
    )
    upright = [line for line in fig.axes[0].lines if list(line.get_xdata()) == [12.5, 12.5]]
    assert len(upright) == 1 and "t*" in texts(fig)


def test_ladder_draws_each_row_its_interval_and_its_number():
    fig = figures.ladder(
        ROWS,
        "name",
        "ppl",
        "lo",
        "hi",
        xlabel="perplexity",
        limits=[(31.2, "floor")],
        beyond="below",
        colors={"uniform": "grey"},
    )
    found = texts(fig)
    assert {"uniform", "model", "floor", "1,004", "640", "42", "perplexity (log scale)"} <= set(
        found
    )
    assert fig.axes[0].get_xscale() == "log" and fig.axes[0].get_xlim()[0] < 31.2
    assert fig.axes[0].yaxis_inverted()  # the first row on top


def test_what_lies_past_a_limit_of_dots_is_on_the_axis():
    mean = pd.DataFrame({"name": ["a", "b"], "d": [0.15, 0.5]})
    above = figures.dots(mean, "name", "d", xlabel="share", limits=[(1.0, "all")], beyond="above")
    assert above.axes[0].get_xlim()[1] > 1.0 and "all" in texts(above)
    assert any(patch.get_hatch() for patch in above.axes[0].patches)


def test_rows_are_closer_where_two_figures_stand_beside_each_other():
    def tall(draw, **columns):
        return draw(ROWS, "name", "ppl", xlabel="perplexity", **columns).get_figheight()

    for draw in (figures.ladder, figures.bars, figures.waterfall):
        wide = tall(draw)
        with narrow():
            assert tall(draw) < 0.95 * wide


def test_bars_start_at_zero_and_name_groups_on_the_first_row():
    df = pd.DataFrame(
        {
            "m": ["free", "free", "induction"],
            "g": ["1 block", "2 blocks", "1 block"],
            "v": [0.1, 0.2, 0.9],
        }
    )
    fig = figures.bars(
        df.assign(lo=df.v - 0.05, hi=df.v + 0.05),
        "m",
        "v",
        "g",
        "lo",
        "hi",
        xlabel="nats",
        limits=[(1.0, "all")],
    )
    bars = [p for p in fig.axes[0].patches if np.isfinite(p.get_width())]
    assert {p.get_x() for p in bars} == {0} and sorted(p.get_width() for p in bars) == [
        0.1,
        0.2,
        0.9,
    ]
    assert {"0.10  1 block", "0.20  2 blocks", "0.90"} <= set(texts(fig))
    under, over_it = fig.axes[0].collections[:2]  # an interval has the page's colour around it
    assert to_hex(under.get_colors()[0]) == "#ffffff" and to_hex(over_it.get_colors()[0]) == INK
    assert under.get_linewidth()[0] > over_it.get_linewidth()[0] + 1
    for ours, theirs in zip(under.get_segments(), over_it.get_segments(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    plain = figures.bars(df[:1], "m", "v", xlabel="nats")
    assert "0.100" in texts(plain)


def test_pareto_fills_the_front_only_and_labels_do_not_overlap():
    df = pd.DataFrame({"mb": [1.8, 0.5, 0.49, 0.3, 0.31], "ppl": [61, 61.1, 61.2, 62, 75.0]})
    df["f"] = ["fp32", "int8", "int8 t", "int4", "bad"]
    fig = figures.pareto(
        df.assign(lo=df.ppl - 1, hi=df.ppl + 1),
        "mb",
        "ppl",
        "f",
        "lo",
        "hi",
        xlabel="MB",
        ylabel="perplexity",
        log="xy",
        limits=[(55, "floor")],
        colors={"fp32": "plum"},
    )
    faces = [line.get_markerfacecolor() for line in fig.axes[0].lines if line.get_marker() == "o"]
    assert [face == "white" for face in faces] == [False, False, False, False, True]
    assert disjoint(boxes(fig, [*df.f, "floor"]))
    plain = figures.pareto(df, "mb", "ppl", "f", xlabel="MB", ylabel="y", front=False)
    assert all(line.get_markerfacecolor() != "white" for line in plain.axes[0].lines)


def joins(fig):
    """The lines between neighbours on the front, as pairs of points."""
    return [line.get_xydata().tolist() for line in fig.axes[0].lines if line.get_alpha() == 0.45]


FORMATS = pd.DataFrame(
    {
        "kib": [400.0, 260, 150, 1700, 140],
        "p": [-0.0104, 1.2, 9.0, 0.0, 0.5],
        "f": ["int8", "int4", "int2", "fp32", "tuned"],
        "kin": [True, True, True, True, False],
    }
).assign(lo=lambda d: d.p - 0.001, hi=lambda d: d.p + 0.001)


def test_what_lies_below_the_least_is_a_triangle_with_its_value():
    options = dict(xlabel="KiB", ylabel="%", log="xy", least=0.01, among="kin")
    fig = figures.pareto(FORMATS, "kib", "p", "f", "lo", "hi", **options)
    low = [line for line in fig.axes[0].lines if line.get_marker() == "v"]
    assert [line.get_ydata()[0] for line in low] == [0.01, 0.01]
    assert {"int8, −0.010", "fp32, 0.000", "int4"} <= set(texts(fig))
    assert joins(fig) == [[[150, 9.0], [260, 1.2]], [[260, 1.2], [400, 0.01]]]
    assert overlaps(fig) == []


def test_a_point_of_another_kind_beats_none_and_is_not_joined():
    options = dict(xlabel="KiB", ylabel="%")
    apart = figures.pareto(FORMATS, "kib", "p", "f", **options, among="kin")
    hollow = [
        line.get_xdata()[0]
        for line in apart.axes[0].lines
        if line.get_marker() == "o" and line.get_markerfacecolor() == "white"
    ]
    assert hollow == [1700, 140] and len(joins(apart)) == 2
    assert len(joins(figures.pareto(FORMATS, "kib", "p", "f", **options))) == 1  # tuned, int8


def test_nothing_joins_points_whose_intervals_overlap():
    noisy = FORMATS[:3].assign(lo=[-9.0, -8, 1], hi=[9.0, 10, 17])
    fig = figures.pareto(noisy, "kib", "p", "f", "lo", "hi", xlabel="KiB", ylabel="%")
    assert joins(fig) == []
    marks = [line for line in fig.axes[0].lines if line.get_marker() == "o"]
    assert not [line for line in marks if line.get_markerfacecolor() == "white"]  # nor beaten


def test_heatmap_annotates_one_matrix_and_shares_the_scale_of_two():
    frame = pd.DataFrame([[0.1, 0.25], [0.5, 2.0]], index=["a", "b"], columns=["x", "y"])
    fig = figures.heatmap(frame, label="Δ nats", xlabel="layer", ylabel="scheme", annotate=True)
    assert {"0.10", "0.25", "0.50", "2.00", "Δ nats; rows: scheme", "a", "y"} <= set(texts(fig))
    near = figures.heatmap(frame.replace(0.1, -0.0007), label="Δ nats", annotate=True)
    assert {"−0.0007", "0.25"} <= set(texts(near))  # what is drawn as something is not 0.00
    scaled = figures.heatmap(frame, label="Δ nats", ylabel="scheme")
    assert {"Δ nats", "scheme", "0", "2"} <= set(texts(scaled))
    two = figures.heatmap({"head 1": frame, "head 2": frame * 2}, label="weight", ylabel="query")
    assert {"weight; rows: query", "head 1", "head 2", "4"} <= set(texts(two))
    assert shades(two.axes[0])[-1] == pytest.approx(FAINT + (1 - FAINT) * 0.5, abs=0.006)
    assert shades(two.axes[1])[-1] == 1


def shades(ax):
    """The opacities of a matrix's cells, each once, from the faintest."""
    return sorted(ax.collections[0].get_facecolors()[:, 3])


def test_a_centre_parts_the_values_into_two_hues():
    frame = pd.DataFrame([[0.5, 1.0, 1.25, np.nan]])
    ax = figures.heatmap(frame, label="times FP32", annotate=True, center=1).axes[0]
    hues = {to_hex(color[:3]): round(float(color[3]), 2) for color in shown_colors(ax)}
    assert hues[BELOW] == 1.0 and set(hues) == {ABOVE, BELOW}
    found = sorted(shades(ax))
    assert found == pytest.approx([FAINT, (1 + FAINT) / 2, 1.0], abs=0.006)  # of equal distance


def shown_colors(ax):
    return ax.collections[0].get_facecolors()


def test_names_of_columns_that_would_touch_are_broken_or_turned_and_numbers_thinned():
    frame = pd.DataFrame(np.ones((2, 10)), columns=[f"format {c}" for c in "abcdefghij"])
    broken = figures.heatmap(frame, label="%")
    assert "format\na" in texts(broken)
    many = pd.DataFrame(
        np.ones((2, 24)), columns=[f"format {c}" for c in "abcdefghijklmnopqrstuvwx"]
    )
    assert texts(figures.heatmap(many, label="%"))["format a"].get_rotation() == 90
    numbered = figures.heatmap(many.set_axis(range(1000, 1024), axis=1), label="%")
    assert {"1,000", "1,003"} <= set(texts(numbered)) and "1,001" not in texts(numbered)
    assert "1.00 at 0, 1,000" in numbered.alt


def test_numbers_that_do_not_fit_into_their_cells_give_way_to_a_scale():
    frame = pd.DataFrame(np.linspace(1000, 2000, 60).reshape(2, 30))
    assert overlaps(figures.heatmap(frame, label="%", annotate=True)) == []
    found = texts(figures.heatmap(frame, label="%", annotate=True))
    assert "2,000" in found and "1,017" not in found


def test_a_row_of_another_measurement_has_no_factor_and_no_part_in_the_fall():
    df = pd.DataFrame(
        {"s": ["a", "b", "c"], "us": [1000.0, 700.0, 100.0], "apart": [False, True, False]}
    )
    found = set(texts(figures.waterfall(df, "s", "us", xlabel="µs")))
    assert "10×" in found and not {"1.4×", "7.0×"} & found
    plain = set(texts(figures.waterfall(df[["s", "us"]], "s", "us", xlabel="µs")))
    assert {"1.4×", "7.0×"} <= plain and "10×" not in plain


def test_waterfall_writes_each_factor():
    df = pd.DataFrame({"s": ["naive", "cache", "int8"], "us": [1000.0, 250.0, 50.0]})
    fig = figures.waterfall(df, "s", "us", xlabel="time, µs", unit=" µs")
    assert {"1,000 µs", "250 µs", "50.0 µs", "4.0×", "5.0×"} <= set(texts(fig))
    ends = [texts(fig)[text].get_window_extent().x1 for text in ("1,000 µs", "50.0 µs")]
    assert ends[0] == pytest.approx(ends[1], abs=1)  # decimals stand below one another
    low, high = fig.axes[0].get_xlim()
    assert low < 50 and high > 1000  # no mark is cut by the edge


def test_png_is_two_pixels_a_point_and_the_same_every_time_whatever_the_caller_set():
    def draw():
        axes = dict(xlabel="perplexity", limits=[(31.2, "floor")])
        return png_bytes(figures.ladder(ROWS, "name", "ppl", "lo", "hi", **axes))

    first = draw()
    with mpl.rc_context({"font.size": 30, "savefig.dpi": 50, "axes.facecolor": "red"}):
        assert draw() == first
    width, height = struct.unpack(">II", first[16:24])
    assert width == 1152 and height > 300 and b"Software" not in first
    assert first[25] == 3  # a palette: a third of the bytes


def test_colours_follow_the_palette_and_the_seed_report_is_vermilion():
    chosen = assign(["a", "original report", "b"])
    assert chosen == {"a": "blue", "original report": "vermilion", "b": "teal"}
    assert assign(["a", "b"], {"a": "teal"}) == {"a": "teal", "b": "blue"}
    assert len(assign(list("abcdefg"))) == 7
    with pytest.raises(ValueError, match="'pink' is not in the palette"):
        assign(["a"], {"a": "pink"})


def test_an_axis_with_little_room_has_the_decades_that_give_more_ticks():
    assert _decades(18, 3_700, 1) == [100, 1000] and _decades(18, 3_700, 3) == [30, 300, 3000]
    steps = ["recomputing", "a growing cache", "int4 in the engine", "with an int8 cache"]
    df = pd.DataFrame({"s": steps, "us": [3621.0, 853.0, 35.8, 19.1]})
    with narrow():
        fig = figures.waterfall(df, "s", "us", xlabel="µs per token", unit=" µs")
    texts = [text.get_text() for text in fig.axes[0].get_xticklabels()]
    assert len(texts) >= 3 and {"30", "300", "3,000"} <= {*texts}


def test_ticks_are_written_out():
    values = (1000, 0.05, -2, 0, 1e-6, 2e9)
    assert written(values, linear=False) == ["1,000", "0.05", "−2", "0", "10⁻⁶", "2·10⁹"]
    assert written([0, 0.5, 1], linear=True) == ["0.0", "0.5", "1.0"]
    with styled():
        for low, high, wanted in (
            (1, 8, {"1", "2", "5"}),
            (1, 1e6, {"1", "10", "1,000"}),
            (30, 60, {"40", "50"}),
        ):
            fig, ax = canvas(log="x")
            ax.set_xlim(low, high)
            set_scale(ax.xaxis)
            assert wanted <= set(texts(fig)), (low, high)


@pytest.mark.parametrize("top", [3e4, 2.6e6, 1e9])
def test_tick_labels_keep_apart_whatever_the_range_and_the_names(top):
    steps = np.geomspace(2000, top, 40)
    df = pd.DataFrame(
        {"t": np.r_[steps, steps], "y": 1.0, "g": ["a"] * 40 + ["a long name of a run"] * 40}
    )
    fig = figures.lines(df, "t", "y", "g", xlabel="tokens seen", ylabel="y", log="x")
    fig.canvas.draw()
    shown = [t.get_window_extent() for t in fig.axes[0].get_xticklabels() if t.get_text()]
    assert 2 <= len(shown) and all(a.x1 + 3 < b.x0 for a, b in zip(shown, shown[1:], strict=False))
    given = figures.lines(
        df, "t", "y", "g", xlabel="t", ylabel="y", xticks=[*range(2000, 3000, 50), 2e4]
    )
    given.canvas.draw()
    shown = [t.get_window_extent() for t in given.axes[0].get_xticklabels() if t.get_text()]
    assert shown and all(a.x1 < b.x0 for a, b in zip(shown, shown[1:], strict=False))


def test_numbers_in_a_heatmap_stand_out_from_every_shade_on_a_light_and_a_dark_page():
    frame = pd.DataFrame([np.linspace(0, 1, 12), np.r_[np.linspace(1, 2, 11), np.nan]])
    for center in (None, 0.5, 1, 3):
        ax = figures.heatmap(frame, label="%", annotate=True, center=center).axes[0]
        shade = _Shade(frame.to_numpy().ravel(), center)
        for text, value in zip(cell_texts(ax), frame.to_numpy().ravel()[:-1], strict=True):
            *hue, depth = shade(value)
            black, dark = text.get_color() == "black", DARK[to_hex(hue)]
            pairs = [
                (over(hue, depth, (1, 1, 1)), 0.0 if black else 1.0),
                (over(to_rgb(dark), depth, to_rgb("#15181b")), 1.0 if black else 0.0),
            ]
            for cell, ink in pairs:
                low, high = sorted((luminance(cell), ink))
                assert (high + 0.05) / (low + 0.05) >= 4.4, (center, value)


def cell_texts(ax):
    return [text for text in ax.texts if text.get_color() in ("black", "white")]


def test_the_numbers_beside_dots_have_the_decimals_their_intervals_support():
    df = pd.DataFrame({"n": ["a", "b", "c"], "v": [0.0000359, 0.0165, -0.00004]})
    df["lo"], df["hi"] = df.v - 0.002, df.v + 0.002
    assert {"0.0000", "0.0165"} <= set(texts(figures.dots(df, "n", "v", "lo", "hi", xlabel="x")))


def test_only_the_seed_report_s_own_groups_are_vermilion():
    assert assign(["originality.txt", "original report's"]) == {
        "originality.txt": "blue",
        "original report's": "vermilion",
    }


def test_a_second_line_of_a_color_is_drawn_otherwise():
    rows = [(x, y, f"run {y}") for y in range(7) for x in (1, 2)]
    fig = figures.lines(
        pd.DataFrame(rows, columns=["x", "y", "g"]), "x", "y", "g", xlabel="x", ylabel="y"
    )
    drawn = [(line.get_color(), line.get_linestyle()) for line in fig.axes[0].lines[:7]]
    assert len(set(drawn)) == 7 and [style for _, style in drawn] == ["-"] * 5 + ["--"] * 2


def test_groups_of_five_stay_on_one_screen_and_their_numbers_apart():
    rows = [(m, f"system {g}", v / 10) for m in "abcde" for g, v in enumerate((1.3, 5, 1, 2, 1))]
    df = pd.DataFrame(rows, columns=["m", "g", "v"])
    fig = figures.bars(df, "m", "v", "g", xlabel="nats")
    assert fig.get_figheight() < 6 and overlaps(fig) == []
