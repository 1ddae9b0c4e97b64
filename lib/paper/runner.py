"""A thin runner over papermill: one notebook at a time, whole or not at all."""

import logging
import os
import re
import shutil
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill import execute_notebook
from papermill.exceptions import PapermillExecutionError
from traitlets import default

from . import stages
from .files import read_json, sha256, tree, write_text
from .notebook import OUT
from .parameters import parameters_cell
from .project import Project
from .sources import LIB

START_TIMEOUT_S = 180  # a cold disk and two busy cores
NEEDED_BYTES = (
    64 * 2**20
)  # a quick run leaves about 20 MiB; less free space than this is not worth starting


class CellError(RuntimeError):
    """A cell of a notebook raised; `details` is its traceback."""

    def __init__(self, message: str, details: str = ""):
        super().__init__(message)
        self.details = details


class KernelDied(RuntimeError):
    """The kernel's process ended in the middle of a notebook."""


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


def run_stage(project: Project, stage: str, params: dict, run_dir: Path, *, live=False) -> float:
    """Executes the notebook of `stage`, moves what it wrote into `run_dir` and stamps it; returns
    the seconds it took.

    The notebook writes into a working folder, so on failure everything in `run_dir` is as it was,
    and `<stage>.failed.ipynb` shows the cell. Raises CellError or KernelDied; KeyboardInterrupt
    passes after the kernel is gone. `live` shows progress bars on this terminal."""
    key = stages.key(project, stage, params, run_dir)
    work = working_folder(run_dir, stage, key)
    own = {n: params[n] for n in parameters_cell(project.notebook(stage)) if n != "run_dir"}
    failed, part = run_dir / f"{stage}.failed.ipynb", run_dir / f".{stage}.part.ipynb"
    start = time.monotonic()
    try:
        with environment(project, params, work, live):
            _execute(project, stage, own | {"run_dir": project.relative(run_dir)}, part, live)
        notebook = normalise(nbformat.read(part, as_version=4))
        reason = incomplete(notebook)
        if reason:
            raise CellError(f"{stage}: {reason}")
    except BaseException:
        if part.is_file():
            os.replace(part, failed)
        raise
    write_text(work / f"{stage}.ipynb", nbformat.writes(notebook) + "\n")
    for done in (part, failed):
        done.unlink(missing_ok=True)
    seconds = round(time.monotonic() - start, 1)
    artefacts = adopt(run_dir, stage, work)
    stages.write_stamp(run_dir, stage, key=key, params=own, seconds=seconds, artefacts=artefacts)
    return seconds


def working_folder(run_dir: Path, stage: str, key: str) -> Path:
    """Where the notebook of `stage` writes; what an interrupted try at the same key left stays, so
    that training resumes."""
    work = run_dir / ".work" / stage
    marker = work / ".key"
    if not marker.is_file() or marker.read_text() != key:
        shutil.rmtree(work, ignore_errors=True)
        write_text(marker, key)
    return work


def adopt(run_dir: Path, stage: str, work: Path) -> dict:
    """Moves what `stage` wrote into the run, and deletes what an earlier version of it left; {name:
    SHA-256}.

    CellError, before anything is moved, if another stage of the run left a file of the same name.
    """
    for path in sorted((run_dir / ".stages").glob("*.json")):
        for name in read_json(path)["artefacts"] if path.stem != stage else ():
            if (work / name).is_file():
                raise CellError(
                    f"{stage}: {name} is left by {path.stem} too: give the figure, table or file another name"
                )
    old = stages.read_stamp(run_dir, stage) or {"artefacts": {}}
    stages.stamp_path(run_dir, stage).unlink(missing_ok=True)
    written = {}
    for path in tree(work):
        name = path.relative_to(work).as_posix()
        (run_dir / name).parent.mkdir(parents=True, exist_ok=True)
        written[name] = sha256(path)
        os.replace(path, run_dir / name)
    for name in set(old["artefacts"]) - set(written):
        (run_dir / name).unlink(missing_ok=True)
    shutil.rmtree(work)
    return written


def _execute(project, stage, params, part, live, retry=True) -> None:
    """papermill, with its exceptions made ours; a kernel that did not start (a lost race for a
    port) gets a second try."""
    try:
        logging.getLogger("papermill").setLevel(
            logging.CRITICAL
        )  # its messages say what the one line says
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
                stderr_file=sys.stderr if live else None,
            )
    except PapermillExecutionError as error:
        message = " ".join(line.strip() for line in str(error.evalue).splitlines() if line.strip())
        raise CellError(f"{stage}: {error.ename}: {message}", "\n".join(error.traceback)) from None
    except DeadKernelError:
        raise KernelDied(
            f"{stage}: the kernel died, probably out of memory: close other programs, lower batch_size, d_model or "
            "train_tokens, or try PROFILE=quick"
        ) from None
    except RuntimeError as error:
        if not retry or "before replying" not in str(error) and "respond in" not in str(error):
            raise
        _execute(project, stage, params, part, live, retry=False)


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


def preflight(run_dir: Path) -> None:
    """OSError with the remedy if `run_dir` cannot be written or its disk is nearly full; nothing in
    it is touched."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        probe = run_dir / ".probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"{run_dir} cannot be written ({error.strerror}): make it writable, or run in a copy of the "
            "project"
        ) from None
    free = shutil.disk_usage(run_dir).free
    if free < NEEDED_BYTES:
        raise OSError(
            f"{run_dir}: {free / 2**20:.0f} MiB are free on its disk: free {NEEDED_BYTES / 2**20:.0f} MiB or more"
        )
