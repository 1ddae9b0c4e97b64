"""Kernels that start warm: each is forked from a process that has imported what takes long.

Importing torch, pandas and seaborn costs a chapter seconds before its first line. The modules that
pyproject.toml names ([tool.paper] preload) are imported once, by a server process that then forks
kernels. Only Linux forks safely after such imports; elsewhere, and where nothing is named, kernels
start cold. What a chapter computes does not depend on it."""

import atexit
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing import forkserver

POSSIBLE = sys.platform == "linux"


def serve(preload: tuple[str, ...], environment: dict[str, str]) -> None:
    """Starts the server, which imports `preload` with `environment`; hash seed and threads are read
    at that moment. To be called while no other thread runs."""
    multiprocessing.set_forkserver_preload([*preload])
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
