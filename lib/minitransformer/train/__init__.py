"""Training: recipes and the loop. It takes batches, never a corpus."""

from .loop import NonFiniteLoss, train
from .qat import convert, prepare_qat
from .recipe import GOOD, RECIPES, SEED, TrainConfig, initialize, learning_rate, optimizer

__all__ = [
    "GOOD",
    "RECIPES",
    "SEED",
    "NonFiniteLoss",
    "TrainConfig",
    "convert",
    "initialize",
    "learning_rate",
    "optimizer",
    "prepare_qat",
    "train",
]
