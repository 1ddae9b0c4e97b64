"""Number formats: schemes as pure functions, two layers, one walker, sizes, and the kernels that torch has for them."""

from ..affine import pack, unpack
from .kernels import KERNELS, KernelError, accelerate
from .layers import QuantEmbedding, QuantLinear, QuantWeight
from .schemes import QuantScheme, dequantize_tensor, fake_quantize, quantize_tensor
from .sizes import bits_per_weight, computed_bytes, file_bytes, layer_errors, matrix_bytes, resident_bytes, seed_bytes
from .walker import METHODS, quantize, quantize_structure, spread

__all__ = [
    "KERNELS", "METHODS", "KernelError", "QuantEmbedding", "QuantLinear", "QuantScheme", "QuantWeight", "accelerate",
    "bits_per_weight", "computed_bytes", "dequantize_tensor", "fake_quantize", "file_bytes", "layer_errors", "matrix_bytes",
    "pack", "quantize", "quantize_structure", "quantize_tensor", "resident_bytes", "seed_bytes", "spread", "unpack",
]
