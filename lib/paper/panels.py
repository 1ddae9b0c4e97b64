"""Figures of panels side by side: histograms over grids, and what is used below what is reserved.
Arguments as in `figures`."""

import numpy as np

from . import alt
from .alt import described
from .canvas import INK_2, PALETTE, arrange, assign, canvas, name_panels, set_scale, styled
from .labels import Labels, room
from .words import drawable


@described(alt.panels)
def histograms(df, x, y, panel, grids, *, xlabel, ylabel, colors=None, height=2.6):
    """Steps of y at the evenly spaced centres x, a panel each side by side, and below each the
    points of its grid.

    `grids` is {panel: levels}: what a number format can represent, drawn as upright ticks over the
    whole height."""
    with styled():
        panels = dict(list(df.groupby(panel, sort=False)))
        fig, axes = canvas(height, len(panels))
        axes = np.atleast_1d(axes)
        chosen = assign([], {name: (colors or {}).get(name, "blue") for name in panels})
        for ax, (name, part) in zip(axes, panels.items(), strict=True):
            width, top = part[x].diff().median(), part[y].max() * 1.04
            edges = np.r_[part[x].to_numpy() - width / 2, part[x].iloc[-1] + width / 2]
            grid = dict(color=INK_2, lw=0.6, alpha=0.7, zorder=2)
            ax.vlines(grids.get(name, ()), 0, top, **grid)
            paint = dict(color=PALETTE[chosen[name]][0], alpha=0.75, zorder=3)
            ax.stairs(part[y], edges, fill=True, **paint)
            ax.set(xlim=(edges[0], edges[-1]), ylim=(0, top), yticks=[])
            ax.set_xlabel(drawable(xlabel))
            set_scale(ax.xaxis)
        name_panels(axes, panels, ylabel)
        arrange(fig)
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
        for ax, part in zip(axes, panels.values(), strict=True):
            ax.set(xscale="log", yscale="log", ylim=(low / 1.5, top * 1.8))
            groups = dict(list(part.groupby(group, sort=False)))
            for which, own in groups.items():
                color = PALETTE[chosen[which]][0]
                ax.plot(own[x], own[reserved], color=color, ls=(0, (1, 1.6)), lw=1.6, zorder=3)
                ax.plot(own[x], own[used], color=color, zorder=4)
            own = next(iter(groups.values()))
            shade = dict(color=PALETTE["grey"][0], alpha=0.1, linewidth=0, zorder=1)
            ax.fill_between(own[x], own[used], own[reserved], **shade)
            set_scale(ax.xaxis, xticks)
            set_scale(ax.yaxis)
            ax.set_xlabel(drawable(f"{xlabel} (log scale)"))
        for ax in axes[1:]:
            ax.tick_params(left=False, labelleft=False)
        name_panels(axes, panels, f"{ylabel} (log scale)")
        ends = [
            (own[x].iloc[-1], own[used].iloc[-1], which, PALETTE[chosen[which]][1])
            for which, own in groups.items()
        ]
        arrange(fig, room(axes[-1], ends))
        last = Labels(axes[-1])
        last.ends(ends)
        last.settle()
        first, labels = next(iter(panels.values())), Labels(axes[0])
        first = first[first[group] == first[group].iloc[0]]
        for text, line in zip(words, (reserved, used), strict=True):
            labels.on_line(first[x], first[line], text)
        labels.settle()
    return fig
