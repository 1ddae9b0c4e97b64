"""Provenance, hashes and evidence."""

import json
import platform
import subprocess

import pytest

from paper import evidence, files, provenance, revision, stages
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


def test_programs_say_their_versions_and_what_is_missing_is_left_out(tmp_path, monkeypatch):
    said = {"gcc": "gcc (Debian) 12.2\nCopyright", "node": "v20.1"}
    monkeypatch.setattr(provenance, "_told", lambda *command: said.get(command[0], ""))
    assert provenance.programs(tmp_path) == {"C compiler": "gcc (Debian) 12.2", "node": "v20.1"}
    write_json(tmp_path / provenance.WEB, {"version": "1.30.0"})
    assert provenance.programs(tmp_path)["onnxruntime-web"] == "1.30.0"


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


LSCPU = "Architecture: aarch64\nModel name:            Neoverse-N1\nModel: 1\n"


@pytest.mark.parametrize(
    "cpuinfo, system, told, name",
    [
        ("processor : 0\nmodel name\t: Good CPU: 3\n", "Linux", {}, "Good CPU: 3"),
        ("processor : 0\nCPU part : 0xd0c\n", "Linux", {"lscpu": LSCPU}, "Neoverse-N1"),
        ("nothing\n", "Linux", {"lscpu": "Model name: -\n"}, "arch"),
        ("nothing\n", "Linux", {}, "arch"),
        (None, "Darwin", {"sysctl": "Apple M2 Pro\n"}, "Apple M2 Pro"),
        (None, "Darwin", {}, "arch"),
        (None, "Windows", {"lscpu": LSCPU}, "arch"),
    ],
)
def test_the_processor_is_named_as_its_system_names_it(
    tmp_path, monkeypatch, cpuinfo, system, told, name
):
    path = tmp_path / "cpuinfo"
    if cpuinfo:
        path.write_text(cpuinfo)

    def run(command, **_):
        if command[0] not in told:
            raise FileNotFoundError(command[0])
        return subprocess.CompletedProcess(command, 0, stdout=told[command[0]])

    monkeypatch.setattr(provenance.subprocess, "run", run)
    monkeypatch.setattr(provenance.platform, "processor", lambda: "")
    monkeypatch.setattr(provenance.platform, "machine", lambda: "arch")
    assert provenance.cpu_model(path, system) == name


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


def test_a_corpus_is_recorded_by_name_and_hash_and_no_folder_is(project, tmp_path):
    text = write_text(tmp_path / "private folder" / "mine.txt", "words")
    params = resolve(project.notebooks, given={"corpus": str(text)})
    params |= {"corpora_dir": str(tmp_path), "run_dir": str(tmp_path)}
    run = provenance.write_run(project, tmp_path / "run", params)
    assert run["parameters"]["corpus"] == "mine.txt"
    assert run["parameters"]["corpus_sha256"] == files.sha256(text)
    assert str(tmp_path) not in json.dumps(run) and "private" not in json.dumps(run)


def commit_all(project, message):
    if not (project.root / ".git").is_dir():
        git(project.root, "init")
        write_text(project.root / ".gitignore", "reports\n")
    git(project.root, "add", ".")
    git(project.root, "commit", "--allow-empty", "-m", message)


@pytest.mark.parametrize("with_git", [False, True])
@pytest.mark.parametrize(
    "name", ["lib/a.py", "notebooks/01-data.ipynb", "tests/test_a.py", "Makefile", "pyproject.toml"]
)
def test_evidence_ends_with_any_change_of_what_it_is_about(project, name, with_git):
    """With git the tree is dirty; without it nothing else tells two states apart."""
    path = write_text(project.root / name, "one")
    if with_git:
        commit_all(project, "one")
        path.write_text("two")
    evidence.write(project, "test", True)
    assert evidence.read(project)["test"]["passed"]
    path.write_text("three")
    assert evidence.read(project)["test"] is None
    path.write_text("two" if with_git else "one")
    assert evidence.read(project)["test"]["passed"]


def test_what_runs_leave_does_not_end_evidence(project):
    evidence.write(project, "test", True)
    write_text(project.reports / "quick" / "run.json", "{}")
    write_text(project.reports / "reference" / "index.html", "a page")
    assert evidence.read(project)["test"]["passed"]


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"name": "test", "passed": true}'])
def test_damaged_evidence_is_none(project, text):
    write_text(evidence.folder(project) / "test.json", text)
    assert evidence.read(project)["test"] is None


def test_a_state_is_told_by_its_commit_or_by_its_sources(project):
    first = revision.state(project.root)
    assert first["commit"] == "unknown" and len(first["sources"]) == 64
    commit_all(project, "one")
    clean = revision.state(project.root)
    assert len(clean["commit"]) == 40 and clean["sources"] is None and not clean["dirty"]
    write_text(project.root / "pyproject.toml", '[project]\nversion = "2"\n')
    dirty = revision.state(project.root)
    assert dirty["dirty"] and dirty["sources"] != first["sources"]
    run = provenance.write_run(project, project.reports / "quick", resolve(project.notebooks))
    assert {key: run[key] for key in dirty} == dirty


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
    counts = f'tests="9" failures="{failures}" errors="0" skipped="1"'
    write_text(junit, f"<testsuites><testsuite {counts}/></testsuites>")
    if percent is not None:
        write_json(coverage, {"totals": {"percent_covered": percent, "num_branches": 5}})
    row = evidence.from_pytest(project, [junit], coverage)
    assert (
        row["passed"] is passed
        and row["tests"] == 9
        and row["skipped"] == 1
        and row["coverage_percent"] == percent
    )
