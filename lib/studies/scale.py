"""What a second core gives a sweep, and the memory that tokenizing takes, whatever the size of the
text: measured apart, for longer than a page can take.

    python -m studies.scale --out reports/long [--commit HASH] [--cpu NAME]
                            [--rounds 5] [--megabytes 100 500 2000]

leaves scale.json after every part, how it was made in it: a page shows what it finds there.
`--rounds 0`, and `--megabytes` without a number, leave a part as it was."""

import argparse
import gzip
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch

from minitransformer.files import replacing
from minitransformer.model import ModelConfig

from . import ablation
from .arms import Arm, Text, fit
from .long_arms import Design, language
from .processes import mean, over_processes
from .workers import keep_memory, side_by_side

WIDTHS, RATES, SEEDS = (64, 128), (0.008, 0.016), (42, 43)  # the grid
STEPS, WORKERS = 400, 2
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


def in_turn(arms: Sequence[Arm], text: Text, rounds: int, workers: int = WORKERS) -> dict:
    """Seconds of all arms one after another and in `workers` processes, their start included, by
    turns; and of how many trainings the weights were those of the first time, to the bit."""
    keep_memory()  # as a worker does: what is compared differs in the processes alone
    rows, first, same = [], None, 0
    for number in range(rounds):
        row = {"round": number}
        for count in (1, workers) if number % 2 == 0 else (workers, 1):
            began = time.perf_counter()
            found = side_by_side(trained, arms, text, workers=count)
            row["serial_s" if count == 1 else "parallel_s"] = time.perf_counter() - began
            first = first or found
            same += sum(a == b for a, b in zip(first, found, strict=True))
        rows.append(row)
    return {"workers": workers, "rounds": rows, "same": same, "trainings": 2 * rounds * len(arms)}


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
    path = folder / "scale.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def growth(rows: Sequence[dict]) -> float:
    """What the most memory grows by between the smallest and the largest text, in per cent of what
    the ids grow by."""
    first, last = (pick(rows, key=lambda row: row["megabytes"]) for pick in (min, max))
    ids = 4 * (last["tokens"] - first["tokens"]) / 2**20
    return 100 * (last["peak_mib"] - first["peak_mib"]) / ids


def rounds(found: dict) -> pd.DataFrame:
    """Seconds of each round, and how many times as fast two are, to be read."""
    table = pd.DataFrame(found["rounds"])[["serial_s", "parallel_s"]]
    return table.assign(times_as_fast=table.serial_s / table.parallel_s).round(2)


def stores(found: dict) -> pd.DataFrame:
    """A row a text, to be read."""
    return pd.DataFrame(found["rows"]).round({"seconds": 1, "peak_mib": 1})


def absent(found: dict) -> str:
    """Which part was not measured yet, in a sentence; "" where both were."""
    named = {"sweep": "the sweep", "stores": "the memory of tokenizing"}
    left_out = " and ".join(name for part, name in named.items() if part not in found)
    return f"Not measured yet: {left_out} (`python -m studies.scale`)." * bool(left_out)


def told(made: dict) -> str:
    """How a part was made, in a sentence."""
    return f"Measured apart on {made['date']} at commit {made['commit'][:12]}, on {made['cpu']}."


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m studies.scale")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--commit", default="")
    parser.add_argument("--cpu", default=platform.processor())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--megabytes", type=int, nargs="*", default=[100, 500, 2000])
    args = parser.parse_args(given)
    made = {"commit": args.commit, "cpu": args.cpu, "torch": torch.__version__}
    made |= {"date": date.today().isoformat(), "command": "python -m studies.scale"}
    if args.rounds:
        corpus = language(Design())
        arms = grid(corpus.vocab_size, args.steps)
        found = in_turn(arms, Text.of(corpus, "valid", 128), args.rounds)
        keep(args.out, sweep=found | {"arms": len(arms), "steps": args.steps, "made": made})
    if args.megabytes:
        keep(args.out, stores={"rows": [*map(tokenized, args.megabytes)], "made": made})


def keep(folder: Path, **parts) -> None:
    """Parts beside those that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "scale.json") as part:
        part.write_text(json.dumps(left(folder) | parts, indent=2, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    main()
