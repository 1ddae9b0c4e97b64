"""What a reader sees while what a notebook reads is made: never silence."""

import io
import sys

from paper import waiting
from paper.files import write_json
from paper.project import Project
from paper_project import make_project


def test_the_estimate_is_what_the_last_runs_took(tmp_path):
    project = Project(make_project(tmp_path))
    assert waiting.usual(project, "02-train") == waiting.USUAL_S["02-train"]
    for run, seconds in (("quick", 30.0), (".cache/run-a", 40.4), (".cache/run-b", 90.0)):
        write_json(project.reports / run / ".stages" / "02-train.json", {"seconds": seconds})
    write_json(project.reports / "paper" / ".stages" / "02-train.json", {"seconds": 900.0})
    assert waiting.usual(project, "02-train") == 40


def test_it_says_what_is_made_and_how_long_and_gives_signs_of_life(tmp_path, capsys, monkeypatch):
    """Also without a terminal (no bar), and to the terminal behind papermill's captured output."""
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setattr(waiting, "SIGN_S", 0)
    project, terminal = Project(make_project(tmp_path)), io.StringIO()
    told = waiting.Waiting(project, ["01-data", "02-train"], terminal)
    with told:
        told.tell("[1/2] 01-data done in 3 s")
        told.tell("[2/2] 02-train ...")
        told._done.wait(1.5)
    for text in (capsys.readouterr().out, terminal.getvalue()):
        assert text.startswith("first 01-data, 02-train at these parameters, about 31 s")
        assert "02-train: 1 s so far" in text


def test_a_bar_moves_where_there_is_one(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    with waiting.Waiting(Project(make_project(tmp_path)), ["01-data"]) as told:
        told._done.wait(1.2)
    captured = capsys.readouterr()
    assert "01-data: 1 of about 6 s" in captured.out and not captured.err


def test_the_terminal_of_a_kernel_is_found_only_where_there_is_one(monkeypatch):
    assert waiting.terminal_of_kernel() is None
    with open(sys.executable, "rb") as file:
        stream = type("Stream", (), {"_original_stdstream_copy": file.fileno()})()
        monkeypatch.setattr(sys, "stderr", stream)
        assert waiting.terminal_of_kernel() is None
