"""Kinds of trouble: each is one line, leaves nothing half-written, and the same command goes on."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from paper import __main__ as command
from paper import execution, files, html, provenance, runner, stages
from paper.files import read_json, write_json, write_text
from paper.notebook import OUT
from paper.project import Project
from paper.sources import LIB
from paper_project import make_project

STAGES = ("01-data", "02-train", "report")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose notebooks "run" by writing two files each; `ran` counts them."""
    project = Project(make_project(tmp_path / "p"))
    project.__dict__["ran"] = []

    def execute(source, part, parameters, kernel_manager_class, **_):
        book = read_json(source)
        name = book["metadata"]["paper"]["name"]
        for cell in book["cells"]:
            cell |= {"execution_count": 1} if cell["cell_type"] == "code" else {}
        write_json(part, book)
        out = Path(kernel_manager_class.environment[OUT])
        write_json(out / f"{name}.json", {"seed": parameters["seed"]})
        write_json(out / "claims" / f"{name}.json", [])
        project.__dict__["ran"].append(name)

    monkeypatch.setattr(execution, "execute_notebook", execute)
    monkeypatch.setattr(html, "build_html", lambda run_dir: write_text(run_dir / "index.html", "<"))
    monkeypatch.setattr(provenance, "PACKAGES", ())
    monkeypatch.chdir(project.root)
    return project


def report(*arguments):
    return command.main(["report", "--profile", "quick", *arguments])


def whole(project):
    """Nothing of the run is half-written, and all its hashes hold."""
    run_dir = project.reports / "quick"
    for path in run_dir.rglob("*.json"):
        json.loads(path.read_text())
    assert not list(run_dir.rglob(".part-*"))
    listed = files.sha256
    for line in (run_dir / "HASHES.txt").read_text().splitlines():
        assert listed(run_dir / line[66:]) == line[:64], line
    assert {line[66:] for line in (run_dir / "HASHES.txt").read_text().splitlines()} == {
        name for name in stages.artefacts(run_dir) if name != "HASHES.txt"
    }


def one_line(capsys, *words):
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and all(word in lines[0] for word in words), lines
    return lines[0]


DAMAGE = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "not text": lambda path: path.write_bytes(b"\xff\x00\xfe"),
    "another kind": lambda path: path.write_text("[1, 2]"),
    "no keys": lambda path: path.write_text("{}"),
    "gone": lambda path: path.unlink(),
}
FILES = (
    *(".stages/01-data.json", ".stages/report.json", ".stages/summary.json", ".stages/html.json"),
    *(".stages/hashes.json", "01-data.json", "02-train.ipynb", "claims/02-train.json"),
    *("run.json", "claims.json", "index.html", "HASHES.txt"),
)


# Every file in two ways; a name stands for what reads it, a kind for what the reader meets.
DAMAGED = [(name, kind) for i, name in enumerate(FILES) for kind in [*DAMAGE][i % 3 :: 3]]


@pytest.mark.parametrize("name, kind", DAMAGED)
def test_what_is_damaged_is_made_again_and_nothing_else(project, name, kind):
    assert report() == 0
    run_dir, ran = project.reports / "quick", project.__dict__["ran"]
    before = (run_dir / name).read_bytes()
    DAMAGE[kind](run_dir / name)
    assert report() == 0
    whole(project)
    owner = next((stage for stage in STAGES if stage in name), None)
    assert ran[3:] in ([], [owner])
    assert owner or (run_dir / name).read_bytes()[:9] == before[:9]
    count = len(ran)
    assert report() == 0 and len(ran) == count


def steps(monkeypatch, fail_at, error):
    """Every write and move of a run counts as a step; the one numbered `fail_at` raises `error`."""
    count = [0]

    def counted(what):
        def step(*arguments, **options):
            count[0] += 1
            if count[0] == fail_at:
                raise error
            return what(*arguments, **options)

        return step

    monkeypatch.setattr(os, "replace", counted(os.replace))
    monkeypatch.setattr(files.tempfile, "mkstemp", counted(files.tempfile.mkstemp))
    return count


def test_a_disk_that_fills_or_a_ctrl_c_at_any_step_is_survived(project, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        total = steps(patch, 0, None)
        assert report() == 0
    assert total[0] > 40
    full = OSError(errno.ENOSPC, "No space left on device")
    for place in range(1, total[0] + 1, 3):
        seed = ("--set", f"seed={place}")
        error, status = ((full, 1), (KeyboardInterrupt(), 130))[place % 2]
        capsys.readouterr()
        with monkeypatch.context() as patch:
            steps(patch, place, error)
            got = report(*seed)
        assert got == status, place
        one_line(capsys, "free some disk space" if status == 1 else "interrupted: what was")
        for path in project.reports.rglob("*.ipynb"):
            read_json(path)  # no failed notebook is half a notebook
        assert report(*seed) == 0
        whole(project)
        assert read_json(project.reports / "quick" / "02-train.json") == {"seed": place}


def test_an_interrupted_move_leaves_no_orphan(project, monkeypatch):
    """A file of the interrupted version that the next version does not write any more."""
    run_dir = project.reports / "quick"
    for name in ("old.csv", "kept.csv", "z.csv"):
        write_text(run_dir / ".work" / "01-data" / name, name)
    moved = os.replace

    def replace(source, target):
        if Path(target).name == "z.csv":
            raise KeyboardInterrupt
        moved(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", replace)
        about = {"key": "k", "params": {}, "seconds": 1}
        runner.adopt(run_dir, "01-data", run_dir / ".work" / "01-data", **about)
    assert (run_dir / "old.csv").is_file()
    assert report() == 0
    assert not (run_dir / "old.csv").exists()
    whole(project)


def test_a_process_killed_while_it_held_the_lock_and_wrote_keeps_nobody_out(project):
    code = (
        "import os, sys, pathlib, paper.files as f\n"
        "f.os.replace = lambda *_: os.kill(os.getpid(), 9)\n"
        "run = pathlib.Path('reports/quick')\n"
        "with f.locked(run): f.write_text(run / 'claims.json', 'half')"
    )
    environment = os.environ | {"PYTHONPATH": str(LIB)}
    done = subprocess.run([sys.executable, "-c", code], cwd=project.root, env=environment)
    assert done.returncode == -signal.SIGKILL
    assert list((project.reports / "quick").glob(".part-*"))
    assert report() == 0
    whole(project)


def test_two_runs_at_once_are_one_after_the_other(project, monkeypatch, capsys):
    monkeypatch.setattr(files, "WAIT_S", 0.05)
    code = (
        "import sys, pathlib, paper.files as f\n"
        "with f.locked(pathlib.Path('reports/quick')): print('in', flush=True); sys.stdin.read(1)"
    )
    environment = os.environ | {"PYTHONPATH": str(LIB)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=project.root, env=environment, **pipes
    ) as other:
        other.stdout.readline()
        waited = []

        def say(text, **options):
            waited.append(text)
            print(text, **options)
            if len(waited) == 3:
                other.stdin.write(b"x")
                other.stdin.flush()

        monkeypatch.setattr(files, "print", say, raising=False)
        assert report() == 0
    err = capsys.readouterr().err.splitlines()
    assert err[0] == "quick is in use by another run: waiting for it"
    assert err[1].startswith("quick: still waiting after ")
    whole(project)


@pytest.mark.parametrize(
    "text, why",
    [
        ("", "Expecting value"),
        ("not json", "Expecting value"),
        ('{"cells": [', "Expecting value"),
        ("[]", "list indices"),
        ("{}", "it has no cells"),
        ('{"cells": 3, "metadata": {}}', "its cells are no list"),
        ("\udcff", "can't decode byte"),
        (
            '{"cells": [], "metadata": {"paper": {"name": "02-train", "wants": []}}}',
            "is not understood",
        ),
        (
            '{"cells": [], "metadata": {"paper": {"name": "02-train", "needs": ["x"]}}}',
            "is no chap",
        ),
        (
            '{"cells": [], "metadata": {"paper": {"name": "02-train", "needs": ["03-later"]}}}',
            "is no chapter",
        ),
        (
            '{"cells": [], "metadata": {"paper": {"name": "02-train", "targets": ["data"]}}}',
            "both claim the target data",
        ),
    ],
)
def test_a_notebook_that_is_none_is_named(project, capsys, text, why):
    write_text(project.notebook("02-train"), text)
    assert report() == 1
    assert "02-train" in one_line(capsys, why) and not project.reports.exists()


def test_a_missing_folder_of_notebooks_is_named(project, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("paper.project.__file__", str(tmp_path / "site" / "paper" / "project.py"))
    project.notebooks.rename(project.root / "gone")
    assert report() == 1
    one_line(capsys, "no project above", "run from a checkout")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_a_folder_that_refuses_is_named_before_anything_runs(project, capsys, monkeypatch, number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.tempfile, "mkstemp", refuse)
    assert report() == 1
    one_line(capsys, "reports/quick cannot be written", os.strerror(number))
    assert project.__dict__["ran"] == []


@pytest.mark.parametrize(
    "error, message",
    [
        (
            RuntimeError("Kernel died before\n replying to kernel_info"),
            "Kernel died before replying",
        ),
        (
            TimeoutError("Cell execution timed out\n\nThe cell:\n" + "x" * 500),
            "Cell execution timed",
        ),
        (FileNotFoundError(2, "No such file or directory", "a" * 300), "No such file"),
    ],
)
def test_the_errors_of_other_libraries_are_one_short_line(
    project, capsys, monkeypatch, error, message
):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(execution, "execute_notebook", fail)
    assert report() == 1
    assert len(one_line(capsys, message)) < 400
    assert not list(project.reports.rglob("*.failed.ipynb"))


def test_a_remedy_is_given_once():
    full = "No space left on device"
    said = (
        f"cannot write x ({full}): free some space or give another place; what was there is whole"
    )
    assert command.line(OSError(said)) == said
    assert command.line(RuntimeError(full)).startswith(f"{full}: free some disk space and run")
