"""Which chapters run side by side, and how long all of them still take.

A chapter starts as soon as what it needs is there. Those that measure times run alone where their
times are to be relied on; at the quick size, whose times are only a first look, they run beside
others if the machine has the cores for all of them."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass

AWAKE_S = 1  # between looks for Ctrl-C, where a system cannot interrupt a wait


def cores() -> int:
    """The processor cores that this process may use."""
    with suppress(AttributeError):  # where a system cannot tell, all of them
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Rules:
    """How many chapters run at once, and beside which others one may run.

    `needs` is what each waits for, `timed` are those that measure times, and `room` is the number
    of chapters among which a timed one may be; 1: it runs alone."""

    needs: dict[str, tuple[str, ...]]
    jobs: int = 1
    timed: frozenset[str] = frozenset()
    room: int = 1

    def admit(self, stage: str, running: Sequence[str]) -> bool:
        """Whether `stage` may start beside those `running`."""
        measured = not self.timed.isdisjoint({stage, *running})
        most = min(self.jobs, self.room) if measured else self.jobs
        return not running or len(running) < most

    def next(self, waiting: Sequence[str], running: Sequence[str], seconds: dict) -> str | None:
        """The one of `waiting` that starts now: of those that may, the one after which the longest
        is to come. `seconds` is what each takes, None where nobody knows."""
        unfinished = {*waiting, *running}
        free = [s for s in waiting if unfinished.isdisjoint(self.needs[s])]
        free = [s for s in free if self.admit(s, running)]
        return max(free, key=lambda s: self._chain(s, waiting, seconds), default=None)

    def _chain(self, stage: str, waiting: Sequence[str], seconds: dict) -> float:
        """The seconds of `stage` and of the longest chain of those that wait for it; an unknown
        one counts as a second."""
        after = [s for s in waiting if stage in self.needs[s]]
        own = 1.0 if seconds[stage] is None else seconds[stage]
        return own + max((self._chain(s, waiting, seconds) for s in after), default=0.0)

    def left(self, waiting: Sequence[str], running: dict, seconds: dict) -> float | None:
        """Seconds until all are done, where those `running` have the given seconds left; None where
        nobody knows those of one."""
        if None in (*running.values(), *(seconds[s] for s in waiting)):
            return None
        waiting, running, now = list(waiting), dict(running), 0.0
        while waiting or running:
            stage = self.next(waiting, [*running], seconds)
            if stage is not None:
                waiting.remove(stage)
                running[stage] = seconds[stage]
                continue
            step = min(running.values())
            now += step
            running = {s: rest - step for s, rest in running.items() if rest > step}
        return now


def run_all(
    rules: Rules,
    seconds: dict,
    current: Callable[[str], bool],
    run: Callable[[str, list[str]], None],
    stop: Callable[[], None] = lambda: None,
    failing: Callable[[str, list[str]], None] = lambda stage, others: None,
) -> None:
    """Calls `run(stage, beside)` in a thread for each stage of `rules` that is not `current` (asked
    when all that it needs is there); `beside` are those that run meanwhile, a list that grows.

    After a failure nothing more starts, `failing` is told which others still run, they come to
    their end, and the failure is raised. An interruption calls `stop`, which ends what runs."""
    waiting, running, beside, failed = [*rules.needs], {}, {}, None
    with ThreadPoolExecutor(rules.jobs) as pool:
        try:
            while running or (waiting and failed is None):
                others = [*running.values()]
                stage = rules.next(waiting, others, seconds) if failed is None else None
                if stage is not None:
                    waiting.remove(stage)
                    if not current(stage):
                        beside[stage] = others
                        for other in others:
                            beside[other].append(stage)
                        running[pool.submit(run, stage, beside[stage])] = stage
                    continue
                for future in wait(running, AWAKE_S, FIRST_COMPLETED).done:
                    stage, error = running.pop(future), future.exception()
                    if error is not None and failed is None:
                        failed = error
                        failing(stage, [*running.values()])
        except BaseException:
            stop()
            raise  # when the threads have ended, for which the pool waits
    if failed is not None:
        raise failed
