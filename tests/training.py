"""A run small enough to be repeated a hundred times, for the tests of training; and a disk with
little room."""

from contextlib import contextmanager

import pytest
import torch

from minitransformer.model import ModelConfig, Transformer
from minitransformer.train import TrainConfig, initialize

CFG = ModelConfig(vocab_size=23, d_model=16, n_heads=2, context=16)
RUN = TrainConfig(steps=7, batch_size=2, window=8, lr=1e-2, warmup=2, weight_decay=0.1)


def batch(step):
    return torch.randint(0, 23, (2, 9), generator=torch.Generator().manual_seed(step))


def fresh(seed=0):
    return initialize(Transformer(CFG), "scaled", seed)


def losses(rows):
    return [row["loss_nats"] for row in rows]


def equal(a, b):
    """Whether two models have the same weights to the last bit."""
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@contextmanager
def little_room(size):
    """No file may grow beyond `size` bytes, as on a disk that is nearly full."""
    resource = pytest.importorskip("resource")  # not on Windows
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
