"""What a reader sees while a notebook opened alone has the stages before it made: what is made,
about how long it takes, and a sign of life at least every half minute."""

import os
import statistics
import sys
import threading
import time

from tqdm import tqdm

from .files import read_json
from .project import Project

SIGN_S = 30  # between two lines where nobody sees a bar move
USUAL_S = {"01-data": 6, "02-train": 25}  # at the quick size on two cores; others a quarter minute


class Waiting:
    """A context around the building of `stages`; `tell(line)` takes what its process prints.

    A bar of seconds on stdout, and a line every half minute on `terminal`, because papermill shows
    nothing of what a cell prints until the cell is done."""

    def __init__(self, project: Project, stages: list[str], terminal=None):
        self.stages, self.now = list(stages), stages[0]
        self.seconds = sum(usual(project, stage) for stage in stages)
        self.terminal = terminal_of_kernel() if terminal is None else terminal
        self._done = threading.Event()

    def __enter__(self):
        self.start = time.monotonic()
        self._say(
            f"first {', '.join(self.stages)} at these parameters, about {self.seconds} s at the "
            "usual sizes; kept for the next time"
        )
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return self

    def tell(self, line: str) -> None:
        self.now = next((stage for stage in self.stages if stage in line), self.now)

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def _beat(self):
        """Moves the bar every second until the end, and speaks every half minute."""
        spoken = 0
        silent = bool(os.environ.get("TQDM_DISABLE"))
        with tqdm(total=self.seconds, file=sys.stdout, bar_format=BAR, disable=silent) as bar:
            while not self._done.wait(1):
                took = int(time.monotonic() - self.start)
                bar.n, bar.desc = min(took, self.seconds), self.now
                bar.refresh()
                if took - spoken >= SIGN_S:
                    spoken = took
                    self._say(f"{self.now}: {took} s so far", everywhere=bar.disable)
            bar.n = self.seconds

    def _say(self, text: str, everywhere: bool = True) -> None:
        for file in (sys.stdout if everywhere else None, self.terminal):
            if file is not None:
                tqdm.write(text, file=file)
                file.flush()


BAR = "{desc}: {n:.0f} of about {total:.0f} s |{bar}| {elapsed}"


def usual(project: Project, stage: str) -> int:
    """Seconds that `stage` took in this project's runs at the quick size, the median; a stated
    guess where it has not run."""
    folders = [*project.reports.glob("quick*"), *(project.reports / ".cache").glob("run-*")]
    stamps = [folder / ".stages" / f"{stage}.json" for folder in folders]
    took = [read_json(path).get("seconds", 0) for path in stamps if path.is_file()]
    return max(1, round(statistics.median(took))) if took else USUAL_S.get(stage, 15)


def terminal_of_kernel():
    """The terminal that a kernel was started from, as papermill's is; None where there is none, or
    where the cell's own output is it."""
    copy = getattr(sys.stderr, "_original_stdstream_copy", None)  # ipykernel's, of file 2
    if copy is None or not os.isatty(copy):
        return None
    return os.fdopen(os.dup(copy), "w")
