"""A run for every point of a grid, each in its folder, a failing one named while the others go on,
and one table of all."""

import csv
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from paper import __main__ as command
from paper import sweep, targets
from paper.files import write_json, write_text
from paper_project import PARAMETERS, write_notebook

HERE = []  # the commands of points that were run in this process


def main(*arguments):
    return command.main([str(a) for a in arguments])


def in_this_process(words, root, tell=None):
    """`sweep.attempt` where notebooks are not really run; lr 2 fails."""
    HERE.append(words)
    if "lr=2" in words:
        return "02-train: ValueError: lr 2 is bad"
    assert words[:3] == (sys.executable, "-m", "paper")
    return "" if main(*words[3:]) == 0 else "failed"


@pytest.fixture
def grid(project, monkeypatch):
    HERE.clear()
    monkeypatch.setattr(sweep, "attempt", in_this_process)
    monkeypatch.setattr(targets, "cores", lambda: 1)  # one process cannot be two of them at once
    return write_text(project.root / "my grid.yaml", "profile: quick\nlr: [1, 2]\nseed: [3, 4]\n")


def table(project, name="sweep-my-grid"):
    with open(project.reports / name / "sweep.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_point_is_a_run_and_a_failing_one_is_named_at_the_end(
    project, grid, capsys, monkeypatch
):
    times = iter([0, 30, 60, 90, 120])
    monkeypatch.setattr(sweep, "time", SimpleNamespace(monotonic=lambda: next(times)))
    assert main("sweep", "--grid", grid) == 1
    said = capsys.readouterr()
    assert "[1/4] profile=quick lr=1 seed=3: done; about 1 min 30 s left\n" in said.out
    assert "2 of 4 points failed (profile=quick lr=2 seed=3: 02-train: ValueError" in said.err
    assert "reports/sweep-my-grid/index.html, and the same command tries these again" in said.err
    assert "[4/4] profile=quick lr=2 seed=4: 02-train: ValueError: lr 2 is bad\n" in said.out
    rows = table(project)
    assert [(r["lr"], r["seed"], r["state"]) for r in rows] == [
        ("1", "3", "done"),
        ("1", "4", "done"),
        ("2", "3", "failed"),
        ("2", "4", "failed"),
    ]
    folder = project.reports / "sweep-my-grid"
    page = (folder / "index.html").read_text(encoding="utf-8")
    for row in rows:
        there = (folder / row["run"] / "index.html").is_file()
        assert there == (row["state"] == "done") == (f'href="{row["run"]}/index.html"' in page)
    assert "lr 2 is bad" in page and "<script" not in page and len({r["run"] for r in rows}) == 4


def test_it_goes_on_where_it_stopped_and_runs_nothing_twice(project, grid):
    ran = project.__dict__["ran"]
    main("sweep", "--grid", grid)
    before, again = len(ran), [words[words.index("--into") + 1] for words in HERE]
    write_text(grid, "profile: quick\nlr: [1]\nseed: [3, 4, 5]\n")
    assert main("sweep", "--grid", grid) == 0
    assert len(ran) == before + 3  # of the new point only
    assert [words[words.index("--into") + 1] for words in HERE][4:6] == again[:2]


def test_the_table_holds_headline_and_claims(project, grid, monkeypatch):
    def measured(words, root, tell=None):
        folder = sweep.Path(words[words.index("--into") + 1])
        write_json(folder / "headline.json", [{"label": "Test <perplexity>", "value": 30.5}])
        rows = [{"id": "gap", "measured": 0.25}, {"id": "same", "measured": "abc"}]
        write_json(folder / "claims.json", [row | {"seed_value": None} for row in rows])
        return ""

    monkeypatch.setattr(sweep, "attempt", measured)
    monkeypatch.setattr(sweep, "audited", lambda row: False)
    assert main("sweep", "--grid", grid) == 0
    first = table(project)[0]
    assert (first["Test <perplexity>"], first["gap"], "same" in first) == ("30.5", "0.25", False)
    page = (project.reports / "sweep-my-grid" / "index.html").read_text(encoding="utf-8")
    assert "Test &lt;perplexity&gt;" in page and "<td" in page and ">gap<" not in page


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed: [1]\n", "parameter sed = '1' is unknown: did you mean seed?"),
        ("seed: [1, x]\n", "seed = 'x' is text, and a whole number is expected"),
        ("seed: []\n", "seed of the grid has no values: give name: [a, b]"),
        ("profile: [quick, quik]\n", "profile 'quik' is unknown"),
        ("target: [nothing]\n", "of the grid is not one of"),
        ("corpus: [none.txt]\n", "corpus 'none.txt' is neither a text file nor a known name"),
        ("- 1\n", "holds a list, not `name: value` lines"),
        (None, "grid my grid.yaml does not exist: give a YAML file"),
    ],
)
def test_what_no_run_could_be_given_is_told_before_any_runs(project, grid, capsys, text, message):
    grid.unlink() if text is None else write_text(grid, text)
    assert main("sweep", "--grid", grid.name) == 2
    assert message in capsys.readouterr().err and not HERE


def test_a_grid_is_asked_for(project, capsys):
    assert main("sweep") == 2
    assert "sweep needs a grid: give GRID=file.yaml" in capsys.readouterr().err


def test_a_list_parameter_takes_lists(project, grid):
    write_text(grid, "profile: quick\nsizes: [[1, 2], [3]]\ntarget: train\n")
    assert main("sweep", "--grid", grid, "--set", "seed=8") == 0
    given = [[w for w in words if w.startswith(("sizes", "seed"))] for words in HERE]
    assert given == [["seed=8", "sizes=1,2"], ["seed=8", "sizes=3"]]
    assert [words[3] for words in HERE] == ["train", "train"]


def test_a_point_is_a_process_whose_last_line_says_what_was_wrong(tmp_path, capfd):
    say = "import sys; print('begun'); print('error: it broke', file=sys.stderr); sys.exit(3)"
    found = sweep.attempt((sys.executable, "-c", say), str(tmp_path), sys.stdout)
    assert found == "it broke" and "  begun" in capfd.readouterr().out
    die = "import os; print('again', flush=True); os.kill(os.getpid(), 9)"
    assert sweep.attempt((sys.executable, "-c", die), str(tmp_path), sys.stdout) == "again"
    assert capfd.readouterr().out.count("  again") == 2  # once more, and no more
    once = f"import os, pathlib\nfile = pathlib.Path({str(tmp_path / 'once')!r})\n" + (
        "if not file.exists(): file.touch(), os.kill(os.getpid(), 9)"
    )
    assert sweep.attempt((sys.executable, "-c", once), str(tmp_path)) == ""
    assert sweep.attempt((sys.executable, "-c", "print(1)"), str(tmp_path)) == ""


@pytest.fixture
def busy(project, grid, monkeypatch):
    """How many points of four cores are at work at most, and what each was given."""
    monkeypatch.setattr(targets, "cores", lambda: 4)
    seen, now, lock = {"most": 0, "begun": 0, "jobs": set(), "told": set()}, [], threading.Lock()

    def attempt(words, root, tell=None):
        with lock:
            now.append(words)
            seen["begun"] += 1
            seen["most"] = max(seen["most"], len(now))
            given = words[words.index("--jobs") + 1] if "--jobs" in words else None
            seen["jobs"].add(given), seen["told"].add(tell)
        time.sleep(0.3)
        with lock:
            now.remove(words)
        return "it broke" if "lr=2" in words else ""

    monkeypatch.setattr(sweep, "attempt", attempt)
    return seen


@pytest.mark.parametrize(
    ("words", "most", "jobs"),
    [((), 4, "1"), (("--workers", "2"), 2, "1"), (("--workers", "1"), 1, None),
     (("--workers", "3", "--jobs", "2"), 3, "2")],
)  # fmt: skip
def test_as_many_points_run_at_once_as_is_said_or_the_cores_allow(
    project, grid, busy, capsys, words, most, jobs
):
    assert main("sweep", "--grid", grid, *words) == 1
    told = {sys.stdout if most == 1 else None}
    assert busy == {"most": most, "begun": 4, "jobs": {jobs}, "told": told}
    assert [row["state"] for row in table(project)] == ["done", "done", "failed", "failed"]
    assert "2 of 4 points failed" in capsys.readouterr().err


def test_points_that_measure_times_run_one_after_another(project, grid, busy):
    needs = {"needs": ["01-data"], "targets": ["speed"], "timed": ["a.csv"]}
    write_notebook(project.notebook("03-speed"), PARAMETERS, "1", **needs)
    for profile, target, most in (
        ("paper", "speed", 1), ("paper", "data", 4), ("quick", "speed", 4)
    ):  # fmt: skip
        busy["most"] = 0
        write_text(grid, f"profile: {profile}\ntarget: {target}\nseed: [1, 2, 3, 4, 5]\n")
        assert main("sweep", "--grid", grid, "--workers", "4") == 0
        assert busy["most"] == most


def test_a_number_of_points_that_is_none_is_refused(project, grid, capsys):
    assert main("sweep", "--grid", grid, "--workers", "two") == 2
    assert "WORKERS = 'two' is no number of points: give 1 or more" in capsys.readouterr().err


def test_after_an_interrupt_no_point_more_begins(project, grid, busy, monkeypatch):
    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "write_table", interrupted)
    assert main("sweep", "--grid", grid, "--workers", "1") == 130
    assert busy["begun"] <= 2  # of four


def test_without_dask_a_scheduler_is_refused(project, grid, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main("sweep", "--grid", grid, "--scheduler", "tcp://127.0.0.1:8786") == 2
    assert 'install the extra with pip install ".[scale]"' in capsys.readouterr().err


def test_a_dask_cluster_runs_the_points(project, grid, monkeypatch):
    distributed = pytest.importorskip("distributed", reason="the extra scale is not installed")
    options = {"processes": False, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(1, **options) as cluster:
        assert main("sweep", "--grid", grid, "--scheduler", cluster.scheduler_address) == 1
    assert [row["state"] for row in table(project)] == ["done", "done", "failed", "failed"]
