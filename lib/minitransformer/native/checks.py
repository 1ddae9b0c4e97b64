"""What is checked in Python before the engine touches a pointer, and what its answers mean."""

import torch

from ..cache import Cache, PagedCache
from ..model import ModelConfig, Transformer
from .structs import NOT_FINITE, SCALE_OVERFLOW
from .views import MOST_TOKENS, View, view

MOST_SEQUENCES = 1024
INTEGERS = (torch.int64, torch.int32)


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
    shape = ids.shape
    if len(shape) != 2 or 0 in shape or shape[0] > MOST_SEQUENCES:
        raise ValueError(
            f"ids of shape {tuple(shape)}: give (B, T), at least one token of 1 to "
            f"{MOST_SEQUENCES} sequences"
        )
    if ids.dtype not in INTEGERS or not ids.is_cpu:
        raise ValueError(f"ids of {ids.dtype} on {ids.device}: give int64 on the CPU")
    rows = ids.tolist()
    values = rows[0] if len(rows) == 1 else [token for row in rows for token in row]
    check_tokens(values, cfg)
    return *shape, values


def check_tokens(values: list[int], cfg: ModelConfig) -> None:
    """ValueError unless all are of the vocabulary."""
    low, high = min(values), max(values)
    if low < 0 or high >= cfg.vocab_size:
        wrong = low if low < 0 else high
        raise ValueError(
            f"token {wrong} is outside the vocabulary of {cfg.vocab_size}: give ids from 0 to "
            f"{cfg.vocab_size - 1}"
        )


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


def integers(values) -> list[int]:
    """A list of whole numbers as it is, anything else by way of a tensor (M,); ValueError for other
    numbers and other shapes."""
    if type(values) is list and {int}.issuperset(map(type, values)):
        return values
    x = torch.as_tensor(values)
    if x.ndim != 1 or x.dtype not in INTEGERS or not x.is_cpu:
        raise ValueError(
            f"rows of {x.dtype} {tuple(x.shape)} on {x.device}: give integers (M,) on the CPU"
        )
    return x.tolist()


def check_rows(token, sequence, position, cfg: ModelConfig, cache: Cache, known) -> View:
    """The view of a cache in which every row of a step, lists of as many whole numbers, has its
    slot, positions of a sequence following one another; ValueError else. `known` as of `view`."""
    counts = len(token), len(sequence), len(position)
    if not token or len(set(counts)) > 1:
        raise ValueError(
            f"rows of {counts} tokens, sequences and positions: give as many of each, at least one"
        )
    check_tokens(token, cfg)
    cache.fits(cfg)
    seen = view(cache, None, known)
    paged = isinstance(cache, PagedCache)
    limits = {"sequence": cache.batch, "position": min(seen.tokens, most_positions(cache, cfg))}
    for (name, most), x in zip(limits.items(), (sequence, position), strict=True):
        if min(x) < 0 or max(x) >= most:
            raise ValueError(f"{name}s {x[:8]}: give integers from 0 to {most - 1}")
    last = {}
    for s, p in zip(sequence, position, strict=True):
        if last.get(s, p - 1) != p - 1:
            raise ValueError(
                f"position {p} of sequence {s} follows {last[s]}: give the rows of a sequence in "
                "order"
            )
        last[s] = p
    for s, p in last.items() if paged else ():
        if p >= cache.pool.block_size * len(cache.tables[s].blocks):
            raise ValueError(f"position {p} of sequence {s} has no block: reserve it first")
    return seen


def raised(code: int) -> int:
    """The engine's answer; ValueError for what it could not compute."""
    if code == NOT_FINITE:
        raise ValueError("activations or logits hold NaN or infinity: check the model's weights")
    if code == SCALE_OVERFLOW:
        raise ValueError(
            "keys or values do not fit codes with float16 scales: use the static cache"
        )
    return code
