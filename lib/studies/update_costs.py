"""What one update of a model takes, from its configuration and as this machine does it."""

import math

import pandas as pd
import torch

from minitransformer import bench
from minitransformer.model import Transformer
from minitransformer.train import TrainConfig, initialize, train

from .arms import size
from .presets import PAPERS, SIZES
from .processes import in_processes, over_processes
from .workers import keep_memory

SETTLED = 3  # first steps, which are not timed


def predicted(flops_per_second: float) -> pd.DataFrame:
    """One update of every size from its configuration alone: parameters, MiB, and the least seconds
    at the speed of this machine's matrix product."""
    rows = [
        {"size": name, "parameters": size(cfg), "batch": f"{batch} × {window}",
         "predicted_mib": bytes_of(name) / 2**20,
         "least_seconds": flops_of(name) / flops_per_second}
        for name, (cfg, batch, window) in SIZES.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def bytes_of(name: str) -> int:
    """What an update of this size holds at its fullest."""
    return sum(bench.training_bytes(*SIZES[name]).values())


def flops_of(name: str) -> int:
    """Operations of one update of this size."""
    return bench.training_flops(*SIZES[name])


def paces(names: list[str], steps: int, threads: int, seed: int = 0) -> dict[str, pd.DataFrame]:
    """Updates of these sizes on random ids, in growing size: size, step, seconds, the MiB that the
    process at its fullest had more than before the first, and the operations a second of a matrix
    product there. For a fresh process."""
    torch.set_grad_enabled(True)
    torch.set_num_threads(threads)
    keep_memory()
    before, tables, speed = _peak(), [], peak()
    for name in sorted(names, key=bytes_of):
        cfg, batch, window = SIZES[name]
        ids = torch.randint(cfg.vocab_size, (batch, window + 1), generator=_seeded(seed))
        model = initialize(Transformer(cfg), "scaled", seed)
        recipe = TrainConfig(steps=steps, batch_size=batch, window=window)
        rows = pd.DataFrame(train(model, lambda step, ids=ids: ids, recipe))
        del model
        tables.append(rows[["step", "seconds"]].assign(size=name, mib=_peak() - before))
    return {"paces": pd.concat(tables, ignore_index=True).assign(flops_per_second=speed)}


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
    """Predictions beside what was measured: MiB, the seconds of a settled step, and the percentage
    of the matrix product's speed that it reaches, with the interval over processes; NaN for a size
    that was not run."""
    rows = []
    for name, steps in measured[measured.step > SETTLED].groupby("size"):
        by = steps.groupby("process").agg({"seconds": "median", "flops_per_second": "first"})
        share = over_processes(100 * flops_of(name) / by.flops_per_second / by.seconds)
        rows.append(
            {"size": name, "measured_mib": steps.mib.max(), "seconds": by.seconds.median(),
             "of_peak_percent": share["estimate"], "low": share["low"], "high": share["high"]}
        )  # fmt: skip
    columns = ["size", "measured_mib", "seconds", "of_peak_percent", "low", "high"]
    table = predictions.merge(pd.DataFrame(rows, columns=columns), "left")
    return table.round({"predicted_mib": 1, "measured_mib": 1, "least_seconds": 4, "seconds": 4,
                        "of_peak_percent": 1, "low": 1, "high": 1})  # fmt: skip


def reached(table: pd.DataFrame, name: str = PAPERS) -> pd.DataFrame:
    """The row of a size that was measured in several processes, which a bar can judge."""
    return table[(table["size"] == name) & table.low.notna()]


def peak() -> float:
    """Operations a second of this machine's matrix product."""
    return bench.matmul_flops_per_second(512)


def taken(names: list[str], steps: int, threads: int, processes: int) -> pd.DataFrame:
    """The `paces` of these sizes, measured in fresh processes; no row where there are none."""
    if not names:
        columns = ["step", "seconds", "size", "mib", "flops_per_second", "process"]
        return pd.DataFrame(columns=columns).astype({"step": int})
    return in_processes(paces, processes, names, steps, threads)["paces"]
