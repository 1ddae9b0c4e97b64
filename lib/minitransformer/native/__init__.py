"""The native decode engine: one file of C, compiled on first use, and its Python face."""

from .build import BuildError, library
from .generation import generate
from .model import NativeModel

__all__ = ["BuildError", "NativeModel", "generate", "library"]
