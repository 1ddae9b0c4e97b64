"""Decoding: sampling, the naive oracle, cached generation, and the certificate that they agree."""

from .certificate import Certificate, certify
from .generation import generate, generate_all_positions, last_logits, stream
from .oracle import in_float64, oracle_logits
from .sampling import Sampling, choose, distribution

__all__ = [
    "Certificate", "Sampling", "certify", "choose", "distribution", "generate", "generate_all_positions", "in_float64", "last_logits",
    "oracle_logits", "stream",
]
