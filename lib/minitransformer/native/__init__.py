"""The native decode engine: one file of C, compiled on first use, and its Python face."""

from .build import BuildError, library
from .generation import advance, generate, generate_batch
from .linear import NativeLinear
from .model import NativeModel
from .rows import Rows
from .threads import pays_above
from .views import check_kind

__all__ = [
    "BuildError",
    "NativeLinear",
    "NativeModel",
    "Rows",
    "advance",
    "check_kind",
    "generate",
    "generate_batch",
    "library",
    "pays_above",
]
