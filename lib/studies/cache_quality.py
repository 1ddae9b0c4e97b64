"""What a quantized cache costs in perplexity, and what a sliding window costs on endless text."""

from dataclasses import replace

import numpy as np
import pandas as pd

from minitransformer.cache import make_cache
from minitransformer.evaluate import paired_difference, stream_losses, token_losses
from minitransformer.model import Transformer

from .scores import percent
from .words import with_interval

KINDS = ("int8", "int4", "paged-int4", "int2")


def added_perplexity(models: dict, ids, window: int, kinds=KINDS) -> pd.DataFrame:
    """Held-out `ids` scored through each kind of cache, paired by token with a static one."""
    rows = []
    for name, model in models.items():
        own = min(window, model.cfg.context)
        plain = token_losses(through(model, "static"), ids, own)
        for kind in kinds:
            losses = token_losses(through(model, kind), ids, own)
            added, low, high = percent(paired_difference(losses, plain))
            rows.append((name, kind, float(np.exp(losses.mean())), added, low, high))
    columns = ["model", "cache", "perplexity", "added_percent", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def through(model, kind):
    """The model as a callable ids -> logits whose attention reads a cache of `kind`."""
    return lambda ids: model(ids, make_cache(model.cfg, kind, len(ids), ids.shape[1]))


def endless(model, text, texts: int, n: int, window: int, sinks: int = 4) -> dict[str, np.ndarray]:
    """Loss of each token of `texts` texts of `n` tokens, (texts, n), by the way they are read:
    through a window with sinks, one without, a full cache past its training, and recomputing."""
    far = Transformer(replace(model.cfg, context=n + 1)).eval()
    far.load_state_dict(model.state_dict())

    def sliding(ids, sinks):
        cache = make_cache(model.cfg, "window", window=window - sinks, sinks=sinks)
        return stream_losses(model, ids, cache, window // 2)

    ways = {
        "full cache, past its training": lambda ids: stream_losses(
            far, ids, make_cache(far.cfg, "static"), window // 2
        ),
        "window recomputed": lambda ids: token_losses(model, ids, window, max(window // 8, 1)),
    }
    if model.cfg.position != "sinusoidal":  # absolute positions cannot slide
        ways |= {
            f"window of {window - sinks} and {sinks} sinks": lambda ids: sliding(ids, sinks),
            f"window of {window}, no sinks": lambda ids: sliding(ids, 0),
        }
    pieces = [text[i * n : (i + 1) * n + 1] for i in range(texts)]
    return {name: np.stack([way(piece) for piece in pieces]) for name, way in ways.items()}


def against_recomputing(losses: dict[str, np.ndarray], window: int):
    """Two tables: the excess loss over the tokens read, in means of `window`; and late in the text,
    after eight windows or a half, the perplexity each way adds in %, with its interval."""
    slow = losses["window recomputed"]
    n = slow.shape[1] // window * window
    curves, costs = [], []
    for name, own in losses.items():
        if own is slow:
            continue
        excess = (own - slow)[:, :n].reshape(len(own), -1, window).mean(axis=(0, 2))
        tokens = window * np.arange(1, len(excess) + 1)
        curves.append(pd.DataFrame({"cache": name, "tokens": tokens, "excess_nats": excess}))
        late = [late_losses(way, window) for way in (own, slow)]
        added, low, high = percent(paired_difference(*late))
        costs.append((name, added, low, high))
    table = pd.DataFrame(costs, columns=["cache", "added_percent", "low", "high"])
    return pd.concat(curves, ignore_index=True), table


def late_losses(own: np.ndarray, window: int) -> np.ndarray:
    """Losses (texts, n) after eight windows, or half of each text, in one row."""
    return own[:, min(8 * window, own.shape[1] // 2) :].ravel()


def in_words(late: pd.DataFrame, losses: dict[str, np.ndarray], window: int) -> str:
    """What each way adds late in a text, in words, with its interval, and what sinks change."""
    parts = [
        f"{row.cache} {with_interval(row.added_percent, row.low, row.high, ' %', '+')}"
        for row in late.itertuples()
    ]
    return f"Late in the text: {'; '.join(parts)}. {sinks_in_words(losses, window)}".rstrip()


def sinks_in_words(losses: dict[str, np.ndarray], window: int) -> str:
    """Whether the first tokens of a window change the perplexity late in a text, against the window
    without them, paired by token; "" where there is no window."""
    ways = [late_losses(own, window) for n, own in losses.items() if n.startswith("window of")]
    if len(ways) < 2:
        return ""
    added, low, high = percent(paired_difference(*ways))
    seen = "" if low > 0 or high < 0 else ", nothing to be seen"
    return f"The first tokens change it by {with_interval(added, low, high, ' %', '+')}{seen}."
