"""Decoding: sampling, the naive oracle, cached generation, and the certificate that they agree."""

from .certificate import Certificate, certify
from .generation import generate, generate_all_positions, last_logits, stream
from .sampling import Sampling, choose, distribution

__all__ = [
    "Certificate", "Sampling", "certify", "choose", "distribution", "generate", "generate_all_positions", "last_logits", "stream",
]
