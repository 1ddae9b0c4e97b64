"""A thin runner over papermill: one notebook at a time, whole or not at all."""

import itertools
import logging
import os
import re
import shutil
import sys
import time
import warnings
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill import execute_notebook
from papermill.exceptions import PapermillExecutionError
from traitlets import default

from . import stages
from .files import digest, read_record, sha256, tree, write_bytes, write_json, write_text
from .names import brief_name
from .notebook import OUT
from .parameters import parameters_cell
from .project import Project, read_notebook
from .scrub import scrub_notebook
from .sources import LIB

START_TIMEOUT_S = 180  # a cold disk and two busy cores


class CellError(RuntimeError):
    """A cell of a notebook raised; `details` is its traceback."""

    def __init__(self, message: str, details: str = ""):
        super().__init__(message)
        self.details = details


class KernelDied(RuntimeError):
    """The kernel's process ended in the middle of a notebook."""

    status = 138  # of the command


class CurrentInterpreter(KernelSpecManager):
    """Whatever name is asked for, the kernel is the interpreter that runs this: no kernelspec in
    anyone's home decides."""

    def get_kernel_spec(self, kernel_name):
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python")


class Kernel(AsyncKernelManager):
    @default("kernel_spec_manager")
    def _specs(self):
        return CurrentInterpreter(parent=self)


def run_stage(project: Project, stage: str, params: dict, run_dir: Path, watch=None) -> float:
    """Executes the notebook of `stage`, moves what it wrote into `run_dir` and stamps it; returns
    the seconds it took.

    The notebook writes into a working folder, so on failure everything in `run_dir` is as it was,
    and `<stage>.failed.ipynb` shows the cell. Raises CellError or KernelDied; KeyboardInterrupt
    passes after the kernel is gone. `watch` is told of every cell (a `progress.Progress`)."""
    found = stages.parts(project, stage, params, run_dir)
    key, computation = digest(found), stages.computation(found)
    work = working_folder(run_dir, stage, key)
    carry_over(project, stage, run_dir, work, computation)
    failed, part = run_dir / f"{stage}.failed.ipynb", run_dir / f".{stage}.part.ipynb"
    given = [Path(params[name]).parent for name in ("corpus", "corpora_dir") if params.get(name)]
    given += [] if run_dir.is_relative_to(project.root) else [run_dir]
    start = time.monotonic()
    try:
        own = own_parameters(project, stage, params, run_dir)
        with environment(project, params, work, watch is not None and watch.live):
            _execute(project, stage, own, part, watch)
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
    seconds = round(time.monotonic() - start, 1)
    about = {"params": stages.stage_params(project, stage, params), "computation": computation}
    adopt(run_dir, stage, work, key=key, seconds=seconds, **about)
    return seconds


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
    return own | {"run_dir": project.relative(run_dir)}


def working_folder(run_dir: Path, stage: str, key: str) -> Path:
    """Where the notebook of `stage` writes; what an interrupted try at the same key left stays, so
    that training resumes."""
    work = run_dir / ".work" / stage
    marker = work / ".key"
    if not marker.is_file() or marker.read_bytes() != key.encode():
        shutil.rmtree(work, ignore_errors=True)
        write_text(marker, key)
    return work


def carry_over(project: Project, stage: str, run_dir: Path, work: Path, computation: str) -> None:
    """Puts what the stage resumes from (its checkpoints) into its working folder, if all that it
    computes with is as it was: a label or a sentence that changed trains nothing again."""
    stamp = stages.read_stamp(run_dir, stage)
    if stamp is None or stamp.get("computation") != computation or stage not in project.declared:
        return
    bad = stages.damaged(run_dir, stamp)
    for name in stamp["artefacts"]:
        wanted = any(fnmatch(name, pattern) for pattern in project.declared[stage].resumes)
        if wanted and name not in bad and not (work / name).exists():
            write_bytes(work / name, (run_dir / name).read_bytes())


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


def _execute(project, stage, params, part, watch, retry=True) -> None:
    """papermill, with its exceptions made ours; a kernel that did not start (a lost race for a
    port) gets a second try."""
    total = sum(
        cell["cell_type"] == "code" for cell in read_notebook(project.notebook(stage))["cells"]
    )
    done = itertools.count()
    tell = {}
    if watch is not None:
        tell["on_cell_start"] = lambda cell, cell_index: (
            watch.cell(next(done), total + 1, cell.get("id", ""))
            if cell.cell_type == "code"
            else None
        )
        tell["stderr_file"] = watch if watch.live else None
    try:
        # its messages say what the one line says
        logging.getLogger("papermill").setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            execute_notebook(
                str(project.notebook(stage)),
                str(part),
                parameters=params,
                cwd=str(project.notebooks),
                language="python",
                kernel_name="python3",
                kernel_manager_class=Kernel,
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
                start_timeout=START_TIMEOUT_S,
                coalesce_streams=True,
                record_timing=False,
                progress_bar=False,
                **tell,
            )
    except PapermillExecutionError as error:
        message = " ".join(line.strip() for line in str(error.evalue).splitlines() if line.strip())
        raise CellError(f"{stage}: {error.ename}: {message}", "\n".join(error.traceback)) from None
    except DeadKernelError:
        raise KernelDied(
            f"{stage}: the kernel died, probably out of memory: close other programs, lower "
            "batch_size, d_model or train_tokens, or try PROFILE=quick"
        ) from None
    except RuntimeError as error:
        if not retry or "before replying" not in str(error) and "respond in" not in str(error):
            raise
        _execute(project, stage, params, part, watch, retry=False)


@contextmanager
def environment(project: Project, params: dict, out: Path, live: bool):
    """What kernels inherit, the same for everyone: hash seed, threads, and settings from the
    project's folder only."""
    cache = project.root / ".cache"
    threads = str(params.get("threads", 1))
    folders = {
        "IPYTHONDIR": "ipython",
        "JUPYTER_CONFIG_DIR": "jupyter",
        "JUPYTER_DATA_DIR": "jupyter-data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "MPLCONFIGDIR": "matplotlib",
    }
    chosen = {
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "PYTHONPATH": str(LIB),
        OUT: str(out),
        "TQDM_DISABLE": "1",
        **{name: str(cache / folder) for name, folder in folders.items()},
    }
    for name in folders:
        Path(chosen[name]).mkdir(parents=True, exist_ok=True)
    saved = {name: os.environ.get(name) for name in (*chosen, "MPLBACKEND", "PYTHONSTARTUP")}
    os.environ.update(chosen)
    for name in ("MPLBACKEND", "PYTHONSTARTUP", *(["TQDM_DISABLE"] if live else [])):
        os.environ.pop(name, None)
    try:
        yield
    finally:
        for name, value in saved.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


def incomplete(notebook) -> str | None:
    """Why an executed notebook does not count as finished: a cell that never ran, or an error among
    its outputs."""
    for place, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and cell.source.strip():
            if cell.execution_count is None:
                return f"cell {cell.get('id', place)!r} was not executed"
            if any(output.output_type == "error" for output in cell.outputs):
                return f"cell {cell.get('id', place)!r} ended in an error"
    return None


def normalise(notebook):
    """The executed notebook without what changes from run to run: paths, times, versions, random
    ids, erased progress bars."""
    for key in ("papermill", "widgets"):
        notebook.metadata.pop(key, None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if "injected-parameters" in cell.metadata.get("tags", ()):
            cell["id"] = "injected-parameters"
        if cell.cell_type == "code":
            for output in cell.outputs:
                if output.output_type == "stream":
                    output.text = re.sub(r"[^\n]*\r(?!\n)", "", output.text)
            cell.outputs = [o for o in cell.outputs if o.output_type != "stream" or o.text.strip()]
    return notebook
