"""The story that opens the page: its figures, two beside each other, each from the table that a
chapter left, and what its sentences say of them."""

import pandas as pd

from paper import figures, rows
from paper import mosaic as tiles
from paper.alt import whole
from paper.canvas import narrow
from paper.claims import known
from paper.drawing import flow
from paper.words import literal

from . import plots, resources
from .headline import SHORT, Fact


def ladder(rungs, floor=None):
    """Test perplexity of every system; nothing lies below the floor, where it is known."""
    limits = [(floor.value, "floor")] if floor else []
    columns = ("system", "perplexity", "low", "high")
    with narrow():
        label = "perplexity, test split"
        return rows.ladder(rungs, *columns, xlabel=label, limits=limits, beyond="below")


def mechanisms(lost):
    """What each system loses on each kind of token; above the floor, where it is known."""
    above = " above the floor" if lost.floor_nats.any() else ""
    with narrow():
        return plots.losses(lost, f"nats per token{above}")


def largest(lost) -> dict:
    """The kind of token on which the model, the second of the systems, loses most, and its share
    of all that it loses, in %."""
    own = lost[lost.system == lost.system.unique()[1]].set_index("kind")
    cost = own.excess_nats * own.share_percent
    return {"kind": literal(cost.idxmax()), "share": 100 * cost.max() / cost.sum()}


def gains(predicted, loops):
    """What a cache gains by length, in PyTorch, and in the engine where `loops` were timed."""
    eager = predicted.rename(columns={"measured": "speedup"}).assign(loop="PyTorch")
    own = loops[loops.loop == "engine, static cache"] if len(loops) else loops
    return pd.concat([own.assign(loop="C engine"), eager]) if len(own) else eager


def speed_up(gains, stated):
    """The same beside a machine at its peak, PyTorch's time model and the original report's."""
    columns, own = ("new_tokens", "speedup", "loop", "low", "high"), gains[gains.loop == "PyTorch"]
    axes = dict(xlabel="new tokens", ylabel="times as fast with a cache", log="xy", height=2.2)
    named = {"roofline": "roofline", "time_model": "time model, PyTorch"}
    limits = [((own.new_tokens, own[column]), name) for column, name in named.items()]
    seed = [(SHORT, stated, "original, other loop")]
    with narrow():
        return figures.lines(gains, *columns, **axes, limits=limits, seed=seed)


def quality(front):
    """Bytes against the perplexity that a format adds; what is below `LEAST` is drawn there, and
    nothing that another format beats on both."""
    x, y, *rest = columns = ("file_kib", "added_percent", "format", "low", "high")
    compared = front.compared.to_numpy(bool)
    best = figures.unbeaten(front, compared, x, y, *rest[1:])
    axes = dict(xlabel="file, KiB", ylabel="perplexity added, %", log="xy", height=2.6)
    axes |= dict(least=plots.LEAST, among="compared")
    with narrow():
        return whole(front, figures.pareto(front[best | ~compared], *columns, **axes))


def engine(native) -> dict:
    """At the longest length that was timed (`n` tokens), the gain of the same loop in C."""
    own = native[native.loop == "native FP32"].iloc[-1]
    return {"n": own.new_tokens, "gain": Fact(own.over_eager, "×", known((own.low, own.high)))}


def speed(fall):
    """Time per token, step by step down to the engine."""
    with narrow():
        return resources.waterfall(fall)


def audit(statements):
    """The statements of the original report, one tile each."""
    with narrow():
        return tiles.mosaic(statements)


def architecture(parts, blocks, cached):
    """The model's parts, what each leaves and holds; `blocks` and `cached` say of its blocks and of
    its attention what no part does."""
    columns = ("part", "does", "leaves", "parameters")
    words = dict(frame=blocks, note=cached, beside="attention")
    return flow(parts, *columns, group="group", joins="joins", **words)
