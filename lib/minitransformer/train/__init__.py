"""Training: recipes and the loop. It takes batches, never a corpus."""

from .loop import NonFiniteLoss, train
from .recipe import GOOD, RECIPES, SEED, TrainConfig, initialize, learning_rate, optimizer

__all__ = ["GOOD", "RECIPES", "SEED", "NonFiniteLoss", "TrainConfig", "initialize", "learning_rate", "optimizer", "train"]
