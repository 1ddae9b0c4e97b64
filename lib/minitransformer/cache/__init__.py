"""Key-value caches: one kind a file, one contract (see `base.Cache`), made by `make_cache`."""

from ..model import ModelConfig
from .base import Cache
from .dynamic import DynamicCache
from .static import StaticCache

KINDS = {"dynamic": DynamicCache, "static": StaticCache}

__all__ = ["KINDS", "Cache", "DynamicCache", "StaticCache", "make_cache"]


def make_cache(cfg: ModelConfig, kind: str = "static", batch: int = 1, capacity: int | None = None, *, dtype=None, device=None):
    """An empty cache of `kind` for `batch` sequences of up to `capacity` tokens (None: the model's context).

    `dtype` and `device` None: those of the first update. ValueError for an unknown kind or an impossible size.
    """
    if kind not in KINDS:
        raise ValueError(f"cache kind {kind!r} is unknown: choose one of {', '.join(KINDS)}")
    capacity = cfg.context if capacity is None else capacity
    for name, value in (("batch", batch), ("capacity", capacity)):
        if value < 1:
            raise ValueError(f"cache {name} {value} is not positive: give at least 1")
    return KINDS[kind](cfg, batch, capacity, dtype=dtype, device=device)
