"""Figures of time and memory, each from the table that its study returns: which columns and axes.
What they draw and how, `paper.figures` says."""

from paper import figures
from paper.alt import whole

from .headline import SHORT

ENDS = ("low", "high")
ORIGINAL = "original report"
# formats of weights, whichever a table names first, and the loop that the headline is about
FORMATS = {"fp32": "blue", "int8": "teal", "int4, groups of 32": "plum", "bf16": "ochre"}
LOOPS = {"static cache": "blue", "growing cache": "teal"}
MARK = [(1, "mark")]  # the least that a machine's memory and its best product allow


def reserved(use):
    """Bytes in use and bytes reserved by tokens in use, a panel a kind of heads."""
    columns = ("tokens", "paged_kib", "static_kib", "format", "heads")
    axes = dict(xlabel="tokens in use", ylabel="KiB", xticks=[16, 256, 8192])
    return figures.reserves(use, *columns, **axes, words=("static", "paged"))


def waste(shares):
    """Bytes reserved for each byte in use, a line a cache."""
    axes = dict(xlabel="tokens in use", ylabel="bytes reserved for each byte in use", log="xy")
    more = dict(markers=False, limits=[(1, "nothing in vain")])
    return figures.lines(shares, "tokens", "reserved_share", "cache", **axes, **more)


def growth(grown):
    """Growth of a process while it generates, a line a cache."""
    axes = dict(xlabel="tokens generated", ylabel="growth of the process, KiB", markers=False)
    return figures.lines(grown, "tokens", "process_kib", "cache", **axes)


def forwards(single, limits, knee):
    """Time of one forward by its tokens, a line a phase."""
    axes = dict(xlabel="tokens", ylabel="time of one forward, µs", log="xy")
    more = dict(limits=limits, xlimits=[(knee, "t*")])
    words = dict(recompute="recomputing", several="several tokens", rows="several sequences")
    shown = single.replace({"phase": words})
    return whole(single, figures.lines(shown, "tokens", "estimate", "phase", **axes, **more))


def speedups(gains, limits, stated, theoretical):
    """Times as fast as recomputing by new tokens, a line a loop, and what the original report
    states of its 50: measured, and in theory."""
    axes = dict(xlabel="new tokens", ylabel="speed-up over recomputing, ×", log="xy")
    seed = [(SHORT, stated, ORIGINAL), (SHORT, theoretical, f"{ORIGINAL}, “theoretical”")]
    columns = ("new_tokens", "speedup", "loop", *ENDS)
    return figures.lines(gains, *columns, **axes, limits=limits, seed=seed, colors=LOOPS)


def worth(loops, limits):
    """Time per token by new tokens, a line a loop, beside what both take at the peak."""
    axes = dict(xlabel="new tokens", ylabel="µs per token", log="xy", limits=limits)
    timed = loops.assign(us_per_token=1e3 * loops.ms_per_token)
    return whole(loops, figures.lines(timed, "new_tokens", "us_per_token", "loop", **axes))


def waterfall(fall):
    """Time per token, step by step down; what was timed `apart` has no factor."""
    return figures.waterfall(fall, "step", "us_per_token", xlabel="µs per token", unit=" µs")


def serving(served):
    """Tokens per second by load, a line a policy."""
    axes = dict(xlabel="load, share of the capacity", ylabel="tokens per second")
    ticks = [0.3, 0.6, 0.9, 1.2]
    return figures.lines(served, "load", "tokens_per_s", "policy", **axes, xticks=ticks)


def steps(ways):
    """Bytes of a file against the time of one decode step."""
    axes = dict(xlabel="file, KiB", ylabel="one decode step, µs", log="xy", height=4.4)
    return figures.pareto(ways, "file_kib", "step_us", "how", *ENDS, **axes)


def kernels(grids):
    """Speed of every kernel against FP32, by width."""
    label = "times as fast as FP32"
    return figures.heatmap(grids, label=label, xlabel="width", annotate=True, center=1)


def peers(table):
    """Time of each further token, a row a runtime."""
    axes = dict(xlabel="µs per further token", log=True)
    return figures.dots(table, "runtime", "us_per_token", *ENDS, **axes)


def runtimes(table):
    """Tokens a second, a row a runtime and format, the slowest first."""
    axes = dict(xlabel="tokens a second, one thread", log=True)
    rising = table.sort_values("tokens_per_second")
    return whole(table, figures.dots(rising, "row", "tokens_per_second", **axes))


def ways(speeds):
    """Tokens a second of every way to decode, a row each."""
    way = speeds.runtime + ", " + speeds.format + ", cache: " + speeds.cache
    columns = dict(label="way", value="per_second", low="low", high="high")
    return whole(speeds, figures.bars(speeds.assign(way=way), **columns, xlabel="tokens a second"))


def over_mark(single):
    """How many times the mark a step takes, by model and format."""
    columns = ("shape", "over_least", "format", "over_least_low", "over_least_high")
    return figures.bars(single, *columns, xlabel="times the mark", limits=MARK)


def rows(table, ticks):
    """How many times the mark several rows take in FP32, a line a shape."""
    columns = ("rows", "over_least", "shape", "over_least_low", "over_least_high")
    axes = dict(xlabel="rows of one forward", ylabel="times the mark, FP32", xticks=ticks)
    own = table[table.format == "native FP32"]
    return whole(table, figures.lines(own, *columns, **axes, limits=MARK))


def layers(drawn, widths):
    """Time of one row through a square layer by its width, a line a format."""
    axes = dict(xlabel="width", ylabel="µs for one row", log="xy", xticks=widths)
    return figures.lines(drawn, "width", "us", "format", **axes, colors=FORMATS)
