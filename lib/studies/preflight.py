"""What the chapters need of their parameters, known before anything runs.

The paper's runner and the guard cell of every notebook call `check`; pyproject.toml names it.
"""

from minitransformer import ModelConfig

SHAPE = ("d_model", "n_heads", "n_layers", "context", "position")


def check(params: dict) -> None:
    """ValueError, one line with thing, value and remedy, where no chapter could use `params`."""
    ModelConfig(**{name: params[name] for name in SHAPE if name in params})
