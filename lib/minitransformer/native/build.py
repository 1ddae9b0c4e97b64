"""engine.c to a shared library, compiled on first use and kept: never at import, safe for two
processes at once.

The machine that compiles is the one that runs, so the compiler is told to use what this processor
has (`-march=native`), and the whole file gains, attention and norms as much as the kernels, without
a dispatch in it. What the compiler then says of itself and of the processor (its predefined macros)
is part of the key, so a home folder shared by unlike machines holds one library for each."""

import ctypes
import hashlib
import importlib.util
import logging
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from .structs import declare

SOURCE = Path(__file__).with_name("engine.c")
FLAGS = (  # -O3 takes half as long again to compile, and was not measured to be faster
    *("-std=c11", "-O2", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
)
GCC = ("-ftree-vectorize", "-fvect-cost-model=dynamic", "-fpeel-loops")  # an error to zig cc
SHARED = ("-shared", "-fPIC", "-pthread", "-Wno-psabi")
VARIANTS = {  # the first set of flags that the compiler takes
    "native": ((*GCC, "-march=native"), ("-march=native",), ("-mcpu=native",), ()),
    "avx2": ((*GCC, "-march=haswell"), ("-march=haswell",), ("-mcpu=haswell",)),
    "portable": ((*GCC, "-DPORTABLE", "-O1"), ("-DPORTABLE", "-O1")),
}
REMEDY = (
    "install one (apt-get install gcc; on a Mac xcode-select --install; anywhere the extra "
    "[compiler], which is pip install ziglang), or use backend 'eager', which needs none"
)
log = logging.getLogger("minitransformer.native")


class BuildError(RuntimeError):
    """There is no C compiler, or it cannot build the engine; the message is one line with the
    remedy."""


def compiler() -> list[str]:
    """The command of the C compiler: $CC, else cc, gcc or clang, else the one of the package
    ziglang. BuildError when there is none."""
    if chosen := os.environ.get("CC"):  # the one variable that the library reads
        return shlex.split(chosen)
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return [found]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise BuildError(f"no C compiler (looked for $CC, cc, gcc, clang, ziglang): {REMEDY}")


def run(command: list[str]) -> subprocess.CompletedProcess:
    """Run a compiler; BuildError when it cannot even start."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL
        )
    except OSError as error:
        raise BuildError(
            f"the C compiler {command[0]!r} does not start ({error}): {REMEDY}"
        ) from None


def settle(variant: str) -> tuple[list[str], str]:
    """The command with the flags of the variant that it takes, and what it then says of itself."""
    command = compiler()
    for tuning in VARIANTS[variant]:
        whole = [*command, *FLAGS, *tuning]
        said = run([*whole, "-dM", "-E", "-x", "c", os.devnull])
        if said.returncode == 0:
            return whole, said.stdout
    reason = (said.stderr.strip().splitlines() or [f"exit status {said.returncode}"])[-1]
    raise BuildError(f"the C compiler {shlex.join(command)!r} does not work ({reason}): {REMEDY}")


def folder() -> Path:
    """Where libraries are kept: the user's cache, or a new temporary folder where that cannot be
    written."""
    try:
        place = Path.home() / ".cache" / "minitransformer"
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.access(place, os.W_OK):
            return place
    except (OSError, RuntimeError):
        pass
    return Path(tempfile.mkdtemp(prefix="minitransformer-"))


def build(variant: str = "native", *, extra=(), place: Path | None = None) -> Path:
    """The path of the compiled library, compiled now if there is none for this source, these flags,
    this compiler and this processor.

    "native" uses what the processor has, "avx2" no more than that, "portable" only C. `extra` flags
    are for sanitizers."""
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r} is unknown: choose one of {', '.join(VARIANTS)}")
    command, said = settle(variant)
    parts = (SOURCE.read_text("utf-8"), shlex.join([*command, *SHARED, *extra]), said)
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    place = folder() if place is None else place
    target = place / f"engine-{variant}-{key}{'.dll' if sys.platform == 'win32' else '.so'}"
    if target.exists():
        return target
    name = "zig cc" if "ziglang" in command else Path(command[0]).name
    log.info("compiling the C engine with %s, once: a few seconds", name)  # no stderr in cells
    try:
        with tempfile.TemporaryDirectory(dir=place) as scratch:
            made = Path(scratch) / target.name
            done = run([*command, *SHARED, *extra, str(SOURCE), "-o", str(made), "-lm"])
            if done.returncode or not made.exists():
                lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
                reason = next((line for line in lines if "error" in line), lines[-1])
                raise BuildError(
                    f"the C compiler {shlex.join(command)!r} cannot build the engine ({reason}): "
                    f"{REMEDY}"
                )
            os.replace(made, target)  # whole or not at all; the last of two processes wins
    except OSError as error:
        raise BuildError(
            f"{place} takes no engine ({error.strerror}): free some space, or use backend 'eager'"
        ) from None
    return target


@cache
def library(variant: str = "native") -> ctypes.CDLL:
    """The engine, compiled if need be and loaded. BuildError is one line with the remedy."""
    path = build(variant)
    try:
        return declare(ctypes.CDLL(str(path)))
    except OSError as error:
        raise BuildError(f"{path} cannot be loaded ({error}): delete it, or {REMEDY}") from None
