"""What a stage depends on, whether it is current, and how a notebook opened alone gets what it
reads.

A stage is a notebook. Its key hashes everything it depends on: its source, its parameters, the
library files it imports, the lock and the artefacts of the stages before it. The stamp
`.stages/<stage>.json`, written last and removed first, says with which key a stage ran and what it
left; times of files decide nothing."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from .claims import seed_claims
from .files import digest, read_json, sha256, tree, write_json
from .parameters import parameters_cell
from .project import Project
from .sources import imports, library_files


class StageError(RuntimeError):
    """A stage that is missing or failed, with the command that makes it."""


def key(project: Project, stage: str, params: dict, run_dir: Path) -> str | None:
    """The hash of all that `stage` depends on; None while a stage before it has not run in
    `run_dir`."""
    before = {}
    for name in project.upstream(stage):
        stamp = read_stamp(run_dir, name)
        if stamp is None:
            return None
        before[name] = digest(stamp["artefacts"])
    source = notebook_source(project.notebook(stage))
    lock = project.root / "requirements.lock"
    return digest(
        {
            "source": source,
            "params": stage_params(project, stage, params),
            "library": library_files(imports("\n".join(source["code"]))),
            "audited": [
                row for row in seed_claims().values() if stage in ("report", row["notebook"])
            ],
            "lock": sha256(lock) if lock.is_file() else None,
            "before": before,
            "corpus": corpus_hash(project, params),
            "gates": gates(project) if stage == "report" else None,
        }
    )


def gates(project: Project) -> list:
    """What the report's own chapter reads besides the run: the commit, and the evidence made at
    it."""
    from . import evidence, provenance  # both import this module

    return [provenance.commit(project.root)["commit"], evidence.read(project)]


def notebook_source(path: Path) -> dict:
    """Code and Markdown of a notebook without its outputs."""
    cells = read_json(path)["cells"]
    return {
        kind: ["".join(c["source"]) for c in cells if c["cell_type"] == kind]
        for kind in ("code", "markdown")
    }


def stage_params(project: Project, stage: str, params: dict) -> dict:
    """The parameters `stage` declares, without those that only say where things are; a corpus
    counts by its hash."""
    return {
        n: params[n]
        for n in parameters_cell(project.notebook(stage))
        if n not in ("run_dir", "corpus", "corpora_dir")
    }


def corpus_hash(project: Project, params: dict) -> str:
    return project.corpus_tag(params["corpus"]) if params.get("corpus") else ""


def stamp_path(run_dir: Path, stage: str) -> Path:
    return Path(run_dir) / ".stages" / f"{stage}.json"


def read_stamp(run_dir: Path, stage: str) -> dict | None:
    """What a finished stage left in writing; None where it has not finished."""
    path = stamp_path(run_dir, stage)
    return read_json(path) if path.is_file() else None


def write_stamp(run_dir: Path, stage: str, **about) -> None:
    """Says that `stage` has finished: its key, parameters, seconds, and the SHA-256 of each
    artefact."""
    write_json(stamp_path(run_dir, stage), {"stage": stage, **about})


def artefacts(run_dir: Path) -> list[str]:
    """The names of all files a run left, without hidden ones and failed notebooks."""
    return [
        p.relative_to(run_dir).as_posix()
        for p in tree(run_dir)
        if not p.name.endswith(".failed.ipynb")
    ]


def current(project: Project, stage: str, params: dict, run_dir: Path) -> bool:
    """Whether `stage` has run in `run_dir` with what it depends on today, and what it left is still
    whole."""
    stamp = read_stamp(run_dir, stage)
    return (
        stamp is not None
        and stamp["key"] == key(project, stage, params, run_dir)
        and not damaged(run_dir, stamp)
    )


def damaged(run_dir: Path, stamp: dict) -> list[str]:
    """The artefacts of a stage that are gone or are not what it wrote."""
    return [
        name
        for name, known in stamp["artefacts"].items()
        if not (Path(run_dir) / name).is_file() or sha256(Path(run_dir) / name) != known
    ]


def alone(project: Project, stage: str, params: dict) -> tuple[Path, Path]:
    """(inputs, out) of a notebook opened by itself.

    It writes into reports/.cache/. It reads a run of the same parameters where there is one
    (always, for a profile other than quick), else a cache keyed by the parameters of the stages
    before it."""
    before = project.upstream(stage)
    cache = project.reports / ".cache"
    out = (
        cache
        / f"{stage}-{digest(stage_params(project, stage, params) | {'corpus': corpus_hash(project, params)})[:12]}"
    )
    run = project.run_dir(params)
    if not before:
        return out, out
    if params["profile"] != "quick" or all(current(project, s, params, run) for s in before):
        return run, out
    shared = {s: stage_params(project, s, params) for s in before}
    return cache / f"run-{digest([shared, corpus_hash(project, params)])[:12]}", out


def ensure(project: Project, stage: str, params: dict, inputs: Path) -> None:
    """Makes sure that `inputs` holds what `stage` leaves: built at quick size, demanded of other
    profiles.

    StageError names the make command for a profile's missing stage, or the parameter at which it
    was run otherwise."""
    if params["profile"] != "quick":
        demand(project, stage, params, inputs)
        return
    needed = [s for s in (*project.upstream(stage), stage) if s in project.stages]
    if not all(current(project, s, params, inputs) for s in needed):
        build(project, stage, params, inputs)


def demand(project: Project, stage: str, params: dict, run_dir: Path) -> None:
    """StageError unless the profile's run holds `stage` at these parameters."""
    stamp = read_stamp(run_dir, stage)
    target = {"01-data": "data", "02-train": "train"}.get(stage, "report")
    command = f"make {target} PROFILE={params['profile']}" + (
        f" CORPUS={params['corpus']}" if params.get("corpus") else ""
    )
    if stamp is None:
        raise StageError(f"{project.relative(run_dir)} has no finished {stage}: run {command}")
    for name, value in stage_params(project, stage, params).items():
        if stamp["params"].get(name) != value:
            held = stamp["params"].get(name)
            raise StageError(
                f"{project.relative(run_dir)} holds {stage} at {name} = {held!r}, not {value!r}: "
                f"run {command} at that value, or open the notebook at the run's"
            )


def build(project: Project, stage: str, params: dict, run_dir: Path) -> None:
    """Runs `stage` and what it needs into `run_dir`, in a process of its own so that this kernel
    stays as it is."""
    given = [
        a
        for n, v in params.items()
        if n not in ("profile", "run_dir")
        for a in ("--set", f"{n}={v}")
    ]
    command = [
        sys.executable,
        "-m",
        "paper",
        stage,
        "--profile",
        "quick",
        "--into",
        str(run_dir),
        *given,
    ]
    done = subprocess.run(
        command,
        cwd=project.root,
        env=os.environ | {"MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise StageError(f"building {stage} failed: {lines[-1]}")


@contextmanager
def locked(folder: Path):
    """One process at a time for `folder`: a lock file beside it, freed by the system even if the
    process is killed."""
    import fcntl

    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f".{folder.name}.lock"), "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
