"""The executed paper: notebooks run in order, claims collected, provenance kept, one HTML file
rendered."""

from .notebook import open_notebook

__all__ = ["open_notebook"]
