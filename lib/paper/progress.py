"""Waiting is never silent: what a run is doing, how long it takes, and what is left.

On a terminal a single line that is drawn again and again; elsewhere, such as in a log, a new line
at the start of every stage and at least every half minute."""

import shutil
import sys
import threading
import time
from contextlib import contextmanager

from .names import short

EVERY_S = 30  # between lines where there is no terminal
REDRAW_S = 1  # between drawings where there is one


def clock(seconds: float) -> str:
    """Seconds as people say them: 9 s, 2 min 5 s, 1 h 10 min."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


class Progress:
    """The progress of a run's stages; `expected` is each one's seconds when it last ran, 0 where it
    is current and None where nobody knows. Its `write` takes what a kernel writes to stderr."""

    def __init__(self, expected: dict[str, float | None], live: bool, out=None):
        self.expected, self.live, self.out = expected, live, out or sys.stdout
        self.places = {stage: place for place, stage in enumerate(expected, 1)}
        self.stage, self.cells, self.inner = None, (0, 0, ""), ""

    def skip(self, stage: str) -> None:
        """`stage` is current."""
        self.expected[stage] = 0.0

    @contextmanager
    def of(self, stage: str):
        """Says which stage starts and how long it should take, goes on saying how far it is, and
        says what it took unless it failed."""
        self.stage, self.cells, self.inner = stage, (0, 0, ""), ""
        self.began = time.monotonic()
        known = self.expected[stage]
        took = f"about {clock(known)}" if known else "its time is not known yet"
        self._line(f"{self._place()} ... ({took}{self._total()})")
        stop = threading.Event()
        beat = threading.Thread(target=self._tick, args=(stop,), daemon=True)
        beat.start()
        try:
            yield
        finally:
            stop.set()
            beat.join()
            self._erase()
        self.expected[stage] = 0.0
        self._line(f"{self._place()} done in {time.monotonic() - self.began:.1f} s")

    def cell(self, done: int, total: int, name: str) -> None:
        """`done` cells of `total` have run, and `name` runs now."""
        self.cells = (done, total, name)

    def write(self, text: str) -> None:
        """What the kernel writes to stderr: bars are drawn behind ours, lines stand above it."""
        *lines, bar = text.split("\n")
        for line in lines:
            line = line.rpartition("\r")[2]
            if line.strip():
                self._erase()
                self._line(line)
        self.inner = bar.rstrip("\r").rpartition("\r")[2].strip()
        self._draw()

    def flush(self) -> None:
        self.out.flush()

    def left(self) -> float | None:
        """Seconds that this stage and those after it should still take; None where one of them is
        unknown."""
        if None in self.expected.values():
            return None
        known = self.expected[self.stage]
        passed = min(time.monotonic() - self.began, known)
        return sum(self.expected.values()) - passed

    def status(self) -> str:
        """Where the run stands: stage, cells, the cell that runs, time passed and left."""
        done, total, name = self.cells
        passed = clock(time.monotonic() - self.began)
        cells = f"{done} of {total} cells, now {short(name, 40)}" if total else "starting"
        left = self.left()
        rest = f", about {clock(left)} left in all" if left else ""
        rest = ", longer than last time" if left == 0 else rest
        return f"{self._place()}: {cells}, {passed}{rest}"

    def _place(self) -> str:
        return f"[{self.places[self.stage]}/{len(self.places)}] {self.stage}"

    def _total(self) -> str:
        left = self.left()
        return (
            "" if left is None or len(self.places) < 2 else f"; {clock(left)} for all that is left"
        )

    def _tick(self, stop: threading.Event) -> None:
        while not stop.wait(REDRAW_S if self.live else EVERY_S):
            self._draw() if self.live else self._line(self.status())

    def _draw(self) -> None:
        if self.live:
            line = f"{self.status()} {self.inner}"
            width = shutil.get_terminal_size().columns - 1
            self.out.write(f"\r\x1b[2K{line[:width]}")
            self.out.flush()

    def _erase(self) -> None:
        if self.live:
            self.out.write("\r\x1b[2K")

    def _line(self, text: str) -> None:
        self.out.write(f"{text}\n")
        self.out.flush()
