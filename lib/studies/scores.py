"""Losses of many models on the same tokens, compared in pairs.

What counts is the paired difference of losses, token by token: its interval is far narrower than
that of either perplexity."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from minitransformer.evaluate import paired_difference, recovered, token_losses
from minitransformer.quant import accelerate


def percent(difference) -> tuple[float, float, float]:
    """A paired difference in nats as per cent of perplexity: mean, low, high."""
    return tuple(100 * float(np.expm1(x)) for x in (difference.mean, *difference.interval))


def losses(model, ids, window: int) -> np.ndarray:
    """Loss of each token, quantized weights unpacked once: the same numbers, sooner."""
    fast = accelerate(model, "dequantized") if hasattr(model, "scheme") else model
    return token_losses(fast, ids, window)


def estimate(row: pd.Series | dict, of: str = "") -> tuple[float, tuple[float, float]]:
    """What a row of a table says that something adds, in per cent, and its interval; `of` is how
    the names of these columns begin."""
    return row[f"{of}added_percent"], (row[f"{of}low"], row[f"{of}high"])


class Scores:
    """Losses on `ids` in windows of `window`, each model scored once and kept by its name."""

    def __init__(self, ids, window: int, done: Callable[[int], None] | None = None):
        self.ids, self.window, self.done = ids, window, done
        self.kept: dict[str, np.ndarray] = {}

    def add(self, name: str, model) -> np.ndarray:
        """Losses of `model`, from now on called `name`."""
        if name not in self.kept:
            self.kept[name] = losses(model, self.ids, self.window)
            if self.done:
                self.done(1)
        return self.kept[name]

    def of(self, models: dict, progress: Callable | None = None) -> "Scores":
        """These scores with those of all `models`, by name; `progress(iterable, what)` shows it."""
        items = list(models.items())
        for name, model in progress(items, "formats scored") if progress else items:
            self.add(name, model)
        return self

    def save(self, path) -> None:
        """Everything, in single precision, for a chapter that goes on from here."""
        losses = {f"of {name}": own.astype(np.float32) for name, own in self.kept.items()}
        np.savez(path, ids=np.asarray(self.ids), window=self.window, **losses)

    @classmethod
    def load(cls, path) -> "Scores":
        """What `save` wrote."""
        with np.load(path) as file:
            found = cls(file["ids"], int(file["window"]))
            names = [name for name in file.files if name.startswith("of ")]
            found.kept = {name.removeprefix("of "): file[name] for name in names}
        return found

    def perplexity(self, name: str) -> float:
        return float(np.exp(self.kept[name].mean()))

    def added(self, name: str, over: str = "fp32") -> dict[str, float]:
        """Perplexity added over another model in per cent, with its paired interval."""
        mean, low, high = percent(paired_difference(self.kept[name], self.kept[over]))
        return {"added_percent": mean, "low": low, "high": high}

    def recovered(self, name: str, rounded: str, exact: str = "fp32") -> dict[str, float]:
        """The share of what rounding lost that `name` wins back, in per cent, with its interval;
        NaN where these tokens do not show that anything was lost."""
        share = (np.nan, np.nan, np.nan)
        if self.added(rounded, exact)["low"] > 0:
            share = recovered(self.kept[name], self.kept[rounded], self.kept[exact])
        columns = ("recovered_percent", "recovered_low", "recovered_high")
        return dict(zip(columns, share, strict=True))

    def table(self, names, over: str = "fp32") -> pd.DataFrame:
        """A row a name: perplexity, and what it adds over another."""
        found = {name: self.added(name, over) for name in names}
        return pd.DataFrame(
            [{"format": n, "perplexity": self.perplexity(n)} | own for n, own in found.items()]
        )
