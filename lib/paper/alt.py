"""Alternative texts, written from the data that a figure draws.

`described(by)` marks a figure function: the Figure that it returns carries the sentence that `by`
makes from the same arguments, as `fig.alt`, and what it draws, its first argument, as `fig.data`.
"""

import inspect
from functools import wraps

import numpy as np

from .numerals import brief, number

MOST = 12  # things named one by one; of more only how many there are


def described(by):
    """Decorator: `by`, called with the figure function's arguments, writes `fig.alt`."""

    def mark(draw):
        signature = inspect.signature(draw)

        @wraps(draw)
        def drawn(*args, **options):
            fig = draw(*args, **options)
            bound = signature.bind(*args, **options)
            bound.apply_defaults()
            fig.alt, fig.data = by(**bound.arguments), bound.args[0]
            return fig

        return drawn

    return mark


def whole(data, fig):
    """The figure as one of all of `data`, of which it draws a part, or in another order."""
    fig.data = data
    return fig


def lines(df, x, y, group, xlabel, ylabel, limits=(), xlimits=(), log="", marks=None, **_):
    """Each line's first and last point, and its highest and lowest where they lie between, in their
    order from the left; and its marks."""
    parts = df.groupby(group, sort=False) if group else [("", df)]
    told = [f"{name or 'one line'}: {_course(part, x, y, marks)}" for name, part in parts]
    axes = {"xy": " on logarithmic axes", "x": " on a logarithmic axis", "y": ", logarithmic"}
    return _sentences(f"Lines of {ylabel} over {xlabel}{axes.get(log, '')}", told, limits, xlimits)


def _course(part, x, y, marks):
    part = part[part[y].notna()].sort_values(x)
    if part.empty:
        return "nothing"
    first, last = part.iloc[0], part.iloc[-1]
    text = f"from {number(first[y], 3)} at {brief(number(first[x], 3))}"
    ends = sorted((first[y], last[y]))
    turns = (part.loc[part[y].idxmax()], "up"), (part.loc[part[y].idxmin()], "down")
    for row, word in sorted(turns, key=lambda turn: turn[0][x]):
        if not ends[0] <= row[y] <= ends[1]:
            text += f" {word} to {number(row[y], 3)} at {brief(number(row[x], 3))}"
    marked = part[marks].dropna() if marks else ()
    more = "".join(f", a mark at {number(value, 4)}" for value in marked)
    return f"{text} to {number(last[y], 3)} at {brief(number(last[x], 3))}{more}"


def points(df, label, x, y, xlabel, ylabel, low=None, high=None, limits=(), **_):
    """Each named point with both of its values."""
    told = [
        f"{row[label]}: {number(row[x], 3)} and {_interval(row, y, low, high)}"
        for row in df.to_dict("records")
    ]
    return _sentences(f"Points, {xlabel} and {ylabel}", told, limits)


def rows(df, label, value, xlabel, group=None, low=None, high=None, limits=(), **_):
    """Each row's value with its interval."""
    told = [
        f"{row[label]}{f', {row[group]}' if group else ''}: {_interval(row, value, low, high)}"
        for row in df.to_dict("records")
    ]
    return _sentences(f"Rows of {xlabel}", told, limits)


def reserves(df, x, used, reserved, group, panel, xlabel, ylabel, words, **_):
    """What is used and reserved at the right end of each panel."""
    last = df[df[x] == df[x].max()]
    told = [
        f"{row[panel]}, {row[group]}: {words[0]} {number(row[reserved], 3)}, "
        f"{words[1]} {number(row[used], 3)}"
        for row in last.to_dict("records")
    ]
    opening = f"Panels of {ylabel} over {xlabel} on logarithmic axes; at {number(df[x].max())}"
    return _sentences(opening, told)


def matrix(frames, label, xlabel="", ylabel="", **_):
    """The size of each matrix and where its largest and smallest numbers stand."""
    told = []
    for title, frame in (frames if isinstance(frames, dict) else {"": frames}).items():
        values = frame.to_numpy(float).ravel()
        ends = [
            f"{number(values[at], 3)} at {_place(frame, at)}"
            for at in (np.nanargmin(values), np.nanargmax(values))
        ]
        size = f"{frame.shape[0]} by {frame.shape[1]}"
        told.append(f"{title}{': ' if title else ''}{size}, from {ends[0]} to {ends[1]}")
    axes = " over ".join(filter(None, (ylabel, xlabel)))
    return _sentences(f"Matrix of {label}{f', {axes}' if axes else ''}", told)


def _interval(row, value, low, high):
    text = number(row[value], 3)
    if low and high and row[low] == row[low]:
        text += f" [{number(row[low], 3)}, {number(row[high], 3)}]"
    return text


def _place(frame, at):
    """The names of a cell's row and column; names may repeat."""
    row, column = divmod(int(at), frame.shape[1])
    names = (frame.index[row], frame.columns[column])
    return ", ".join(name if isinstance(name, str) else number(name) for name in names)


def _sentences(opening, told, *limits):
    named = [str(name) for each in limits for _, name in each]
    rest = f" and {len(told) - MOST} more" if len(told) > MOST else ""
    text = f"{opening}. {'; '.join(told[:MOST])}{rest}."
    return f"{text} Also drawn: {', '.join(named)}." if named else text
