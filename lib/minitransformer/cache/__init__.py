"""Key-value caches: one kind a file, one contract (see `base.Cache`), made by `make_cache`."""

from typing import Any

import torch

from ..fields import choice, whole
from ..model import ModelConfig
from .base import Cache, Layer
from .dynamic import DynamicCache
from .kivi import Int2Cache, Int4Cache
from .padded import PaddedCache
from .paged import PagedCache, PagedInt4Cache, PagedInt8Cache
from .pool import BlockPool, PoolExhausted
from .quantized import Int8Cache
from .static import StaticCache
from .step import State, Step
from .tables import BlockTable, reserve
from .window import WindowCache

KINDS: dict[str, type[Cache]] = {
    "dynamic": DynamicCache,
    "static": StaticCache,
    "window": WindowCache,
    "paged": PagedCache,
    "int8": Int8Cache,
    "int4": Int4Cache,
    "int2": Int2Cache,
    "paged-int8": PagedInt8Cache,
    "paged-int4": PagedInt4Cache,
}

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

__all__ = [
    "KINDS",
    "BlockPool",
    "BlockTable",
    "Cache",
    "DynamicCache",
    "Int2Cache",
    "Int4Cache",
    "Int8Cache",
    "Layer",
    "PaddedCache",
    "PagedCache",
    "PagedInt4Cache",
    "PagedInt8Cache",
    "PoolExhausted",
    "State",
    "StaticCache",
    "Step",
    "WindowCache",
    "make_cache",
    "reserve",
]


def make_cache(
    cfg: ModelConfig,
    kind: str = "static",
    batch: int = 1,
    capacity: int | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    **options: Any,
) -> Cache:
    """An empty cache of `kind` for `batch` sequences of up to `capacity` tokens (None: the model's
    context).

    `dtype` and `device` None: those of the model, as the first forward shows them; a cache of
    another type than the model's converts what it takes and gives. `options` are the kind's own.
    ValueError for an unknown kind, option or type, or an impossible size."""
    kind = choice("cache kind", kind, KINDS)
    for option in options:
        if option not in KINDS[kind].options:
            known = ", ".join(KINDS[kind].options) or "none"
            raise ValueError(
                f"cache option {option!r} is unknown to kind {kind!r}: its options are {known}"
            )
    capacity = cfg.context if capacity is None else capacity
    batch = whole("cache batch", batch)
    capacity = whole("cache capacity", capacity)
    if dtype not in (None, *DTYPES):
        raise ValueError(
            f"cache dtype {dtype!r} is none of numbers with a point: choose one of "
            f"{', '.join(map(str, DTYPES))}, or None for the model's"
        )
    return KINDS[kind](cfg, batch, capacity, dtype=dtype, device=device, **options)
