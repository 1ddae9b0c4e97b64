"""Figures of the report, one look for all: a DataFrame in, a matplotlib Figure out (6 inches wide,
192 dpi).

Every function takes column names. Common arguments:

    low, high   columns of the 95 % interval, drawn as a band or a bar
    limits      [(value, "name")], for `lines` also [((xs, ys), "name")]: what physics or
                information sets, a dashed line named in italics; `xlimits` are upright ones
    beyond      "above" | "below": hatch what lies past the first limit of rows, where nothing can
                be measured
    seed        the original report's numbers, as hollow vermilion diamonds
    colors      {group: "blue" | "teal" | "plum" | "ochre" | "grey" | "vermilion"}
    log         "x", "y", "xy" or ""

Labels stand beside what they name and are moved apart where they would cover something; there is no
legend."""

import numpy as np

from . import alt
from .alt import described
from .canvas import AGAIN, DASHED, INK, INK_2, PALETTE, SEED_MARK, assign, canvas, png_bytes, styled
from .labels import at_edge, name_marks, room
from .layout import name_axes, set_scale
from .matrix import heatmap
from .numerals import fixed, supported
from .panels import reserves
from .rows import bars, dots, ladder, waterfall

__all__ = ["bars", "dots", "heatmap", "ladder", "lines", "pareto", "reserves", "waterfall"]
__all__ += ["png_bytes"]


@described(alt.lines)
def lines(df, x, y, group=None, low=None, high=None, *, xlabel, ylabel, log="", limits=(),
          xlimits=(), seed=(), colors=None, xticks=None, markers=None, marks=None,
          height=3.5):  # fmt: skip
    """One line a group, labelled at its right end, with its interval as a band.

    `seed` is [(x, y, "label")]; `markers` None draws them where no line has more than 12 points;
    `marks` is a column: where it has a number, a hollow mark stands in the line's colour."""
    with styled():
        fig, ax = canvas(height, log=log)
        parts = dict(list(df.groupby(group, sort=False))) if group else {"": df}
        chosen = assign(list(parts), colors)
        dotted = markers if markers is not None else max(map(len, parts.values())) <= 12
        ends, used = [], set()
        for name, part in parts.items():
            part = part[part[y].notna()].sort_values(x)
            line, text = PALETTE[chosen[name]]
            style = dict(marker="o", mfc=line, mec="white", mew=0.8, ms=6) if dotted else {}
            style["ls"] = AGAIN if line in used else "-"
            used.add(line)
            ax.plot(part[x], part[y], color=line, zorder=4, **style)
            if marks:
                ax.plot(part[x], part[marks], "o", mec=line, mfc="white", mew=1.5, ms=6, zorder=5)
            if low:
                band = dict(color=line, alpha=0.2, linewidth=0, zorder=3)
                ax.fill_between(part[x], part[low], part[high], **band)
            if group and len(part):
                ends.append((part[x].iloc[-1], part[y].iloc[-1], name, text))
        curves = _limits(ax, limits, xlimits, seed)
        set_scale(ax.xaxis, _few(df[x]) if xticks is None and "x" in log else xticks)
        set_scale(ax.yaxis)
        name_axes(ax, xlabel, ylabel, log)
        flat = [not np.ptp(ys) or not at_edge(ax, xs[-1], ys[-1]) for xs, ys, _ in curves]
        for (xs, ys, name), level in zip(curves, flat, strict=True):
            ends += [] if level else [(xs[-1], ys[-1], name, INK, "italic")]
        curves = [curve for curve, level in zip(curves, flat, strict=True) if level]

        def say(labels):
            labels.ends(ends)
            _name_limits(labels, curves, xlimits, seed)

        name_marks(ax, say, room(ax, ends))
    return fig


@described(alt.points)
def pareto(df, x, y, label, low=None, high=None, *, xlabel, ylabel, log="", limits=(), colors=None,
           front=True, among=None, least=None, height=3.7):  # fmt: skip
    """Every point named; filled where no other is better on both axes, hollow where one is, by the
    whole of both intervals where there are any. Filled neighbours are joined, unless their
    intervals overlap: then nothing is known of an exchange between them.

    Smaller is better on both axes; `front` False: a plain scatter. `among` is a column that says of
    each point whether it is compared with the others at all; `low` and `high` bound y; `colors` is
    {label: palette name}. What is below `least`, such as zero on a logarithmic axis, is drawn there
    as a triangle, its value in its name."""
    with styled():
        fig, ax = canvas(height, log=log)
        compared = df[among].to_numpy(bool) if among else np.ones(len(df), bool)
        best = compared & (unbeaten(df, compared, x, y, low, high) | (not front))
        chosen = {name: "blue" if on else "grey" for name, on in zip(df[label], best, strict=True)}
        chosen = assign([], {**chosen, **(colors or {})})
        filled = best if front else np.ones(len(df), bool)
        names = _points(ax, df, (x, y, label, low, high), chosen, filled, least)
        for a, b in _steps(df, best, x, y, low, high) if front else ():
            ends = np.array([names[a][:2], names[b][:2]], float)
            if not (ends[:, 1] == least).all():  # what is below it is not drawn to scale
                ax.plot(*ends.T, color=PALETTE["blue"][0], lw=1.2, alpha=0.45, zorder=2)
        if least is not None and (df[y] < least).any():
            ax.axhline(least, color=INK_2, lw=0.8, ls=(0, (1, 2)), zorder=2)
        ax.margins(0.08)
        curves = _limits(ax, limits)
        whole = "x" in log and (df[x] % 1 == 0).all()
        set_scale(ax.xaxis, _few(df[x]) if whole else None)
        set_scale(ax.yaxis)
        name_axes(ax, xlabel, ylabel, log)

        def say(labels):
            for name in names:
                labels.beside(*name)
            _name_limits(labels, curves)

        name_marks(ax, say)
    return fig


def _points(ax, df, columns, chosen, filled, least):
    """Draws points with their intervals; returns (x, y, name, colour) of each for labelling."""
    x, y, label, low, high = columns
    bottom = -np.inf if least is None else least
    names = []
    for record, on in zip(df.to_dict("records"), filled, strict=True):
        line, text = PALETTE[chosen[record[label]]]
        at, said = max(record[y], bottom), record[label]
        if low and np.isfinite(record[low]) and record[high] >= bottom:
            ends = [max(record[low], bottom), record[high]]
            ax.plot([record[x]] * 2, ends, color=line, lw=1.4, zorder=3)
        if under := record[y] < bottom:
            said = f"{said}, {fixed(record[y], supported(0, least))}"
        face = dict(mec=line, mfc=line if on else "white", mew=1.5, ms=6.5)
        ax.plot(record[x], at, "v" if under else "o", zorder=4, **face)
        names.append((record[x], at, said, text))
    return names


def _limits(ax, limits, xlimits=(), seed=()):
    """Draws limits and the original report's points; flat limits go across the whole axis. Returns
    (xs, ys, name) of each limit for labelling."""
    for x, y, _ in seed:
        ax.plot(x, y, **SEED_MARK)
    curves = []
    style = dict(color=INK, ls=DASHED, lw=1.2, zorder=2.5)
    for limit, name in limits:
        if np.isscalar(limit):
            ax.axhline(limit, **style)
            xs = ax.transScale.inverted().transform(
                np.linspace(*ax.transScale.transform([(x, 1) for x in ax.get_xlim()]), 60)
            )[:, 0]
            curves.append((xs, np.full(60, float(limit)), name))
        else:
            xs, ys = (np.asarray(values, float) for values in limit)
            ax.plot(xs, ys, **style)
            curves.append((xs, ys, name))
    for value, _ in xlimits:
        ax.axvline(value, **style)
    ax.autoscale_view()  # a limit near the edge gets its margin too
    return curves


def _name_limits(labels, curves, xlimits=(), seed=()):
    for x, y, text in seed:
        labels.beside(x, y, text, PALETTE["vermilion"][1])
    for xs, ys, text in curves:
        labels.on_line(xs, ys, text)
    for value, text in xlimits:
        labels.on_upright(value, text)


def _few(values):
    """The values themselves as ticks, where there are at most 8 of them."""
    values = sorted(set(values))
    return values if len(values) <= 8 else None


def unbeaten(df, compared, x, y, low, high):
    """Which points no compared point beats on both axes: no larger x, and a whole interval on the
    better side; without intervals a better y, or an equal one at a smaller x."""
    cost, xs = df[y].to_numpy(float), df[x].to_numpy(float)
    ends = [df[end].fillna(df[y]).to_numpy(float) for end in (low, high)] if low else [cost]
    beats = (xs[:, None] <= xs) & (ends[-1][:, None] < ends[0])
    if not low:
        beats |= (xs[:, None] < xs) & (cost[:, None] <= cost)
    return ~beats[compared].any(axis=0)


def _steps(df, best, x, y, low, high):
    """Neighbours on the front that a step surely parts, as pairs of their places."""
    places = np.flatnonzero(best)
    places = places[np.argsort(df[x].to_numpy()[places], kind="stable")]
    ends = [df[end].fillna(df[y]).to_numpy(float) for end in (low, high)] if low else ()
    for pair in zip(places[:-1], places[1:], strict=True):
        if not low or max(ends[0][[*pair]]) > min(ends[1][[*pair]]):
            yield pair
