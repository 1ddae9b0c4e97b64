"""Continuous batching: requests join and leave the batch at every step (Orca, Yu et al. 2022) over
one pool of blocks."""

import time
from collections import deque
from collections.abc import Callable
from contextlib import contextmanager
from itertools import groupby

import torch

from ..cache import BlockPool, BlockTable, PagedCache, PoolExhausted
from ..fields import whole
from .backends import engine, is_native, on_backend
from .generation import last_logits
from .inputs import prepare, weights_of
from .request import Request, Served
from .sampling import choose

AHEAD = 16  # steps of `run` in one call of the engine: who joins meanwhile waits for no more


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
    pool's blocks while it runs. An exception in a step, an interrupt too, loses nothing and holds
    no block in vain: step again, and every request goes on with the tokens it would have had.
    Prefixes are found only under the weights that computed them. `backend` as in `stream`: the
    engine computes with the weights of now, and `run` lets it go on by itself while nobody joins
    or leaves."""

    def __init__(
        self,
        model,
        pool: BlockPool,
        max_batch: int = 8,
        *,
        share: bool = True,
        continuous: bool = True,
        clock: Callable[[], float] = time.perf_counter,
        on_forward: Callable[[int], object] | None = None,
        backend: str = "eager",
    ):
        self.max_batch = whole("max_batch", max_batch)
        PagedCache(model.cfg, 1, 1, pool=pool)  # refuses a pool that was made for another model
        self.model = on_backend(model, backend, pool)
        self.native = is_native(self.model, backend)
        self.pool, self.share, self.continuous = pool, share, continuous
        self.clock, self.on_forward = clock, on_forward
        # Both in the order of arrival, and all running came before all waiting.
        self.waiting: deque[Served] = deque()
        self.running: list[Served] = []
        self.retired: list[Served] = []  # of the step under way
        self.torn = False  # an exception left a step half done

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.running or self.retired)

    def submit(self, request: Request) -> Served:
        """Queue a request. ValueError when it could never be served: what `stream` refuses, or more
        than the whole pool."""
        drawn = {"sampling": request.sampling, "generator": request.generator}
        asked = request.prompt, request.max_new_tokens, None
        job = prepare(self.model, *asked, stop=request.stop, **drawn)
        if len(job.ids) > 1:
            raise ValueError(f"a prompt of {len(job.ids)} rows: submit a request for each")
        served, blocks = Served(request, job), self.pool.blocks
        if (need := self.pool.blocks_for(served.most)) > blocks:
            raise ValueError(
                f"{served.most} tokens need {need} blocks, the pool has {blocks}: "
                "make a larger pool"
            )
        self.waiting.append(served)
        return served

    @torch.no_grad()
    def step(self, most: int = 1) -> list[Served]:
        """One iteration; the requests that it finished. PoolExhausted only when others hold the
        pool's blocks. Of `most` tokens the engine gives everyone running as many as it can before
        one of them leaves, or might and another waits."""
        if self.torn:
            self._mend()
        try:
            self._admit()
            if self.waiting and not self.running:
                raise PoolExhausted(
                    f"{self.pool.used} blocks are held outside this scheduler: "
                    "release them, or give it its own pool"
                )
            self._retire()
            self._decode(most)
            self._retire()
            finished, self.retired = self.retired, []
            return finished
        except BaseException:
            self.torn = True
            self._mend()
            raise

    def run(self) -> list[Served]:
        """Step until everyone is served; in the order of finishing."""
        finished = []
        while self.busy:
            finished += self.step(AHEAD)
        return finished

    def _admit(self):
        """Start waiting requests, each with its prompt and whatever it had generated before it was
        preempted."""
        room = self.max_batch if self.continuous or not self.running else 0
        weights = weights_of(self.model) if self.share and self.waiting and room else None
        if weights is not None:
            self.pool.claim(weights)
        while self.waiting and len(self.running) < room:
            served = self.waiting[0]
            tokens = served.text
            served.table = self.pool.match(tokens) if self.share else BlockTable(self.pool)
            table, served.weights = served.table, weights
            # Room to decode it once, and a block for each that runs: this very step must not
            # preempt whom it admits.
            need = self.pool.blocks_for(min(len(tokens) + 1, served.most)) - len(table.blocks)
            if need + len(self.running) > len(self.pool.free):
                table.truncate(0)
                return
            shared = table.length
            self._advance([served], [tokens[shared:]])
            self.running.append(served)
            self.waiting.popleft()
            served.shared += shared
            if self.share:
                self.pool.remember(table, tokens)

    def _decode(self, most):
        while self.running:
            last = [[served.tokens[-1]] for served in self.running]
            try:
                return self._advance(self.running, last, most)
            except PoolExhausted:
                if len(self.running) == most == 1:
                    raise
                if most == 1:
                    self._preempt()
                most = 1

    def _advance(self, batch, unfed, most=1):
        """The next token of each of these requests, of which `unfed` is to be fed. Where they draw
        by one rule the engine gives up to `most`, in one call: as many as it can by itself."""
        job, rest = batch[0].job, [served.job for served in batch[1:]]
        if not self.native or any(other.sampling != job.sampling for other in rest):
            return self._choose(self._feed(job.ids.new_tensor(unfed), batch), batch)
        unlike = any(other.stop != job.stop for other in rest)
        if unlike or (job.stop and (self.waiting or job.sampling.temperature > 0)):
            most = 1
        most = min(most, *(served.job.new_tokens - len(served.tokens) for served in batch))
        rule = {"sampling": job.sampling, "stop": job.stop if most > 1 else ()}
        if job.sampling.repetition_penalty != 1:
            rule["texts"] = [served.ids for served in batch]
        tables = [served.table for served in batch]
        with _whole(batch) as generators:
            rows = engine().advance(self.model, tables, unfed, most, generator=generators, **rule)
            if self.on_forward is not None:
                self.on_forward(sum(map(len, unfed)))
                for i in range(1, max(map(len, rows))):
                    self.on_forward(sum(len(row) > i for row in rows))
            now = self.clock()
            for served, row in zip(batch, rows, strict=True):
                served.times[len(served.tokens) :] = [now] * len(row)
                served.tokens += row
                served.table.length = served.length - 1

    def _feed(self, ids, batch):
        """Feed (B, T) new tokens of these requests; the logits after each: (B, V)."""
        cache = PagedCache.over([served.table for served in batch])
        logits = last_logits(self.model, ids, cache)
        if self.on_forward is not None:
            self.on_forward(ids.numel())
        return logits

    def _choose(self, logits, batch):
        """Give each request its next token; those whose tokens an interrupt lost draw the same
        again."""
        now, start = self.clock(), 0
        for alike in _alike(batch):
            self._choose_alike(logits[start : start + len(alike)], alike, now)
            start += len(alike)

    def _choose_alike(self, logits, batch, now):
        """The same of requests that draw by one rule, all or none of them."""
        sampling, after = batch[0].job.sampling, [served.length for served in batch]
        previous = None if sampling.repetition_penalty == 1 else batch[0].ids[None]
        with _whole(batch) as generators:
            tokens = choose(logits, sampling, previous, generators, after).flatten().tolist()
            for served, token in zip(batch, tokens, strict=True):
                served.times[len(served.tokens) :] = [now]
                served.tokens.append(token)

    def _retire(self):
        for served in self.running:
            if served.done:
                self._free(served)
                if served not in self.retired:
                    self.retired.append(served)
        self.running = [served for served in self.running if not served.done]

    def _preempt(self):
        """Send the latest to come back to the head of the queue, without its blocks but with its
        tokens."""
        served = self.running[-1]
        self.waiting.appendleft(served)
        served.preemptions += 1
        self._free(served)
        self.running.pop()

    def _free(self, served):
        if self.share and served.weights == self.pool.owner == weights_of(self.model):
            self.pool.remember(served.table, served.text)
        served.table.truncate(0)

    def _mend(self):
        """After an exception: every request in one of the two queues, at a place to go on from.

        One that runs has fed all but its last token, which is fed again where the choice after it
        was lost; any other gives its blocks back and waits."""
        running, waiting = [], []
        for served in dict.fromkeys([*self.running, *self.waiting]):
            fed = 0 if served.table is None else served.table.length
            if served.done or (served in self.running and fed >= served.length - 1):
                if not served.done:
                    served.table.truncate(served.length - 1)
                running.append(served)
            else:
                if served.table is not None:
                    served.table.truncate(0)
                waiting.append(served)
        self.running, self.waiting = running, deque(waiting)
        self.torn = False


@contextmanager
def _whole(batch):
    """The generators of requests that draw by one rule, None of greedy ones. An exception takes
    their new tokens back, and what was drawn."""
    counts, generators = [len(served.tokens) for served in batch], None
    if batch[0].job.sampling.temperature > 0:
        generators = [served.job.generator or torch.default_generator for served in batch]
    states = [generator.get_state() for generator in generators or ()]
    try:
        yield generators
    except BaseException:
        for served, n in zip(batch, counts, strict=True):
            del served.tokens[n:]
        for generator, state in zip(generators or (), states, strict=True):
            generator.set_state(state)
        raise


def _alike(batch):
    """Neighbours that draw by one rule, together; a penalty looks back at a text of its own."""

    def rule(pair):
        place, served = pair
        sampling = served.job.sampling
        return sampling, place if sampling.repetition_penalty != 1 else None

    return [[served for _, served in group] for _, group in groupby(enumerate(batch), rule)]
