"""Waiting is never silent."""

import io
import time

import pytest

from paper import progress as module
from paper import stages
from paper.progress import Progress, clock
from paper.project import Project
from paper.schedule import Rules


@pytest.mark.parametrize(
    "seconds, text",
    [(0.4, "0 s"), (59, "59 s"), (60, "1 min 0 s"), (125, "2 min 5 s"), (4200, "1 h 10 min")],
)
def test_a_time_is_said_as_people_say_it(seconds, text):
    assert clock(seconds) == text


@pytest.fixture
def now(monkeypatch):
    """A clock that stands at now[0] seconds."""
    found = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: found[0])
    return found


def test_without_a_terminal_there_is_a_line_for_every_stage_and_between(now, monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(module, "EVERY_S", 0.01)
    progress = Progress({"01-data": 0.0, "02-train": 90.0, "03-eval": 30.0}, False, out)
    progress.skip("01-data")
    with progress, progress.of("02-train") as stage:
        stage.cell(4, 9, "train-model")
        now[0] += 60
        stage.write("50 %|#####     |\r")
        while out.getvalue().count("\n") < 3:
            time.sleep(0.005)
    with progress.of("03-eval"):
        now[0] += 5
    lines = out.getvalue().splitlines()
    assert lines[0] == "[2/3] 02-train ... (about 1 min 30 s; 2 min 0 s for all that is left)"
    assert lines[2] == (
        "[2/3] 02-train: 4 of 9 cells, now train-model, 1 min 0 s, about 1 min 0 s left in all"
    )
    assert "[2/3] 02-train done in 60.0 s" in lines
    assert "[3/3] 03-eval ... (about 30 s; 30 s for all that is left)" in lines
    assert lines[-1] == "[3/3] 03-eval done in 5.0 s" and "\r" not in out.getvalue()


def test_what_nobody_knows_is_not_guessed(now):
    out = io.StringIO()
    progress = Progress({"01-data": None, "02-train": 9.0}, False, out)
    with progress.of("01-data"):
        assert progress.status() == "[1/2] 01-data: starting, 0 s"
    assert out.getvalue().startswith("[1/2] 01-data ... (its time is not known yet)\n")
    with progress.of("02-train"):
        now[0] += 20  # longer than the last time
        assert progress.status().endswith("starting, 20 s, longer than last time")


def test_two_at_once_share_a_line_and_the_time_left_knows_that_they_do(now):
    out = io.StringIO()
    rules = Rules({"01-data": (), "02-train": (), "03-eval": ("01-data", "02-train")}, jobs=2)
    progress = Progress({"01-data": 20.0, "02-train": 60.0, "03-eval": 5.0}, False, out, rules)
    with progress.of("01-data") as first, progress.of("02-train") as second:
        now[0] += 10
        first.cell(1, 3, "make")
        second.cell(2, 9, "train-model")
        assert progress.status() == (
            "[1/3] 01-data: 1 of 3 cells; [2/3] 02-train: 2 of 9 cells, about 55 s left in all"
        )
        progress.failing("01-data", ["02-train"])
    assert out.getvalue().splitlines()[:2] == [
        "[1/3] 01-data ... (about 20 s; 1 min 5 s for all that is left)",
        "[2/3] 02-train ... (about 1 min 0 s; 1 min 5 s for all that is left)",
    ]
    failed = "[1/3] 01-data failed: the run ends when 02-train has come to an end"
    assert out.getvalue().splitlines()[2] == failed


def test_a_stage_that_fails_is_not_done(now):
    out = io.StringIO()
    progress = Progress({"01-data": None}, False, out)
    with pytest.raises(KeyboardInterrupt), progress.of("01-data"):
        raise KeyboardInterrupt
    assert "done" not in out.getvalue()


def test_on_a_terminal_one_line_holds_the_run_and_the_kernels_own_bar(now, monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(module, "REDRAW_S", 60)
    monkeypatch.setenv("COLUMNS", "100")
    progress = Progress({"01-data": 10.0}, True, out)
    with progress.of("01-data") as stage:
        stage.cell(1, 3, "make")
        stage.write("\rsteps: 10%\rsteps: 50%")
        drawn = out.getvalue().rpartition("\x1b[2K")[2]
        stage.write("\r          \ra warning\nsteps: 60%")
        stage.flush()
    assert drawn == (
        "[1/1] 01-data: 1 of 3 cells, now make, 0 s, about 10 s left in all steps: 50%"
    )
    assert "\r\x1b[2Ka warning\n\r\x1b[2K[1/1] 01-data: 1 of 3" in out.getvalue()
    assert max(len(line) for line in out.getvalue().split("\x1b[2K")) < 100 + len("\r\n") + 40
    assert out.getvalue().endswith("\r\x1b[2K[1/1] 01-data done in 0.0 s\n")


def test_the_time_of_a_stage_is_that_of_the_last_run_here_or_at_this_profile(tmp_path):
    project = Project(tmp_path)
    here = project.reports / "quick-mine-12345678"
    assert stages.expected(project, "02-train", here) is None
    about = {"key": "k", "params": {}, "artefacts": {}}
    stages.write_stamp(project.reports / "quick", "02-train", seconds=7.0, **about)
    stages.write_stamp(project.reports / "paper", "02-train", seconds=900.0, **about)
    assert stages.expected(project, "02-train", here) == 7.0
    stages.write_stamp(here, "02-train", seconds=9.0, **about)
    assert stages.expected(project, "02-train", here) == 9.0
