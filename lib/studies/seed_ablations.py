"""The original report's own ablations: its recipe on the control, at its widths and positions."""

import numpy as np
import pandas as pd

from minitransformer.model import ModelConfig
from minitransformer.train import TrainConfig

from . import seeds
from .arms import Arm, repeated, size

WIDTHS = (64, 128, 256)
STATED = {"width 64": 1100, "width 128": 1045.31, "width 256": 1020, "sinusoidal": 1050}


def models() -> dict[str, ModelConfig]:
    """Its variants by name."""
    widths = {f"width {width}": ModelConfig(d_model=width) for width in WIDTHS}
    return widths | {"sinusoidal": ModelConfig(position="sinusoidal")}


def sizes() -> dict[int, int]:
    """Parameters by width."""
    return {width: size(ModelConfig(d_model=width)) for width in WIDTHS}


def arms(recipe: TrainConfig, seed: int, runs: int) -> list[Arm]:
    """Every variant with as many seeds, on the text "control"."""
    own = [Arm(name, cfg, recipe, seed, "control") for name, cfg in models().items()]
    return [arm for each in own for arm in repeated(each, runs)]


def widths(scored: pd.DataFrame) -> str | None:
    """The widths that were trained, None without runs."""
    own = set(scored[scored.text == "control"].arm)
    return ", ".join(str(width) for width in WIDTHS if f"width {width}" in own) or None


def losses(scored: pd.DataFrame, variant: str) -> np.ndarray:
    """Test loss of each run of a variant, in the order of the seeds."""
    own = scored[(scored.text == "control") & (scored.arm == variant)]
    return own.sort_values("seed").nats.to_numpy()


def further(scored: pd.DataFrame, variant: str) -> seeds.Estimate:
    """Perplexity of a variant, with the prediction interval of a further run, made in nats."""
    return seeds.one_more_perplexity(losses(scored, variant))


def rotary_gain(scored: pd.DataFrame) -> seeds.Estimate:
    """Loss with rotary positions minus that with sinusoidal ones, paired by seed."""
    return seeds.mean(losses(scored, "width 128") - losses(scored, "sinusoidal"))


def table(scored: pd.DataFrame) -> pd.DataFrame:
    """Each variant beside what the original report states: mean perplexity, where one further run
    falls with 95 %, and the time of a step; NaN without runs."""
    rows = []
    for variant, stated in STATED.items():
        middle, interval = further(scored, variant)
        low, high = interval or (np.nan, np.nan)
        own = scored[(scored.text == "control") & (scored.arm == variant)]
        row = {"variant": variant, "original_report": stated, "runs": len(own)}
        row["perplexity"] = middle
        rows.append(row | {"low": low, "high": high, "step_ms": own.step_ms.median()})
    return pd.DataFrame(rows).astype({"perplexity": float})


def per_doubling(scored: pd.DataFrame) -> seeds.Estimate:
    """How many times as long a training step takes at twice the width: of the two doublings the
    smaller ratio, over runs."""
    own = scored[(scored.text == "control") & (scored.arm != "sinusoidal")]
    wide = own.pivot(index="seed", columns="arm", values="step_ms")
    if wide.empty:
        return seeds.Estimate()
    steps = [wide[f"width {width}"] for width in WIDTHS]
    return seeds.mean(np.minimum(steps[1] / steps[0], steps[2] / steps[1]))
