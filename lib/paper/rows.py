"""Figures made of named rows: dots with intervals, the ladder, bars, the waterfall. Arguments as in
`figures`."""

import numpy as np
import seaborn as sns

from . import alt
from .alt import described
from .canvas import (
    DASHED,
    INK,
    INK_2,
    PALETTE,
    SEED_MARK,
    assign,
    canvas,
    hatch_beyond,
    name_axes,
    set_scale,
    styled,
)
from .labels import Labels
from .numerals import column, number
from .words import label as short


@described(alt.rows)
def dots(
    df,
    label,
    value,
    low=None,
    high=None,
    *,
    xlabel,
    log=False,
    limits=(),
    beyond=None,
    seed=None,
    raw=None,
    colors=None,
    values=None,
):
    """One row a label, from the top: a dot with its interval, its number at the right.

    `seed` is a column (NaN where the seed report says nothing); `raw` a long DataFrame with `label`
    and `value` for the single observations (drawn small and grey by seaborn); `values` a column of
    texts for the right edge."""
    with styled():
        fig, ax = canvas(0.95 + 0.31 * len(df), log="x" if log else "")
        rows = np.arange(len(df))
        if raw is not None:
            sns.stripplot(
                raw,
                x=value,
                y=label,
                order=list(df[label]),
                ax=ax,
                color=PALETTE["grey"][0],
                marker="|",
                size=9,
                linewidth=1.1,
                jitter=False,
                zorder=5,
            )
        chosen = assign([], {name: (colors or {}).get(name, "blue") for name in df[label]})
        for row, record in zip(rows, df.to_dict("records"), strict=True):
            line = PALETTE[chosen[record[label]]][0]
            if low and np.isfinite(record[low]):
                ax.plot([record[low], record[high]], [row, row], color=line, lw=1.6, zorder=3)
            ax.plot(record[value], row, "o", color=line, ms=6, mec="white", mew=0.8, zorder=4)
            if seed and np.isfinite(record[seed]):
                ax.plot(record[seed], row, **SEED_MARK)
        intervals = zip(df[low], df[high], strict=True) if low else ()
        texts = (
            [short(text, 24) for text in df[values]]
            if values
            else column(df[value], intervals=intervals)
        )
        _rows_axis(ax, rows, df[label], texts)
        _upright(ax, limits, beyond)
        name_axes(ax, xlabel, "", "x" if log else "")
        _name_uprights(ax, limits)
    return fig


def ladder(df, label, value, low=None, high=None, *, xlabel="perplexity", limits=(), **options):
    """The ladder from chance to the floor: `dots` on a logarithmic axis."""
    return dots(df, label, value, low, high, xlabel=xlabel, limits=limits, log=True, **options)


@described(alt.rows)
def bars(
    df,
    label,
    value,
    group=None,
    low=None,
    high=None,
    *,
    xlabel,
    limits=(),
    beyond=None,
    colors=None,
):
    """Horizontal bars from zero, their numbers at their ends; groups side by side, named on the
    first row."""
    with styled():
        names = list(dict.fromkeys(df[label]))
        groups = list(dict.fromkeys(df[group])) if group else [None]
        fig, ax = canvas(0.95 + (0.1 + 0.22 * len(groups)) * len(names))
        chosen = assign(groups, colors)
        thick = 0.8 / len(groups)
        keys = zip(df[group] if group else [None] * len(df), df[label], strict=True)
        texts = dict(zip(keys, column(df[value]), strict=True))
        for place, name in enumerate(groups):
            part = (df if name is None else df[df[group] == name]).set_index(label).reindex(names)
            at = np.arange(len(names)) + (place - (len(groups) - 1) / 2) * thick
            line, text = PALETTE[chosen[name]]
            ax.barh(at, part[value], thick * 0.86, color=line, zorder=3)
            ends = part[value]
            if low:
                ax.hlines(at, part[low], part[high], color=INK, lw=1.4, zorder=4)
                ends = part[[value, high]].max(axis=1)
            for row, (y, end) in enumerate(zip(at, ends, strict=True)):
                if np.isfinite(end):
                    title = f"  {short(name)}" if name is not None and row == 0 else ""
                    ax.annotate(
                        texts[name, names[row]] + title,
                        (max(end, 0), y),
                        xytext=(5, 0),
                        textcoords="offset points",
                        va="center",
                        color=text,
                    )
        _rows_axis(ax, np.arange(len(names)), names, None)
        ax.margins(x=0.16)
        ax.axvline(0, color=INK_2, lw=0.8, zorder=2)
        _upright(ax, limits, beyond)
        name_axes(ax, xlabel, "")
        _name_uprights(ax, limits)
    return fig


@described(alt.rows)
def waterfall(df, label, value, *, xlabel, limit=None, unit=""):
    """Steps from slow to fast on a log axis: each row's bar spans what the step took away; factors
    at the right.

    `limit` is (value, "name"): the gap that remains above it is drawn as a dashed empty bar.
    """
    with styled():
        fig, ax = canvas(1.15 + 0.34 * (len(df) + (limit is not None)), log="x")
        after = df[value].to_numpy(float)
        before = np.r_[after[0], after[:-1]]
        factors = [
            "",
            *(f"   {number(b / a, 2)}×" for b, a in zip(after[:-1], after[1:], strict=True)),
        ]
        texts = [
            f"{number(value, 3)}{unit}{factor}"
            for value, factor in zip(after, factors, strict=True)
        ]
        rows, names = np.arange(len(df)), list(df[label])
        ax.barh(
            rows[1:], (before - after)[1:], 0.56, left=after[1:], color=PALETTE["blue"][0], zorder=3
        )
        ax.plot(after, rows, "o", color=PALETTE["blue"][0], ms=6, mec="white", mew=0.8, zorder=4)
        if limit:
            rows, names = np.arange(len(df) + 1), [*names, "remaining gap"]
            texts.append(f"{number(limit[0], 3)}{unit}   {number(after[-1] / limit[0], 2)}×")
            empty = dict(facecolor="none", edgecolor=INK, lw=1.1, ls="--", zorder=3)
            ax.barh(rows[-1], after[-1] - limit[0], 0.56, left=limit[0], **empty)
        _rows_axis(ax, rows, names, texts)
        _upright(ax, [limit] if limit else [])
        name_axes(ax, xlabel, "", "x")
        _name_uprights(ax, [limit] if limit else [])
    return fig


def _rows_axis(ax, rows, names, texts):
    """Labelled rows from the top; `texts`, if any, in a column at the right edge."""
    ax.set_yticks(rows, [short(name) for name in names])
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.set_ylim(len(rows) - 0.4, -0.75)
    ax.set_ylabel("")
    ax.grid(False, axis="y")
    ax.grid(True, axis="x")
    if texts is not None:
        right = ax.secondary_yaxis("right")
        right.set_yticks(rows, list(texts))
        right.tick_params(length=0, labelcolor=INK_2)
        right.spines["right"].set_visible(False)


def _upright(ax, limits, beyond=None):
    """Vertical limits, the ticks of the x axis, and the hatching beyond the first limit."""
    for value, _ in limits:
        ax.axvline(value, color=INK, ls=DASHED, lw=1.2, zorder=2.5)
    if beyond and limits:
        hatch_beyond(ax, limits[0][0], beyond, vertical=True)
    set_scale(ax.xaxis)


def _name_uprights(ax, limits):
    labels = Labels(ax)
    for value, name in limits:
        labels.on_upright(value, name)
    labels.settle()
