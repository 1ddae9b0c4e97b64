"""Provenance, hashes and evidence."""

import json
import platform
import subprocess

import pytest

from paper import evidence, provenance, stages
from paper.files import read_json, write_json, write_text
from paper.parameters import resolve
from paper.project import Project
from paper_project import make_project


@pytest.fixture
def project(tmp_path):
    return Project(make_project(tmp_path / "p"))


def git(root, *arguments):
    command = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    subprocess.run(command, check=True, capture_output=True)


def test_the_commit_and_whether_tracked_files_changed(project, monkeypatch):
    assert provenance.commit(project.root.parent) == {"commit": "unknown", "dirty": False}
    git(project.root, "init")
    git(project.root, "add", ".")
    git(project.root, "commit", "-m", "one")
    (project.root / "untracked").touch()
    state = provenance.commit(project.root)
    assert len(state["commit"]) == 40 and not state["dirty"]
    (project.root / "pyproject.toml").write_text("changed")
    assert provenance.commit(project.root)["dirty"]
    monkeypatch.setenv("PATH", "")
    assert provenance.commit(project.root) == {"commit": "unknown", "dirty": False}


def test_run_json_says_what_made_the_run_and_names_no_folder_of_this_machine(project):
    run_dir, params = project.reports / "quick", resolve(project.notebooks)
    stages.write_stamp(run_dir, "01-data", key="k", seconds=1.5, params={}, artefacts={})
    run = provenance.write_run(project, run_dir, params)
    assert run == read_json(run_dir / "run.json")
    assert (
        run["profile"] == "quick"
        and run["parameters"]["seed"] == 42
        and "run_dir" not in run["parameters"]
    )
    assert (
        run["durations_s"] == {"01-data": 1.5}
        and run["versions"]["torch"]
        and run["machine"]["capability"]
    )
    assert (
        len(run["inputs"]["requirements.lock"]) == 64
        and "notebooks/02-train.ipynb" in run["inputs"]
    )
    text = json.dumps(run)
    assert str(project.root) not in text and platform.node() not in text
    (project.root / "requirements.lock").unlink()
    assert provenance.write_run(project, run_dir, params)["inputs"]["requirements.lock"] is None


def test_the_processor_is_named_where_the_system_says_so(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor : 0\nmodel name : Good CPU: 3\n")
    assert provenance.cpu_model(path) == "Good CPU: 3"
    path.write_text("nothing\n")
    assert provenance.cpu_model(path) and provenance.cpu_model(tmp_path / "none")


def test_a_missing_package_has_no_version(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("torch", "no-such-package"))
    assert provenance.versions()["no-such-package"] is None and provenance.versions()["torch"]


def test_hashes_are_in_the_format_of_sha256sum(tmp_path):
    for name in ("a.txt", "b/c ñ.txt", "x.failed.ipynb", ".stages/y"):
        write_text(tmp_path / name, name)
    provenance.write_hashes(tmp_path)
    provenance.write_hashes(tmp_path)
    lines = (tmp_path / "HASHES.txt").read_text().splitlines()
    assert [line[66:] for line in lines] == ["a.txt", "b/c ñ.txt"] and all(
        line[64:66] == "  " for line in lines
    )
    assert (
        subprocess.run(
            ["sha256sum", "-c", "HASHES.txt"], cwd=tmp_path, capture_output=True
        ).returncode
        == 0
    )


def test_evidence_holds_at_its_commit_only(project):
    git(project.root, "init")
    git(project.root, "add", ".")
    git(project.root, "commit", "-m", "one")
    evidence.write(project, "verify", True, files=3)
    assert evidence.read(project)["verify"]["files"] == 3 and evidence.read(project)["test"] is None
    git(project.root, "commit", "--allow-empty", "-m", "two")
    assert evidence.read(project)["verify"] is None


@pytest.mark.parametrize(
    "failures, percent, passed",
    [(0, 97.5, True), (1, 97.5, False), (0, 96.9, False), (0, None, False)],
)
def test_the_evidence_of_the_tests(project, tmp_path, failures, percent, passed):
    junit, coverage = tmp_path / "junit.xml", tmp_path / "coverage.json"
    write_text(
        junit,
        f'<testsuites><testsuite tests="9" failures="{failures}" errors="0" skipped="1"/></testsuites>',
    )
    if percent is not None:
        write_json(coverage, {"totals": {"percent_covered": percent, "num_branches": 5}})
    row = evidence.from_pytest(project, [junit], coverage)
    assert (
        row["passed"] is passed
        and row["tests"] == 9
        and row["skipped"] == 1
        and row["coverage_percent"] == percent
    )
