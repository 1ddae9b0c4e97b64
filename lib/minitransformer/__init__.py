"""A mini-transformer, its KV-cache and its quantization: the library behind the executed paper.

Names are imported from their modules on first use, so that nothing is loaded that is not needed.
"""

from importlib import import_module

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
    "QuantScheme": "quant",
    "quantize": "quant",
    "save": "checkpoint",
    "load": "checkpoint",
    "perplexity": "evaluate",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)


def __dir__():
    return sorted([*globals(), *_EXPORTS])
