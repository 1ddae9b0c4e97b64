"""What a run is made of: its parameters, the stages that are not current, and what is derived from
them. What the other make targets do is in `commands`."""

import shutil
import sys
from itertools import dropwhile
from pathlib import Path

from . import derived, stages
from .derived import load
from .files import locked, sweep, write_bytes
from .names import short
from .parameters import ParameterError, notes, preflight, resolve
from .progress import Progress
from .project import Project

NEEDED_BYTES = 64 * 2**20  # a quick run leaves about 20 MiB: with less there is no use in starting


def read(project: Project, options) -> dict:
    """The run's parameters from the command line, checked as far as that needs no library, with a
    note on stderr for every saved change that counts; ParameterError names value and remedy."""
    given = {}
    for item in options.set:
        name, equals, text = item.partition("=")
        if not equals:
            raise ParameterError(f"--set {short(item)} is not NAME=VALUE: write --set seed=42")
        given[name] = text
    if given.get("corpus"):
        given["corpus"] = corpus_path(project, given["corpus"], options.caller)
    if given.get("corpora_dir"):
        folder = options.caller / Path(given["corpora_dir"]).expanduser()
        given["corpora_dir"] = folder.resolve().as_posix()
    params = resolve(project.notebooks, options.profile, given)
    for line in notes(project.notebooks, params):
        print(f"note: {line}", file=sys.stderr)
    return params


def corpus_path(project: Project, corpus: str, caller: Path) -> str:
    """A corpus file as an absolute path, wherever the command was given; a known name as it is."""
    try:
        path = project.corpus_file(corpus, caller)
    except FileNotFoundError as error:
        raise ParameterError(str(error)) from None
    return corpus if path is None else str(path)


def run(project: Project, params: dict, target: str, into: Path | None = None) -> Path:
    """Runs what is not current of the target's stages and derives the rest; the summing chapter
    ends in index.html. Returns the run's folder."""
    last = project.targets[target]
    page = project.declared[last].sums_up
    run_dir = (into or project.run_dir(params)).resolve()
    needed = [*project.upstream(last), last]

    def nothing_to_do():
        if not all(stages.current(project, s, params, run_dir) for s in needed):
            return False
        return derived.finished(project, run_dir, page)

    if not nothing_to_do():
        for note in preflight(project, params, tuple(needed)):
            print(f"note: {note}", file=sys.stderr)
        check_folder(project, run_dir)
        with locked(run_dir):
            sweep(run_dir)
            execute(project, params, run_dir, needed)
            derived.finish(project, params, run_dir, page)
    pack_model(project, run_dir, last, page)
    where = project.relative(run_dir)
    print(f"{where}/index.html" if page else f"{where}: {last} is current", flush=True)
    return run_dir


def execute(project: Project, params: dict, run_dir: Path, needed: list[str]) -> None:
    """Runs the stages of `needed` that are not current, with words about how far it is."""

    def current(stage):
        return stages.current(project, stage, params, run_dir)

    expected = dict.fromkeys(needed, 0.0)
    for stage in dropwhile(current, needed):  # what comes after one that runs will mostly run too
        expected[stage] = stages.expected(project, stage, run_dir)
    live = sys.stderr.isatty()
    progress = Progress(expected, live, out=sys.stderr if live else sys.stdout)
    for stage in needed:
        if current(stage):
            progress.skip(stage)
            continue
        if project.declared[stage].sums_up:
            derived.summarise(project, params, run_dir)
        with progress.of(stage):
            load("paper.runner:run_stage")(project, stage, params, run_dir, progress)


def pack_model(project: Project, run_dir: Path, last: str, page: bool) -> None:
    """dist/model.tar.gz, where a run of this project ends with the model or with everything."""
    stamp = stages.read_stamp(run_dir, last) or {"artefacts": {}}
    made = page or any(name.startswith("model/") for name in stamp["artefacts"])
    if made and (run_dir / "model").is_dir() and run_dir.parent == project.reports:
        load("paper.pack:pack_model")(project, run_dir)


def check_folder(project: Project, run_dir: Path) -> None:
    """OSError with the remedy if `run_dir` cannot be written or its disk is nearly full; nothing in
    it is touched."""
    where = project.relative(run_dir)
    try:
        write_bytes(run_dir / ".probe", b"").unlink()
    except OSError as error:
        raise type(error)(
            f"{where} cannot be written ({error.strerror}): make it writable, or run in a copy of "
            "the project"
        ) from None
    free = shutil.disk_usage(run_dir).free
    if free < NEEDED_BYTES:
        raise OSError(
            f"{where}: {free / 2**20:.0f} MiB are free on its disk: free "
            f"{NEEDED_BYTES / 2**20:.0f} MiB or more"
        )
