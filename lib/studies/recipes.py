"""Recipes that differ from one in one thing each, or in two: `long_arms` compares them."""

from dataclasses import replace

from minitransformer.model import ModelConfig
from minitransformer.train import TrainConfig


def varied(cfg: ModelConfig, recipe: TrainConfig) -> dict[str, tuple[ModelConfig, TrainConfig]]:
    """Name -> (model, recipe): one thing changed each, be it of the recipe or of the model, or two.
    A mean of the weights is over a twentieth of the steps."""
    mean = {"ema": max(1 - 20 / recipe.steps, 0.5)}
    plans = {
        "AdamW": {"optimizer": "adamw"},
        "no short windows": {"short_steps": 0},
        "no cooldown": {"cooldown": 0.0},
        # falls over the whole run as well
        "cosine": {"cooldown": 1.0, "cooldown_shape": "cosine"},
        "mean of weights": mean,
        "mean, no cooldown": mean | {"cooldown": 0.0},
        "zeroed projections": {"initialization": "zeroed"},
        "no weight decay": {"weight_decay": 0.0},
    }
    models = {
        "RMSNorm": {"norm": "rmsnorm"},
        "QK-norm": {"qk_norm": True},
        "ReLU²": {"ffn": "relu2"},
        "SwiGLU": {"ffn": "swiglu"},
        "tied embeddings": {"tied": True},
        "no biases": {"bias": False},
    }
    found = {name: (cfg, replace(recipe, **change)) for name, change in plans.items()}
    return found | {name: (replace(cfg, **change), recipe) for name, change in models.items()}
