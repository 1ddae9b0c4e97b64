"""A server under load, simulated: requests arrive and are decoded for real, and only the clock is
made up."""

import time
from collections import deque

from ..cache import BlockPool
from ..decode import Scheduler, Served


class Clock:
    """Simulated seconds: a forward takes `service(tokens)`, or None: what it takes here; waiting
    costs no real time."""

    def __init__(self, service=None):
        self.service, self.begin, self.skipped = service, time.perf_counter(), 0.0

    def __call__(self) -> float:
        return self.skipped + (0.0 if self.service else time.perf_counter() - self.begin)

    def forward(self, tokens: int) -> None:
        """A forward over this many tokens is over."""
        self.skipped += self.service(tokens) if self.service else 0.0

    def wait(self, until: float) -> None:
        """Nothing to do before `until`."""
        self.skipped += max(0.0, until - self())


def simulate(
    model, pool: BlockPool, requests, max_batch: int = 8, *, service=None, **options
) -> list[Served]:
    """Serve `requests` as they arrive on a simulated `Clock`; in the order of arrival. The options
    are `Scheduler`'s.

    With `service` (seconds of a forward over so many tokens) the times are deterministic; None
    measures each forward."""
    clock, served = Clock(service), []
    scheduler = Scheduler(model, pool, max_batch, clock=clock, on_forward=clock.forward, **options)
    pending = deque(sorted(requests, key=lambda request: request.arrival))
    while pending or scheduler.busy:
        if not scheduler.busy:
            clock.wait(pending[0].arrival)
            served.append(scheduler.submit(pending.popleft()))
        while pending and pending[0].arrival <= clock():
            served.append(scheduler.submit(pending.popleft()))
        scheduler.step()
    return served
