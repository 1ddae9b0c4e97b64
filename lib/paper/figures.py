"""Figures of the report, one look for all: a DataFrame in, a matplotlib Figure out (6 inches wide,
192 dpi).

Every function takes column names. Common arguments:

    low, high   columns of the 95 % interval, drawn as a band or a bar limits      [(value,
    "name")], for `lines` also [((xs, ys), "name")]: what physics or information sets,
                a dashed line named in italics; `xlimits` are upright ones
    beyond      "above" | "below": hatch what lies past the first limit, where nothing can be
    measured seed        the seed report's numbers, as hollow vermilion diamonds colors      {group:
    "blue" | "teal" | "plum" | "ochre" | "grey" | "vermilion"} log         "x", "y", "xy" or ""

Labels stand beside what they name and are moved apart where they would cover something; there is no
legend."""

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
    TickText,
    assign,
    canvas,
    hatch_beyond,
    name_axes,
    name_panel,
    png_bytes,
    set_scale,
    styled,
)
from .labels import Labels
from .numerals import column
from .rows import bars, dots, ladder, waterfall
from .words import drawable
from .words import label as short

__all__ = [
    "bars",
    "dots",
    "heatmap",
    "histograms",
    "ladder",
    "learning_curves",
    "lines",
    "pareto",
    "png_bytes",
    "reserves",
    "waterfall",
]


@described(alt.lines)
def lines(
    df,
    x,
    y,
    group=None,
    low=None,
    high=None,
    *,
    xlabel,
    ylabel,
    log="",
    limits=(),
    xlimits=(),
    seed=(),
    beyond=None,
    colors=None,
    xticks=None,
    markers=None,
    height=3.5,
):
    """One line a group, labelled at its right end, with its interval as a band.

    `seed` is [(x, y, "label")]; `markers` None draws them where a line has at most 12 points.
    """
    with styled():
        fig, ax = canvas(height, log=log)
        parts = dict(list(df.groupby(group, sort=False))) if group else {"": df}
        chosen = assign(list(parts), colors)
        ends = []
        for name, part in parts.items():
            part = part.sort_values(x)
            line, text = PALETTE[chosen[name]]
            dotted = len(part) <= 12 if markers is None else markers
            marks = dict(marker="o", mec=line, ms=5) if dotted else {}
            sns.lineplot(part, x=x, y=y, ax=ax, color=line, estimator=None, zorder=4, **marks)
            if low:
                ax.fill_between(
                    part[x], part[low], part[high], color=line, alpha=0.2, linewidth=0, zorder=3
                )
            known = part[part[y].notna()]
            ends.append((known[y].iloc[-1], name, text))
        for sx, sy, _ in seed:
            ax.plot(sx, sy, **SEED_MARK)
        curves = _limit_curves(ax, limits)
        for value, _ in xlimits:
            ax.axvline(value, color=INK, ls=DASHED, lw=1.2, zorder=2.5)
        ticks = _few(df[x]) if xticks is None and "x" in log else xticks
        set_scale(ax.xaxis, ticks)
        set_scale(ax.yaxis)
        if beyond and limits:
            hatch_beyond(ax, limits[0][0], beyond)
        name_axes(ax, xlabel, ylabel, log)
        labels = Labels(ax)
        labels.ends(ends if group else [])
        for sx, sy, text in seed:
            labels.beside(sx, sy, text, PALETTE["vermilion"][1])
        for xs, ys, text in curves:
            labels.on_line(xs, ys, text)
        for value, text in xlimits:
            labels.on_upright(value, text)
        labels.settle()
    return fig


def learning_curves(
    df,
    x="step",
    y="loss",
    group=None,
    *,
    xlabel="step",
    ylabel="loss, nats per token",
    limits=(),
    log="x",
    **options,
):
    """Loss against steps or tokens, one line a run or a mechanism; the floor and the uniform guess
    are the limits."""
    return lines(
        df[df[x] > 0] if "x" in log else df,
        x,
        y,
        group,
        xlabel=xlabel,
        ylabel=ylabel,
        limits=limits,
        log=log,
        **{"markers": False, **options},
    )


@described(alt.points)
def pareto(
    df,
    x,
    y,
    label,
    low=None,
    high=None,
    *,
    xlabel,
    ylabel,
    log="",
    limits=(),
    xlimits=(),
    seed=(),
    colors=None,
    front="min",
    height=3.7,
):
    """Every point named; filled and joined where no other is better on both axes, hollow where one
    is.

    `front` is "min" (smaller is better on both axes), "max" (larger y is better), or None for a
    plain scatter; `low` and `high` bound y; `colors` is {label: palette name}."""
    with styled():
        fig, ax = canvas(height, log=log)
        best = _front(df, x, y, front)
        chosen = {name: "blue" if on else "grey" for name, on in zip(df[label], best, strict=True)}
        chosen = assign([], {**chosen, **(colors or {})})
        edge = df[best].sort_values(x)
        if front:
            ax.plot(edge[x], edge[y], color=PALETTE["blue"][0], lw=1.2, alpha=0.45, zorder=2)
        for record, on in zip(df.to_dict("records"), best, strict=True):
            line = PALETTE[chosen[record[label]]][0]
            if low and np.isfinite(record[low]):
                ax.plot([record[x]] * 2, [record[low], record[high]], color=line, lw=1.4, zorder=3)
            ax.plot(
                record[x],
                record[y],
                "o",
                ms=6.5,
                mec=line,
                mfc=line if on else "white",
                mew=1.5,
                zorder=4,
            )
        for sx, sy, _ in seed:
            ax.plot(sx, sy, **SEED_MARK)
        ax.margins(0.08)
        curves = _limit_curves(ax, limits)
        for value, _ in xlimits:
            ax.axvline(value, color=INK, ls=DASHED, lw=1.2)
        set_scale(ax.xaxis)
        set_scale(ax.yaxis)
        name_axes(ax, xlabel, ylabel, log)
        labels = Labels(ax)
        for record in df.to_dict("records"):
            labels.beside(record[x], record[y], record[label], PALETTE[chosen[record[label]]][1])
        for sx, sy, text in seed:
            labels.beside(sx, sy, text, PALETTE["vermilion"][1])
        for xs, ys, text in curves:
            labels.on_line(xs, ys, text)
        for value, text in xlimits:
            labels.on_upright(value, text)
        labels.settle()
    return fig


@described(alt.matrix)
def heatmap(frames, *, label, xlabel="", ylabel="", annotate=False, limits=None, height=None):
    """A matrix (DataFrame: index down, columns across), or {title: DataFrame} side by side on one
    scale, in cividis.

    `limits` is the (low, high) of the colour scale; `annotate` writes the numbers into the cells.
    """
    panels = frames if isinstance(frames, dict) else {"": frames}
    first = next(iter(panels.values()))
    with styled():
        fig, axes = canvas(height or min(max(0.27 * len(first) + 1.1, 2.2), 5.5), len(panels))
        axes = np.atleast_1d(axes)
        low, high = limits or (
            min(f.min().min() for f in panels.values()),
            max(f.max().max() for f in panels.values()),
        )
        for ax, (title, frame) in zip(axes, panels.items(), strict=True):
            texts = np.reshape(column(frame.to_numpy().ravel()), frame.shape) if annotate else None
            sns.heatmap(
                frame.set_axis([short(name, 40 // len(panels)) for name in frame.index]).set_axis(
                    [short(name, 16) for name in frame.columns], axis=1
                ),
                ax=ax,
                cmap="cividis",
                vmin=low,
                vmax=high,
                cbar=False,
                linewidths=0.5 if annotate else 0,
                linecolor="white",
                annot=texts,
                fmt="",
                annot_kws={"fontsize": 8.5},
            )
            if annotate:
                _contrast(ax, frame.to_numpy(float))
            ax.set(xlabel=drawable(xlabel), ylabel="")
            ax.tick_params(length=0)
            ax.tick_params(axis="y", rotation=0)
            name_panel(ax, title or ylabel, panels=len(panels))
        for ax in axes[1:]:
            ax.set_yticks([])
        if ylabel and len(panels) > 1:
            name_panel(axes[0], f"{next(iter(panels))}; rows: {ylabel}", panels=len(panels))
        bar = fig.colorbar(
            axes[0].collections[0],
            ax=list(axes),
            shrink=0.9,
            aspect=22,
            pad=0.02,
            format=TickText(),
        )
        name_panel(axes[-1], label, loc="right", panels=4)  # beside the colour scale
        bar.outline.set_visible(False)
    return fig


def _contrast(ax, values):
    """Each cell's number in black or white, whichever stands out more: 4.58:1 or better on any
    colour."""
    for text, rgba in zip(ax.texts, _cells(ax, values), strict=True):
        linear = np.where(
            rgba[:3] <= 0.04045, rgba[:3] / 12.92, ((rgba[:3] + 0.055) / 1.055) ** 2.4
        )
        luminance = linear @ (0.2126, 0.7152, 0.0722)
        text.set_color(
            "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "black"
        )


def _cells(ax, values):
    """The colours of the cells that hold a number, as seaborn annotates them: row by row."""
    mesh = ax.collections[0]
    return mesh.to_rgba(values.ravel()[np.isfinite(values.ravel())])


@described(alt.panels)
def histograms(df, x, y, panel, grids, *, xlabel, ylabel, colors=None, height=2.6):
    """Steps of y at the evenly spaced centres x, a panel each side by side, and below each the
    points of its grid.

    `grids` is {panel: levels}: what a number format can represent, drawn as upright ticks over the
    whole height."""
    with styled():
        panels = dict(list(df.groupby(panel, sort=False)))
        fig, axes = canvas(height, len(panels))
        chosen = assign([], {name: (colors or {}).get(name, "blue") for name in panels})
        for ax, (name, part) in zip(np.atleast_1d(axes), panels.items(), strict=True):
            width = part[x].diff().median()
            edges = np.r_[part[x].to_numpy() - width / 2, part[x].iloc[-1] + width / 2]
            ax.vlines(
                grids.get(name, ()),
                0,
                part[y].max() * 1.04,
                color=INK_2,
                lw=0.6,
                alpha=0.7,
                zorder=2,
            )
            ax.stairs(
                part[y], edges, fill=True, color=PALETTE[chosen[name]][0], alpha=0.75, zorder=3
            )
            ax.set(xlim=(edges[0], edges[-1]), ylim=(0, part[y].max() * 1.04), yticks=[])
            name_panel(ax, name, panels=len(panels))
            ax.set_xlabel(drawable(xlabel))
            set_scale(ax.xaxis)
        np.atleast_1d(axes)[0].set_ylabel(drawable(ylabel))
    return fig


@described(alt.reserves)
def reserves(
    df,
    x,
    used,
    reserved,
    group,
    panel,
    *,
    xlabel,
    ylabel,
    words,
    colors=None,
    xticks=None,
    height=3.4,
):
    """What grows with x below what is held for it from the start, and between the two the waste;
    logarithmic, panels alike.

    Of each group a solid line `used` and a dotted one `reserved`, of the first the room between
    them shaded; groups are named at the right end of the last panel, and `words` (of the dotted, of
    the solid line) stand in the first."""
    with styled():
        panels = dict(list(df.groupby(panel, sort=False)))
        fig, axes = canvas(height, len(panels))
        axes, chosen = np.atleast_1d(axes), assign(list(dict.fromkeys(df[group])), colors)
        top, low = df[reserved].max(), df[used].min()
        for ax, (name, part) in zip(axes, panels.items(), strict=True):
            ax.set(xscale="log", yscale="log", ylim=(low / 1.5, top * 1.8))
            for which, own in part.groupby(group, sort=False):
                color = PALETTE[chosen[which]][0]
                ax.plot(own[x], own[reserved], color=color, ls=(0, (1, 1.6)), lw=1.6, zorder=3)
                ax.plot(own[x], own[used], color=color, zorder=4)
            own = part[part[group] == part[group].iloc[0]]
            ax.fill_between(
                own[x],
                own[used],
                own[reserved],
                color=PALETTE["grey"][0],
                alpha=0.1,
                linewidth=0,
                zorder=1,
            )
            set_scale(ax.xaxis, xticks)
            set_scale(ax.yaxis)
            ax.set_xlabel(drawable(xlabel))
            name_panel(ax, name, panels=len(panels))
        for ax in axes[1:]:
            ax.tick_params(left=False, labelleft=False)
        name_panel(axes[0], f"{ylabel}; {next(iter(panels))}", panels=len(panels))
        ends = [
            (own[used].iloc[-1], which, PALETTE[chosen[which]][1])
            for which, own in part.groupby(group, sort=False)
        ]
        Labels(axes[-1]).ends(ends)
        first, labels = next(iter(panels.values())), Labels(axes[0])
        first = first[first[group] == first[group].iloc[0]]
        for text, line in zip(words, (reserved, used), strict=True):
            labels.on_line(first[x], first[line], text)
        labels.settle()
    return fig


def _limit_curves(ax, limits):
    """Draws the limits, flat ones across the whole axis; returns (xs, ys, name) of each for
    labelling."""
    curves = []
    for limit, name in limits:
        low, high = ax.get_xlim()
        if np.isscalar(limit):
            ax.axhline(limit, color=INK, ls=DASHED, lw=1.2, zorder=2.5)
            xs = (
                np.geomspace(low, high, 60)
                if ax.get_xscale() == "log"
                else np.linspace(low, high, 60)
            )
            curves.append((xs, np.full(60, float(limit)), name))
        else:
            xs, ys = (np.asarray(values, float) for values in limit)
            ax.plot(xs, ys, color=INK, ls=DASHED, lw=1.2, zorder=2.5)
            curves.append((xs, ys, name))
    return curves


def _few(values):
    """The values themselves as ticks, where there are at most 8 of them."""
    values = sorted(set(values))
    return values if len(values) <= 8 else None


def _front(df, x, y, front):
    """Which points no other point beats on both axes."""
    if front is None:
        return np.ones(len(df), bool)
    cost = np.column_stack([df[x], df[y] if front == "min" else -df[y]])
    return np.array(
        [not ((cost <= row).all(axis=1) & (cost < row).any(axis=1)).any() for row in cost]
    )
