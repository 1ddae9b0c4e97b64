"""A model's forward and backward as torch.compile makes them."""

from collections.abc import Callable

import torch
from torch import nn


def compiled(net: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """A call of `net` that is compiled anew for every shape of ids that it meets. RuntimeError, one
    line, where that fails, as it does on a CPU without a C++ compiler."""
    made = torch.compile(net, dynamic=False)

    def call(ids):
        try:
            return made(ids)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
            raise RuntimeError(
                f"torch.compile does not work here ({reason}): "
                "install a C++ compiler, or train with compile False"
            ) from None

    return call
