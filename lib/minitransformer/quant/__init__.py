"""Number formats: schemes as pure functions, two layers, one walker, the methods, sizes, and the
kernels that torch has."""

from ..affine import pack, unpack
from .accelerate import accelerate
from .calibration import Moments, collect, layer_output_errors
from .clipping import clip_tensor
from .equalize import equalize
from .gptq import gptq_tensor
from .kernels import KERNELS, TOLERANCE
from .layers import QuantEmbedding, QuantLinear, QuantWeight
from .methods import METHODS, quantize
from .mixed import Mixed, load_scheme, save_scheme, search, sensitivity
from .packed import KernelError
from .scheme_json import scheme_from_json, scheme_to_json
from .schemes import QuantScheme, codebook, dequantize_tensor, fake_quantize, quantize_tensor
from .sizes import (
    computed_bytes,
    file_bytes,
    layer_errors,
    matrices,
    matrix_bytes,
    resident_bytes,
    seed_bytes,
)  # fmt: skip
from .walker import quantize_structure, spread

__all__ = [
    "KERNELS",
    "METHODS",
    "TOLERANCE",
    "KernelError",
    "Mixed",
    "Moments",
    "QuantEmbedding",
    "QuantLinear",
    "QuantScheme",
    "QuantWeight",
    "accelerate",
    "clip_tensor",
    "codebook",
    "collect",
    "computed_bytes",
    "dequantize_tensor",
    "equalize",
    "fake_quantize",
    "file_bytes",
    "gptq_tensor",
    "layer_errors",
    "layer_output_errors",
    "load_scheme",
    "matrices",
    "matrix_bytes",
    "pack",
    "quantize",
    "quantize_structure",
    "quantize_tensor",
    "resident_bytes",
    "save_scheme",
    "scheme_from_json",
    "scheme_to_json",
    "search",
    "seed_bytes",
    "sensitivity",
    "spread",
    "unpack",
]
