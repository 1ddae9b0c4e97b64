"""engine.c to WebAssembly: engine.wasm, one module that imports nothing and holds no data, for a
browser or any other host; committed, so that nobody needs the compiler to use it.

It is made by one version of one compiler (clang as PyPI's ziglang brings it), so that the same
source gives the same bytes on any machine, and engine.wasm.json says from which source. The host
owns the memory: what `export.web` lays out is copied in behind `__heap_base`."""

import hashlib
import importlib.metadata
import json
import os
import sys
import tempfile
from pathlib import Path

from .build import SOURCE, BuildError, run

ZIG = "0.17.1"
WASM, RECORD = SOURCE.with_suffix(".wasm"), SOURCE.with_suffix(".wasm.json")
MOST_BYTES = 60_000  # the page holds it
ENTRIES = ("engine_arena", "engine_step", "engine_multiply", "engine_attention", "__heap_base")
COMPILE = (  # small: -O2 is half as large again
    *("-target", "wasm32-wasi", "-mcpu=generic+simd128+bulk_memory", "-std=c11", "-Os", "-g0"),
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", "-DPORTABLE"),
)
LINK = ("--no-entry", "--strip-all", "--stack-first", *(f"--export={name}" for name in ENTRIES))


def has_zig() -> bool:
    """Whether the compiler that makes engine.wasm is installed, in that version."""
    try:
        return importlib.metadata.version("ziglang") == ZIG
    except importlib.metadata.PackageNotFoundError:
        return False


def source_hash() -> str:
    """SHA-256 of engine.c, its lines ending as in the repository."""
    return hashlib.sha256(SOURCE.read_text("utf-8").encode()).hexdigest()


def module_bytes() -> bytes:
    """engine.wasm, compiled now. BuildError where the compiler is not there, or the module is
    larger than a page may hold."""
    if not has_zig():
        raise BuildError(f"ziglang {ZIG} is not installed: pip install ziglang=={ZIG}")
    zig = [sys.executable, "-m", "ziglang"]
    with tempfile.TemporaryDirectory() as scratch:
        made, linked = (os.path.join(scratch, name) for name in ("engine.o", "engine.wasm"))
        for command in (
            [*zig, "cc", *COMPILE, "-c", str(SOURCE), "-o", made],
            [*zig, "wasm-ld", *LINK, made, "-o", linked],
        ):
            done = run(command)
            if done.returncode:
                lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
                reason = next((line for line in lines if "error" in line), lines[-1])
                raise BuildError(f"{SOURCE.name} does not become WebAssembly: {reason}")
        data = Path(linked).read_bytes()
    if len(data) > MOST_BYTES:
        raise BuildError(f"engine.wasm has {len(data):,} bytes, more than {MOST_BYTES:,}")
    return data


def write() -> Path:
    """Make engine.wasm again, and the record of what it was made from, beside engine.c."""
    data = module_bytes()
    WASM.write_bytes(data)
    record = {
        "source_sha256": source_hash(),
        "wasm_sha256": hashlib.sha256(data).hexdigest(),
        "compiler": f"ziglang {ZIG}",
    }
    RECORD.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    return WASM
