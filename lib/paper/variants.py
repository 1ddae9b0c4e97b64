"""How a notebook opened alone gets what it reads, and the cache that keeps it.

reports/.cache/ holds variants: `run-<hash>`, chapters built at quick size at some parameters, and
`<stage>-<hash>`, what a notebook opened alone wrote at some parameters."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from .files import digest
from .names import printable
from .project import Project
from .sources import imports, library_files
from .stages import corpus_hash, current, notebook_source, read_stamp, stage_params

LIMIT_BYTES = 2 * 2**30  # the oldest variants go before a new one makes the cache larger than this


class StageError(RuntimeError):
    """A stage that is missing or failed, with the command that makes it."""


@dataclass(frozen=True)
class Variant:
    """A folder of the cache; `age` is in seconds since it was last used."""

    path: Path
    nbytes: int
    age: float


def folder(project: Project) -> Path:
    return project.reports / ".cache"


def alone(project: Project, stage: str, params: dict) -> tuple[Path, Path]:
    """(inputs, out) of a notebook opened by itself.

    It writes into reports/.cache/, for each state of the library into another folder: what an older
    one left there is nothing to go on from. It reads a run of the same parameters where there is
    one (always, for a profile other than quick), else a cache keyed by the parameters of the stages
    before it."""
    before = project.upstream(stage)
    corpus = corpus_hash(project, params)
    library = library_files(imports("\n".join(notebook_source(project.notebook(stage))["code"])))
    own = digest([stage_params(project, stage, params), corpus, library])
    out = folder(project) / f"{stage}-{own[:12]}"
    run = project.run_dir(params)
    if not before:
        return out, out
    if params["profile"] != "quick" or all(current(project, s, params, run) for s in before):
        return run, out
    shared = {s: stage_params(project, s, params) for s in before}
    return folder(project) / f"run-{digest([shared, corpus])[:12]}", out


def ensure(project: Project, stage: str, params: dict, inputs: Path) -> None:
    """Makes sure that `inputs` holds what `stage` leaves: built at quick size, demanded of other
    profiles.

    StageError names the make command for a profile's missing stage, or the parameter at which it
    was run otherwise."""
    if params["profile"] != "quick":
        demand(project, stage, params, inputs)
        return
    needed = (*project.upstream(stage), stage)
    if not all(current(project, s, params, inputs) for s in needed):
        prune(project, keep=inputs)
        build(project, stage, params, inputs)
    elif inputs.parent == folder(project):
        os.utime(inputs)


def demand(project: Project, stage: str, params: dict, run_dir: Path) -> None:
    """StageError unless the profile's run holds `stage` at these parameters."""
    stamp = read_stamp(run_dir, stage)
    command = f"make {target(project, stage)} PROFILE={params['profile']}"
    if params.get("corpus"):
        command += f" CORPUS={shlex.quote(params['corpus'])}"
    if stamp is None:
        raise StageError(f"{project.relative(run_dir)} has no finished {stage}: run {command}")
    for name, value in stage_params(project, stage, params).items():
        if stamp["params"].get(name) != value:
            held = stamp["params"].get(name)
            raise StageError(
                f"{project.relative(run_dir)} holds {stage} at {name} = {held!r}, not {value!r}: "
                f"run {command} at that value, or open the notebook at the run's"
            )


def target(project: Project, stage: str) -> str:
    """The make target that runs `stage`: the one it declares, or the whole report."""
    chapter = project.declared.get(stage)
    return chapter.targets[0] if chapter and chapter.targets else "report"


def build(project: Project, stage: str, params: dict, run_dir: Path) -> None:
    """Runs `stage` and what it needs into `run_dir`, in a process of its own so that this kernel
    stays as it is. What it says of its progress is passed on as it comes."""
    given = (f"{n}={v}" for n, v in params.items() if n not in ("profile", "run_dir"))
    command = [
        *(sys.executable, "-m", "paper", stage, "--profile", "quick", "--into", str(run_dir)),
        *(word for pair in given for word in ("--set", pair)),
    ]
    told = partial(say, f"{project.relative(run_dir)}: ")
    status, last = streamed(command, project.root, {"MPLBACKEND": "agg"}, told)
    if status:
        why = last or f"exit status {status}"
        raise StageError(f"building {stage} failed: {printable(why)}")


def streamed(command: list[str], root, env: dict, tell: Callable[[str], None]) -> tuple[int, str]:
    """Runs a command in the folder `root`, its environment this one's with `env`; its exit status
    and its last line. `tell` is given each line as it comes."""
    last = ""
    with subprocess.Popen(
        command,
        cwd=root,
        env=os.environ | {"PYTHONIOENCODING": "utf-8:backslashreplace"} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    ) as process:
        for line in process.stdout:
            last = line.strip() or last
            tell(line.rstrip("\n"))
    return process.returncode, last


def say(where: str, line: str) -> None:
    """A line for whoever waits: in the notebook, and on the terminal of a notebook's kernel."""
    for stream in {sys.stderr, sys.__stderr__} - {None}:
        print(f"{where}{line.strip()}", file=stream, flush=True)


def variants(project: Project) -> list[Variant]:
    """What the cache holds, the most recently used first."""
    now, found = time.time(), []
    for path in folder(project).glob("[!.]*"):
        sizes = [p.stat().st_size for p in path.rglob("*") if p.is_file()]
        found.append(Variant(path, sum(sizes), now - path.stat().st_mtime))
    return sorted(found, key=lambda variant: variant.age)


def prune(project: Project, keep: Path | None = None, limit: int = LIMIT_BYTES) -> list[Variant]:
    """Deletes the variants longest unused until the cache is within `limit` bytes, never `keep` nor
    one that a process is building; returns the deleted ones."""
    found, gone = variants(project), []
    total = sum(variant.nbytes for variant in found)
    for variant in reversed(found):
        if total > limit and variant.path != keep and _delete(variant.path):
            total -= variant.nbytes
            gone.append(variant)
    return gone


def _delete(path: Path) -> bool:
    try:
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=0):
            shutil.rmtree(path, ignore_errors=True)
    except Timeout:
        return False
    return not path.exists()
