"""Continuous batching: requests join and leave the batch at every step (Orca, Yu et al. 2022) over
one pool of blocks."""

import time
from collections import deque
from dataclasses import dataclass, field

import torch

from ..cache import BlockPool, BlockTable, PagedCache, PoolExhausted
from .generation import GREEDY, last_logits, prepare
from .sampling import Sampling, choose


@dataclass(frozen=True, eq=False)
class Request:
    """A prompt (T,) to be continued by `max_new_tokens` or until a `stop` token; it arrives at
    `arrival` seconds."""

    prompt: torch.Tensor
    max_new_tokens: int
    arrival: float = 0.0
    sampling: Sampling = GREEDY
    generator: torch.Generator | None = None
    stop: tuple[int, ...] = ()


@dataclass(eq=False)
class Served:
    """A request on its way: its new `tokens`, the clock when each was ready, how often it was
    preempted to be recomputed, and how many tokens it found in shared blocks instead of computing
    them."""

    request: Request
    tokens: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    preemptions: int = 0
    shared: int = 0
    table: BlockTable | None = None

    @property
    def done(self) -> bool:
        return len(self.tokens) == self.request.max_new_tokens or (
            bool(self.tokens) and self.tokens[-1] in self.request.stop
        )

    @property
    def most(self) -> int:
        """Tokens it feeds at the most: all but the last."""
        return len(self.request.prompt) + self.request.max_new_tokens - 1

    @property
    def ids(self) -> torch.Tensor:
        """Prompt and continuation: (T + new,)."""
        return torch.cat((self.request.prompt, self.request.prompt.new_tensor(self.tokens)))

    @property
    def first_token_s(self) -> float:
        """Seconds from arrival to the first token, waiting included."""
        return self.times[0] - self.request.arrival

    @property
    def token_s(self) -> float:
        """Mean seconds between tokens after the first, preemption included; NaN for a single
        token."""
        return (
            (self.times[-1] - self.times[0]) / (len(self.times) - 1)
            if len(self.times) > 1
            else float("nan")
        )


class Scheduler:
    """Serves requests first come, first served, up to `max_batch` at a time; deterministic, and
    nothing is ever lost.

    A step admits who fits, computes their prompts, decodes one token of everyone running, and
    retires who is done. When the pool runs dry, the latest to come gives its blocks back and waits
    to be recomputed, so the earliest always goes on. Each gets the tokens of a run of its own, up
    to rounding: in other batches, and after a shared prefix, sums run in another order.

    `share` finds known prefixes. `continuous` False admits only into an empty batch, as
    request-level batching does, though rows that end early still leave the computation. `clock`
    gives seconds; `on_forward(tokens)` is called after each forward. Nobody else may take the
    pool's blocks while it runs."""

    def __init__(
        self,
        model,
        pool: BlockPool,
        max_batch: int = 8,
        *,
        share=True,
        continuous=True,
        clock=time.perf_counter,
        on_forward=None,
    ):
        if max_batch < 1:
            raise ValueError(f"max_batch {max_batch} is not positive: give at least 1")
        self.model, self.pool, self.max_batch, self.share, self.continuous = (
            model,
            pool,
            max_batch,
            share,
            continuous,
        )
        self.clock, self.on_forward = clock, on_forward
        self.waiting, self.running = (
            deque(),
            [],
        )  # both in the order of arrival, and all running came before all waiting

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.running)

    def submit(self, request: Request) -> Served:
        """Queue a request. ValueError when it could never be served: what `stream` refuses, or more
        than the whole pool."""
        prepare(self.model, request.prompt[None], request.max_new_tokens, None)
        served, blocks = Served(request), self.pool.blocks
        if (need := self.pool.blocks_for(served.most)) > blocks:
            raise ValueError(
                f"{served.most} tokens need {need} blocks, the pool has {blocks}: make a larger pool"
            )
        self.waiting.append(served)
        return served

    @torch.no_grad()
    def step(self) -> list[Served]:
        """One iteration; the requests that it finished. PoolExhausted only when others hold the
        pool's blocks."""
        self._admit()
        if self.waiting and not self.running:
            raise PoolExhausted(
                f"{self.pool.used} blocks are held outside this scheduler: release them, or give it its own pool"
            )
        finished = self._retire()
        self._decode()
        return finished + self._retire()

    def run(self) -> list[Served]:
        """Step until everyone is served; in the order of finishing."""
        finished = []
        while self.busy:
            finished += self.step()
        return finished

    def _admit(self):
        """Start waiting requests, each with its prompt and whatever it had generated before it was
        preempted."""
        room = self.max_batch if self.continuous or not self.running else 0
        while self.waiting and len(self.running) < room:
            served = self.waiting[0]
            tokens = served.ids.tolist()
            table = self.pool.match(tokens) if self.share else BlockTable(self.pool)
            # Room to decode it once, and a block for each that runs: this very step must not
            # preempt whom it admits.
            need = self.pool.blocks_for(min(len(tokens) + 1, served.most)) - len(table.blocks)
            if need + len(self.running) > len(self.pool.free):
                table.truncate(0)
                return
            served.table, served.shared = table, served.shared + table.length
            self._forward(served.ids[None, table.length :], [served])
            self.running.append(self.waiting.popleft())
            if self.share:
                self.pool.remember(table, tokens)

    def _decode(self):
        while self.running:
            ids = torch.stack(
                [served.request.prompt.new_tensor(served.tokens[-1:]) for served in self.running]
            )  # (B, 1)
            try:
                return self._forward(ids, self.running)
            except PoolExhausted:
                if len(self.running) == 1:
                    raise
                self._preempt()

    def _forward(self, ids, batch):
        """Feed (B, T) new tokens of these requests, and give each its next one."""
        logits = last_logits(
            self.model, ids, PagedCache.over([served.table for served in batch])
        )  # (B, V)
        if self.on_forward is not None:
            self.on_forward(ids.numel())
        now = self.clock()
        for row, served in zip(logits, batch, strict=True):
            previous = None if served.request.sampling.repetition_penalty == 1 else served.ids[None]
            token = choose(row[None], served.request.sampling, previous, served.request.generator)
            served.tokens.append(int(token))
            served.times.append(now)

    def _retire(self):
        finished = [served for served in self.running if served.done]
        for served in finished:
            self._free(served)
        self.running = [served for served in self.running if not served.done]
        return finished

    def _preempt(self):
        """Send the latest to come back to the head of the queue, without its blocks but with its
        tokens."""
        served = self.running.pop()
        served.preemptions += 1
        self._free(served)
        self.waiting.appendleft(served)

    def _free(self, served):
        if self.share:
            self.pool.remember(served.table, served.ids.tolist())
        served.table.truncate(0)
