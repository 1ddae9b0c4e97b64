"""Kernels that start warm: each is forked from a process that has imported what takes long.

Importing torch, pandas and seaborn costs a chapter seconds before its first line. The modules that
pyproject.toml names ([tool.paper] preload) are imported once, by a server process that then forks
kernels. Only Linux forks safely after such imports; elsewhere, and where nothing is named, kernels
start cold. What a chapter computes does not depend on it.
A run starts the server first of all, so this module imports nothing that takes long itself."""

import atexit
import gc
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing import forkserver
from pathlib import Path

from .project import Project
from .sources import LIB

POSSIBLE = sys.platform == "linux"
# the runner's working folder for a notebook; what is in it joins the run when the notebook is done
OUT = "MINITRANSFORMER_OUT"
FOLDERS = {
    "IPYTHONDIR": "ipython",
    "JUPYTER_CONFIG_DIR": "jupyter",
    "JUPYTER_DATA_DIR": "jupyter-data",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "MPLCONFIGDIR": "matplotlib",
}


def environment(project: Project, params: dict, out: Path, live: bool) -> dict[str, str]:
    """What a kernel inherits, the same for everyone: hash seed, threads, and settings from the
    project's folder only. `live`: a terminal shows its progress bars."""
    cache = project.root / ".cache"
    threads = str(params.get("threads", 1))
    dropped = ("MPLBACKEND", "PYTHONSTARTUP", "TQDM_DISABLE")
    folders = {name: cache / folder for name, folder in FOLDERS.items()}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    return {
        **{name: value for name, value in os.environ.items() if name not in dropped},
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "PYTHONPATH": str(LIB),
        OUT: str(out),
        **({} if live else {"TQDM_DISABLE": "1"}),
        **{name: str(folder) for name, folder in folders.items()},
    }


def serve(preload: tuple[str, ...], environment: dict[str, str]) -> None:
    """Starts the server if it does not run yet; it imports `preload` with `environment`, beside
    what this process goes on with; hash seed and threads are read at that moment. To be called
    while no other thread runs."""
    multiprocessing.set_forkserver_preload(["paper.uncollected", *preload])
    before = {**os.environ}
    os.environ.update(environment)
    try:
        forkserver.ensure_running()
    finally:
        for name in environment:
            os.environ.pop(name)
        os.environ.update(before)


class Forked:
    """A kernel of the server, with as much of `subprocess.Popen` as its manager asks for."""

    stdin = stdout = stderr = None

    def __init__(self, command: list[str], environment: dict[str, str], folder: str):
        given = (command, environment, folder)
        context = multiprocessing.get_context("forkserver")
        self._process = context.Process(target=_kernel, args=given)
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _kernel(command: list[str], environment: dict[str, str], folder: str) -> None:
    """In the forked process: a kernel as `python -m ipykernel_launcher` would be."""
    gc.freeze()  # what the server has imported is looked through no more
    gc.enable()
    os.setsid()  # Ctrl-C is for the runner, which ends its kernels
    threading.Thread(target=_end_with_runner, daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv[:] = command[2:]  # without the interpreter and -m
    from ipykernel import kernelapp

    try:
        kernelapp.launch_new_instance()
    finally:
        atexit._run_exitfuncs()  # which a forked process leaves out


def _end_with_runner() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
