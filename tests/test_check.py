"""check.py: what it runs, in which order, and that whatever fails fails the whole. Every program is
a script that writes down how it was called."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("check", ROOT / "check.py")
check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check)

PROGRAM = """import os, sys
words = " ".join(sys.argv[1:])
with open("called", "a") as called:
    print(os.environ.get("COVERAGE_FILE", ""), os.environ["OMP_NUM_THREADS"], words, file=called)
print("said by", words)
sys.exit(bool(os.environ["FAILS"]) and os.environ["FAILS"] in words)
"""
ALL = {  # a part of what is run, by words of its command
    "ruff check", "ruff format", "not pipeline", "paper report", "--nbval-lax", "-m pipeline",
    "tests/test_native_a.py", "coverage combine", "coverage json", "coverage report",
    "native --required", "paper evidence",
}  # fmt: skip


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Runs check.py where the command that holds the words `fails` does; (its status, every call,
    what it printed)."""
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "tests").mkdir()
    for name in ("test_native_a", "test_studies_b", "test_other"):
        (tmp_path / "tests" / f"{name}.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(check, "ROOT", tmp_path)
    monkeypatch.setattr(check, "PYTHON", [sys.executable, "program.py"])

    def run(fails="", options=()):
        monkeypatch.setenv("FAILS", fails)
        monkeypatch.setattr(sys, "argv", ["check.py", *options])
        status = check.main()
        return status, (tmp_path / "called").read_text().splitlines(), capfd.readouterr().out

    return run


def test_everything_is_run_on_one_thread_each_and_style_comes_first(run):
    status, called, said = run(options=["-x"])
    assert status == 0 and len(called) == len(ALL)
    assert all(sum(words in line for line in called) == 1 for words in ALL)
    assert "ruff check" in called[0] and "ruff format" in called[1]
    assert "paper evidence" in called[-1] and ".cache/junit-pipeline.xml" in called[-1]
    assert {line.split()[0] for line in called if "--cov " in line} == {
        f".coverage.{name}" for name in check.PARTS
    }
    assert all(" 1 " in line for line in called)
    assert all(" -x" in line for line in called if " pytest " in line)
    (apart,) = [line for line in called if "test_native_a.py" in line]
    assert "test_studies_b.py" in apart and "test_other.py" not in apart
    places = [said.index(words) for words in ("[1/3]", "[2/3]", "paper report", "[3/3]")]
    assert places == sorted(places)  # what ran beside the tests is told when they are over


def test_without_an_engine_no_share_of_lines_is_asked(run):
    asked = "coverage report --fail-under=0"
    for fails, left in (("native --required", True), ("", False)):
        status, called, _ = run(fails)
        assert status == 0 and any(asked in line for line in called[-len(ALL) :]) is left


@pytest.mark.parametrize("fails", sorted(ALL - {"native --required"}))
def test_whatever_fails_fails_the_whole(run, fails):
    status, called, _ = run(fails)
    assert status == 1
    if not fails.startswith(("ruff", "coverage")):  # the others have run, and it is told
        left_out = {"--nbval-lax"} if fails == "paper report" else set()
        assert len(called) == len(ALL - left_out)


def test_what_runs_beside_the_tests_is_ended_with_them(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "PYTHON", [sys.executable, "-c"])
    sleeping, never = (["import time; time.sleep(60)"], ()), (["raise SystemExit(9)"], ())
    beside = check.Beside(tmp_path / "log", [[sleeping, never], [never]])
    beside.start()
    while beside.running is None:
        beside.join(0.01)
    beside.stop()
    beside.join(20)
    assert not beside.is_alive() and beside.running.returncode not in (0, 9, None)
