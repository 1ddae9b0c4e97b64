"""What is measured apart, for longer than a page can take or on another machine: how it was made
lies beside it in a folder that pages read."""

import json
import platform
import re
from argparse import ArgumentParser
from datetime import date
from pathlib import Path

import torch

from minitransformer.files import replacing


def parser(module: str, about: str) -> ArgumentParser:
    """What every command here is told: where results are kept, of which commit and machine."""
    given = ArgumentParser(prog=f"python -m {module}", description=about)
    given.add_argument("--out", type=Path, required=True, help="the folder that keeps the results")
    given.add_argument("--commit", default="", help="of the library, to be kept")
    given.add_argument("--cpu", default="", help="its name, to be kept")
    return given


def machine(cpu: str = "") -> dict:
    """Where it is measured, and by which software; a `cpu` of no name is asked for its own."""
    path = Path("/proc/cpuinfo")  # of Linux, where Python itself mostly knows none
    named = re.search(r"model name\s*: (.+)", path.read_text("utf-8") if path.is_file() else "")
    cpu = cpu or (named[1] if named else platform.processor())
    return {"cpu": cpu, "python": platform.python_version(), "torch": str(torch.__version__)}


def made(cpu: str = "", **how) -> dict:
    """How it is measured: the machine, the day, and what else there is to say."""
    return machine(cpu) | {"date": date.today().isoformat()} | how


def write(path: Path, found: dict) -> None:
    """Keeps it as JSON, whole or not at all."""
    with replacing(path) as part:
        part.write_bytes((json.dumps(found, indent=2, sort_keys=True) + "\n").encode())


def read(path: Path) -> dict:
    """What was kept; {} where nothing was."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def how_made(made: dict) -> str:
    """When and where, in words."""
    return f"on {made['date']} at commit {made['commit'][:12]}, on {made['cpu']}"
