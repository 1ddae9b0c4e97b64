"""One stage, whole or not at all: what its notebook wrote joins the run when it is done."""

import os
import shutil
import threading
import time
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

import nbformat

from . import stages
from .execution import CellError, Kernels, execute, incomplete, kernel, normalise
from .files import digest, read_record, sha256, tree, write_bytes, write_json, write_text
from .names import brief_name
from .parameters import parameters_cell
from .project import Project
from .scrub import scrub_notebook
from .warm import environment

# parameters that may name a folder of this machine, beside the folders that chapters declare
GIVEN = ("corpus", "model")
ADOPTING = threading.Lock()  # one stage at a time joins a run


def run_stage(
    project: Project, stage: str, params: dict, run_dir: Path, watch=None, kernels=None, beside=()
) -> float:
    """Executes the notebook of `stage`, moves what it wrote into `run_dir` and stamps it; returns
    the seconds it took, or those of the run whose training it goes on from, if they are more.

    The notebook writes into a working folder, so on failure everything in `run_dir` is as it was,
    and `<stage>.failed.ipynb` shows the cell. Raises CellError or KernelDied. `watch` is told of
    every cell (a `progress.Stage`), `kernels` ends the kernel when the run is interrupted, and
    `beside` names the stages that run meanwhile; the stamp keeps them."""
    found = stages.parts(project, stage, params, run_dir)
    key, computation = digest(found), stages.computation(found)
    work = working_folder(run_dir, stage, key)
    before = carry_over(project, stage, run_dir, work, computation)
    failed, part = run_dir / f"{stage}.failed.ipynb", run_dir / f".{stage}.part.ipynb"
    names = (*GIVEN, *project.folders)
    given = [Path(params[name]).parent for name in names if params.get(name)]
    given += [] if run_dir.is_relative_to(project.root) else [run_dir]
    start = time.monotonic()
    try:
        own = own_parameters(project, stage, params, run_dir)
        inherited = environment(project, params, work, watch is not None and watch.live)
        started = kernel(project.notebooks, inherited, kernels or Kernels())
        execute(project.notebook(stage), part, own, started, watch)
        notebook = normalise(nbformat.read(part, as_version=4))
        scrub_notebook(notebook, project.root, *given)
        reason = incomplete(notebook)
        if reason:
            raise CellError(f"{stage}: {reason}")
        write_text(work / f"{stage}.ipynb", nbformat.writes(notebook) + "\n")
    except BaseException:
        keep_failed(part, failed)
        raise
    for done in (part, failed):
        done.unlink(missing_ok=True)
    about = {
        "params": stages.stage_params(project, stage, params),
        "computation": computation,
        "seconds": max(round(time.monotonic() - start, 1), before),
        "beside": sorted({*beside}),
    }
    with ADOPTING:
        adopt(run_dir, stage, work, key=key, **about)
    return about["seconds"]


def keep_failed(part: Path, failed: Path) -> None:
    """Keeps a notebook that did not come to its end, unless it was not even begun, or its writing
    was cut off."""
    whole = read_record(part) is not None
    with suppress(OSError):  # a full or read-only disk: the error that led here says so
        os.replace(part, failed) if whole else part.unlink(missing_ok=True)


def own_parameters(project: Project, stage: str, params: dict, run_dir: Path) -> dict:
    """What the notebook of `stage` is given: the parameters that it declares. A text is given as a
    copy in the run's folder, so that an executed notebook names no other folder, the name can be
    written in it, and a text edited meanwhile is not read half old, half new."""
    own = {name: params[name] for name in parameters_cell(project.notebook(stage))}
    path = project.corpus_file(params["corpus"]) if own.get("corpus") else None
    if path is not None:
        copy = run_dir / ".corpus" / brief_name(path.name)
        if not copy.is_file() or sha256(copy) != sha256(path):
            write_bytes(copy, path.read_bytes())
        own["corpus"] = project.relative(copy)
    if own.get("model"):
        own["model"] = project.relative(run_dir) + "/" + linked(run_dir, Path(own["model"]))
    return own | {"run_dir": project.relative(run_dir)}


def linked(run_dir: Path, model: Path) -> str:
    """A model's folder as a link in the run's, by its path there: an executed notebook names no
    other folder, and weights are not copied."""
    link = run_dir / ".model" / brief_name(model.name)
    if not link.is_symlink() or link.resolve() != model:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(model, target_is_directory=True)
    return f".model/{link.name}"


def working_folder(run_dir: Path, stage: str, key: str) -> Path:
    """Where the notebook of `stage` writes; what an interrupted try at the same key left stays, so
    that training resumes."""
    work = run_dir / ".work" / stage
    marker = work / ".key"
    if not marker.is_file() or marker.read_bytes() != key.encode():
        shutil.rmtree(work, ignore_errors=True)
        write_text(marker, key)
    return work


def carry_over(project: Project, stage: str, run_dir: Path, work: Path, computation: str) -> float:
    """Puts what the stage resumes from (its checkpoints) into its working folder, if all that it
    computes with is as it was: a label or a sentence that changed trains nothing again. Returns the
    seconds of the run that it goes on from; 0 where it begins anew."""
    stamp, carried = stages.read_stamp(run_dir, stage), 0
    if stamp is None or stamp.get("computation") != computation or stage not in project.declared:
        return 0.0
    bad = stages.damaged(run_dir, stamp)
    for name in stamp["artefacts"]:
        wanted = any(fnmatch(name, pattern) for pattern in project.declared[stage].resumes)
        if wanted and name not in bad and not (work / name).exists():
            write_bytes(work / name, (run_dir / name).read_bytes())
            carried += 1
    return stamp["seconds"] if carried else 0.0


def adopt(run_dir: Path, stage: str, work: Path, **about) -> dict:
    """Moves what `stage` wrote into the run, deletes what an earlier version of it left, and stamps
    it; {name: SHA-256}. An interrupted move is finished by the next one: a list of what it moves
    stands in `.stages/` until the stamp does.

    CellError, before anything is moved, if another stage of the run left a file of the same name.
    """
    written = {path.relative_to(work).as_posix(): sha256(path) for path in tree(work)}
    left = {path.stem: read_record(path) or {} for path in (run_dir / ".stages").glob("*.json")}
    for other in sorted(set(left) - {stage, f"{stage}.moving"}):
        for name in sorted(written.keys() & left[other].get("artefacts", {}).keys()):
            raise CellError(
                f"{stage}: {name} is left by {other} too: give the figure, table or file another "
                "name"
            )
    moving = stages.stamp_path(run_dir, f"{stage}.moving")
    old = {n for s in (stage, f"{stage}.moving") for n in left.get(s, {}).get("artefacts", {})}
    write_json(moving, {"artefacts": dict.fromkeys([*sorted(old), *written])})
    stages.stamp_path(run_dir, stage).unlink(missing_ok=True)
    for name in written:
        (run_dir / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(work / name, run_dir / name)
    for name in old - set(written):
        (run_dir / name).unlink(missing_ok=True)
    stages.write_stamp(run_dir, stage, artefacts=written, **about)
    moving.unlink()
    shutil.rmtree(work)
    return written
