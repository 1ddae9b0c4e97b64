"""Calls run by a Dask cluster, with one clear line where it does not answer: for `sweep`."""

import logging
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError

from .names import printable, short
from .parameters import ParameterError

ANSWER_S = 15  # seconds for the scheduler to answer
WORKER_S = 60  # seconds that a cluster may be without any worker, at the start or later
LOOK_S = 1  # between looks at who is there
KEPT = "what was finished is kept, and the same command goes on from there"


def results(scheduler: str, call, arguments: dict) -> Iterator[tuple[object, str]]:
    """(key, what `call(*arguments[key])` returned, or in words what it raised) as each ends; one
    whose worker is lost is made again.

    ParameterError without the package and for an address that is none. RuntimeError for a scheduler
    that does not answer or goes, and for a cluster without workers; what ran on it may run on."""
    try:
        import distributed
    except ImportError:
        raise ParameterError(
            f"SCHEDULER={short(scheduler)} needs the package distributed: install the extra with "
            'pip install ".[scale]", or leave SCHEDULER out'
        ) from None
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # it is told here, in one line
    with _connected(distributed, scheduler) as client:
        submitted = {client.submit(call, *a, pure=False): key for key, a in arguments.items()}
        try:
            for future in _ended(distributed, client, scheduler, [*submitted]):
                error = future.exception()
                gone = error and printable(f"{type(error).__name__}: {error}")
                yield submitted[future], gone or future.result()
        except (CancelledError, OSError) as error:
            why = f"the scheduler {short(scheduler)} went away: start it and its workers again"
            raise RuntimeError(f"{why}; {KEPT}") from error


def _connected(distributed, scheduler):
    try:
        return distributed.Client(scheduler, timeout=ANSWER_S)
    except ValueError as error:
        why = f"SCHEDULER={short(scheduler)} is no address ({printable(str(error))})"
        raise ParameterError(f"{why}: give tcp://host:port") from None
    except OSError:
        raise RuntimeError(
            f"the scheduler {short(scheduler)} does not answer within {ANSWER_S} s: start it with "
            "dask scheduler, give its address, or leave SCHEDULER out; nothing was begun"
        ) from None


def _ended(distributed, client, scheduler, waiting) -> Iterator:
    """The futures as they end, as long as there are workers."""
    seen = time.monotonic()
    while waiting:
        try:
            ended = distributed.wait(waiting, LOOK_S, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            ended = ()
        waiting = [future for future in waiting if future not in ended]
        yield from ended
        if ended or client.scheduler_info()["workers"]:
            seen = time.monotonic()
        elif time.monotonic() - seen > WORKER_S:
            raise RuntimeError(
                f"the scheduler {short(scheduler)} has had no worker for {WORKER_S} s: start some "
                f"with dask worker {short(scheduler)}; {KEPT}"
            )
