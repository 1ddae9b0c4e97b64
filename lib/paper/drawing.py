"""A drawing of parts in the order in which something passes them: boxes joined by arrows, a frame
around a group, a line around what is added back. Arguments as DataFrame columns."""

from matplotlib.patches import FancyArrowPatch, Rectangle

from .alt import described
from .canvas import INK, INK_2, PALETTE, sheet, styled
from .numerals import number

WIDE, TALL, GAP = 250, 34, 27  # of a box, and between two, in pixels of the page
LEFT, RIGHT = 60, 330  # where boxes begin, and the column of shapes
FAINT = "#f5f6f4"


def _told(parts, part, does, leaves, count, frame="", note="", **_):
    """The parts in order, with what they do and hold."""
    told = [
        f"{row[part]}{f' ({row[does]})' if row[does] else ''}"
        f"{f', {number(row[count])} parameters' if row[count] else ''}, leaves {row[leaves]}"
        for row in parts.to_dict("records")
    ]
    total = f"Boxes from top to bottom: {'; '.join(told)}."
    more = " ".join(f"{text[0].upper()}{text[1:]}." for text in (frame, note) if text)
    return f"{total} {more}".strip()


@described(_told)
def flow(parts, part, does, leaves, count, *, group, joins, frame="", note="", beside=""):
    """Boxes from top to bottom; `leaves` and `count` stand at the right of each.

    Rows that follow one another with the same `group`, not "", share a frame that says `frame`;
    where `joins`, what entered the box before is added to what leaves; `note` stands by the box
    whose name is `beside`."""
    rows = parts.to_dict("records")
    with styled():
        fig, ax = sheet(len(rows) * (TALL + GAP) + 26 - GAP)
        tops = [22 + i * (TALL + GAP) for i in range(len(rows))]
        framed = [i for i, row in enumerate(rows) if row[group]]
        if framed:
            _frame(ax, tops[framed[0]] - GAP + 4, tops[framed[-1]] + TALL + GAP - 5, frame)
        for i, (row, top) in enumerate(zip(rows, tops, strict=True)):
            _box(ax, row, top, part, does)
            _said(ax, row, top, leaves, count)
            if i + 1 < len(rows):
                _arrow(ax, top + TALL, top + TALL + GAP)
            if row[joins]:
                _around(ax, tops[i - 1] - GAP + 13, top + TALL + 10)
            if note and row[part] == beside:
                ax.text(RIGHT, top + TALL - 1, note, va="center", color=PALETTE["blue"][1])
        for x, word in ((RIGHT, "leaves"), (568, "parameters")):
            ax.text(x, 8, word, ha="left" if x == RIGHT else "right", va="center", color=INK_2)
    return fig


def _box(ax, row, top, part, does):
    plain = not row[does]
    style = dict(facecolor="white" if plain else FAINT, edgecolor=INK, linewidth=1, zorder=3)
    ax.add_patch(Rectangle((LEFT, top), WIDE, TALL, **style))
    middle = top + TALL / 2
    if plain:
        ax.text(LEFT + WIDE / 2, middle, row[part], ha="center", va="center", zorder=4)
        return
    ax.text(LEFT + 8, middle - 7.5, row[part], va="center", fontweight="bold", zorder=4)
    ax.text(LEFT + 8, middle + 7.5, row[does], va="center", color=INK_2, zorder=4)


def _said(ax, row, top, leaves, count):
    ax.text(RIGHT, top + TALL / 2 - 1, row[leaves], va="center", color=INK)
    if row[count]:
        ax.text(568, top + TALL / 2 - 1, number(row[count]), ha="right", va="center", color=INK)


def _frame(ax, top, bottom, text):
    style = dict(facecolor="none", edgecolor=INK_2, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    ax.add_patch(Rectangle((14, top), 558, bottom - top, **style))
    ax.text(566, bottom - 10, text, ha="right", va="center", color=INK_2, fontstyle="italic")


def _arrow(ax, top, bottom):
    x = LEFT + WIDE / 2
    style = dict(arrowstyle="-|>", mutation_scale=8, shrinkA=0, shrinkB=0, color=INK, linewidth=1)
    ax.add_patch(FancyArrowPatch((x, top), (x, bottom), zorder=2, **style))


def _around(ax, top, bottom):
    """The line that carries what enters a part around it, to where it is added."""
    x, out = LEFT + WIDE / 2, LEFT - 24
    ax.plot([x, out, out, x - 6], [top, top, bottom, bottom], color=INK, lw=1, zorder=2)
    style = dict(marker="o", ms=10, mfc="white", mec=INK, mew=1, zorder=4)
    ax.plot([x], [bottom], **style)
    ax.plot([x - 3, x + 3], [bottom, bottom], color=INK, lw=1, zorder=5)
    ax.plot([x, x], [bottom - 3, bottom + 3], color=INK, lw=1, zorder=5)
