"""llama.cpp in a process of its own, through the server of the package xllamacpp.

The server's destructor waits for a thread, for ever where it asks that one to end before it has
begun. So no destructor runs: the process is killed, or ends when the one that asks is no more.
"""

import json
import os
from contextlib import suppress
from importlib.util import find_spec
from multiprocessing import get_context
from urllib.request import Request, urlopen
from weakref import finalize

import psutil

SECONDS = 120  # for the start, and for each answer


class Llama:
    """A server of one GGUF file on one thread, with FP32 keys and values, until `close` or until it
    is forgotten. RuntimeError, in one line, where it does not start or does not answer."""

    def __init__(self, path):
        if find_spec("xllamacpp") is None:
            raise ModuleNotFoundError("xllamacpp is not installed", name="xllamacpp")
        spawn = get_context("spawn")
        pipe, theirs = spawn.Pipe()
        process = spawn.Process(target=serve, args=(str(path), theirs), daemon=True)
        process.start()
        theirs.close()
        self.pipe, self.process = pipe, process
        self.close = finalize(self, lambda: (process.kill(), process.join()))
        told = {"error": f"llama.cpp has ended, or has not started within {SECONDS} s"}
        with suppress(EOFError):
            told = pipe.recv() if pipe.poll(SECONDS) else told
        if "error" in told:
            self.close()
            raise RuntimeError(told["error"])
        self.address, self.before = told["address"], told["held"]

    def ask(self, way: str, what: dict) -> dict:
        """What the server answers, in JSON both."""
        body, kind = json.dumps(what).encode(), {"Content-Type": "application/json"}
        try:
            with urlopen(Request(f"{self.address}/{way}", body, kind), timeout=SECONDS) as answer:
                return json.load(answer)
        except OSError as error:
            raise RuntimeError(f"llama.cpp gives no answer in {SECONDS} s: {error}") from error

    def grown(self) -> int:
        """Bytes that its process holds more than before the server started."""
        return held(self.process.pid) - self.before


def serve(path: str, pipe) -> None:
    """In the process of its own: a server, until the process that asks is no more."""
    try:
        import xllamacpp

        params, before = xllamacpp.CommonParams(), held()
        params.model.path, params.port = path, 0
        params.n_ctx, params.n_parallel, params.n_gpu_layers = 512, 1, 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.warmup, params.fit_params, params.verbosity = True, False, -1
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        server = xllamacpp.Server(params)
        pipe.send({"address": server.listening_address, "held": before})
    except Exception as error:  # whatever a library that is not ours may raise
        pipe.send({"error": " ".join(f"llama.cpp: {error}".split())})
    try:
        pipe.recv()
    finally:
        os._exit(0)  # whatever ended the wait


def held(pid: int | None = None) -> int:
    """Bytes of memory that a process, or this one, has in use."""
    return psutil.Process(pid).memory_info().rss
