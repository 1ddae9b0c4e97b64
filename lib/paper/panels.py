"""Panels side by side: what is used, below what is reserved. Arguments as in `figures`."""

import numpy as np

from . import alt
from .alt import described
from .canvas import PALETTE, assign, canvas, styled
from .labels import Labels, room
from .layout import arrange, name_panels, set_scale
from .words import drawable


@described(alt.reserves)
def reserves(df, x, used, reserved, group, panel, *, xlabel, ylabel, words, colors=None,
             xticks=None, height=3.4):  # fmt: skip
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
