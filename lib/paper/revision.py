"""Which state of the project something was made from: the commit, and a digest of the sources where
no commit says it."""

import re
import subprocess
from pathlib import Path

from .files import digest, sha256

# What tests and chapters depend on; what they leave is not among it.
SOURCES = (
    *("lib/**/*.py", "lib/**/*.c", "lib/**/*.h", "lib/**/*.toml", "lib/**/*.mplstyle"),
    *("notebooks/*.ipynb", "notebooks/own/*.ipynb", "notebooks/**/profiles/*.yaml"),
    *("reports/template/**/*", "tests/**/*.py", "data/*.toml", "pyproject.toml"),
    *("requirements.lock", "Makefile", "check.py", "install.py", "README.md"),
)


def commit(root: Path) -> dict:
    """{commit, dirty} of the checkout; commit "unknown" where there is no git or no repository."""
    told = git(root, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    head = re.search(r"^# branch\.oid ([0-9a-f]+)$", told, re.MULTILINE)
    changed = any(not line.startswith("#") for line in told.splitlines())
    return {"commit": head[1] if head else "unknown", "dirty": changed}


def state(root: Path) -> dict:
    """{commit, dirty, sources}: what tells this state of the project from any other; `sources` is
    their digest where the commit does not say it all, None where it does."""
    found = commit(root)
    exact = found["commit"] != "unknown" and not found["dirty"]
    return {**found, "sources": None if exact else sources(root)}


def sources(root: Path) -> str:
    """One digest of all the files that tests and chapters depend on."""
    files = {path for pattern in SOURCES for path in Path(root).glob(pattern) if path.is_file()}
    return digest({path.relative_to(root).as_posix(): sha256(path) for path in files})


def git(root: Path, *arguments) -> str:
    """What a git command prints; "" where it fails or there is none."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
