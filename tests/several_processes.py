"""What each process of a shared run does in tests/test_train_distributed.py; torchrun starts it."""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch

from minitransformer.model import Transformer
from minitransformer.train import initialize, train
from minitransformer.train.distributed import KINDS, group, whole
from training import CFG, RUN, batch

SHARED = replace(RUN, steps=8, batch_size=5)
TWO = replace(CFG, n_layers=2)


def rows_of_five(step):
    """Five rows: they do not divide among two processes."""
    return torch.cat([batch(step), batch(step + 100), batch(step + 200)])[:5]


def fresh():
    return initialize(Transformer(TWO), "scaled", 0)


def killed_once(mark, rank):
    """An `on_step` that ends the second process, as the system would, after five steps; once."""

    def on_step(row):
        if rank == 1 and row["step"] == 5 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    return on_step


def run(kind, ranks, folder, kill):
    model = fresh().to(ranks.device)
    on_step = killed_once(folder / f"{kind}.killed", ranks.rank) if kill else None
    path, options = folder / f"{kind}.pt", {"every": 2, "on_step": on_step, "ranks": ranks}
    rows = train(model, rows_of_five, SHARED, checkpoint=path, **options)
    torch.save(whole(model).state_dict(), folder / f"{kind}-{ranks.rank}.model")
    (folder / f"{kind}-{ranks.rank}.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with group("ddp") as first:
        for kind in sys.argv[3:]:
            run(kind, KINDS[kind](first.device), Path(sys.argv[1]), sys.argv[2] == "kill")
