"""run.json and HASHES.txt: what made a run, and the SHA-256 of all it left. No home folder and no
host name in either."""

import os
import platform
import re
import subprocess
import time
from datetime import date
from importlib import metadata
from pathlib import Path

import torch

from . import stages
from .about import about
from .files import digest, read_json, sha256, write_json, write_text
from .names import hash_line
from .project import Project
from .record import COMPARED
from .revision import commit, state
from .sources import LIB

__all__ = ["commit", "cpu_model", "machine", "versions", "write_hashes", "write_run"]

PACKAGES = (
    *("torch", "numpy", "pandas", "scipy", "matplotlib", "seaborn", "tokenizers", "safetensors"),
    *("papermill", "nbclient", "nbconvert", "ipykernel", "jupyterlab"),
)


def machine() -> dict:
    """Processor, cores, the instruction set torch uses, system and Python; nothing that names the
    machine."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def cpu_model(path: Path = Path("/proc/cpuinfo"), system: str = platform.system()) -> str:
    """The processor's name as its system gives it; its architecture where none does."""
    return (
        (_field(path.read_text(errors="replace"), "model name") if path.is_file() else "")
        or (system == "Darwin" and _told("sysctl", "-n", "machdep.cpu.brand_string"))
        or (system == "Linux" and _field(_told("lscpu"), "Model name").strip("-"))
        or platform.processor()
        or platform.machine()
    )


def _field(text: str, name: str) -> str:
    """The value in the first line `name : value`, "" without one."""
    found = re.search(rf"^{name}\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _told(*command: str) -> str:
    """What a command prints, in English; "" where there is no such command, or it fails."""
    english = os.environ | {"LC_ALL": "C"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, env=english)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def versions() -> dict:
    found = {}
    for name in (*PACKAGES, *COMPARED):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


# What some chapters run where they find it.
PROGRAMS = {
    "C compiler": ("cc", "gcc", "clang"),
    "node": ("node",),
    "Chromium": ("chromium", "chromium-browser", "google-chrome"),
}
WEB = Path(".cache/npm/node_modules/onnxruntime-web/package.json")


def programs(root: Path) -> dict:
    """What the programs beside Python say of their versions, and that of onnxruntime-web below
    `root`; those that are missing are left out."""
    found = {}
    for name, calls in PROGRAMS.items():
        told = next(filter(None, (_told(call, "--version") for call in calls)), "")
        found[name] = told.splitlines()[0].strip() if told else None
    found["onnxruntime-web"] = read_json(Path(root) / WEB, {}).get("version")
    return {name: version for name, version in found.items() if version}


def recorded(project: Project, params: dict) -> dict:
    """The parameters as a record keeps them: a corpus by its name and SHA-256, and no folder."""
    places = (*stages.PLACES, *project.folders)
    kept = {n: v for n, v in params.items() if n not in places}
    if params.get("model"):
        name, sha = project.model_identity(params["model"])
        kept |= {"model": name, "model_sha256": sha}
    if "corpus" not in params:
        return kept
    name, sha = project.corpus_identity(params["corpus"]) if params["corpus"] else ("", None)
    return kept | {"corpus": name, "corpus_sha256": sha}


def write_run(project: Project, run_dir: Path, params: dict) -> dict:
    """Writes run.json from the stamps of the stages that have run; `executed` is when this was."""
    stamps = {s: stages.read_stamp(run_dir, s) for s in project.stages}
    lock = project.root / "requirements.lock"
    run = {
        "project": "mini-transformer",
        "version": about(project.root)["version"],
        "run": run_dir.name,
        **state(project.root),
        "executed": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "profile": params["profile"],
        "parameters": recorded(project, params),
        "machine": machine(),
        "threads": params.get("threads"),
        "versions": versions(),
        "programs": programs(project.root),
        "side_by_side": {s: beside(stamp) for s, stamp in stamps.items() if beside(stamp)},
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


def beside(stamp: dict | None) -> list[str]:
    """The stages that ran while that of `stamp` did."""
    return (stamp or {}).get("beside", [])


def write_hashes(run_dir: Path) -> Path:
    """HASHES.txt of every artefact, for `sha256sum -c HASHES.txt` in the run's folder."""
    names = (name for name in stages.artefacts(run_dir) if name != "HASHES.txt")
    lines = [hash_line(sha256(run_dir / name), name) for name in names]
    return write_text(run_dir / "HASHES.txt", "".join(lines))


def today(project: Project, command: str, **more) -> dict:
    """How a result that outlives its run was made: commit, date, processor, command."""
    now = commit(project.root) | {"date": date.today().isoformat(), "cpu": cpu_model()}
    return now | {"command": command} | more
