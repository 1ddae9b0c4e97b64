"""Where a model is trained."""

import warnings

import torch

from ..fields import choice

DEVICES = ("auto", "cpu", "cuda", "mps")


def device_of(name: str = "auto") -> torch.device:
    """The device of this name; "auto" is the first that there is of CUDA, Apple's GPU (mps) and the
    CPU. ValueError for another word, and for a device that this machine does not have."""
    choice("device", name, DEVICES)
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    there["cpu"] = True
    if name == "auto":
        name = next(kind for kind, found in there.items() if found)
    if not there[name]:
        raise ValueError(f"device {name} is not there: give auto, or cpu, which always is")
    if name == "cuda":  # torch's thread of gradients tells when it first makes its own context
        warnings.filterwarnings("ignore", "Attempting to run cuBLAS")
    return torch.device(name)
