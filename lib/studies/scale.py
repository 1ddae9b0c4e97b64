"""What a second core gives a sweep, and the memory that tokenizing takes, whatever the size of the
text: measured apart by `python -m studies.scale --out reports/long`, which leaves scale.json after
every part. `--rounds 0`, and `--megabytes` without a number, leave a part as it was."""

import gzip
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch

from minitransformer.model import ModelConfig

from . import ablation, apart
from .arms import Arm, Text, fit
from .long_arms import Design, language
from .processes import mean, over_processes
from .workers import keep_memory, side_by_side

WIDTHS, RATES, SEEDS = (64, 128), (0.008, 0.016), (42, 43)  # the grid
STEPS, WORKERS = 1000, 2
WORDS, BLOCK = 50_000, 150_000  # invented words, and of how many a piece of text is


def grid(vocab_size: int, steps: int = STEPS) -> list[Arm]:
    """Every width at every learning rate from every seed, by the ablations' recipe."""
    base = ablation.recipe(steps, 4, 128)
    return [
        Arm(f"{width}, {lr}", ModelConfig(vocab_size, d_model=width), replace(base, lr=lr), seed)
        for width, lr, seed in product(WIDTHS, RATES, SEEDS)
    ]


def trained(arm: Arm, text: Text, tick) -> str:
    """The SHA-256 of the weights that a training ends with."""
    model, _ = fit(arm, text, tick, [])
    weights = [value.numpy().tobytes() for value in model.state_dict().values()]
    return hashlib.sha256(b"".join(weights)).hexdigest()


def products(item, during: tuple[float, float], tick) -> int:
    """How many products of two matrices end between two times of the clock."""
    x, done = torch.rand(512, 512), 0
    while time.time() < during[1]:
        x @ x
        done += time.time() > during[0]
    return done


def machine_gain(workers: int = WORKERS, seconds: float = 3, start: float = 6) -> float:
    """How many times as many products as one process so many at once compute."""
    counts = {}
    for count in (1, workers):
        begin = time.time() + start  # when all have started
        given = range(count), (begin, begin + seconds)
        counts[count] = sum(side_by_side(products, *given, workers=count))
    return counts[workers] / counts[1]


def in_turn(arms: Sequence[Arm], text: Text, rounds: int, workers: int = WORKERS) -> dict:
    """Seconds of all arms one after another and in `workers` processes, their start included, by
    turns; what the machine gives products; and of how many trainings after the first pass the
    weights were those of the first, to the bit."""
    keep_memory()  # as a worker does: what is compared differs in the processes alone
    rows, passes = [], []
    for number in range(rounds):
        row = {"round": number}
        for count in (1, workers) if number % 2 == 0 else (workers, 1):
            began = time.perf_counter()
            passes.append(side_by_side(trained, arms, text, workers=count))
            row["serial_s" if count == 1 else "parallel_s"] = time.perf_counter() - began
        rows.append(row | {"products_times_as_fast": machine_gain(workers)})
    same = [a == b for own in passes[1:] for a, b in zip(passes[0], own, strict=True)]
    return {"workers": workers, "rounds": rows, "same": sum(same), "trainings": len(same)}


def gain(found: dict) -> tuple[float, tuple[float, float]]:
    """Serial seconds over those side by side: the mean over rounds with its interval."""
    rounds = pd.DataFrame(found["rounds"])
    return mean(over_processes(rounds.serial_s / rounds.parallel_s))


def shards(folder: Path, megabytes: int, seed: int = 0) -> list[Path]:
    """A text of invented words, half of it as .txt.gz and half as .jsonl, so large uncompressed."""
    rng, paths = np.random.default_rng(seed), [folder / "text.txt.gz", folder / "text.jsonl"]
    letters = rng.integers(97, 123, (WORDS, 12), dtype=np.uint8)
    words = np.array([bytes(row[: 2 + i % 11]).decode() for i, row in enumerate(letters)])
    with gzip.open(paths[0], "wt", 1) as packed, paths[1].open("w") as lines:
        for write in (packed.write, lambda text: lines.write(json.dumps({"text": text}) + "\n")):
            left = megabytes * 500_000
            while left > 0:  # few words are frequent and many are rare, as in a language
                text = " ".join(words[(WORDS ** rng.random(BLOCK)).astype(int) - 1])[:left]
                left -= write(text)
    return paths


def tokenized(megabytes: int, tokenizer: str = "bpe") -> dict:
    """What the command takes to tokenize a text so large, and to train the tokenizer on its first 8
    million characters unless that is a file: seconds, and the most memory, in MiB."""
    with TemporaryDirectory() as folder:
        given = [str(path) for path in shards(Path(folder), megabytes)]
        words = [sys.executable, "-m", "minitransformer.corpus", *given, "--workers", "1"]
        words += ["--out", f"{folder}/store", "--vocab-size", "4096", "--tokenizer"]
        began = time.perf_counter()
        process = subprocess.Popen([*words, tokenizer], stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = status  # it is asked no more
        if status:
            raise RuntimeError(f"tokenizing {megabytes} MB ended with status {status}")
        unit = 2**20 if sys.platform == "darwin" else 2**10
        tokens = sum(path.stat().st_size // 4 for path in Path(folder, "store").glob("*.ids"))
        took = {"seconds": time.perf_counter() - began, "peak_mib": used.ru_maxrss / unit}
    return {"megabytes": megabytes, "tokens": tokens} | took


def left(folder: Path) -> dict:
    """What was kept: `sweep`, see `in_turn`, and `stores`, see `tokenized`, each with `made`."""
    return apart.read(folder / "scale.json")


def growth(rows: Sequence[dict]) -> float:
    """How far the most memory grows from the smallest text to the largest, in % of the ids."""
    first, last = (pick(rows, key=lambda row: row["megabytes"]) for pick in (min, max))
    ids = 4 * (last["tokens"] - first["tokens"]) / 2**20
    return 100 * (last["peak_mib"] - first["peak_mib"]) / ids


def rounds(found: dict) -> pd.DataFrame:
    """Seconds of each round and how many times as fast two are, beside mere products."""
    table = pd.DataFrame(found["rounds"]).assign(times_as_fast=lambda t: t.serial_s / t.parallel_s)
    return table[["serial_s", "parallel_s", "times_as_fast", "products_times_as_fast"]].round(2)


def stores(found: dict) -> pd.DataFrame:
    """A row a text, to be read."""
    return pd.DataFrame(found["rows"]).round({"seconds": 1, "peak_mib": 1})


def how_made(found: dict, part: str) -> str:
    """How a part of what was kept was made, in a sentence; that it was not."""
    if part not in found:
        return "Not measured yet; `python -m studies.scale` measures it."
    own = found[part]
    of = f": {own['arms']} trainings of {own['steps']:,} steps each" if part == "sweep" else ""
    return f"Measured apart {apart.how_made(own['made'])}{of}."


def main(given: list[str] | None = None) -> None:
    parser = apart.parser("studies.scale", __doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--megabytes", type=int, nargs="*", default=[100, 500, 2000])
    args = parser.parse_args(given)
    words = f"--out {args.out} --rounds {args.rounds} --steps {args.steps} --megabytes"
    command = " ".join(["python -m studies.scale", words, *map(str, args.megabytes)])
    made = apart.made(args.cpu, commit=args.commit, command=command)
    if args.rounds:
        corpus = language(Design())
        arms = grid(corpus.vocab_size, args.steps)
        found = in_turn(arms, Text.of(corpus, "valid", 128), args.rounds)
        keep(args.out, sweep=found | {"arms": len(arms), "steps": args.steps, "made": made})
    if args.megabytes:
        keep(args.out, stores={"rows": [*map(tokenized, args.megabytes)], "made": made})


def keep(folder: Path, **parts) -> None:
    """Parts beside those that are there."""
    apart.write(folder / "scale.json", left(folder) | parts)


if __name__ == "__main__":
    main()
