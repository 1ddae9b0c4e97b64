"""Which code computes a model: eager PyTorch, the C engine, or the one that serves."""

from functools import lru_cache
from importlib import import_module

from ..cache import BlockPool, Cache
from ..fields import choice

BACKENDS = ("eager", "native", "auto")


def on_backend(model, backend: str, cache: Cache | BlockPool | None):
    """The model that computes over `cache`, or a pool (None: recomputation): the argument for
    "eager", a `NativeModel` of it for "native", and for "auto" whichever can be had, silently.

    The tokens are the same up to rounding. A model that is one already stays; any other is packed
    here, as its weights are now. ValueError for an unknown backend and, under "native", for a model
    or a cache that the engine does not know; BuildError where there is no C compiler."""
    choice("backend", backend, BACKENDS)
    if backend == "eager":
        return model
    native = engine()
    try:
        if cache is not None:
            native.check_kind(cache)
        return model if isinstance(model, native.NativeModel) else native.NativeModel(model)
    except (ValueError, native.BuildError):
        if backend == "auto":
            return model
        raise


@lru_cache
def engine():
    """`minitransformer.native`, imported when it is asked for: nothing else needs ctypes."""
    return import_module("..native", __package__)


def is_native(model, backend: str) -> bool:
    """Whether `on_backend` gave a model of the engine, whose loops may be used as well."""
    return backend != "eager" and isinstance(model, engine().NativeModel)
