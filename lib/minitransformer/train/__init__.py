"""Training: recipes and the loop. It takes batches, never a corpus."""

from .device import DEVICES, device_of
from .loop import NonFiniteError, train
from .qat import convert, prepare_qat
from .recipe import GOOD, RECIPES, SEED, TrainConfig, initialize, learning_rate, optimizer, plan

__all__ = [
    "DEVICES",
    "GOOD",
    "RECIPES",
    "SEED",
    "NonFiniteError",
    "TrainConfig",
    "convert",
    "device_of",
    "initialize",
    "learning_rate",
    "optimizer",
    "plan",
    "prepare_qat",
    "train",
]
