"""Figures that chapters share, each from the table that its study returns: which columns, axes and
colours. What they draw and how, `figures` says."""

from . import figures

# the best n-gram, then a model of one block, its twin, and both with smeared keys
COLOURS = ("grey", "blue", "teal", "plum", "ochre")


def frequencies(curves, unit):
    """Share of the tokens by rank, a line a corpus, the last one for comparison."""
    return figures.lines(
        curves,
        "rank",
        "share_percent",
        "corpus",
        xlabel=f"rank of the {unit}",
        ylabel=f"share of the {unit}s, %",
        log="xy",
        markers=False,
        colors={curves.corpus.iloc[-1]: "grey"},
    )


def ladder(rungs, unit, limits=(), grey=()):
    """Perplexity of what the first column names; nothing lies below the first limit, if any."""
    return figures.ladder(
        rungs,
        rungs.columns[0],
        "perplexity",
        "low",
        "high",
        xlabel=f"perplexity per {unit}",
        limits=limits,
        beyond="below" if limits else None,
        colors=dict.fromkeys(grey, "grey"),
    )


def learning(curves, limits=()):
    """Validation loss over tokens seen, a line a model."""
    label = "validation loss, nats per token"
    axes = dict(xlabel="tokens seen", ylabel=label, limits=limits)
    return figures.learning_curves(curves, "tokens", "valid_nats", "model", **axes)


def mechanisms(left):
    """What is left to learn over tokens seen, a line a mechanism."""
    axes = dict(xlabel="tokens seen", ylabel="excess over the source, nats")
    return figures.learning_curves(left, "tokens", "excess_nats", "mechanism", **axes)


def losses(budget, xlabel):
    """What each system loses on each kind of token, the n-gram first."""
    colors = dict(zip(budget.system.unique(), COLOURS, strict=False))
    columns = ("kind", "excess_nats", "system", "low", "high")
    return figures.bars(budget, *columns, xlabel=xlabel, colors=colors)


def by_context(where, unit, limits, trained):
    """Loss by tokens of context, a line a model, and the window that they were trained with."""
    return figures.lines(
        where,
        "position",
        "loss_nats",
        "system",
        "low",
        "high",
        xlabel=f"{unit}s of context in the window",
        ylabel=f"loss, nats per {unit}",
        log="x",
        limits=limits,
        xlimits=[(trained, "trained")],
    )


def by_window(lengths, limits, trained):
    """Loss by evaluated window, a line an encoding of positions, and the window of training."""
    return figures.lines(
        lengths,
        "evaluated_window",
        "nats",
        "positions",
        "low",
        "high",
        xlabel="evaluated window, tokens",
        ylabel="test loss, nats per token",
        log="x",
        limits=limits,
        xlimits=[(trained, "trained")],
    )


def calibration(bins):
    """Share that is right by confidence, a line a system, the n-gram first; on the diagonal the two
    are equal."""
    ends = [0, bins.confidence.max()]
    return figures.lines(
        bins,
        "confidence",
        "accuracy",
        "system",
        "low",
        "high",
        xlabel="confidence of the most probable token",
        ylabel="share that is right",
        limits=[((ends, ends), "calibrated")],
        markers=True,
        colors={bins.system.iloc[0]: "grey"},
    )


def heads(looks):
    """Attention of heads, a row each, by distance."""
    axes = dict(ylabel="model, block.head", xlabel="distance from the predicted token")
    return figures.heatmap(looks, label="%", **axes)


def attention(grid):
    """Attention of one head: queries down, attended tokens across."""
    return figures.heatmap(grid, label="%", xlabel="attended token", ylabel="query", height=4.6)


def changes(effects):
    """Change of the test loss against the default, the best first."""
    ordered = effects.sort_values("difference_nats")
    label = "change of the test loss, nats (left is better)"
    columns = ("change", "difference_nats", "low", "high")
    return figures.dots(ordered, *columns, xlabel=label, limits=[(0, "default")])


def added(formats):
    """Test loss that each format adds to that of FP32."""
    label = "added test loss, nats per token"
    columns = ("format", "added_nats", "low", "high")
    return figures.dots(formats, *columns, xlabel=label, limits=[(0, "FP32")])


def costs(sized, x, xlabel):
    """Change of the test loss against what it costs, the column `x`."""
    label = "change of the test loss, nats"
    columns = ("difference_nats", "what", "low", "high")
    axes = dict(xlabel=xlabel, ylabel=label, log="x", front=None)
    return figures.pareto(sized, x, *columns, **axes)
