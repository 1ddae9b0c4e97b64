"""All that must hold, in one command: `python check.py`, on any system, in the environment that
install.py makes. `make test` and `make publish` call it.

Style first. Then two lines of work, one for each of two cores: the unit tests; and the quick
report, the cells of every notebook, the tests of the pipeline and those that build the engine or
start processes, whose output follows that of the first. Then what both covered, and the evidence
that the page shows. Arguments are passed on to pytest.
"""

import os
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PYTHON = [sys.executable, "-m"]
PARTS = ("unit", "apart", "pipeline")  # each leaves what it covered in a file of its own
APART = ("test_native_*.py", "test_studies_*.py")  # run beside the others: half of the work
LEFT = (".cache/junit*.xml", ".cache/nbval.xml", ".cache/coverage.json", ".coverage.*")
OURS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "TQDM_DISABLE": "1"}
# As in the Makefile: kernels and Jupyter read no settings and write no files outside the project.
USUAL = {"PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": "1700000000"} | {
    name: str(ROOT / ".cache" / folder)
    for name, folder in {
        "IPYTHONDIR": "ipython",
        "JUPYTER_CONFIG_DIR": "jupyter",
        "JUPYTER_DATA_DIR": "jupyter-data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "MPLCONFIGDIR": "matplotlib",
    }.items()
}


def pytest(*words):
    return ["pytest", "-p", "no:cacheprovider", "-q", *sys.argv[1:], *words]


def part(name):
    """A part of the tests: its command, and the settings that it has of its own."""
    globs = [f"tests/{pattern}" for pattern in APART]
    own = {
        "unit": ["-m", "not pipeline", *(f"--ignore-glob={each}" for each in globs), "tests"],
        "apart": sorted(path.as_posix() for each in globs for path in Path().glob(each)),
        "pipeline": ["-m", "pipeline", "tests"],
    }[name]
    words = ["--cov", "--cov-report=", "--cov-fail-under=0", "-p", "no:nbval"]
    return pytest(*words, f"--junitxml={junit(name)}", *own), {"COVERAGE_FILE": f".coverage.{name}"}


def junit(name):
    return ".cache/junit.xml" if name == "unit" else f".cache/junit-{name}.xml"


def cells():
    """The command that runs every notebook's cells and compares what must be equal."""
    words = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=600", "-p", "no:cov"]
    left_out = ["--ignore-glob=*checkpoint*", "--ignore=notebooks/own"]
    return pytest(*words, *left_out, "--junitxml=.cache/nbval.xml", "notebooks")


def start(words, settings=(), log=None):
    """Starts `python -m <words>`."""
    env = USUAL | dict(os.environ) | OURS | dict(settings)
    return subprocess.Popen([*PYTHON, *words], env=env, stdout=log, stderr=log)


def passed(words, settings=()):
    """Whether `python -m <words>` ends well."""
    return start(words, settings).wait() == 0


class Beside(threading.Thread):
    """Lists of commands run one after another, their output in a file; of a list, those behind one
    that fails are left out. `well`: whether none did."""

    def __init__(self, log, lists):
        super().__init__(daemon=True)
        self.log, self.lists, self.running, self.stopped = log, lists, None, False
        self.well = True

    def run(self):
        with self.log.open("w", encoding="utf-8") as log:
            for commands in self.lists:
                for command in commands:
                    if self.stopped:
                        return
                    self.running = start(*command, log=log)
                    if self.running.wait():
                        self.well = False
                        break

    def stop(self):
        self.stopped = True
        if self.running and self.running.poll() is None:
            self.running.terminate()


def main():
    os.chdir(ROOT)
    for folder in (".cache", "reports/evidence"):
        Path(folder).mkdir(parents=True, exist_ok=True)
    for old in (path for pattern in LEFT for path in Path().glob(pattern)):
        old.unlink()
    print("[1/3] style: ruff", flush=True)
    if not all(passed(["ruff", *w, "--quiet", "."]) for w in (["check"], ["format", "--check"])):
        return 1
    print(
        "[2/3] the unit tests; beside them the quick report, every notebook's cells, the "
        "pipeline's tests (output follows)",
        flush=True,
    )
    report = (["paper", "report", "--profile", "quick"], ())
    log = Path(".cache/beside.log")
    beside = Beside(log, [[report, (cells(), ())], [part("pipeline")], [part("apart")]])
    beside.start()
    try:
        well = passed(*part("unit"))
        beside.join()
    finally:
        beside.stop()
    print(log.read_text(encoding="utf-8", errors="replace"), "[3/3] what both covered", sep="")
    sys.stdout.flush()
    combine = ["combine", "--quiet", *(f".coverage.{name}" for name in PARTS)]
    into = ["json", "--quiet", "--fail-under=0", "-o", ".cache/coverage.json"]
    # Without a C compiler the tests of the engine skip, and so many lines cannot be asked.
    asked = [] if passed(["minitransformer.native", "--required"]) else ["--fail-under=0"]
    covered = all(passed(["coverage", *words]) for words in (combine, into, ["report", *asked]))
    found = [".cache/nbval.xml", *map(junit, PARTS), "--coverage", ".cache/coverage.json"]
    told = passed(["paper", "evidence", "--profile", "quick", "--junit", *found])
    return 0 if well and beside.well and covered and told else 1


if __name__ == "__main__":
    sys.exit(main())
