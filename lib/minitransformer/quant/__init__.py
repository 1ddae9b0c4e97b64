"""Number formats: schemes as pure functions, two layers, one walker, sizes, and the kernels that torch has for them."""

from ..affine import pack, unpack
from .kernels import KERNELS, KernelError, accelerate
from .layers import QuantEmbedding, QuantLinear, QuantWeight
from .mixed import Mixed, load_scheme, save_scheme, scheme_from_json, scheme_to_json, search, sensitivity
from .schemes import QuantScheme, dequantize_tensor, fake_quantize, quantize_tensor
from .sizes import (
    bits_per_weight, computed_bytes, file_bytes, layer_errors, matrices, matrix_bytes, resident_bytes, seed_bytes,
)  # fmt: skip
from .walker import METHODS, quantize, quantize_structure, spread

__all__ = [
    "KERNELS", "METHODS", "KernelError", "Mixed", "QuantEmbedding", "QuantLinear", "QuantScheme", "QuantWeight", "accelerate",
    "bits_per_weight", "computed_bytes", "dequantize_tensor", "fake_quantize", "file_bytes", "layer_errors", "load_scheme",
    "matrices", "matrix_bytes", "pack", "quantize", "quantize_structure", "quantize_tensor", "resident_bytes", "save_scheme",
    "scheme_from_json", "scheme_to_json", "search", "seed_bytes", "sensitivity", "spread", "unpack",
]
