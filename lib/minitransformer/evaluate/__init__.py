"""How good is a model? Per-token losses, perplexity with intervals, n-gram baselines, calibration,
statistics."""

from .calibration import calibration, expected_calibration_error
from .losses import TokenReport, stream_losses, token_losses, token_report
from .monitor import Monitor, log_steps
from .ngram import KneserNey, best_order, count_grams
from .perplexity import Perplexity, bits_per_byte, perplexity, summary
from .stats import (
    BLOCK,
    Difference,
    TInterval,
    beats_oracle,
    block_bootstrap,
    block_stderr,
    by_group,
    by_position,
    holm,
    paired_difference,
    recovered,
    t_interval,
)

__all__ = [
    "BLOCK",
    "Difference",
    "KneserNey",
    "Monitor",
    "Perplexity",
    "TInterval",
    "TokenReport",
    "beats_oracle",
    "best_order",
    "bits_per_byte",
    "block_bootstrap",
    "block_stderr",
    "by_group",
    "by_position",
    "calibration",
    "count_grams",
    "expected_calibration_error",
    "holm",
    "log_steps",
    "paired_difference",
    "perplexity",
    "recovered",
    "stream_losses",
    "summary",
    "t_interval",
    "token_losses",
    "token_report",
]
