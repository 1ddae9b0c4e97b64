"""Measurement: costs from the configuration, interleaved timing, and the time model that explains
the difference."""

from .costs import (
    flop_speedup,
    flops,
    kv_bytes,
    parameters,
    training_bytes,
    training_flops,
    weights_read,
)
from .dispatch import dispatch_table, labels
from .memory import process_growth
from .serving import Clock, simulate
from .speculation import speculative_gain, speculative_tokens
from .steps import step_times
from .timemodel import TimeModel, fit
from .timing import (
    best_of,
    interleaved,
    matmul_flops_per_second,
    median_interval,
    ratio,
    read_seconds,
)

__all__ = [
    "Clock",
    "TimeModel",
    "best_of",
    "dispatch_table",
    "fit",
    "flop_speedup",
    "flops",
    "interleaved",
    "kv_bytes",
    "labels",
    "matmul_flops_per_second",
    "median_interval",
    "parameters",
    "process_growth",
    "ratio",
    "read_seconds",
    "simulate",
    "speculative_gain",
    "speculative_tokens",
    "step_times",
    "training_bytes",
    "training_flops",
    "weights_read",
]
