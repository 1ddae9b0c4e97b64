"""What one update of a model takes, from its configuration and as this machine does it: whole, part
by part, and in bfloat16."""

import math
import time
from itertools import pairwise, product

import pandas as pd
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook as after_step
from torch.optim.optimizer import register_optimizer_step_pre_hook as before_step

from minitransformer import bench
from minitransformer.model import Transformer
from minitransformer.train import TrainConfig, initialize, train

from .arms import size
from .presets import PAPERS, SIZES
from .processes import as_columns, in_processes, over_processes
from .words import with_interval
from .workers import keep_memory

SETTLED = 3  # first steps, which are not timed
OPERATIONS = 7e9  # of the largest update that is made so often as asked: larger ones are made less
PRECISIONS, FEW = ("float32", "bfloat16"), 9  # of what counts, and in a few updates beside it
# The parts of an update in their order, each with its share of the operations.
BEGIN, FORWARD, BACKWARD = "batch", "forward", "loss, backward"
CLIPPING, STEP, CHECKS = "norm of the gradient, clipping", "AdamW", "finite weights and moments?"
PARTS = {BEGIN: 0, FORWARD: 1 / 3, BACKWARD: 2 / 3, CLIPPING: 0, STEP: 0, CHECKS: 0}


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


def paces(
    names: list[str], steps: int, threads: int, precisions=PRECISIONS[:1], seed: int = 0
) -> dict[str, pd.DataFrame]:
    """Updates of these sizes on random ids, in growing size, as many as asked or, of large ones,
    fewer: size, precision, step, seconds and those of PARTS, the MiB that the process had at most
    above those before the first, and a matrix product's operations a second. In a fresh process."""
    torch.set_grad_enabled(True)
    torch.set_num_threads(threads)
    keep_memory()
    before, tables, speed = _peak(), [], peak()
    for precision, name in product(precisions, sorted(names, key=bytes_of)):
        often = steps if precision == precisions[0] else min(steps, FEW)
        kept = pd.DataFrame(_updates(name, often, precision, seed))[["step", "seconds", *PARTS]]
        tables.append(kept.assign(size=name, precision=precision, mib=_peak() - before))
    return {"paces": pd.concat(tables, ignore_index=True).assign(flops_per_second=speed)}


def _updates(name, steps, precision, seed):
    """The log of such updates, with the seconds of PARTS, which hooks tell from the loop itself."""
    (cfg, batch, window), marks = SIZES[name], []
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(cfg.vocab_size, (batch, window + 1), generator=generator)
    steps = max(min(steps, round(steps * OPERATIONS / flops_of(name))), SETTLED + 3)
    model = initialize(Transformer(cfg), "scaled", seed)

    def ends(part):
        return lambda *_: marks.append((part, time.perf_counter()))

    def begins(step):
        marks[:] = [("", time.perf_counter())]
        return ids

    def on_step(row):
        ends(CHECKS)()
        taken = dict.fromkeys(PARTS, 0.0)
        for (_, began), (part, ended) in pairwise(marks):
            taken[part] += ended - began
        return taken

    model.register_forward_pre_hook(ends(BEGIN))
    model.register_forward_hook(ends(FORWARD))
    for parameter in model.parameters():  # whichever has its gradient last ends the backward
        parameter.register_post_accumulate_grad_hook(ends(BACKWARD))
    with before_step(ends(CLIPPING)), after_step(ends(STEP)):
        recipe = TrainConfig(steps, batch, window, precision=precision)
        return train(model, begins, recipe, on_step=on_step)


def _peak() -> float:
    """MiB of this process at its fullest; NaN where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def compared(predictions: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Predictions beside what was measured: MiB, the seconds of a settled step, and its percentage
    of the matrix product's speed with the interval over processes; NaN for a size not run. The
    least seconds of one that was run are at that speed, and so that percentage of its seconds."""
    rows = []
    what = {"seconds": "median", "flops_per_second": "first", "mib": "max"}
    for name, by in settled(measured).agg(what).groupby("size"):
        share = over_processes(100 * flops_of(name) / by.flops_per_second / by.seconds)
        row = {"size": name, "measured_mib": by.mib.max(), **as_columns("of_peak_percent", share)}
        rows.append(row | {"seconds": over_processes(by.seconds)["estimate"]})
    columns = ["size", "measured_mib", "seconds", "of_peak_percent", "low", "high"]
    table = predictions.merge(pd.DataFrame(rows, columns=columns), "left")
    own = table.of_peak_percent / 100 * table.seconds
    table["least_seconds"] = own.fillna(table.least_seconds)
    return table.round({"predicted_mib": 1, "measured_mib": 1, "least_seconds": 4, "seconds": 4,
                        "of_peak_percent": 1, "low": 1, "high": 1})  # fmt: skip


def settled(measured: pd.DataFrame, precision: str = PRECISIONS[0]):
    """The updates in a precision that count, by size and process."""
    own = measured[(measured.step > SETTLED) & (measured.precision == precision)]
    return own.groupby(["size", "process"], sort=False)


def split(measured: pd.DataFrame) -> pd.DataFrame:
    """Where the time of an update goes, by size and part: milliseconds, the percentage of a matrix
    product's speed where there is one, and the share of the whole with its interval."""
    by, rows = settled(measured), []
    taken, speeds = by[[*PARTS]].median(), by.flops_per_second.first()
    for name, own in taken.groupby("size", sort=False):
        for part, operations in PARTS.items():
            share = over_processes(100 * own[part] / own.sum(axis=1))
            at_peak = over_processes(speeds[own.index] * own[part])["estimate"]
            rows.append(
                {"size": name, "part": part, "time_ms": 1e3 * over_processes(own[part])["estimate"],
                 "of_peak_percent": 100 * operations * flops_of(name) / at_peak or math.nan,
                 "share_percent": share["estimate"], "low": share["low"], "high": share["high"]}
            )  # fmt: skip
    return pd.DataFrame(rows)


def in_words(measured: pd.DataFrame) -> str:
    """By size the speed of forward and backward, what can be gained beside them, and bfloat16."""
    said, (full, half) = [], (settled(measured, p).seconds.median() for p in PRECISIONS)
    for name, rows in split(measured).groupby("size", sort=False):
        passes, longer = rows[rows.of_peak_percent.notna()], over_processes((half / full)[name])
        takes = passes.time_ms.sum()
        at = (passes.of_peak_percent * passes.time_ms).sum() / takes
        times = with_interval(longer["estimate"], longer["low"], longer["high"])
        said.append(
            f"Of {name} forward and backward, PyTorch's own, run at {at:.0f} % of the product's "
            f"speed; with all else free an update would be {rows.time_ms.sum() / takes:.2f} times "
            f"as fast. In bfloat16 it takes {times} times as long."
        )
    return " ".join(said)


def reached(table: pd.DataFrame, name: str = PAPERS) -> pd.DataFrame:
    """The row of a size that was measured in several processes, which a bar can judge."""
    return table[(table["size"] == name) & table.low.notna()]


def peak() -> float:
    """Operations a second of this machine's matrix product."""
    return bench.matmul_flops_per_second(512)


def taken(names: list[str], steps: int, threads: int, processes: int) -> pd.DataFrame:
    """The `paces` of these sizes, if any, in both precisions, measured in fresh processes."""
    if not names:
        columns = ["step", "seconds", "size", "precision", "mib", "flops_per_second", "process"]
        return pd.DataFrame(columns=columns).astype({"step": int})
    return in_processes(paces, processes, names, steps, threads, PRECISIONS)["paces"]
