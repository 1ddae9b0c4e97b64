"""The learning curve: only at its steps, and the excess over the oracle by group."""

import math

import numpy as np
import pytest
import torch

from minitransformer.evaluate.monitor import Monitor, log_steps


def uniform(ids):
    return torch.zeros(*ids.shape, 8)


def test_the_curve_is_taken_at_its_steps_only():
    monitor = Monitor(uniform, np.arange(8), 4, steps=[1, 10])
    assert monitor({"step": 2}) == {}
    assert monitor({"step": 10}) == {"valid_nats": pytest.approx(math.log(8))}


def test_excess_is_loss_minus_the_oracles_by_group():
    oracle = np.log(np.array([0.5, 0.125, 0.25, 0.125, 0.25]))
    monitor = Monitor(
        uniform,
        np.zeros(5, int),
        4,
        steps=[1],
        names=("a", "b"),
        groups=np.array([0, 1, 0, 1, 0]),
        oracle=oracle,
    )
    row = monitor({"step": 1})
    assert row["excess_a_nats"] == pytest.approx(math.log(2), abs=1e-6)
    assert row["excess_b_nats"] == pytest.approx(0, abs=1e-6)


def test_steps_are_log_spaced_and_end_at_the_last():
    steps = log_steps(1000, 7)
    assert steps[0] == 1 and steps[-1] == 1000 and steps == sorted(set(steps)) and len(steps) == 7
    assert log_steps(3) == [1, 2, 3]
