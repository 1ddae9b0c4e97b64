"""Decoding: sampling, the naive oracle, cached generation, beams, speculation, and the certificates
that they agree."""

from .batch import generate_batch
from .beam import Beam, beam
from .certificate import certify, certify_acceptance, certify_beam, certify_tokens
from .drafts import ModelDraft, PromptLookup
from .generation import generate, generate_all_positions, last_logits, prefill, stream
from .inputs import weights_of
from .oracle import in_float64, oracle_logits
from .request import Request, Served
from .sampling import Sampling, choose, distribution
from .scheduler import Scheduler
from .speculative import Speculation, acceptance, emitted, residual, speculate
from .verdict import Certificate

__all__ = [
    "Beam",
    "Certificate",
    "ModelDraft",
    "PromptLookup",
    "Request",
    "Sampling",
    "Scheduler",
    "Served",
    "Speculation",
    "acceptance",
    "beam",
    "certify",
    "certify_acceptance",
    "certify_beam",
    "certify_tokens",
    "choose",
    "distribution",
    "emitted",
    "generate",
    "generate_all_positions",
    "generate_batch",
    "in_float64",
    "last_logits",
    "oracle_logits",
    "prefill",
    "residual",
    "speculate",
    "stream",
    "weights_of",
]
