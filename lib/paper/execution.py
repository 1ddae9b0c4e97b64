"""One notebook in a kernel of its own: papermill, with its exceptions made ours.

Nothing of this process changes meanwhile, neither its environment nor its folder, so that notebooks
run side by side in threads."""

import itertools
import logging
import re
import sys
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill import execute_notebook
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from traitlets import default

from . import warm
from .project import read_notebook

START_TIMEOUT_S = 180  # a cold disk and busy cores
END_TIMEOUT_S = 40  # half of it until a kernel is told to end: one that is leaves its semaphores


class CellError(RuntimeError):
    """A cell of a notebook raised; `details` is its traceback."""

    def __init__(self, message: str, details: str = ""):
        super().__init__(message)
        self.details = details


class KernelDied(RuntimeError):
    """The kernel's process ended in the middle of a notebook."""

    status = 138  # of the command


class Kernels:
    """The kernels of a run, so that whoever interrupts it can end them all. `warm`: they are forked
    from the server of `paper.warm`, which runs."""

    def __init__(self, warm: bool = False):
        self.stopped, self.warm = False, warm
        self._lock, self._processes = threading.Lock(), []

    def add(self, process) -> None:
        with self._lock:
            self._processes.append(process)
        if self.stopped:
            process.kill()

    def stop(self) -> None:
        """Ends every kernel, and those that are only starting."""
        self.stopped = True
        with self._lock:
            for process in self._processes:
                process.kill()


class CurrentInterpreter(KernelSpecManager):
    """Whatever name is asked for, the kernel is the interpreter that runs this: no kernelspec in
    anyone's home decides."""

    def get_kernel_spec(self, kernel_name):
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python")


class Kernel(AsyncKernelManager):
    """A kernel that starts in a folder and with an environment of its own; see `kernel`."""

    folder, environment, kernels = None, None, None

    @default("kernel_spec_manager")
    def _specs(self):
        return CurrentInterpreter(parent=self)

    @default("shutdown_wait_time")
    def _patience(self):
        return END_TIMEOUT_S

    async def start_kernel(self, **options):
        await super().start_kernel(**options, cwd=self.folder, env=self.environment)
        self.kernels.add(self.provisioner.process)

    async def _async_launch_kernel(self, kernel_cmd, **options):
        if not self.kernels.warm:
            return await super()._async_launch_kernel(kernel_cmd, **options)
        provisioner = self.provisioner
        provisioner.process = warm.Forked(kernel_cmd, options["env"], options["cwd"])
        provisioner.pid = provisioner.pgid = provisioner.process.pid
        self._reconcile_connection_info(provisioner.connection_info)


def kernel(folder: Path, environment: dict, kernels: Kernels) -> type[Kernel]:
    """The class of a kernel for papermill, which takes a class and nothing to make it with."""
    given = {"folder": str(folder), "environment": environment, "kernels": kernels}
    return type("OneKernel", (Kernel,), given)


# papermill's engine saves the notebook twice a cell, all its figures each time; this one does when
# the last cell has run or one has failed.
class AtTheEnd(NBClientEngine):
    @classmethod
    def execute_managed_notebook(cls, notebook, kernel_name, **options):
        path, notebook.output_path = notebook.output_path, None
        try:
            super().execute_managed_notebook(notebook, kernel_name, **options)
        finally:
            notebook.output_path = path


papermill_engines.register("at-the-end", AtTheEnd)


@contextmanager
def quiet():
    """Without the messages and warnings of papermill and those it uses: what matters is raised."""
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def execute(source: Path, part: Path, params: dict, kernel: type[Kernel], watch=None) -> None:
    """Runs the notebook `source` with `params` into `part`, telling `watch` of every cell.

    CellError, KernelDied. A kernel that did not start (a lost race for a port) gets a second
    try."""
    stage, retried = source.stem, False
    while True:
        try:
            execute_notebook(
                str(source),
                str(part),
                engine_name="at-the-end",
                parameters=params,
                language="python",
                kernel_name="python3",
                kernel_manager_class=kernel,
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
                start_timeout=START_TIMEOUT_S,
                iopub_timeout=START_TIMEOUT_S,  # the last output of a cell, on busy cores
                coalesce_streams=True,
                record_timing=False,
                progress_bar=False,
                **told(source, watch),
            )
            return
        except PapermillExecutionError as error:
            lines = (line.strip() for line in str(error.evalue).splitlines())
            message = f"{stage}: {error.ename}: {' '.join(line for line in lines if line)}"
            raise CellError(message, "\n".join(error.traceback)) from None
        except DeadKernelError:
            raise KernelDied(
                f"{stage}: the kernel died, probably out of memory: close other programs, give "
                "JOBS=1, lower batch_size, d_model or train_tokens, or try PROFILE=quick"
            ) from None
        except RuntimeError as error:
            unborn = "before replying" in str(error) or "respond in" in str(error)
            if retried or kernel.kernels.stopped or not unborn:
                raise
            retried = True


def told(source: Path, watch) -> dict:
    """papermill's options by which `watch` hears of every cell, and of what it writes to stderr."""
    if watch is None:
        return {}
    cells = read_notebook(source)["cells"]
    total = sum(cell["cell_type"] == "code" for cell in cells) + 1  # and papermill's own
    done = itertools.count()

    def begin(cell, cell_index):
        if cell.cell_type == "code":
            watch.cell(next(done), total, cell.get("id", ""))

    return {"on_cell_start": begin, "stderr_file": watch if watch.live else None}


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
