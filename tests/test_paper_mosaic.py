"""The mosaic of statements and the drawing of parts: every row is drawn, and told in words."""

import re

import pandas as pd
import pytest
from matplotlib.patches import FancyArrowPatch, Rectangle

from paper import drawing, mosaic
from paper.canvas import narrow, png_bytes
from paper.claims import ASKED, AUDIT, COPIED, audit_row, seed_claims
from paper.svg import DARK, _short, svg_text

LEDGER = seed_claims()
PARTS = pd.DataFrame(
    [("ids", "words", "B, T", 0, "", False), ("norm", "", "B, T, 8", 16, "block", False)]
    + [
        ("mix", "2 heads", "B, T, 8", 300, "block", True),
        ("head", "8 → 9", "B, T, 9", 72, "", False),
    ],
    columns=["part", "does", "leaves", "parameters", "group", "joins"],
)


def drawn(**options):
    columns = ("part", "does", "leaves", "parameters")
    return drawing.flow(PARTS, *columns, group="group", joins="joins", **options)


def texts(fig):
    return [text.get_text() for ax in fig.axes for text in ax.texts]


def test_every_statement_is_a_tile_and_unexamined_ones_too():
    rows = [audit_row(LEDGER, "S1-blocks", 1), audit_row(LEDGER, "S2-parameters", 456_556)]
    table = mosaic.statements(rows, LEDGER)
    assert sorted(table["id"]) == sorted(LEDGER)
    told = table.set_index("id")["verdict"]
    assert told["S1-blocks"] == COPIED and told["S2-parameters"] == "arithmetic slip"
    assert (told == "not examined").sum() == len(LEDGER) - 2
    kinds = list(dict.fromkeys(table["kind"]))
    assert kinds == list(dict.fromkeys(sorted(table["kind"], key=mosaic.KINDS.index)))
    first = table[table["kind"] == "arithmetic"]["verdict"].tolist()
    assert first[0] == "arithmetic slip" and set(first[1:]) == {"not examined"}


def test_every_word_has_its_tile():
    assert set(mosaic.TILES) == {*AUDIT, COPIED, ASKED} and set(mosaic.NAMES) == set(mosaic.KINDS)
    assert len({tuple(tile) for tile in mosaic.TILES.values()}) == len(mosaic.TILES)


def test_what_is_asked_of_this_project_is_no_verdict_on_the_original():
    """Tests that pass here say nothing of its own: a mark apart, in the tiles and in the words."""
    rows = [audit_row(LEDGER, "S1-tests", answer=0), audit_row(LEDGER, "S6-mqa", answer=0.25)]
    table = mosaic.statements([*rows, audit_row(LEDGER, "S7-success")], LEDGER)
    told = table.set_index("id")["verdict"]
    assert told["S1-tests"] == told["S6-mqa"] == ASKED and told["S7-success"] == "not examined"
    assert not (table["verdict"] == "holds").any()
    fig = mosaic.mosaic(table)
    assert "asked here instead: 2" in texts(fig) and f"1 {ASKED}" in fig.alt


@pytest.mark.parametrize("inches", [6.0, 4.4])
def test_the_mosaic_draws_all_tiles_and_counts_them(inches):
    table = mosaic.statements([audit_row(LEDGER, "S1-blocks", 1)], LEDGER)
    with narrow(inches):
        fig = mosaic.mosaic(table)
    assert fig.get_figwidth() == inches
    squares = [line for line in fig.axes[0].lines if line.get_marker() == "s"]
    assert len(squares) == len(LEDGER) + 2  # and the names of two verdicts
    assert f"not examined: {len(LEDGER) - 1}" in texts(fig) and "copied: 1" in texts(fig)
    assert f"{len(LEDGER)} tiles" in fig.alt and "1 copied" in fig.alt
    assert max(line.get_xdata()[0] for line in squares) < 96 * inches


def test_the_drawing_shows_every_part_shape_and_count():
    fig = drawn(frame="one block", note="cache: 2", beside="mix")
    (ax,) = fig.axes
    for text in ("ids", "mix", "2 heads", "B, T, 9", "300", "one block", "cache: 2", "leaves"):
        assert text in texts(fig)
    assert "0" not in texts(fig)  # of ids, which hold no parameters
    boxes = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    arrows = [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]
    assert len(boxes) == len(PARTS) + 1 and len(arrows) == len(PARTS) - 1
    frame = next(box for box in boxes if box.get_width() > 500)
    inside = [box for box in boxes if box is not frame and frame.get_bbox().contains(*box.get_xy())]
    assert len(inside) == 2
    rings = [line for line in ax.lines if line.get_marker() == "o"]
    assert len(rings) == 1 and rings[0].get_ydata()[0] > inside[1].get_y()
    around = next(line for line in ax.lines if len(line.get_xdata()) == 4)
    assert min(around.get_ydata()) - frame.get_y() > 6  # the two are not taken for one
    assert "mix (2 heads), 300 parameters, leaves B, T, 8" in fig.alt
    assert fig.alt.endswith("One block. Cache: 2.")
    assert png_bytes(fig).startswith(b"\x89PNG")


def test_a_drawing_without_a_group_has_no_frame():
    plain = drawing.flow(
        PARTS.assign(group="", joins=False),
        *("part", "does", "leaves", "parameters"),
        group="group",
        joins="joins",
    )
    boxes = [patch for patch in plain.axes[0].patches if isinstance(patch, Rectangle)]
    assert len(boxes) == len(PARTS) and not plain.axes[0].lines


def test_every_colour_of_a_drawing_has_one_for_a_dark_page():
    used = re.findall(r'(?:fill|stroke)="(#[0-9a-f]+)"', svg_text(drawn(frame="a block")))
    known = {_short(light) for light in DARK}
    assert len({*used}) > 3 and {*used} <= known
