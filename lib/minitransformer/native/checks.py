"""What is checked in Python before the engine touches a pointer, and what its answers mean."""

import torch

from ..cache import Cache, PagedCache
from ..model import ModelConfig, Transformer
from .structs import NOT_FINITE, SCALE_OVERFLOW
from .views import MOST_TOKENS, View, view

MOST_SEQUENCES = 1024


def check_model(model) -> None:
    """ValueError unless the model computes what a Transformer does, and nothing in between."""
    if type(model) is not Transformer:
        raise ValueError(
            f"a {type(model).__name__} is no Transformer: give a model as load() or quantize() "
            "returns it, or use backend 'eager'"
        )
    for name, module in model.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            raise ValueError(
                f"{name or 'the model'} has a forward hook, which the engine would not call: "
                "remove it, or use backend 'eager'"
            )


def check_ids(ids: torch.Tensor, cfg: ModelConfig) -> tuple[int, int, list[int]]:
    """B, T and the tokens of ids (B, T), row by row; ValueError unless they are integers of the
    vocabulary."""
    if ids.ndim != 2 or ids.numel() == 0 or len(ids) > MOST_SEQUENCES:
        raise ValueError(
            f"ids of shape {tuple(ids.shape)}: give (B, T), at least one token of 1 to "
            f"{MOST_SEQUENCES} sequences"
        )
    if ids.dtype not in (torch.int64, torch.int32) or ids.device.type != "cpu":
        raise ValueError(f"ids of {ids.dtype} on {ids.device}: give int64 on the CPU")
    values = ids.flatten().tolist()
    low, high = min(values), max(values)
    if low < 0 or high >= cfg.vocab_size:
        wrong = low if low < 0 else high
        raise ValueError(
            f"token {wrong} is outside the vocabulary of {cfg.vocab_size}: give ids from 0 to "
            f"{cfg.vocab_size - 1}"
        )
    return *ids.shape, values


def check_length(tokens: int, cfg: ModelConfig) -> None:
    """ValueError when so many tokens pass the model's context."""
    if tokens > cfg.context:
        raise ValueError(
            f"{tokens} tokens are longer than context {cfg.context}: shorten the input or raise "
            "context"
        )


def most_positions(cache: Cache | None, cfg: ModelConfig) -> int:
    """Positions that have a row in the table; a window counts them inside itself."""
    return cfg.context if cache is None or cache.chunk is None else MOST_TOKENS


def check_rows(token, sequence, position, cfg: ModelConfig, cache: Cache) -> View:
    """The view of a cache in which every row (M,) of a step has its slot, positions of a sequence
    following one another; ValueError else."""
    shapes = [tuple(x.shape) for x in (token, sequence, position)]
    if len(set(shapes)) > 1 or token.ndim != 1 or len(token) == 0:
        raise ValueError(
            f"rows of shapes {shapes}: give as many tokens, sequences and positions, at least one, "
            "as (M,)"
        )
    check_ids(token[None], cfg)
    check_cache(cache, cfg)
    seen = view(cache)
    limits = {"sequence": cache.batch, "position": min(seen.tokens, most_positions(cache, cfg))}
    for (name, most), x in zip(limits.items(), (sequence, position), strict=True):
        if x.is_floating_point() or x.min() < 0 or x.max() >= most:
            raise ValueError(f"{name}s {x.tolist()[:8]}: give integers from 0 to {most - 1}")
    last = {}
    for s, p in zip(sequence.tolist(), position.tolist(), strict=True):
        if last.get(s, p - 1) != p - 1:
            raise ValueError(
                f"position {p} of sequence {s} follows {last[s]}: give the rows of a sequence in "
                "order"
            )
        last[s] = p
        paged = isinstance(cache, PagedCache)
        if paged and p >= cache.pool.block_size * len(cache.tables[s].blocks):
            raise ValueError(f"position {p} of sequence {s} has no block: reserve it first")
    return seen


def check_cache(cache: Cache, cfg: ModelConfig) -> None:
    """ValueError unless the cache was made for a model of this shape."""
    if cache.cfg is cfg:
        return
    names = ("n_layers", "kv_heads", "head_dim", "position", "smeared_keys")
    shapes = [tuple(getattr(c, name) for name in names) for c in (cache.cfg, cfg)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"a cache of (layers, kv heads, head dim, position, smeared keys) {shapes[0]} does not "
            f"fit a model of {shapes[1]}: make it with this model's config"
        )


def raised(code: int) -> int:
    """The engine's answer; ValueError for what it could not compute."""
    if code == NOT_FINITE:
        raise ValueError("activations or logits hold NaN or infinity: check the model's weights")
    if code == SCALE_OVERFLOW:
        raise ValueError(
            "keys or values do not fit codes with float16 scales: use the static cache"
        )
    return code
