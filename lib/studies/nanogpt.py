"""nanoGPT (Karpathy, MIT licence) run beside ours: its own program, its documented CPU recipe.

Nothing of it is part of this repository. A clone is copied to a temporary folder, given the text in
the files that its program reads, and run in a fresh process, which ends with ours."""

import math
import pickle
import re
import runpy
import shutil
import sys
import warnings
from contextlib import chdir, redirect_stdout
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch

from minitransformer.evaluate import token_losses

from .presets import SHAKESPEARE
from .processes import in_processes, mean, over_processes
from .update_costs import SETTLED as OURS_SETTLED
from .update_costs import paces

GET = "git clone https://github.com/karpathy/nanoGPT, then NANOGPT=its folder"
NEEDED = ("train.py", "model.py", "configurator.py", "config/train_shakespeare_char.py", "LICENSE")
STEPS = 2000
WHOLE = "nanoGPT's recipe"  # the name of its row among budgets
BATCH, WINDOW = 12, 64
# "I only have a macbook" of its README, with every iteration told.
RECIPE = (
    "config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 "
    f"--log_interval=1 --block_size={WINDOW} --batch_size={BATCH} --n_layer=4 --n_head=4 "
    "--n_embd=128 --dropout=0.0"
).split()
SETTLED = 5  # iterations that are not timed
OURS = {"ours, its architecture": "nanoGPT's 4 × 128", "ours, the budgets' model": "4 × 128"}
ITERATION = re.compile(r"iter (\d+): loss (\S+), time (\S+)ms")
LOOK = re.compile(r"step (\d+): train loss (\S+), val loss (\S+)")


def missing(clone: Path | None) -> str:
    """Why nanoGPT cannot be run, with the remedy; "" where it can."""
    if clone is None:
        return f"no clone of nanoGPT was given: {GET}"
    absent = [name for name in NEEDED if not (clone / name).is_file()]
    return (
        f"the folder given has no {absent[0]}, and is no clone of nanoGPT: {GET}" if absent else ""
    )


def prepare(clone: Path, folder: Path, train: str, valid: str) -> None:
    """A copy of the program in `folder`, with the text as its own `prepare.py` writes it: ids of
    the sorted characters."""
    for name in NEEDED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(clone / name, folder / name)
    data = folder / "data" / "shakespeare_char"
    data.mkdir(parents=True, exist_ok=True)
    ids = {character: i for i, character in enumerate(sorted({*train, *valid}))}
    for split, text in (("train", train), ("val", valid)):
        np.array([ids[c] for c in text], dtype=np.uint16).tofile(data / f"{split}.bin")
    names = {"vocab_size": len(ids), "stoi": ids, "itos": {i: c for c, i in ids.items()}}
    (data / "meta.pkl").write_bytes(pickle.dumps(names))


def measure(folder: Path, steps: int, threads: int) -> dict[str, pd.DataFrame]:
    """`train.py` in this process, for `steps` of its recipe's `STEPS` iterations: its log, see
    `parse`. For a fresh process: it changes what belongs to all of it."""
    torch.set_num_threads(threads)
    torch.set_grad_enabled(True)
    most = steps - 1 if steps < STEPS else STEPS  # its program stops after max_iters + 1
    given = [*RECIPE, f"--max_iters={most}", f"--lr_decay_iters={STEPS}"]
    argv, path = sys.argv, list(sys.path)
    log = Path(folder).resolve() / "log.txt"
    try:
        sys.argv, sys.path[:0] = ["train.py", *given], [str(log.parent)]
        with chdir(folder), log.open("w") as out, redirect_stdout(out), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            runpy.run_path("train.py", run_name="__main__")
    finally:
        sys.argv, sys.path[:] = argv, path
    return {"nanogpt": parse(log.read_text())}


def parse(log: str) -> pd.DataFrame:
    """A row an iteration: step (from 0), loss_nats, seconds, valid_nats (its own estimate, of 20
    random batches, where it took one). The first iterations, and those that took an estimate, have
    no seconds. ValueError for a log without an iteration."""
    rows = {
        int(step): {"step": int(step), "loss_nats": float(loss), "seconds": float(ms) / 1e3}
        for step, loss, ms in ITERATION.findall(log)
    }
    if not rows:
        raise ValueError("nanoGPT's log tells no iteration: run its train.py by hand to see why")
    looks = {int(step): float(valid) for step, _, valid in LOOK.findall(log)}
    table = pd.DataFrame(rows.values()).sort_values("step", ignore_index=True)
    table["valid_nats"] = table.step.map(looks)
    untimed = (table.index < SETTLED) | table.valid_nats.notna()
    return table.assign(seconds=table.seconds.mask(untimed))


def seconds(log: pd.DataFrame, steps: int = STEPS) -> float:
    """Of `steps` iterations at the mean of those timed: without its estimates and its start."""
    return steps * float(log.seconds.mean())


def curve(log: pd.DataFrame) -> pd.DataFrame:
    """Its own estimates over the seconds of training before each: seconds, valid_nats."""
    before = log.seconds.fillna(log.seconds.mean()).cumsum().shift(fill_value=0.0)
    return log.assign(seconds=before).dropna(subset="valid_nats")[["seconds", "valid_nats"]]


def scored(folder: Path, threads: int) -> dict[str, pd.DataFrame]:
    """Nats of every character of the validation split but the first, by the checkpoint that its
    program kept, in windows as ours. For a fresh process: it imports its `model.py`."""
    torch.set_num_threads(threads)
    folder, path = Path(folder), list(sys.path)
    kept = torch.load(folder / "out-shakespeare-char" / "ckpt.pt", weights_only=True)
    try:
        sys.path[:0] = [str(folder.resolve())]
        own = import_module("model")
        with (folder / "log.txt").open("a") as out, redirect_stdout(out):
            model = own.GPT(own.GPTConfig(**kept["model_args"]))
    finally:
        sys.path[:] = path
    model.load_state_dict(kept["model"])
    model.eval()
    ids = np.fromfile(folder / "data" / "shakespeare_char" / "val.bin", dtype=np.uint16)
    ids = ids.astype(np.int64)
    nll = token_losses(lambda x: model(x, x)[0], ids, WINDOW, WINDOW // 2, 32)
    return {"scored": pd.DataFrame({"nats": nll})}


def measured(folder: Path, steps: int, threads: int, score: bool = False) -> dict:
    """`measure`, and where it is asked for `scored`, each in a fresh process."""
    found = in_processes(measure, 1, folder, steps, threads)
    return found | (in_processes(scored, 1, folder, threads) if score else {})


def beside(folder: Path, rounds: int, steps: int, threads: int) -> pd.DataFrame:
    """Tokens a second of its program and of ours at its shape, of its architecture and of the one
    that the budgets train, in `rounds` of fresh processes, whose order alternates: round, who,
    seconds_per_step, tokens_per_second."""
    rows = []
    for i in range(rounds):
        for who in ("nanoGPT", *OURS)[:: 1 if i % 2 == 0 else -1]:
            if who in OURS:
                table = in_processes(paces, 1, [OURS[who]], steps, threads)["paces"]
                pace = table[table.step > OURS_SETTLED].seconds.mean()
            else:
                pace = measured(folder, steps, threads)["nanogpt"].seconds.mean()
            rows.append({"round": i, "who": who, "seconds_per_step": pace,
                         "tokens_per_second": BATCH * WINDOW / pace})  # fmt: skip
    return pd.DataFrame(rows)


def times_as_fast(rates: pd.DataFrame) -> tuple[float, tuple[float, float]]:
    """Our tokens a second over its own, same architecture: mean over rounds and interval."""
    wide = rates.pivot(index="round", columns="who", values="tokens_per_second")
    return mean(over_processes(wide[next(iter(OURS))] / wide["nanoGPT"]))


def ran(clone: Path, corpus, rounds: int, steps: int, whole: bool, threads: int) -> dict:
    """All that is measured of it, in a temporary copy: `rates`, see `beside`; and where `whole`,
    its recipe to the end: `nanogpt`, see `parse`, and `scored`, the nats of every character."""
    with TemporaryDirectory() as folder:
        prepare(clone, Path(folder), corpus.texts["train"], corpus.texts["valid"])
        found = {"rates": beside(Path(folder), rounds, steps, threads)}
        return found | (measured(Path(folder), STEPS, threads, score=True) if whole else {})


def why_not(clone: Path | None, at_hand: bool, rounds: int) -> str:
    """Why it is not run here, in a sentence; "" where it is."""
    why = missing(clone) or ("" if at_hand else "its text is not at hand")
    why = why or ("" if rounds else "this profile gives it no rounds")
    return f"nanoGPT was not run: {why}." if why else ""


def recipe_seconds(found: dict) -> float:
    """Of its recipe: measured where it was run whole, else steps times their mean; 0 if not run."""
    if not found:
        return 0.0
    if "nanogpt" in found:
        return seconds(found["nanogpt"])
    rates = found["rates"]
    return STEPS * float(rates[rates.who == "nanoGPT"].seconds_per_step.mean())


def in_words(found: dict) -> str:
    """What it took here, in a sentence."""
    took = recipe_seconds(found)
    if "scored" not in found:
        return f"nanoGPT's recipe would take {took:,.0f} s here: {STEPS:,} steps times their mean."
    nats = found["scored"].nats.mean()
    return f"nanoGPT's recipe took {took:,.0f} s here, and reached {nats:.4f} nats a character."


def row(found: dict) -> list[dict]:
    """A row beside those of `real_texts.reached`, where its recipe was run to its end and scored:
    what it took, and its loss on the whole split."""
    if "scored" not in found:
        return []
    nats = float(found["scored"].nats.mean())
    return [{"budget": WHOLE, "text": SHAKESPEARE, "steps": STEPS, "seconds":
             recipe_seconds(found), "nats": nats, "perplexity": math.exp(nats)}]  # fmt: skip


def drawn(found: dict) -> pd.DataFrame:
    """Its learning curve, where its recipe was run to its end."""
    if "nanogpt" not in found:
        return pd.DataFrame()
    return curve(found["nanogpt"]).assign(who="nanoGPT", text=SHAKESPEARE)
