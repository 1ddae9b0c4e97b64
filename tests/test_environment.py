"""One source of versions: pyproject.toml asks, requirements.lock pins, environment.yml repeats the
pins of what is asked for."""

import ast
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DIRECT = [
    Requirement(line)
    for line in (*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["test"])
]
PINS = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
LOCK = [Requirement(line) for line in PINS if not line.startswith("#")]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
EXCLUDED = [
    line
    for line in (ROOT / "requirements.excludes").read_text(encoding="utf-8").splitlines()
    if line and line[0] != "#"
]


def locked(name, python="3.11"):
    """The version of a package that the lock gives this Python (on Linux); None where it has
    none."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.7",
        "sys_platform": "linux",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "implementation_name": "cpython",
    }
    found = [
        r
        for r in LOCK
        if canonicalize_name(r.name) == canonicalize_name(name)
        and (r.marker is None or r.marker.evaluate(environment))
    ]
    assert len(found) <= 1
    return next(iter(found[0].specifier)).version if found else None


@pytest.mark.parametrize("wanted", DIRECT, ids=lambda r: r.name)
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_lock_satisfies_what_is_asked_for(wanted, python):
    assert wanted.specifier.contains(locked(wanted.name, python))


def test_the_lock_pins_exactly_and_without_local_builds():
    for pin in LOCK:
        (clause,) = pin.specifier
        assert clause.operator == "==" and "+" not in clause.version
    assert locked("torch") == "2.13.0"
    assert not {canonicalize_name(r.name) for r in LOCK} & {
        canonicalize_name(name) for name in EXCLUDED
    }


def test_conda_brings_the_interpreter_and_pip_the_same_pins():
    *conda, last = CONDA["dependencies"]
    assert conda == ["python=3.11", "pip", "make"] and last["pip"][0] == "-c requirements.lock"
    pins = {
        canonicalize_name(r.name): next(iter(r.specifier)).version
        for r in map(Requirement, last["pip"][1:])
    }
    assert pins == {canonicalize_name(r.name): locked(r.name) for r in DIRECT}


def test_the_package_asks_for_no_more_than_this_python():
    assert PROJECT["project"]["requires-python"] == ">=3.11" and sys.version_info >= (3, 11)


def imported(path):
    """The packages that a file imports, its own excepted."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_what_is_imported_is_asked_for():
    known = {canonicalize_name(r.name) for r in DIRECT} | {"minitransformer"}
    distribution = {
        "bs4": "beautifulsoup4",
        "PIL": "pillow",
        "yaml": "pyyaml",
        "IPython": "ipykernel",
        "jupyter_client": "ipykernel",
        "traitlets": "ipykernel",
        "markupsafe": "jinja2",
    }  # the last four come with the package named
    for path in (ROOT / "lib").rglob("*.py"):
        for name in imported(path) - sys.stdlib_module_names:
            wanted = canonicalize_name(distribution.get(name, name))
            assert wanted in known, f"{path.name} imports {name}"
