"""Single forwards, timed: a prefix recomputed, one cached token, several tokens at once, several
sequences at once."""

from collections.abc import Callable

import pandas as pd
import torch

from ..cache import make_cache
from ..fields import whole
from .timing import interleaved


@torch.no_grad()
def step_times(
    model, ids: torch.Tensor, lengths, widths=(), past: int = 1, repeats: int = 25
) -> pd.DataFrame:
    """Raw samples of single forwards over ids (1, N), interleaved: phase, tokens, repeat, seconds.

    For t in `lengths`: "recompute" is t tokens without a cache and "cached" one token after t, the
    head at the last position. For m in `widths`, after `past` cached tokens: "several" is m tokens
    at once with the logits of each, as speculation judges them, and "rows" one token of each of m
    sequences, as a batch decodes them. ValueError when ids are too short."""
    lengths = [whole("lengths", t) for t in lengths]
    widths, past = [whole("widths", m) for m in widths], whole("past", past)
    need = max(max(lengths, default=0) + 1, past + max(widths, default=0))
    if ids.shape[1] < need:
        raise ValueError(
            f"{ids.shape[1]} tokens of text are too few for these lengths and widths: give {need}"
        )
    cache = make_cache(model.cfg, "static", capacity=need)
    model.hidden(ids[:, :need], cache)
    calls: dict[str, Callable] = {}
    for t in lengths:
        calls[f"recompute {t}"] = lambda t=t: model.head(model.hidden(ids[:, :t])[:, -1])
        calls[f"cached {t}"] = _after(model, cache, ids[:, t : t + 1], t)
    for m in widths:
        calls[f"several {m}"] = _after(model, cache, ids[:, past : past + m], past)
        rows = make_cache(model.cfg, "static", batch=m, capacity=past + 1)
        model.hidden(ids[:, :past].expand(m, past), rows)
        calls[f"rows {m}"] = _after(model, rows, ids[:, past : past + 1].expand(m, 1), past)
    samples = interleaved(calls, repeats, warmup=2)
    samples[["phase", "tokens"]] = samples.pop("name").str.split(" ", expand=True)
    samples = samples.assign(tokens=samples.tokens.astype(int))
    return samples[["phase", "tokens", "repeat", "seconds"]]


def _after(model, cache, new, past):
    """A call that feeds `new` after `past` tokens of a static cache; it rewrites what is there, so
    it can be repeated."""

    def call():
        cache.pos = past
        return model(new, cache)

    return call
