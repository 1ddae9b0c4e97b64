"""Figures made of named rows: dots with intervals, the ladder, bars, the waterfall. Arguments as in
`figures`."""

import numpy as np

from . import alt
from .alt import described
from .canvas import DASHED, INK, INK_2, PALETTE, assign, canvas, row_height, styled
from .labels import Labels
from .layout import arrange, hatch_beyond, name_axes, set_scale, text_width
from .numerals import column, number
from .words import label as short

NEXT = 7  # pixels between a bar and its number
COLUMN = 12  # pixels before each column of texts at the right
LINE = 0.143  # inches that a number takes, however close the rows


@described(alt.rows)
def dots(
    df, label, value, low=None, high=None, *, xlabel, log=False, limits=(), beyond=None, colors=None
):
    """One row a label, from the top: a dot with its interval, its number at the right."""
    with styled():
        fig, ax = canvas(0.85 + row_height(0.31) * len(df), log="x" if log else "")
        names = list(df[label])
        chosen = assign([], {name: (colors or {}).get(name, "blue") for name in names})
        for row, record in enumerate(df.to_dict("records")):
            line = PALETTE[chosen[record[label]]][0]
            if low and np.isfinite(record[low]):
                ax.plot([record[low], record[high]], [row, row], color=line, lw=1.6, zorder=3)
            ax.plot(record[value], row, "o", color=line, ms=6, mec="white", mew=0.8, zorder=4)
        intervals = list(zip(df[low], df[high], strict=True)) if low else ()
        texts = column(df[value], intervals=intervals, ratios=log)
        _finish(ax, names, [texts], limits, beyond, xlabel, "x" if log else "")
    return fig


def ladder(df, label, value, low=None, high=None, **options):
    """The ladder from chance to the floor: `dots` on a logarithmic axis, the largest on top."""
    rungs = df.sort_values(value, ascending=False, kind="stable")
    return alt.whole(df, dots(rungs, label, value, low, high, log=True, **options))


@described(alt.rows)
def bars(df, label, value, group=None, low=None, high=None, *, xlabel, limits=(), beyond=None,
         colors=None):  # fmt: skip
    """Horizontal bars from zero, their numbers at their ends; groups side by side, named on the
    first row."""
    with styled():
        names = list(dict.fromkeys(df[label]))
        groups = list(dict.fromkeys(df[group])) if group else [None]
        # inches: a number still has room at its end
        each = max(row_height(0.22 if len(groups) < 4 else 0.17), LINE)
        fig, ax = canvas(0.85 + (row_height(0.1) + each * len(groups)) * len(names))
        chosen = assign(groups, colors)
        thick = 0.8 / len(groups)
        keys = zip(df[group] if group else [None] * len(df), df[label], strict=True)
        intervals = list(zip(df[low], df[high], strict=True)) if low else ()
        texts = dict(zip(keys, column(df[value], intervals=intervals), strict=True))
        ends = []
        for place, name in enumerate(groups):
            part = (df if name is None else df[df[group] == name]).set_index(label).reindex(names)
            at = np.arange(len(names)) + (place - (len(groups) - 1) / 2) * thick
            line, text = PALETTE[chosen[name]]
            ax.barh(at, part[value], thick * 0.86, color=line, zorder=3)
            far = part[value]
            if low:
                for color, width in (("white", 3.4), (INK, 1.4)):  # seen on the bar as beside it
                    ax.hlines(at, part[low], part[high], color=color, lw=width, zorder=4)
                far = part[[value, high]].max(axis=1)
            for row, (y, end) in enumerate(zip(at, far, strict=True)):
                if np.isfinite(end):
                    title = f"  {short(name)}" if name is not None and row == 0 else ""
                    ends.append((max(end, 0), y, texts[name, names[row]] + title, text))
        ax.axvline(0, color=INK_2, lw=0.8, zorder=2)
        _finish(ax, names, [], limits, beyond, xlabel, "", ends)
    return fig


@described(alt.rows)
def waterfall(df, label, value, *, xlabel, unit=""):
    """Steps from slow to fast on a log axis: each row's bar spans what the step took away; factors
    at the right. Rows that say yes in the column `apart`, if there is one, are of another
    measurement: a mark without bar or factor; the next is held against the last that is not."""
    with styled():
        fig, ax = canvas(1.05 + row_height(0.34) * len(df), log="x")
        after = df[value].to_numpy(float)
        blue = PALETTE["blue"][0]
        apart = np.asarray(df.get("apart", [False] * len(df)), bool)
        last = np.maximum.accumulate(np.where(apart, 0, np.arange(len(df))))  # row of the fall
        before = np.where(apart, after, after[np.r_[0, last[:-1]]])
        factors = [f"{number(b / a, 2)}×" for b, a in zip(before, after, strict=True)]
        factors = ["" if i == 0 or apart[i] else text for i, text in enumerate(factors)]
        texts = [f"{number(value, 3)}{unit}" for value in after]
        rows = np.arange(len(df))
        ax.barh(rows[1:], (before - after)[1:], 0.56, left=after[1:], color=blue, zorder=3)
        ax.plot(after, rows, "o", color=blue, ms=6, mec="white", mew=0.8, zorder=4)
        ends = np.log([min(after.min(), before.min()), max(after.max(), before.max())])
        ax.set_xlim(*np.exp(ends + 0.03 * np.ptp(ends) * np.array([-1, 1])))
        _finish(ax, list(df[label]), [texts, factors], [], None, xlabel, "x")
    return fig


def _finish(ax, names, columns, limits, beyond, xlabel, log, ends=()):
    """Labelled rows from the top, limits, and texts: `columns` of them at the right edge, and
    `ends` (x, y, text, colour) at bars."""
    fig = ax.figure
    rows = range(len(names))
    ax.set_yticks(rows, [short(name) for name in names])
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.set_ylim(len(names) - 0.4, -0.75)
    ax.grid(False, axis="y")
    ax.grid(True, axis="x")
    for value, _ in limits:
        ax.axvline(value, color=INK, ls=DASHED, lw=1.2, zorder=2.5)
    if beyond and limits:
        hatch_beyond(ax, limits[0][0], beyond)
    set_scale(ax.xaxis)
    name_axes(ax, xlabel, "", log)
    right = 0.0
    for texts in columns:  # numbers end below one another, so that their decimals do
        right += COLUMN + max(text_width(text) for text in texts)
        for row, text in zip(rows, texts, strict=True):
            _text(ax, (1, row), ("axes fraction", "data"), text, right, "right", INK_2)
    arrange(fig, max(right, 16) if ends else right)  # half of the tick that `_make_room` may bring
    _make_room(ax, ends, [value for value, _ in limits])
    for x, y, text, color in ends:
        right = _clear(ax, x, text, [value for value, _ in limits])
        _text(ax, (x, y), "data", text, right, "left", color)
    if limits:
        labels = Labels(ax)
        for value, name in limits:
            labels.on_upright(value, name)
        labels.settle()


def _text(ax, xy, coords, text, right, ha, color):
    offset = dict(xytext=(right * 72 / ax.figure.dpi, 0), textcoords="offset points")
    ax.annotate(text, xy, xycoords=coords, ha=ha, va="center_baseline", color=color, **offset)


def _make_room(ax, ends, limits):
    """Widens the axis until the numbers at the bars' ends fit into it."""
    for _ in range(3):  # each time the limits come nearer to the bars
        low, high = ax.get_xlim()
        for x, _, text, _ in ends:
            free = ax.bbox.width - _clear(ax, x, text, limits) - text_width(text)
            high = max(high, low + (x - low) * ax.bbox.width / max(free, 1))
        ax.set_xlim(low, high)
    set_scale(ax.xaxis)


def _clear(ax, x, text, limits):
    """Pixels from a bar's end to its number, which stands on no limit's line."""
    end = ax.transData.transform((x, 0))[0]
    start = end + NEXT
    for line in sorted(ax.transData.transform((value, 0))[0] for value in limits):
        if start - 3 < line < start + text_width(text) + 3:
            start = line + NEXT
    return start - end
