"""What a GPU changes, through torch alone: a linear layer in every number format, a decode step,
and training, each beside the CPU's or FP32's. `python -m studies.gpu --out reports/long` keeps its
tables, and in gpu.json how they were made, for pages without a GPU; a part that fails leaves its
reason."""

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from minitransformer.commands import ended
from minitransformer.train import device_of

from . import apart, gpu_layers, gpu_models
from .gpu_models import COMPILED, EAGER, GRAPH, LARGE, LEAST, ON_CPU, PRECISIONS, SEED, TWIN
from .processes import in_processes

TABLES = ("layers", "decode", "training")
SLOW = 45  # seconds that are left, or the slow jobs are not begun


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    widths: tuple[int, ...] = (128, 768, 2048, 4096)
    tokens: tuple[int, ...] = (1, 64)
    repeats: int = 10
    processes: int = 5
    new_tokens: int = 64
    loops: int = 5
    trained: tuple[str, ...] = (TWIN, LARGE)
    decoded: tuple[str, ...] = (SEED, LARGE)
    compile: bool = True


FULL = Plan()
TINY = Plan((128,), (1, 64), 2, 1, 4, 1, (LEAST,), (LEAST,), False)


def jobs(plan: Plan, device: str) -> list[tuple[str, str, int, Callable[[], list[dict]]]]:
    """What is measured, in order: the table that its rows belong to, what it is in words, how slow
    it is (0 to 2), and a call that returns the rows. The slow ones come last."""
    found = [("layers", "one layer", 0, partial(layers, plan, device))]
    for shape in plan.trained:
        ways = [way for way in PRECISIONS if plan.compile or "compiled" not in way]
        for way in (*ways, ON_CPU):
            slow = (shape == LARGE) * ((way == ON_CPU) + 2 * ("compiled" in way))
            call = partial(training, shape, way, device)
            found.append(("training", f"training {shape}, {way}", slow, call))
    for shape in plan.decoded:
        wanted: list[int] = []
        for way in (EAGER, GRAPH, *[COMPILED] * plan.compile):
            slow = 2 * (shape == LARGE and way == COMPILED)
            call = partial(decode, shape, way, wanted, plan, device)
            found.append(("decode", f"decoding {shape}, {way}", slow, call))
    return sorted(found, key=lambda job: job[2])


def layers(plan: Plan, device: str) -> list[dict]:
    absent = faults(plan, device) if device == "cuda" else {}
    given = plan.widths, plan.tokens, plan.repeats, device, absent
    threads = torch.get_num_threads()
    samples = in_processes(gpu_layers.measure, plan.processes, *given, threads=threads)
    return gpu_layers.table(samples).to_dict("records")


def faults(plan: Plan, device: str) -> dict[str, str]:
    """Format -> why it cannot be measured, each tried once in a process of its own, all at once: a
    kernel that reads where it must not leaves its process without the device."""

    given, threads = (plan.widths, plan.tokens, 1, device), torch.get_num_threads() // 4 or 1

    def tried(name: str) -> str:
        others = dict.fromkeys(gpu_layers.FORMATS.keys() - {name}, "another's turn")
        try:
            in_processes(gpu_layers.measure, 1, *given, others, threads=threads)
        except Exception as error:
            return gpu_layers.reason(error)
        return ""

    with ThreadPoolExecutor(len(gpu_layers.FORMATS)) as pool:
        found = dict(zip(gpu_layers.FORMATS, pool.map(tried, gpu_layers.FORMATS), strict=True))
    return {name: why for name, why in found.items() if why}


def training(shape: str, way: str, device: str) -> list[dict]:
    return [gpu_models.trained(shape, way, device)]


def decode(shape: str, way: str, wanted: list[int], plan: Plan, device: str) -> list[dict]:
    """`wanted`: the oracle's tokens, filled by the first of the ways."""
    if not wanted:
        wanted += gpu_models.oracle(shape, plan.new_tokens)
    return [gpu_models.decoded(shape, way, wanted, plan.loops, device)]


def measured(plan: Plan, device: str, seconds: float, keep: Callable | None = None):
    """The three tables and how they were made; `keep(tables, made)` is called after each job. What
    fails, or is slow when little of `seconds` is left, is among the reasons."""
    began, rows, reasons = time.monotonic(), {name: [] for name in TABLES}, {}
    tables = {name: pd.DataFrame() for name in TABLES}
    made = about(device) | {"reasons": reasons, "seconds": 0.0}
    for table, what, slow, call in jobs(plan, device):
        left = seconds - (time.monotonic() - began)
        if left < (SLOW if slow else 0):
            reasons[what] = f"not begun: {max(left, 0):.0f} of {seconds:.0f} seconds were left"
            continue
        try:
            rows[table] += call()
        except Exception as error:  # of one part, whatever it is: the others count
            reasons[what] = gpu_layers.reason(error)
        tables = {name: pd.DataFrame(own) for name, own in rows.items()}
        if len(tables["training"]):
            tables["training"] = gpu_models.beside(tables["training"])
        made["seconds"] = round(time.monotonic() - began, 1)
        if keep:
            keep(tables, made)
    return tables, made


def about(device: str) -> dict:
    """The machine and its software, without its name; of a CPU there is no more than that."""
    found = apart.made(device=device, threads=torch.get_num_threads())
    if device != "cuda":
        return found
    card = torch.cuda.get_device_properties(0)
    return found | {
        "gpu": card.name,
        "memory_gib": round(card.total_memory / 2**30, 1),
        "cache_mib": round(card.L2_cache_size / 2**20, 1),
        "cuda": torch.version.cuda,
        "driver": _driver(),
    }


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else ""


def keep(folder: Path, tables: dict[str, pd.DataFrame], made: dict) -> None:
    """Leaves the tables for a page that has no GPU, with how they were made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / f"gpu-{name}.csv", index=False, lineterminator="\n")
    apart.write(folder / "gpu.json", made)


def left(folder: Path) -> tuple[dict[str, pd.DataFrame], dict]:
    """What `keep` left; empty where there is nothing."""
    paths = {name: folder / f"gpu-{name}.csv" for name in TABLES}
    return {name: _table(path) for name, path in paths.items()}, apart.read(folder / "gpu.json")


def _table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (FileNotFoundError, pd.errors.EmptyDataError):  # never begun, or a part that failed
        return pd.DataFrame()


def production(folder: Path) -> tuple[tuple | None, str]:
    """What of all that `keep` left there speaks to int8 and int4 in production: the slowest of the
    quickest kernels, with its interval, and all of them in a sentence that names the GPU and the
    day; (None, "") where there is nothing."""
    tables, made = left(folder)
    if tables["layers"].empty or "gpu" not in made:
        return None, ""
    best = gpu_layers.production(tables["layers"])
    if best.empty:
        return None, ""
    told = gpu_layers.production_in_words(best)
    return gpu_layers.slowest(best), f"Measured apart, on {made['gpu']}, {made['date']}: {told}."


def main(given: list[str] | None = None) -> int:
    parser = apart.parser("studies.gpu", __doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=230)
    parser.add_argument("--tiny", action="store_true", help="the least of everything, as a test")
    options = parser.parse_args(given)

    def kept(tables, made):
        how = {"commit": options.commit, "command": "python -m studies.gpu --out reports/long"}
        keep(options.out, tables, made | apart.machine(options.cpu) | how)

    def work():
        plan, device = TINY if options.tiny else FULL, device_of(options.device).type
        measured(plan, device, options.seconds, kept)

    return ended(work)


if __name__ == "__main__":
    sys.exit(main())
