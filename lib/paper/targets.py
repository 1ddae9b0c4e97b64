"""What a run is made of: its parameters, the stages that are not current, and what is derived from
them. What the other make targets do is in `commands`."""

import re
import shutil
import sys
from dataclasses import replace
from itertools import dropwhile
from pathlib import Path

from . import derived, stages
from .derived import load
from .files import locked, sweep, write_bytes
from .names import short
from .parameters import ParameterError, notes, preflight, resolve
from .progress import Progress
from .project import OWN, Project
from .schedule import Rules, cores, run_all

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
    for name in (*project.folders, "model"):
        if given.get(name):
            given[name] = folder_of(name, given[name], options.caller)
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


def folder_of(name: str, given: str, caller: Path) -> str:
    """The folder that a parameter names as an absolute path, wherever the command was given."""
    try:
        path = (caller / Path(given).expanduser()).resolve()
        if path.is_dir():
            return path.as_posix()
    except (OSError, RuntimeError, ValueError):  # no name that a folder can have
        pass
    told = f"{name.upper()} = {short(repr(given))} is no folder"
    raise ParameterError(f"{told}: give one that is there")


def of_model(project: Project, options) -> Project:
    """The project with the chapters about a model of the user's where one is given."""
    if not any(item.partition("=")[0] == "model" for item in options.set):
        return project
    return replace(project, part=OWN)


def at_once(text: str | None, name: str, what: str) -> int | None:
    """How many run at once at most; None where nothing is said. ParameterError."""
    if not text:
        return None
    if not re.fullmatch(r"[1-9]\d{0,3}", text, re.ASCII):
        raise ParameterError(
            f"{name} = {short(repr(text))} is no number of {what}: give 1 or more, or leave it out"
        )
    return int(text)


def run(
    project: Project, params: dict, target: str, into: Path | None = None, jobs: int | None = None
) -> Path:
    """Runs what is not current of the target's stages, at most `jobs` at once, and derives the
    rest; the summing chapter ends in index.html. Returns the run's folder."""
    last = project.targets[target]
    page = project.declared[last].sums_up
    run_dir = (into or project.run_dir(params)).resolve()
    needed = [*project.upstream(last), last]
    done = all(stages.current(project, s, params, run_dir) for s in needed)
    if not (done and derived.finished(project, run_dir, page)):
        started(project, params, run_dir)  # its imports take as long as what comes before a kernel
        for note in preflight(project, params, tuple(needed)):
            print(f"note: {note}", file=sys.stderr)
        check_folder(project, run_dir)
        with locked(run_dir):
            sweep(run_dir)
            execute(project, params, run_dir, needed, jobs)
            derived.finish(project, params, run_dir, page)
    pack_model(project, run_dir, last, page)
    where = project.relative(run_dir)
    print(f"{where}/index.html" if page else f"{where}: {last} is current", flush=True)
    return run_dir


def execute(
    project: Project, params: dict, run_dir: Path, needed: list[str], jobs: int | None = None
) -> None:
    """Runs the stages of `needed` that are not current, with words about how far it is."""

    def at_rest(stage):
        return stages.current(project, stage, params, run_dir)

    def current(stage):
        if at_rest(stage):
            progress.skip(stage)
            return True
        if project.declared[stage].sums_up:
            derived.summarise(project, params, run_dir)
        return False

    def one(stage, beside):
        with progress.of(stage) as watch:
            run_stage(project, stage, params, run_dir, watch, kernels, beside)

    to_run = [*dropwhile(at_rest, needed)]  # what comes after one that runs will mostly run too
    if not to_run:
        return
    run_stage, kernels = load("paper.runner:run_stage"), started(project, params, run_dir)
    expected = dict.fromkeys(needed, 0.0)
    expected |= {stage: stages.expected(project, stage, run_dir) for stage in to_run}
    live = sys.stderr.isatty()
    rules = side_by_side(project, params, needed, jobs)
    progress = Progress(expected, live, out=sys.stderr if live else sys.stdout, rules=rules)
    with load("paper.execution:quiet")(), progress:
        run_all(rules, expected, current, one, kernels.stop, progress.failing)


def started(project: Project, params: dict, run_dir: Path):
    """The kernels of a run, warm if the project names what to start with. What is measured in
    earnest shares nothing all the same: chapters time it in new processes."""
    preload = project.settings.get("preload")
    warm = bool(preload) and load("paper.warm:POSSIBLE")
    if warm:
        inherited = load("paper.warm:environment")(project, params, run_dir, live=False)
        load("paper.warm:serve")(tuple(preload), inherited)
    return load("paper.execution:Kernels")(warm)


def side_by_side(project: Project, params: dict, needed: list[str], jobs: int | None) -> Rules:
    """As many of the stages `needed` at once as `jobs` says, by default as there are cores for;
    those that measure times alone, but at the quick size, where no bar is set for them."""
    room = max(1, cores() // params.get("threads", 1))
    return Rules(
        needs={stage: project.upstream(stage) for stage in needed},
        jobs=jobs or room,
        timed=frozenset(stage for stage in needed if project.declared[stage].timed),
        room=room if params["profile"] == "quick" else 1,
    )


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
