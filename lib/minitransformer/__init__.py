"""A mini-transformer, its KV-cache and its quantization: the library behind the executed paper.

Names are imported from their modules on first use, so that nothing is loaded that is not needed;
type checkers read the imports below, which a test compares with the table. The inverse of `encode`
is `corpus.decode`: here `decode` is the package of decoders."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cache import make_cache as make_cache
    from .checkpoint import load as load
    from .checkpoint import save as save
    from .corpus import encode as encode
    from .decode import Sampling as Sampling
    from .decode import beam as beam
    from .decode import generate as generate
    from .decode import generate_batch as generate_batch
    from .decode import speculate as speculate
    from .decode import stream as stream
    from .evaluate import perplexity as perplexity
    from .model import ModelConfig as ModelConfig
    from .model import Transformer as Transformer
    from .quant import QuantScheme as QuantScheme
    from .quant import quantize as quantize

__version__ = "1.0.0"

_EXPORTS = {
    "ModelConfig": "model",
    "Transformer": "model",
    "make_cache": "cache",
    "generate": "decode",
    "generate_batch": "decode",
    "stream": "decode",
    "beam": "decode",
    "speculate": "decode",
    "Sampling": "decode",
    "encode": "corpus",
    "QuantScheme": "quant",
    "quantize": "quant",
    "save": "checkpoint",
    "load": "checkpoint",
    "perplexity": "evaluate",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
