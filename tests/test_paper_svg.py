"""A figure as SVG: text is text, the colours turn over on a dark page, and it is small."""

import re
import unicodedata
import xml.etree.ElementTree as xml

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from paper import figures
from paper.canvas import PALETTE, canvas, png_bytes, styled
from paper.matrix import luminance
from paper.svg import DARK, stylesheet, svg_text
from paper.words import drawable, spoken, visible
from test_hostile_labels import FUNCTIONS, HOSTILE, SCRIPTS, draw

PAPER = "#15181b"  # of the dark page
PAGE = {"var(--paper)": PAPER, "var(--ink)": "#e7e5e0", "var(--ink-2)": "#b7babd"}
PAGE |= {"var(--measured)": "#7fb4f0", "var(--seed)": "#f59a75"}


def parse(svg):
    root = xml.fromstring(svg)
    for tag in root.iter():
        tag.tag = tag.tag.rpartition("}")[2]
    return root


def words(svg):
    return [" ".join("".join(tag.itertext()).split()) for tag in parse(svg).iter("text")]


@pytest.fixture(scope="module")
def drawn():
    """Every figure function's SVG, once."""
    names = [f"group {c}" for c in "abcdefgh"]
    found = {}
    for name in FUNCTIONS:
        fig = draw(name, names)
        found[name] = (svg_text(fig, 'A "title" & 1 < 2'), png_bytes(fig))
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_figure_is_smaller_than_its_png_and_refers_to_nothing(name, drawn):
    svg, png = drawn[name]
    root = parse(svg)
    assert len(svg) < len(png) * 4 / 3
    assert root.get("role") == "img" and root.get("aria-label") == 'A "title" & 1 < 2'
    assert not re.search(r"\bid=|href|url\(|<(style|script|image|use|defs|metadata)", svg)
    assert {tag.tag for tag in root.iter()} <= {"svg", "g", "path", "text"}
    assert svg == svg_text(draw(name, [f"group {c}" for c in "abcdefgh"]), 'A "title" & 1 < 2')


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_colour_of_every_figure_turns_over_on_a_dark_page(name, drawn):
    root = parse(drawn[name][0])
    used = {tag.get(kind) for tag in root.iter() for kind in ("fill", "stroke")} - {None, "none"}
    turned = set(re.findall(r'\[fill="([^"]+)"\]', stylesheet()))
    assert used <= turned and len(used) >= 3


def test_what_is_drawn_stands_out_on_a_light_and_on_a_dark_page():
    def contrast(a, b):
        low, high = sorted(luminance(to_rgb(color)) for color in (a, b))
        return (high + 0.05) / (low + 0.05)

    for line, text in PALETTE.values():
        for color, least in ((line, 3), (text, 4.5)):
            dark = PAGE.get(DARK[color], DARK[color])
            assert contrast(color, "white") >= least and contrast(dark, PAPER) >= 4.5, color


def test_the_dark_rules_hold_on_a_screen_and_for_inline_figures_only():
    rules = stylesheet()
    assert rules.startswith("@media screen and (prefers-color-scheme:dark){")
    assert rules.count("{") == rules.count("}")
    selectors = re.findall(r"([^{}]+)\{[^{}]*\}", rules.partition("{")[2])
    assert len(selectors) == 2 * len(DARK) + 1
    assert all(selector.startswith(".plot ") for selector in selectors)
    assert rules.index("#000") < rules.index(":is(text,g)")  # numbers on shades: after and above


def ladder(names):
    """A figure with so many names."""
    rungs = pd.DataFrame({"name": names, "value": np.arange(1.0, len(names) + 1)})
    return figures.ladder(rungs, "name", "value", xlabel="value")


@pytest.mark.parametrize("start", range(0, len(HOSTILE), 12))
def test_every_word_is_literal_text(start):
    some = [word for word in HOSTILE[start : start + 12] if visible(word).strip()]
    fig = ladder(some)
    shown = words(svg_text(fig, " ".join(some)))
    for word in some:
        lines = spoken(drawable(word, 44)).splitlines()
        assert {" ".join(line.split()) for line in lines} <= set(shown), word


def test_the_text_of_every_script_stands_in_its_own_characters():
    some = [*SCRIPTS, "⟨U+7D05⟩", "紅" * 4]
    fig = ladder(some)
    shown = words(svg_text(fig))
    for word in some:
        assert visible(unicodedata.normalize("NFC", word)) in shown, shown


@given(st.text(max_size=30))
def test_what_a_label_spells_can_be_spoken_again(text):
    kept = " ".join(visible(unicodedata.normalize("NFC", " ".join(text.split()))).split())
    said = " ".join(spoken(drawable(text)).split())
    for part in said.split("…") if "…" not in text else [said]:
        assert part in kept, (said, kept)


def test_marks_stay_within_the_axes_and_points_are_where_the_data_are():
    with styled():
        fig, ax = canvas(2.0)
        ax.set(xlim=(0, 10), ylim=(0, 10), xticks=[], yticks=[])
        ax.plot([-5, 15], [5, 5], color=PALETTE["teal"][0])
        ax.fill_between([-5, 15], [2, 2], [30, 30], color=PALETTE["plum"][0], linewidth=0)
        ax.plot([2, 8], [5, 5], "o", color=PALETTE["ochre"][0])
        ax.axvspan(6, 8, facecolor="white", edgecolor="#e1e4e7", hatch="////", linewidth=0)
    box = ax.bbox
    paths = {
        tag.get("stroke") or tag.get("fill"): tag.get("d")
        for tag in parse(svg_text(fig)).iter("path")
    }
    for color in ("#1a9e77", "#6e2468"):
        x, y = absolute(paths[color]).T
        assert x.min() >= box.x0 - 0.2 and x.max() <= box.x1 + 0.2
        assert (
            y.min() >= fig.bbox.height - box.y1 - 0.2 and y.max() <= fig.bbox.height - box.y0 + 0.2
        )
    starts = [float(x) for x in re.findall(r"M([\d.]+)", paths["#b98000"])]
    assert starts[1] - starts[0] == pytest.approx(0.6 * box.width, abs=0.2)
    slanted = absolute(paths["#e1e4e7"])
    assert slanted[:, 0].min() >= box.x0 + 0.6 * box.width - 0.2
    assert slanted[:, 0].max() <= box.x0 + 0.8 * box.width + 0.2


def absolute(data):
    """The points of a path's data, made of M, l, h, v and z."""
    points, x, y = [], 0.0, 0.0
    for letter, numbers in re.findall(r"([Mlhvz])([^Mlhvz]*)", data):
        values = [float(n) for n in re.findall(r"-?\d*\.?\d+", numbers)]
        if letter in "hv":
            values = [n for v in values for n in ((v, 0) if letter == "h" else (0, v))]
        pairs = zip(values[::2], values[1::2], strict=True)
        for a, b in pairs:
            x, y = (a, b) if letter == "M" else (x + a, y + b)
            points.append((x, y))
    return np.array(points)


def test_the_svg_draws_what_the_png_draws():
    """The long blue line of a figure, in both."""
    df = pd.DataFrame({"x": np.arange(1.0, 60), "y": np.sin(np.arange(1, 60) / 9)})
    fig = figures.lines(df, "x", "y", xlabel="x", ylabel="y", markers=False)
    path = next(t for t in parse(svg_text(fig)).iter("path") if t.get("stroke") == "#0b559f")
    wanted = fig.axes[0].transData.transform(df.to_numpy())
    wanted[:, 1] = fig.bbox.height - wanted[:, 1]
    found = absolute(path.get("d"))
    gaps = np.hypot(*(wanted[:, None] - found[None]).transpose(2, 0, 1)).min(axis=1)
    assert np.median(gaps) < 0.1 and len(found) > 30


def test_equal_marks_of_an_axis_are_one_path():
    svg = svg_text(draw("bars", [f"group {c}" for c in "abcdefgh"]))
    soup = BeautifulSoup(svg, "html.parser")
    assert len(soup.find_all("path", stroke="#e3e5e8")) == 1  # the grid


def test_a_figure_with_a_picture_has_no_svg():
    with styled():
        fig, ax = canvas(2.0)
        ax.imshow(np.eye(3))
    with pytest.raises(NotImplementedError):
        svg_text(fig)
