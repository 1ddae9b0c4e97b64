"""What the experiments start from: the trained models, and pieces of held-out text."""

import numpy as np
import torch

from minitransformer import generate, load, make_cache

TRAINED = {"1 block": "model", "grouped queries": "model-gqa", "2 blocks": "model-2block"}


def trained(folder) -> dict:
    """The trained models by what tells them apart."""
    return {name: load(folder / where)[0] for name, where in TRAINED.items()}


def prompts(ids: np.ndarray, tokens: int, texts: int, seed: int) -> list[torch.Tensor]:
    """`texts` prompts (1, tokens) from random places of `ids`."""
    starts = np.random.default_rng(seed).integers(0, len(ids) - tokens, texts)
    return [as_row(ids[start : start + tokens]) for start in starts]


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
