"""Decoding: sampling, the naive oracle, cached generation, and the certificate that they agree."""

from .batch import generate_batch
from .certificate import Certificate, certify
from .generation import generate, generate_all_positions, last_logits, stream
from .oracle import in_float64, oracle_logits
from .sampling import Sampling, choose, distribution
from .scheduler import Clock, Request, Scheduler, Served, simulate

__all__ = [
    "Certificate", "Clock", "Request", "Sampling", "Scheduler", "Served", "certify", "choose", "distribution", "generate",
    "generate_all_positions", "generate_batch", "in_float64", "last_logits", "oracle_logits", "simulate", "stream",
]
