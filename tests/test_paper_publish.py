"""`make publish` with a toy project: what it runs, refuses, says and copies."""

import subprocess
from pathlib import Path

import pytest
from PIL import Image

from paper import __main__ as command
from paper import companions, evidence, idempotence, picture, publish, readme
from paper.files import read_json, write_json, write_text
from paper.project import Project
from paper.revision import state

TILE = {
    "label": "Speed-up",
    "value": 3.68,
    "unit": "×",
    "interval": [3.2, 4.2],
    "limit_text": "roofline 42×",
    "bar": "≥ 3.4×",
    "verdict": "undecided",
    "seed_text": "",
}
TEST = """
from pathlib import Path
from paper import evidence
from paper.project import Project
found = dict(tests=3, failures=0, errors=0, skipped=0, coverage_percent=99.0)
evidence.write(Project(Path.cwd()), "test", {passed}, **found)
open("count.txt", "a").write("x")
raise SystemExit({status})
"""


@pytest.fixture
def toy(project, monkeypatch):
    """The toy project, whose tests are a command that leaves evidence, and whose equal runs are
    equal."""
    for name in ("01-data", "report"):  # they write the folder that they ran in
        monkeypatch.setitem(idempotence.VARIES, f"{name}.json", "says where it ran")
    monkeypatch.setitem(idempotence.VARIES, "model/config.json", "says where it ran")
    monkeypatch.setattr(idempotence, "CORPUS", ("figures/01-*",))
    write_text(project.root / "README.md", f"before\n{readme.START}\nold\n{readme.END}\nafter\n")
    tests_that(project)
    return project


def tests_that(project, passed=True, status=0):
    write_text(project.root / "t.py", TEST.format(passed=passed, status=status))
    lines = '[project]\n[tool.paper]\ntest = ["python", "t.py"]\n'  # of this environment
    write_text(project.root / "pyproject.toml", lines)


def run(*more):
    return command.main(["publish", "--profile", "quick", *more])


def times_tested(project):
    path = project.root / "count.txt"
    return len(path.read_text()) if path.is_file() else 0


def test_every_gate_that_is_lacking_runs_once_and_the_page_is_copied(toy, capfd):
    stale = write_text(toy.reports / "reference" / "figures" / "stale.csv", "x")
    assert run() == 0
    out = capfd.readouterr().out.splitlines()
    assert out[0] == (
        "publish reports/quick at this state: test (not timed yet), verify-corpus (not timed yet), "
        "test-idem (not timed yet), verify (not timed yet), 01-data (not timed yet), "
        "02-train (not timed yet), page (not timed yet); about 0 s and what was not timed"
    )
    begun = [line.removeprefix("publish: ") for line in out if line.startswith("publish: ")]
    assert begun == list(publish.GATES)
    reference = toy.reports / "reference"
    names = {p.relative_to(reference).as_posix() for p in reference.rglob("*") if p.is_file()}
    assert names == {
        *companions.ALWAYS,
        *(f"figures/{name}.csv" for name in ("01-data", "02-train", "report")),
        *(f"{name}.ipynb" for name in ("01-data", "02-train", "report")),
    }
    assert (
        not stale.exists()
        and (reference / "index.html").read_bytes()
        == (toy.reports / "quick" / "index.html").read_bytes()
    )
    assert "| --- |" in (toy.root / "README.md").read_text()


def test_what_has_passed_at_this_state_is_not_run_again(toy, capfd):
    readme_before = (toy.root / "README.md").read_bytes()
    assert run() == 0 and times_tested(toy) == 1
    (toy.root / "README.md").write_bytes(readme_before)  # as a commit: the copy is not of the state
    capfd.readouterr()
    assert run() == 0 and times_tested(toy) == 1
    first = capfd.readouterr().out.splitlines()[0]
    assert first.startswith("publish reports/quick at this state: page (") and "test" not in first
    write_text(toy.root / "README.md", readme_before.decode() + "changed")
    assert run() == 0 and times_tested(toy) == 2
    assert "test-idem (" in capfd.readouterr().out and seconds(toy)["test"] > 0


def seconds(project):
    return read_json(publish.seconds_file(project))


@pytest.mark.parametrize("passed, status", [(False, 0), (True, 3)])
def test_a_gate_that_fails_refuses_unless_it_is_said(toy, capfd, passed, status):
    tests_that(toy, passed, status)
    assert run() == 1
    assert "not published, because test fails: " in capfd.readouterr().err
    assert not (toy.reports / "reference" / "index.html").exists()
    assert run("--anyway") == 0
    assert "publish: test fails and the page will say so" in capfd.readouterr().out
    assert (toy.reports / "reference" / "index.html").exists()


def test_a_command_that_is_not_there_is_named(toy, capfd):
    write_text(toy.root / "pyproject.toml", '[tool.paper]\ntest = ["no-such-program"]\n')
    assert run() == 1 and "no-such-program cannot be run" in capfd.readouterr().err


def test_evidence_about_another_run_is_none(toy):
    now = state(toy.root)
    for gate in publish.GATES:
        evidence.write(toy, gate, True, run="paper")
    assert publish.lacking(toy, Path("reports/quick")) == list(publish.GATES)
    assert publish.lacking(toy, Path("reports/paper")) == [] and state(toy.root) == now
    evidence.write(toy, "test", False, run="paper")
    assert publish.lacking(toy, Path("reports/paper")) == ["test"]


def test_a_state_that_no_commit_holds_is_refused(toy, capfd):
    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", str(toy.root), *who, *arguments], check=True)

    git("init", "-q")
    git("add", "-A", ":!reports", ":!.cache")
    git("commit", "-q", "-m", "first")
    write_text(toy.root / "requirements.lock", "torch==0\n")
    assert run() == 1 and times_tested(toy) == 0
    assert "1 tracked files differ from the commit (requirements.lock)" in capfd.readouterr().err
    publish.refuse_changes(toy, anyway=True)
    git("commit", "-q", "-a", "-m", "second")
    publish.refuse_changes(toy, anyway=False)


def test_copying_gives_the_readme_its_table(tmp_path):
    project, run_dir = Project(tmp_path), tmp_path / "reports" / "quick"
    write_json(run_dir / "headline.json", [TILE])
    with pytest.raises(FileNotFoundError, match="index.html is missing: run make report"):
        publish.copy(project, run_dir)
    for name in companions.ALWAYS:
        write_text(run_dir / name, "{}")
    write_json(run_dir / "run.json", {"durations_s": {"a": 90.0, "b": 30.0}})
    write_text(tmp_path / "README.md", f"{readme.START}\nold\n{readme.END}\n")
    assert publish.copy(project, run_dir) == list(companions.ALWAYS)
    text = (tmp_path / "README.md").read_text()
    assert (
        "| Speed-up | 3.7× [3.2, 4.2] | roofline 42× | ≥ 3.4× | undecided | – |" in text
        and "old" not in text
    )
    assert "The committed run took 2 minutes. Its headline:" in text


def test_the_readme_shows_the_picture_of_the_published_run_and_no_older_one(tmp_path, monkeypatch):
    project, run_dir = Project(tmp_path), tmp_path / "reports" / "quick"
    page, shot = tmp_path / "README.md", tmp_path / picture.PLACE
    write_text(page, f"{readme.START}\nold\n{readme.END}\n")
    for name in companions.ALWAYS:
        write_text(run_dir / name, "<p>the page</p>" if name == "index.html" else "{}")

    def published(commit):
        write_json(run_dir / "run.json", {"commit": commit, "executed": "2026-11-26T16:31:03Z"})
        publish.copy(project, run_dir)
        return page.read_text(), picture.run_of(shot)

    def chromium(command, **options):
        target = next(word for word in command if word.startswith("--screenshot="))
        Image.new("RGB", (8, 8), "white").save(target.partition("=")[2])

    monkeypatch.setattr(subprocess, "run", chromium)
    monkeypatch.setattr(picture, "browser", lambda: "chromium")
    text, shown = published("a1")
    assert readme.SHOWN not in text and shown == "" and not shot.exists()  # none was wanted
    publish.take_picture(project)
    assert page.read_text().count(readme.SHOWN) == 1
    text, shown = published("b2")
    assert text.count(readme.SHOWN) == 1 and shown.startswith("b2 2026-11-26T")
    assert text.replace(readme.SHOWN, "").startswith(f"{readme.START}\nIts headline:")
    monkeypatch.setattr(picture, "browser", lambda: None)
    text, shown = published("c3")
    assert readme.SHOWN not in text and shown.startswith("b2 ")  # it is older than the table
    with pytest.raises(RuntimeError, match="chromium is not installed"):
        publish.take_picture(project)
