"""How a notebook opened alone gets what it reads, and the cache that keeps it."""

import os
import subprocess
import sys

import pytest
from filelock import FileLock

from paper import variants
from paper.__main__ import main
from paper.files import write_bytes, write_text
from paper.parameters import resolve
from paper.project import Project
from paper_project import finish, make_project


@pytest.fixture
def project(tmp_path):
    return Project(make_project(tmp_path))


@pytest.fixture
def params(project):
    return resolve(project.notebooks)


@pytest.fixture
def builds(monkeypatch):
    """The commands of builds, each replaced by the Python code in `builds.code`."""

    class Builds(list):
        code = ""

        def popen(self, command, **options):
            self.append(command)
            return started([sys.executable, "-c", self.code], **options)

    found, started = Builds(), subprocess.Popen
    monkeypatch.setattr(variants.subprocess, "Popen", found.popen)
    return found


def test_a_notebook_opened_alone_reads_a_run_of_its_parameters_or_a_cache(project, params):
    run = project.reports / "quick"
    first = variants.alone(project, "01-data", params)
    assert first[0] == first[1] and first[0].parent == project.reports / ".cache"
    inputs, out = variants.alone(project, "02-train", params)
    assert inputs.parent == out.parent == project.reports / ".cache" and inputs != out
    assert (
        variants.alone(project, "02-train", params | {"steps": 9})[0] == inputs
    )  # steps is no parameter of what it reads
    assert variants.alone(project, "02-train", params | {"seed": 9})[0] != inputs
    finish(project, "01-data", params, run, corpus="a b")
    assert variants.alone(project, "02-train", params)[0] == run
    assert (
        variants.alone(project, "02-train", params | {"profile": "paper"})[0]
        == project.reports / "paper"
    )


def test_another_profile_must_have_run_at_these_parameters(project, params):
    params = params | {"profile": "paper"}
    run = project.reports / "paper"
    with pytest.raises(
        variants.StageError,
        match="reports/paper has no finished 02-train: run make train PROFILE=paper$",
    ):
        variants.ensure(project, "02-train", params, run)
    (project.root / "t.txt").write_text("x")
    with pytest.raises(variants.StageError, match="run make data PROFILE=paper CORPUS=t.txt"):
        variants.ensure(project, "01-data", params | {"corpus": "t.txt"}, run)
    finish(project, "01-data", params, run, corpus="a b")
    variants.ensure(project, "01-data", params, run)
    with pytest.raises(
        variants.StageError,
        match="holds 01-data at seed = 42, not 9: run make data PROFILE=paper at that value",
    ):
        variants.ensure(project, "01-data", params | {"seed": 9}, run)


def test_at_quick_size_what_is_missing_is_built_in_a_process_of_its_own(
    project, params, builds, capsys
):
    inputs = project.reports / ".cache" / "run-x"
    builds.code = "print('[1/1] 01-data: 3 of 9 cells')"
    variants.ensure(project, "01-data", params, inputs)
    assert "run-x: [1/1] 01-data: 3 of 9 cells\n" in capsys.readouterr().err  # as it comes
    finish(project, "01-data", params, inputs, corpus="a b")
    variants.ensure(project, "01-data", params, inputs)
    assert len(builds) == 1
    assert builds[0][2:7] == ["paper", "01-data", "--profile", "quick", "--into"]
    assert "seed=42" in builds[0] and "run_dir=" not in builds[0] and "sizes=[10, 50]" in builds[0]


@pytest.mark.parametrize(
    "code, message",
    [
        (
            "import sys; print('x'); sys.exit('error: no space')",
            "building 01-data failed: error: no space$",
        ),
        ("raise SystemExit(9)", "building 01-data failed: exit status 9"),
    ],
)
def test_a_failed_build_says_why(project, params, builds, code, message):
    builds.code = code
    with pytest.raises(variants.StageError, match=message):
        variants.ensure(project, "01-data", params, project.reports / ".cache" / "run-x")


def test_the_remedy_of_a_missing_profile_can_be_pasted_into_a_shell(project, params):
    (project.root / "it's mine.txt").write_text("x")
    params |= {"profile": "paper", "corpus": "it's mine.txt"}
    with pytest.raises(variants.StageError, match="CORPUS='it'\"'\"'s mine.txt'$"):
        variants.ensure(project, "02-train", params, project.reports / "paper")


def fill(project, **sizes):
    """Variants of some MiB, each used a day before the one named after it."""
    for age, (name, size) in enumerate(reversed(sizes.items()), 1):
        path = write_bytes(variants.folder(project) / name / "a", bytes(size * 2**20)).parent
        os.utime(path, (1e9 - age * 86400,) * 2)


def names(project):
    return [variant.path.name for variant in variants.variants(project)]


def test_the_oldest_variants_go_when_the_cache_grows_too_large(project):
    fill(project, old=2, kept=1, busy=1, new=3)
    assert names(project) == ["new", "busy", "kept", "old"]
    assert variants.prune(project, limit=7 * 2**20) == []
    kept = variants.folder(project) / "kept"
    with FileLock(variants.folder(project) / ".busy.lock"):
        gone = variants.prune(project, keep=kept, limit=2**20)
    assert [variant.path.name for variant in gone] == ["old", "new"]
    assert names(project) == ["busy", "kept"]


def test_using_a_variant_makes_it_the_newest(project, params):
    fill(project, used=1, other=1)
    inputs = variants.folder(project) / "used"
    finish(project, "01-data", params, inputs, corpus="a b")
    os.utime(inputs, (1, 1))
    variants.ensure(project, "01-data", params, inputs)
    assert names(project) == ["used", "other"]


def test_the_cache_says_where_it_is_and_can_be_emptied(project, monkeypatch, capsys):
    monkeypatch.chdir(project.root)
    fill(project, first=1, second=2)
    write_text(project.reports / "quick" / "a", "a run is no variant")
    assert main(["cache"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["second", "2.0", "MiB"] and lines[0].endswith("ago")
    assert lines[-1].startswith("reports/.cache: 2 variants, 3.0 MiB; the oldest go at 2 GiB")
    assert main(["cache", "--clear"]) == 0
    assert capsys.readouterr().out == "reports/.cache: 2 variants deleted, 3.0 MiB free\n"
    assert names(project) == [] and (project.reports / "quick" / "a").is_file()
    assert main(["cache"]) == 0 and ": 0 variants, 0.0 MiB" in capsys.readouterr().out
