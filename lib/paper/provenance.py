"""run.json and HASHES.txt: what made a run, and the SHA-256 of all it left. No home folder and no
host name in either."""

import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path

from . import stages
from .files import digest, sha256, write_json, write_text
from .project import Project
from .sources import LIB

PACKAGES = (
    "torch",
    "numpy",
    "pandas",
    "scipy",
    "matplotlib",
    "seaborn",
    "tokenizers",
    "safetensors",
    "papermill",
    "nbclient",
    "nbconvert",
    "ipykernel",
    "jupyterlab",
)


def commit(root: Path) -> dict:
    """{commit, dirty} of the checkout; commit "unknown" where there is no git or no repository."""
    head = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"commit": head or "unknown", "dirty": bool(changed)}


def _git(root: Path, *arguments) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def machine() -> dict:
    """Processor, cores, the instruction set torch uses, system and Python; nothing that names the
    machine."""
    import torch

    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def cpu_model(path: Path = Path("/proc/cpuinfo")) -> str:
    if path.is_file():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def versions() -> dict:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def write_run(project: Project, run_dir: Path, params: dict) -> dict:
    """Writes run.json from the stamps of the stages that have run; `executed` is when this was."""
    stamps = {s: stages.read_stamp(run_dir, s) for s in project.stages}
    lock = project.root / "requirements.lock"
    run = {
        "project": "mini-transformer",
        "version": metadata.version("minitransformer"),
        "run": run_dir.name,
        **commit(project.root),
        "executed": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "profile": params["profile"],
        "parameters": {n: v for n, v in params.items() if n != "run_dir"},
        "machine": machine(),
        "threads": params.get("threads"),
        "versions": versions(),
        "durations_s": {s: stamp["seconds"] for s, stamp in stamps.items() if stamp},
        "keys": {s: stamp["key"] for s, stamp in stamps.items() if stamp},
        "inputs": {
            "requirements.lock": sha256(lock) if lock.is_file() else None,
            "library": digest(
                {p.relative_to(LIB).as_posix(): sha256(p) for p in LIB.rglob("*.py")}
            ),
            **{
                f"notebooks/{s}.ipynb": digest(stages.notebook_source(project.notebook(s)))
                for s in project.stages
            },
        },
    }
    write_json(run_dir / "run.json", run)
    return run


def write_hashes(run_dir: Path) -> Path:
    """HASHES.txt of every artefact, for `sha256sum -c HASHES.txt` in the run's folder."""
    lines = [
        f"{sha256(run_dir / name)}  {name}\n"
        for name in stages.artefacts(run_dir)
        if name != "HASHES.txt"
    ]
    return write_text(run_dir / "HASHES.txt", "".join(lines))
