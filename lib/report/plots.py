"""Figures of what models learn, predict and lose, each from the table that its study returns: which
columns, axes and colours. What they draw and how, `paper.figures` says."""

from paper import figures
from paper.alt import whole

# the best n-gram, then a model of one block, its twin, and both with smeared keys
COLOURS = ("grey", "blue", "teal", "plum", "ochre")
ENDS = ("low", "high")
# encodings of positions, whichever a table names first
ENCODINGS = {"rotary": "blue", "sinusoidal": "teal", "none": "plum"}
LEAST = 0.01  # per cent: what costs less is drawn here, on a logarithmic axis


def frequencies(curves, unit):
    """Share of the tokens by rank, a line a corpus, the last one for comparison."""
    columns, colors = ("rank", "share_percent", "corpus"), {curves.corpus.iloc[-1]: "grey"}
    axes = dict(xlabel=f"rank of the {unit}", ylabel=f"share of the {unit}s, %", log="xy")
    return figures.lines(curves, *columns, **axes, markers=False, colors=colors)


def ladder(rungs, unit, limits=(), grey=()):
    """Perplexity of what the first column names; nothing lies below the first limit, if any."""
    columns, axis = (rungs.columns[0], "perplexity", *ENDS), f"perplexity per {unit}"
    more = dict(beyond="below" if limits else None, colors=dict.fromkeys(grey, "grey"))
    return figures.ladder(rungs, *columns, xlabel=axis, limits=limits, **more)


def learning(curves, limits=()):
    """Validation loss over tokens seen, a line a model."""
    label = "validation loss, nats per token"
    return _over_tokens(curves, "valid_nats", "model", ylabel=label, limits=limits)


def mechanisms(left):
    """What is left to learn over tokens seen, a line a mechanism."""
    return _over_tokens(left, "excess_nats", "mechanism", ylabel="excess over the source, nats")


def _over_tokens(df, value, group, **axes):
    """Lines over tokens seen; what was before the first has no place on a logarithmic axis."""
    axes |= dict(xlabel="tokens seen", log="x", markers=False)
    return whole(df, figures.lines(df[df.tokens > 0], "tokens", value, group, **axes))


def above_source(curves):
    """Loss above the source's own over tokens seen, a line an arm."""
    axes = dict(xlabel="tokens seen", ylabel="above the source, nats per token", log="xy")
    return figures.lines(curves, "tokens", "excess_nats", "what", **axes, markers=True)


def by_seconds(shown, limits):
    """Validation loss over seconds of training, a line a budget or a program, and marks."""
    axes = dict(xlabel="seconds of training", ylabel="nats per token", log="x", limits=limits)
    return figures.lines(shown, "seconds", "valid_nats", "who", **axes, marks="whole_nats")


def losses(budget, xlabel):
    """What each system loses on each kind of token, the n-gram first."""
    colors = dict(zip(budget.system.unique(), COLOURS, strict=False))
    columns = ("kind", "excess_nats", "system", *ENDS)
    return figures.bars(budget, *columns, xlabel=xlabel, colors=colors)


def budget(lost, unit):
    """`losses` of one split, each above the oracle's on the same tokens, where there is one."""
    above = " above the oracle" if lost.floor_nats.any() else ""
    return losses(lost, f"loss{above}, nats per {unit}")


def by_context(where, unit, limits, trained):
    """Loss by tokens of context, a line a model, and the window that they were trained with."""
    columns = ("position", "loss_nats", "system", *ENDS)
    axes = dict(xlabel=f"{unit}s of context in the window", ylabel=f"loss, nats per {unit}")
    more = dict(log="x", limits=limits, xlimits=[(trained, "trained")])
    return figures.lines(where, *columns, **axes, **more)


def by_window(lengths, limits=(), trained=None):
    """Loss by evaluated window, a line an encoding of positions, and the window of training."""
    columns = ("evaluated_window", "nats", "positions", *ENDS)
    axes = dict(xlabel="evaluated window, tokens", ylabel="test loss, nats per token", log="x")
    more = dict(limits=limits, xlimits=[(trained, "trained")] if trained else [])
    return figures.lines(lengths, *columns, **axes, **more, colors=ENCODINGS)


def endless(curves, trained, context):
    """Loss of a text without end above that of recomputing the window, a line a cache."""
    axes = dict(xlabel="tokens read", ylabel="nats per token above recomputing", markers=False)
    upright = [(trained, "trained"), (context, "context")]
    limits = dict(limits=[(0, "window recomputed")], xlimits=upright)
    return figures.lines(curves, "tokens", "excess_nats", "cache", **axes, **limits)


def calibration(bins):
    """Share that is right by confidence, a line a system, the n-gram first."""
    ends, columns = [0, bins.confidence.max()], ("confidence", "accuracy", "system", *ENDS)
    axes = dict(xlabel="confidence of the most probable token", ylabel="share that is right")
    more = dict(limits=[((ends, ends), "calibrated")], colors={bins.system.iloc[0]: "grey"})
    return figures.lines(bins, *columns, **axes, **more, markers=True)


def heads(looks):
    """Attention of heads, a row each, by distance."""
    axes = dict(ylabel="model, block.head", xlabel="distance from the predicted token")
    return figures.heatmap(looks, label="%", **axes)


def attention(grid):
    """Attention of one head: queries down, attended tokens across."""
    return figures.heatmap(grid, label="%", xlabel="attended token", ylabel="query", height=4.6)


def changes(effects):
    """Change of the test loss against the default, the best first."""
    columns = ("change", "difference_nats", *ENDS)
    axes = dict(xlabel="change of the test loss, nats (left is better)", limits=[(0, "default")])
    return whole(effects, figures.dots(effects.sort_values("difference_nats"), *columns, **axes))


def added(formats):
    """Test loss that each format adds to that of FP32."""
    axes = dict(xlabel="added test loss, nats per token", limits=[(0, "FP32")])
    return figures.dots(formats, "format", "added_nats", *ENDS, **axes)


def costs(sized, x, xlabel):
    """Change of the test loss against what it costs, the column `x`."""
    axes = dict(xlabel=xlabel, ylabel="change of the test loss, nats", log="x", front=False)
    return figures.pareto(sized, x, "difference_nats", "what", *ENDS, **axes)


def numbers(frames, label, **how):
    """Matrices with their numbers written in them; `how` is as `figures.heatmap` takes it."""
    return figures.heatmap(frames, label=label, annotate=True, **how)


def quality(front, colors=None):
    """Bytes of a file against the perplexity that its format adds, and where a per cent is; what is
    below `LEAST` is drawn there."""
    axes = dict(xlabel="file, KiB", ylabel="perplexity added, %", log="xy", height=4.8)
    more = dict(limits=[(1, "1 %")], least=LEAST, among="compared", colors=colors)
    return figures.pareto(front, "file_kib", "added_percent", "label", *ENDS, **axes, **more)


def own_quality(placed):
    """Bytes of a model's weights against the perplexity that a format adds."""
    axes = dict(xlabel="weights, MiB", ylabel="perplexity added, %", limits=[(1, "1 %")])
    return figures.pareto(placed, "mib", "added_percent", "format", *ENDS, **axes)
