"""One source of versions: pyproject.toml asks, requirements.lock pins, environment.yml repeats the
pins; and the library asks for no more than it imports."""

import ast
import importlib.metadata
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
BASE = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
ORT, EXPORT, PEERS, SCALE, PAPER = (
    [Requirement(line) for line in EXTRAS[name]]
    for name in ("ort", "export", "peers", "scale", "paper")
)
TEST = [Requirement(line) for line in PROJECT["dependency-groups"]["test"]]
DIRECT = [*BASE, *ORT, *EXPORT, *PAPER, *TEST]  # peers, scale, compiler are no part of it
PINS = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
LOCK = [Requirement(line) for line in PINS if not line.startswith("#")]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
EXCLUDED = [
    line
    for line in (ROOT / "requirements.excludes").read_text(encoding="utf-8").splitlines()
    if line and line[0] != "#"
]


def applies(requirement, python):
    """Whether it is asked for on this Python (on Linux)."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.7",
        "sys_platform": "linux",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "implementation_name": "cpython",
    }
    return requirement.marker is None or requirement.marker.evaluate(environment)


def locked(name, python="3.11"):
    """The version of a package that the lock gives this Python (on Linux); None where it has
    none."""
    same = canonicalize_name(name)
    found = [r for r in LOCK if canonicalize_name(r.name) == same and applies(r, python)]
    assert len(found) <= 1
    return next(iter(found[0].specifier)).version if found else None


@pytest.mark.parametrize("wanted", DIRECT, ids=lambda r: r.name)
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_the_lock_satisfies_what_is_asked_for(wanted, python):
    if applies(wanted, python):
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
    assert conda == ["python=3.11", "pip", "make"]  # and no -c, which micromamba does not find
    assert last["pip"] == [pin for pin in PINS if not pin.startswith(("#", " "))]


def imported(path):
    """The packages that a file imports, its own excepted."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.partition(".")[0])
    return found


DISTRIBUTION = {
    "backports": "backports.zstd",
    "compression": "backports.zstd",  # which is its backport
    "bs4": "beautifulsoup4",
    "optimum": "optimum-quanto",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "IPython": "ipykernel",
    "jupyter_client": "ipykernel",
    "traitlets": "ipykernel",
    "markupsafe": "jinja2",
    "mistune": "nbconvert",
}  # the last four come with the package named


@pytest.mark.parametrize(
    "part, asked",
    [
        ("minitransformer", [*BASE, *ORT, *EXPORT, *SCALE]),
        ("studies", [*BASE, *ORT, *PEERS, Requirement("minitransformer")]),
        ("paper", [*BASE, *PAPER, *SCALE]),
    ],
)
def test_what_a_part_imports_is_asked_for_it(part, asked):
    known = {canonicalize_name(r.name) for r in asked} | {part}
    for path in sorted((ROOT / "lib" / part).rglob("*.py")):
        for name in sorted(imported(path) - sys.stdlib_module_names):
            wanted = canonicalize_name(DISTRIBUTION.get(name, name))
            assert wanted in known, f"{path.name} imports {name}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The library's wheel, built from a copy of lib/."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for path in [ROOT / "pyproject.toml", ROOT / "README.md", *(ROOT / "lib").rglob("*")]:
        if path.is_file() and "__pycache__" not in path.parts and ".egg-info" not in str(path):
            (source / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            (source / path.relative_to(ROOT)).write_bytes(path.read_bytes())
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(out), str(source)], check=True)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_the_library_whole_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    here = ROOT / "lib"
    wanted = {
        path.relative_to(here).as_posix()
        for path in (here / "minitransformer").rglob("*")
        if path.is_file()
        and path.suffix in (".py", ".typed", ".toml", ".c", ".h", ".wasm", ".json")
    }
    assert wanted and {n for n in names if ".dist-info/" not in n} == wanted


def closure(requirements):
    """The distributions that come with `requirements`, themselves included."""
    found, left = set(), list(requirements)
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        try:
            asked = importlib.metadata.requires(name) or ()
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform's torch
        found.add(name)
        left += map(Requirement, asked)
    return found


LIBRARY = """
import importlib, pkgutil, sys, tempfile
import torch
import minitransformer
for name in minitransformer.__all__:
    getattr(minitransformer, name)
for module in pkgutil.walk_packages(minitransformer.__path__, "minitransformer."):
    if module.name != "minitransformer.quant.ort":
        importlib.import_module(module.name)
from minitransformer import *
model = Transformer(ModelConfig(vocab_size=16, d_model=32, context=32))
small = quantize(model, QuantScheme(bits=8))
with tempfile.TemporaryDirectory() as folder:
    save(small, folder)
    again, _ = load(folder)
print(generate(again, torch.tensor([[1, 2, 3]]), 4).shape[1], minitransformer.__file__)
"""


@pytest.mark.skipif(os.name == "nt", reason="makes symbolic links")
def test_the_wheel_works_without_the_repository_and_with_its_own_dependencies_only(wheel, tmp_path):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for name in closure(BASE):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))
    hidden = {
        "seaborn",
        "matplotlib",
        "papermill",
        "nbconvert",
        "onnx",
        "paper",
        "studies",
        "pytest",
    }
    assert not hidden & {path.name for path in site.iterdir()}
    done = subprocess.run(
        [sys.executable, "-S", "-c", LIBRARY],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["7", str(site / "minitransformer" / "__init__.py")]
