"""A request to a scheduler, and how it fares."""

from collections.abc import Hashable
from dataclasses import dataclass, field

import torch

from ..cache import BlockTable
from .inputs import Ids, Job, Stop
from .sampling import GREEDY, Sampling


@dataclass(frozen=True, eq=False)
class Request:
    """A prompt (T,), a tensor or a list of ids, to be continued by `max_new_tokens` or until a
    `stop` token; it arrives at `arrival` seconds."""

    prompt: Ids
    max_new_tokens: int
    arrival: float = 0.0
    sampling: Sampling = GREEDY
    generator: torch.Generator | None = None
    stop: Stop = ()


@dataclass(eq=False)
class Served:
    """A request on its way: its new `tokens`, the clock when each was ready (those of
    one call of the engine together), how often it was preempted to be recomputed, and how many
    tokens it found in shared blocks instead of computing them."""

    request: Request
    job: Job
    tokens: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    preemptions: int = 0
    shared: int = 0
    table: BlockTable | None = None
    weights: Hashable = None  # those that its blocks were computed with

    @property
    def done(self) -> bool:
        return len(self.tokens) == self.job.new_tokens or (
            bool(self.tokens) and self.tokens[-1] in self.job.stop
        )

    @property
    def most(self) -> int:
        """Tokens it feeds at the most: all but the last."""
        return self.job.ids.shape[1] + self.job.new_tokens - 1

    @property
    def length(self) -> int:
        """Tokens it has: prompt and continuation."""
        return self.job.ids.shape[1] + len(self.tokens)

    @property
    def text(self) -> list[int]:
        """Prompt and continuation."""
        return [*self.job.ids[0].tolist(), *self.tokens]

    @property
    def ids(self) -> torch.Tensor:
        """Prompt and continuation: (T + new,)."""
        return self.job.ids.new_tensor(self.text)

    @property
    def first_token_s(self) -> float:
        """Seconds from arrival to the first token, waiting included."""
        return self.times[0] - self.request.arrival

    @property
    def token_s(self) -> float:
        """Mean seconds between tokens after the first, preemption included; NaN for a single
        token."""
        gaps = len(self.times) - 1
        return (self.times[-1] - self.times[0]) / gaps if gaps else float("nan")
