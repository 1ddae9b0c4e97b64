"""A mosaic: one tile a statement, a row a kind, coloured and marked by its verdict."""

import pandas as pd

from .alt import described
from .canvas import INK, INK_2, PALETTE, sheet, styled
from .claims import ASKED, COPIED, audited, counted
from .statements import KINDS, UNEXAMINED, VERDICTS

# verdict -> (face, edge, mark within): lightness and marks tell them apart without colour
GREY, FAINT, EDGE = PALETTE["grey"][0], "#e3e5e8", "#646c76"  # which a dark page turns over
TILES = {
    "holds": (PALETTE["blue"][0], PALETTE["blue"][0], None),
    "better is possible": ("white", PALETTE["blue"][0], "^"),
    "does not hold": (PALETTE["ochre"][0], PALETTE["ochre"][0], "x"),
    "arithmetic slip": ("white", PALETTE["ochre"][0], "+"),
    "not comparable": (GREY, GREY, (2, 2, -45)),  # a stroke
    "undecided": ("white", PALETTE["blue"][0], "_"),
    "not examined": ("white", EDGE, None),
    COPIED: (FAINT, FAINT, None),
    ASKED: ("white", EDGE, "."),
}
NAMES = {
    "setting": "settings",
    "arithmetic": "calculations",
    "measurement": "measurements",
    "conclusion": "conclusions",
    "process": "original's process",
    "future": "original's plans",
}
ORDER = (*VERDICTS, COPIED, ASKED)
LEFT, ROW = 130, 22  # pixels of the column of names, and of a row


def statements(rows: list[dict], ledger: dict) -> pd.DataFrame:
    """The ledger's statements as id, kind, verdict: the word by which each is counted
    (`claims.counted`); in the order in which the mosaic lays its tiles."""
    found = {row["id"]: counted(row) for row in rows if audited(row)}
    told = [(id, said["kind"], found.get(id, UNEXAMINED)) for id, said in ledger.items()]
    table = pd.DataFrame(told, columns=["id", "kind", "verdict"])
    place = table["kind"].map(KINDS.index) * len(ORDER) + table["verdict"].map(ORDER.index)
    return table.iloc[place.argsort(kind="stable")].reset_index(drop=True)


def _told(df):
    """Each row's verdicts by number."""
    told = []
    for name, part in df.groupby("kind", sort=False):
        counts = part["verdict"].value_counts(sort=False)
        each = ", ".join(f"{n} {word}" for word, n in counts.items())
        told.append(f"{NAMES.get(name, name)}: {each}")
    return f"Mosaic of {len(df)} tiles, one a statement, by kind and verdict. {'; '.join(told)}."


@described(_told)
def mosaic(df):
    """Rows of equal tiles, one for each of `df`'s rows in their order, a row of them for each kind;
    the verdicts that occur are named with their numbers below."""
    groups = dict(list(df.groupby("kind", sort=False)))
    seen = [word for word in ORDER if (df["verdict"] == word).any()]
    with styled():
        keys = len(groups) * ROW + 18  # pixels from the top to the first of the names
        tall = keys + 22 * ((len(seen) + 2) // 3)
        fig, ax = sheet(tall)
        wide = fig.bbox.width
        step = min((wide - LEFT - 4) / max(map(len, groups.values())), 20)
        for row, (name, part) in enumerate(groups.items()):
            y = (row + 0.5) * ROW
            ax.text(LEFT - 8, y, NAMES.get(name, name), ha="right", va="center")
            for place, word in enumerate(part["verdict"]):
                _tile(ax, LEFT + (place + 0.5) * step, y, word, step - 1.5)
        for place, word in enumerate(seen):
            x, y = 12 + wide * (0, 0.36, 0.67)[place % 3], keys + place // 3 * 22
            _tile(ax, x, y, word, 13)
            text = f"{word}: {(df['verdict'] == word).sum()}"
            ax.text(x + 12, y, text, va="center", color=INK_2)
    return fig


def _tile(ax, x, y, verdict, size):
    """A square of `size` pixels around (x, y), and its verdict's mark."""
    face, edge, mark = TILES[verdict]
    points = size * 0.75
    square = dict(marker="s", ms=points - 1.2, mfc=face, mec=edge, mew=1.2, ls="")
    ax.plot([x], [y], zorder=3, **square)
    if mark:
        line = INK if face == "white" else "white"
        style = dict(ms=points * 0.5, mec=line, mew=1.3, ls="")
        ax.plot([x], [y], marker=mark, zorder=4, **style)
