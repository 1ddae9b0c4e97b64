"""Pieces of held-out text that the experiments start from."""

import numpy as np
import torch

from minitransformer import generate, make_cache


def prompts(ids: np.ndarray, tokens: int, texts: int, seeds: int, seed: int) -> list[torch.Tensor]:
    """`texts` prompts (1, tokens) for each of `seeds` seeds, from random places of `ids`."""
    found = []
    for i in range(max(seeds, 1)):
        rng = np.random.default_rng(seed + i)
        starts = rng.integers(0, len(ids) - tokens, max(texts, 1))
        found += [as_row(ids[start : start + tokens]) for start in starts]
    return found


def as_row(ids: np.ndarray) -> torch.Tensor:
    """One sequence as a batch of one: (T,) -> (1, T)."""
    return torch.from_numpy(np.asarray(ids, dtype=np.int64))[None]


def arrays(prompts) -> list[np.ndarray]:
    """Prompts (1, T) as NumPy arrays (T,), which another process can be given."""
    return [prompt[0].numpy() for prompt in prompts]


def stream_length(ids: np.ndarray, wanted: int, texts: int, window: int) -> int:
    """Tokens of each of `texts` texts: as many as wanted, or what there is. ValueError below two
    windows."""
    n = min(wanted, (len(ids) - 1) // max(texts, 1))
    if n < 2 * window:
        raise ValueError(
            f"{n} test tokens a text are less than two training windows of {window}: "
            f"give more text, or lower stream_texts"
        )
    return n


def after_one_token(model, ids: np.ndarray):
    """The cache after a prompt and one more token were fed."""
    cache = make_cache(model.cfg, "static")
    generate(model, as_row(ids), 2, cache=cache)
    return cache
