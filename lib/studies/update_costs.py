"""What one update of a model takes, from its configuration and as this machine does it."""

import math

import pandas as pd
import torch

from minitransformer import bench
from minitransformer.model import Transformer
from minitransformer.train import TrainConfig, initialize, train

from .arms import size
from .presets import SIZES
from .processes import in_processes

SETTLED = 3  # first steps, which are not timed


def predicted(flops_per_second: float) -> pd.DataFrame:
    """One update of every size from its configuration alone: parameters, MiB, and the least seconds
    at the speed of this machine's matrix product."""
    rows = []
    for name, (cfg, batch, window) in SIZES.items():
        flops = bench.training_flops(cfg, batch, window)
        nbytes = sum(bench.training_bytes(cfg, batch, window).values())
        rows.append(
            {"size": name, "parameters": size(cfg),
             "batch": f"{batch} × {window}", "predicted_mib": nbytes / 2**20,
             "least_seconds": flops / flops_per_second}
        )  # fmt: skip
    return pd.DataFrame(rows)


def paces(names: list[str], steps: int, threads: int, seed: int = 0) -> dict[str, pd.DataFrame]:
    """Updates of these sizes on random ids, in growing size: size, step, seconds, and the MiB that
    the process at its fullest had more than before the first. For a fresh process."""
    torch.set_grad_enabled(True)
    torch.set_num_threads(threads)
    before, tables = _peak(), []
    for name in names:
        cfg, batch, window = SIZES[name]
        ids = torch.randint(cfg.vocab_size, (batch, window + 1), generator=_seeded(seed))
        model = initialize(Transformer(cfg), "scaled", seed)
        recipe = TrainConfig(steps=steps, batch_size=batch, window=window)
        rows = pd.DataFrame(train(model, lambda step, ids=ids: ids, recipe))
        del model
        tables.append(rows[["step", "seconds"]].assign(size=name, mib=_peak() - before))
    return {"paces": pd.concat(tables, ignore_index=True)}


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _peak() -> float:
    """MiB of this process at its fullest; NaN where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def compared(predictions: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Predictions beside what was measured: MiB, the median of the settled steps, and the share of
    the matrix product's speed that they reach; NaN for a size that was not run."""
    settled = measured[measured.step > SETTLED]
    by = settled.groupby("size").agg(measured_mib=("mib", "last"), seconds=("seconds", "median"))
    table = predictions.merge(by, "left", left_on="size", right_index=True)
    return table.assign(of_peak_percent=100 * table.least_seconds / table.seconds).round(
        {"predicted_mib": 1, "measured_mib": 1, "least_seconds": 4, "seconds": 4,
         "of_peak_percent": 1}
    )  # fmt: skip


def peak() -> float:
    """Operations a second of this machine's matrix product."""
    return bench.matmul_flops_per_second(512)


def taken(names: list[str], steps: int, threads: int) -> pd.DataFrame:
    """The `paces` of these sizes, measured in a fresh process; no row where there are none."""
    if not names:
        return pd.DataFrame(columns=["step", "seconds", "size", "mib"]).astype({"step": int})
    return in_processes(paces, 1, names, steps, threads)["paces"]
