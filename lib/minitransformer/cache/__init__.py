"""Key-value caches: one kind a file, one contract (see `base.Cache`), made by `make_cache`."""

from ..model import ModelConfig
from .base import Cache
from .dynamic import DynamicCache
from .paged import PagedCache, PagedInt4Cache, PagedInt8Cache
from .pool import BlockPool, BlockTable, PoolExhausted
from .quantized import Int2Cache, Int4Cache, Int8Cache
from .static import StaticCache
from .window import WindowCache

KINDS = {
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

__all__ = [
    "KINDS",
    "BlockPool",
    "BlockTable",
    "Cache",
    "DynamicCache",
    "Int2Cache",
    "Int4Cache",
    "Int8Cache",
    "PagedCache",
    "PagedInt4Cache",
    "PagedInt8Cache",
    "PoolExhausted",
    "StaticCache",
    "WindowCache",
    "make_cache",
]


def make_cache(
    cfg: ModelConfig,
    kind: str = "static",
    batch: int = 1,
    capacity: int | None = None,
    *,
    dtype=None,
    device=None,
    **options,
):
    """An empty cache of `kind` for `batch` sequences of up to `capacity` tokens (None: the model's
    context).

    `dtype` and `device` None: those of the first update (name a device that is not the CPU where a
    kind masks). `options` are the kind's own. ValueError for an unknown kind or option, or an
    impossible size."""
    if kind not in KINDS:
        raise ValueError(f"cache kind {kind!r} is unknown: choose one of {', '.join(KINDS)}")
    for option in options:
        if option not in KINDS[kind].options:
            known = ", ".join(KINDS[kind].options) or "none"
            raise ValueError(
                f"cache option {option!r} is unknown to kind {kind!r}: its options are {known}"
            )
    capacity = cfg.context if capacity is None else capacity
    for name, value in (("batch", batch), ("capacity", capacity)):
        if value < 1:
            raise ValueError(f"cache {name} {value} is not positive: give at least 1")
    return KINDS[kind](cfg, batch, capacity, dtype=dtype, device=device, **options)
