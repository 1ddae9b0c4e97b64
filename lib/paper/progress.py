"""Waiting is never silent: what a run is doing, how long it takes, and what is left.

On a terminal a single line that is drawn again and again; elsewhere, such as in a log, a new line
at the start of every stage and at least every half minute."""

import shutil
import sys
import threading
import time
from contextlib import contextmanager

from .names import short
from .schedule import Rules

EVERY_S = 30  # between lines where there is no terminal
REDRAW_S = 1  # between drawings where there is one


def clock(seconds: float) -> str:
    """Seconds as people say them: 9 s, 2 min 5 s, 1 h 10 min."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


class Stage:
    """One stage at work, as its progress hears of it. `write` takes what its kernel writes to
    stderr: bars are drawn behind ours, lines stand above it."""

    def __init__(self, progress: "Progress", name: str):
        self.progress, self.name, self.live = progress, name, progress.live
        self.began, self.cells, self.bar = time.monotonic(), (0, 0, ""), ""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def cell(self, done: int, total: int, name: str) -> None:
        """`done` cells of `total` have run, and `name` runs now."""
        self.cells = (done, total, name)

    def write(self, text: str) -> None:
        *lines, bar = text.split("\n")
        lines = [line.rpartition("\r")[2] for line in lines]
        self.bar = bar.rstrip("\r").rpartition("\r")[2].strip()
        self.progress.told(self, [line for line in lines if line.strip()])

    def flush(self) -> None:
        self.progress.out.flush()


class Progress:
    """The progress of a run's stages, some of them side by side as `rules` have it; `expected` is
    each one's seconds when it last ran, 0 where it is current and None where nobody knows.

    With it as a context, it goes on saying how far it is until the context ends."""

    def __init__(self, expected: dict, live: bool, out=None, rules: Rules | None = None):
        self.expected, self.live, self.out = expected, live, out or sys.stdout
        self.rules = rules or Rules(dict.fromkeys(expected, ()))
        self.places = {stage: place for place, stage in enumerate(expected, 1)}
        self.waiting, self.running, self.bar = [*expected], {}, ""
        self._lock, self._stop = threading.RLock(), threading.Event()
        self._beat = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self):
        self._beat.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._beat.join()
        self._erase()

    def skip(self, stage: str) -> None:
        """`stage` is current."""
        self.waiting.remove(stage)

    @contextmanager
    def of(self, stage: str):
        """Says which stage starts and how long it should take, and what it took unless it failed;
        gives the `Stage` that is told of its cells."""
        with self._lock:
            self.waiting.remove(stage)
            self.running[stage] = at = Stage(self, stage)
            known = self.expected[stage]
            took = f"about {clock(known)}" if known else "its time is not known yet"
            self._line(f"{self._place(stage)} ... ({took}{self._total()})")
        done = ""
        try:
            yield at
            done = f"{self._place(stage)} done in {at.seconds:.1f} s"
        finally:
            with self._lock:
                del self.running[stage]
                self.bar = ""
                self._line(done) if done else self._erase()

    def failing(self, stage: str, others: list[str]) -> None:
        """`stage` failed, while `others` still run."""
        if others:
            until = f"when {' and '.join(sorted(others))} {'has' if len(others) < 2 else 'have'}"
            self._line(f"{self._place(stage)} failed: the run ends {until} come to an end")

    def told(self, stage: Stage, lines: list[str]) -> None:
        """A kernel wrote whole lines, or another state of its bar."""
        with self._lock:
            self.bar = stage.bar
            for line in lines:
                self._line(line)
            self._draw()

    def left(self) -> float | None:
        """Seconds that those that run and those after them should still take; None where one of
        them is unknown."""
        with self._lock:
            rest = {name: self._rest(at) for name, at in self.running.items()}
            return self.rules.left(self.waiting, rest, self.expected)

    def status(self) -> str:
        """Where the run stands: the stages that run, their cells, and the time that is left."""
        with self._lock:
            states = [self._state(at) for at in self.running.values()]
        left = self.left()
        rest = f", about {clock(left)} left in all" if left else ""
        rest = ", longer than last time" if left == 0 else rest
        return "; ".join(states) + rest

    def _rest(self, at: Stage) -> float | None:
        known = self.expected[at.name]
        return None if known is None else max(0.0, known - at.seconds)

    def _state(self, at: Stage) -> str:
        done, total, name = at.cells
        if not total:
            return f"{self._place(at.name)}: starting, {clock(at.seconds)}"
        cells = f"{self._place(at.name)}: {done} of {total} cells"
        if len(self.running) > 1:  # all of them fit in a line
            return cells
        return f"{cells}, now {short(name, 40)}, {clock(at.seconds)}"

    def _place(self, stage: str) -> str:
        return f"[{self.places[stage]}/{len(self.places)}] {stage}"

    def _total(self) -> str:
        left = self.left()
        known = left is not None and len(self.places) > 1
        return f"; {clock(left)} for all that is left" if known else ""

    def _tick(self) -> None:
        while not self._stop.wait(REDRAW_S if self.live else EVERY_S):
            with self._lock:
                if self.running:
                    self._draw() if self.live else self._line(self.status())

    def _draw(self) -> None:
        if self.live and self.running:
            line = f"{self.status()} {self.bar}"
            width = shutil.get_terminal_size().columns - 1
            self.out.write(f"\r\x1b[2K{line[:width]}")
            self.out.flush()

    def _erase(self) -> None:
        if self.live:
            self.out.write("\r\x1b[2K")

    def _line(self, text: str) -> None:
        with self._lock:
            self._erase()
            self.out.write(f"{text}\n")
            self.out.flush()
