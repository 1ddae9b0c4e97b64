"""One linear layer in the engine, for whoever times or tests products alone."""

from ctypes import byref

import torch

from .checks import raised
from .model import NativeModel
from .pack import Held, matrix


class NativeLinear:
    """(M, K) float32 -> (M, N), a layer's weights in the engine's layout.

    `host` lends its working memory: a model at least as wide as the layer. ValueError for a layer
    that the engine does not know, and for other inputs."""

    def __init__(self, layer, host: NativeModel):
        self.host, self.held = host, Held(host.held.side)
        self.struct = matrix(layer, self.held)
        self.columns, self.rows = self.struct.columns, self.struct.rows
        if self.columns > host.cfg.d_model:
            raise ValueError(
                f"{self.columns} columns are more than the host's width {host.cfg.d_model}: give a "
                "wider host"
            )
        self.reference = byref(self.struct)

    @property
    def nbytes(self) -> int:
        """Bytes held in the engine's layout."""
        return self.held.nbytes

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim != 2 or x.shape[1] != self.columns or x.dtype != torch.float32 or not x.is_cpu:
            raise ValueError(
                f"x {tuple(x.shape)} of {x.dtype} on {x.device}: give float32 (M, {self.columns}) "
                "on the CPU"
            )
        x, y, host = x.contiguous(), torch.empty(len(x), self.rows), self.host
        where = x.data_ptr(), len(x), y.data_ptr(), host.arena(1)
        raised(host.engine.engine_multiply(host.reference, self.reference, *where))
        return y
