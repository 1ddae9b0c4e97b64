"""What each make target does, with the kernels left out."""

import json
import runpy
import sys
from types import SimpleNamespace

import pytest

from paper import __main__ as command
from paper import evidence, execution, idempotence, pack, runner, targets
from paper.files import read_json, write_json, write_text
from paper.parameters import resolve
from paper.project import Project
from paper.warm import POSSIBLE
from paper_project import PARAMETERS, write_notebook


def main(*arguments):
    return command.main([str(a) for a in arguments])


def test_a_report_runs_every_chapter_once(project, capsys):
    ran, run_dir = project.__dict__["ran"], project.reports / "quick"
    assert main("report", "--profile", "quick") == 0
    assert ran == ["01-data", "02-train", "report"]
    assert [row["id"] for row in read_json(run_dir / "claims.json")] == ran
    assert read_json(run_dir / "run.json")["profile"] == "quick"
    assert (run_dir / "index.html").read_text() == "<p>3" and "index.html" in (
        run_dir / "HASHES.txt"
    ).read_text()
    assert (project.root / "dist" / "model.tar.gz").is_file()
    out = capsys.readouterr().out
    assert "[2/3] 02-train done in" in out and out.strip().endswith("reports/quick/index.html")
    hashes = (run_dir / "HASHES.txt").stat().st_mtime_ns
    assert main("report", "--profile", "quick") == 0
    assert len(ran) == 3 and (run_dir / "HASHES.txt").stat().st_mtime_ns == hashes
    (run_dir / "claims" / "02-train.json").unlink()
    assert main("report", "--profile", "quick") == 0
    assert ran[3:] == ["02-train"]  # it came out equal, so nothing after it runs again


def test_the_reports_chapter_and_page_are_made_again_when_the_evidence_changes(project):
    main("report", "--profile", "quick")
    page = project.reports / "quick" / "index.html"
    page.write_text("old")
    main("report", "--profile", "quick")
    assert page.read_text() == "<p>3"  # a page that something else wrote is none
    made = page.stat().st_mtime_ns
    main("report", "--profile", "quick")
    assert page.stat().st_mtime_ns == made
    evidence.write(project, "verify", True)
    main("report", "--profile", "quick")
    assert project.__dict__["ran"] == ["01-data", "02-train", "report", "report"]
    assert (project.reports / "quick" / "index.html").read_text() == "<p>4"


def test_a_target_runs_what_it_needs_and_parameters_arrive(project, capsys):
    assert main("tokenize", "--set", "seed=9", "--set", "salt=0012", "--set", "lr=1e-3") == 0
    assert project.__dict__["ran"] == ["01-data"]
    given = read_json(project.reports / "paper" / "01-data.json")
    assert (given["seed"], given["salt"], given["lr"], given["profile"]) == (
        9,
        "0012",
        0.001,
        "paper",
    )
    assert given["run_dir"] == "reports/paper"
    assert (
        capsys.readouterr().out.endswith("reports/paper: 01-data is current\n")
        and not (project.root / "dist").exists()
    )


def test_the_folder_of_corpora_starts_there_too_and_is_no_dependency(project, tmp_path):
    notebook = project.notebook("01-data")
    notebook.write_text(
        notebook.read_text().replace("seed = 42", 'corpora_dir = \\"\\"\\nseed = 42')
    )
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        assert (
            main(
                "data", "--profile", "quick", "--caller", tmp_path, "--set", f"corpora_dir={folder}"
            )
            == 0
        )
    given = read_json(project.reports / "quick" / "01-data.json")["corpora_dir"]
    assert given == (tmp_path / "a").as_posix()
    assert "corpora_dir" not in read_json(project.reports / "quick" / "run.json")["parameters"]
    assert project.__dict__["ran"] == ["01-data"]


@pytest.mark.parametrize("name", ["nowhere", "~nobody-here/x", "pyproject.toml"])
def test_a_folder_that_is_none_is_refused_before_anything_runs(project, capsys, name):
    given = "--profile", "quick", "--caller", project.root, "--set", f"corpora_dir={name}"
    assert main("data", *given) == 2
    told = f"error: CORPORA_DIR = {name!r} is no folder: give one that is there\n"
    assert capsys.readouterr().err == told and not project.__dict__["ran"]


def test_a_relative_corpus_starts_from_the_callers_folder(project, tmp_path):
    caller = tmp_path / "mis textos"
    caller.mkdir()
    (caller / "canción ñ.txt").write_text("la la")
    assert (
        main("data", "--profile", "quick", "--caller", caller, "--set", "corpus=canción ñ.txt") == 0
    )
    run_dir = next(project.reports.glob("quick-cancion-n-*"))
    copy = f"reports/{run_dir.name}/.corpus/canción ñ.txt"
    assert read_json(run_dir / "01-data.json")["corpus"] == copy
    assert (project.root / copy).read_text() == "la la"
    run = read_json(run_dir / "run.json")
    assert run["parameters"]["corpus"] == "canción ñ.txt" and "mis textos" not in json.dumps(run)
    assert run["parameters"]["corpus_sha256"].startswith(run_dir.name.rsplit("-", 1)[1])
    (project.root / "data").mkdir()
    (project.root / "data" / "corpora.toml").write_text("[tiny]\n")
    assert main("data", "--profile", "quick", "--set", "corpus=tiny") == 0
    assert (
        read_json(next(project.reports.glob("quick-tiny-*")) / "01-data.json")["corpus"] == "tiny"
    )


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        (["--set", "sed=3"], 2, "parameter sed = '3' is unknown: did you mean seed?"),
        (["--set", "seed"], 2, "--set seed is not NAME=VALUE"),
        (["--set", "seed=x"], 2, "seed = 'x' is text, and a whole number is expected"),
        (["--profile", "papr"], 2, "profile 'papr' is unknown"),
        (
            ["--set", "corpus=nix.txt"],
            2,
            "corpus 'nix.txt' is neither a text file nor a known name",
        ),
    ],
)
def test_bad_parameters_are_one_line_and_nothing_runs(project, capsys, arguments, status, message):
    assert main("train", *arguments) == status
    err = capsys.readouterr().err
    assert (
        err.startswith("error: ")
        and message in err
        and err.count("\n") == 1
        and not project.__dict__["ran"]
    )
    assert not project.reports.exists()


@pytest.mark.parametrize("jobs", ["0", "-1", "two", "1.5", "²", "99999"])
def test_a_number_of_chapters_at_once_that_is_none_is_refused(project, capsys, jobs):
    assert main("train", f"--jobs={jobs}") == 2 and not project.__dict__["ran"]
    assert capsys.readouterr().err == (
        f"error: JOBS = {jobs!r} is no number of chapters: give 1 or more, or leave it out\n"
    )


@pytest.mark.parametrize(
    "profile, threads, given, jobs, room",
    [
        ("quick", 1, None, 4, 4),
        ("quick", 2, None, 2, 2),
        ("quick", 9, None, 1, 1),
        ("quick", 1, 9, 9, 4),
        ("paper", 2, None, 2, 1),
        ("paper", 2, 1, 1, 1),
    ],
)
def test_chapters_run_side_by_side_as_cores_profile_and_jobs_have_it(
    project, monkeypatch, profile, threads, given, jobs, room
):
    monkeypatch.setattr(targets, "cores", lambda: 4)
    write_notebook(project.notebook("03-speed"), PARAMETERS, "1", timed=["a.csv"])
    order = ["01-data", "02-train", "03-speed", "report"]
    params = {"profile": profile, "threads": threads}
    rules = targets.side_by_side(project, params, order, given)
    assert (rules.jobs, rules.room, rules.timed) == (jobs, room, {"03-speed"})
    assert rules.needs == {
        "01-data": (),
        "02-train": ("01-data",),
        "03-speed": (),
        "report": ("01-data", "02-train", "03-speed"),
    }


def test_the_check_that_the_project_names_refuses_before_anything_runs(
    project, capsys, monkeypatch, tmp_path
):
    pyproject = project.root / "pyproject.toml"
    pyproject.write_text('[tool.paper]\npreflight = "toy_preflight:check"\n')
    (tmp_path / "toy_preflight.py").write_text(
        "def check(params, stages, folder):\n"
        "    if params['steps'] < 1:\n"
        "        raise ValueError('steps 0 trains nothing: give at least 1')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert main("train", "--set", "steps=0") == 2
    assert capsys.readouterr().err == "error: steps 0 trains nothing: give at least 1\n"
    assert not project.reports.exists()
    assert main("train", "--set", "steps=1") == 0


def test_a_target_that_does_not_exist_is_named_with_the_closest(project, capsys):
    assert main("ablations") == 2
    assert "error: target 'ablations' is unknown: " in capsys.readouterr().err
    assert main("reprot") == 2
    assert capsys.readouterr().err == ("error: target 'reprot' is unknown: did you mean report?\n")


def test_the_traceback_is_printed_only_with_the_debug_switch(project, capsys, monkeypatch):
    assert (
        main("train", "--set", "sed=3", "--debug") == 2 and "Traceback" in capsys.readouterr().err
    )

    def fail(*_, **__):
        raise execution.CellError("02-train: ValueError: bad", "the cell's own traceback")

    monkeypatch.setattr(runner, "run_stage", fail)
    monkeypatch.setenv("DEBUG", "1")
    assert main("train") == 1 and "the cell's own traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error, status, message",
    [
        (KeyboardInterrupt(), 130, "interrupted: what was finished is kept"),
        (
            execution.KernelDied("02-train: the kernel died"),
            138,
            "error: 02-train: the kernel died",
        ),
        (OSError(28, "No space left on device"), 1, "free some disk space"),
        (PermissionError(13, "Permission denied", "x"), 1, "make the folder writable"),
        (OSError(122, "Disk quota exceeded"), 1, "your quota is used up"),
        (OSError(30, "Read-only file system"), 1, "make the folder writable"),
        (RuntimeError(), 1, "error: RuntimeError"),
        (RuntimeError("a\n  b\x1b[2J\udcff"), 1, "error: a b\\x1b[2J\\udcff\n"),
        (RuntimeError("x" * 4000), 1, "error: " + "x" * 59 + "…" + "x" * 59 + "\n"),
    ],
)
def test_every_failure_has_its_status_and_one_line(
    project, capsys, monkeypatch, error, status, message
):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(runner, "run_stage", fail)
    assert main("train") == status
    assert message in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_the_module_runs_as_a_command(project, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", "train", "--set", "sed=3"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("paper", run_name="__main__")
    assert end.value.code == 2


def test_pack_and_verify(project, capsys):
    assert (
        main("pack", "--profile", "quick") == 1
        and "no finished run: run make report PROFILE=quick" in capsys.readouterr().err
    )
    main("report", "--profile", "quick")
    assert main("pack", "--profile", "quick") == 0 and main("verify", "--profile", "quick") == 0
    path = next((project.root / "dist").glob("mini-transformer-quick-v*.gz"))
    first = path.read_bytes()
    assert main("pack", "--profile", "quick") == 0 and path.read_bytes() == first
    path.write_bytes(first[:-1] + bytes([first[-1] ^ 1]))
    assert main("verify", "--profile", "quick") == 1 and "was changed" in capsys.readouterr().err
    row = read_json(project.reports / "evidence" / "verify.json")
    assert (row["passed"], row["run"]) == (False, "quick")


def test_a_notebook_dropped_in_is_run_kept_compared_ordered_and_offered(
    project, capsys, monkeypatch
):
    said = {"needs": ["02-train"], "targets": ["mine"], "timed": ["03-mine.json"]}
    write_notebook(project.notebook("03-mine"), PARAMETERS, "1", **said)
    ran, run_dir = project.__dict__["ran"], project.reports / "quick"
    assert main("mne") == 2 and "did you mean mine?" in capsys.readouterr().err
    assert main("mine", "--profile", "quick") == 0 and ran == ["01-data", "02-train", "03-mine"]
    assert main("mine", "--profile", "quick") == 0 and len(ran) == 3
    assert main("report", "--profile", "quick") == 0 and ran[3:] == ["report"]
    order = ["01-data", "02-train", "03-mine", "report"]
    assert [row["id"] for row in read_json(run_dir / "claims.json")] == order
    assert list(read_json(run_dir / "run.json")["durations_s"]) == order

    for name in ("01-data", "02-train", "report"):  # parameters tell the two folders apart
        monkeypatch.setitem(
            idempotence.VARIES, "model/config.json" if "2" in name else f"{name}.json", "told"
        )
    capsys.readouterr()
    assert main("test-idem") == 0
    out = capsys.readouterr().out
    assert "not compared: 03-mine.json (03-mine says that it depends on measured times)\n" in out
    assert "figures/03-mine.csv" not in out  # compared, and equal
    project.notebook("03-mine").unlink()
    assert main("mine", "--profile", "quick") == 2


def test_the_epoch_comes_from_the_environment(project, monkeypatch, capsys):
    assert pack.source_date() == pack.EPOCH
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert pack.source_date() == 86400
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    assert main("train") == 2 and "SOURCE_DATE_EPOCH = 'yesterday'" in capsys.readouterr().err


def test_the_corpus_is_made_again_and_compared(project, capsys, monkeypatch):
    monkeypatch.setattr(idempotence, "CORPUS", ("01-data.json", "figures/*"))
    before = idempotence.compare
    seen = {}

    def compare(first, second, only):
        a, b = (read_json(folder / "01-data.json") for folder in (first, second))
        write_json(second / "01-data.json", {**b, "run_dir": a["run_dir"], **seen})
        return before(first, second, only)

    monkeypatch.setattr(idempotence, "compare", compare)
    assert main("verify-corpus", "--profile", "quick") == 0
    assert "corpus verified: 2 files of reports/quick made again" in capsys.readouterr().out
    seen["seed"] = 43
    assert main("verify-corpus", "--profile", "quick") == 1
    assert "reports/quick is not what its parameters make: 01-data.json" in capsys.readouterr().err
    assert read_json(project.reports / "evidence" / "verify-corpus.json")["differ"] == [
        "01-data.json"
    ]


def test_two_runs_are_compared(project, capsys, monkeypatch):
    monkeypatch.setitem(idempotence.VARIES, "*.json", "says where it ran")
    assert main("test-idem") == 0
    out = capsys.readouterr().out
    assert (
        "not compared: run.json (says when and how long)" in out
        and "idempotent: 3 artefacts equal to the byte" in out
    )
    assert (
        project.__dict__["ran"] == ["01-data", "02-train", "report"] * 2
        and not (project.root / "dist").exists()
    )
    idempotence.VARIES.pop("*.json")
    assert (
        main("test-idem") == 1
        and "two equal runs differ in 01-data.json" in capsys.readouterr().err
    )
    assert read_json(project.reports / "evidence" / "test-idem.json")["passed"] is False


def test_notebooks_are_committed_executed_at_the_quick_size(project, capsys):
    assert main("notebooks", "--profile", "quick") == 0
    book = read_json(project.notebook("02-train"))
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [1, 2] and [c["id"] for c in code] == [
        "parameters",
        "cell-0",
    ]
    assert code[1]["outputs"][0]["execution_count"] == 2
    count = len(project.__dict__["ran"])
    assert main("report", "--profile", "quick") == 0
    # outputs are no dependency; only the summing chapter says which state of the project this is
    assert project.__dict__["ran"][count:] == ["report"]


def test_the_outcome_of_the_tests_is_recorded(project, tmp_path, capsys):
    write_text(tmp_path / "junit.xml", '<testsuite tests="3" failures="1" errors="0" skipped="0"/>')
    assert (
        main(
            "evidence",
            "--profile",
            "quick",
            "--junit",
            tmp_path / "junit.xml",
            "--coverage",
            tmp_path / "none.json",
        )
        == 0
    )
    assert capsys.readouterr().out == "3 tests, 1 failed, coverage 0.0 %\n"


def test_a_folder_that_cannot_be_written_is_named_before_anything_runs(tmp_path):
    (tmp_path / "reports").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="^reports/quick cannot be written .*: make it writable"):
        targets.check_folder(Project(tmp_path), tmp_path / "reports" / "quick")


def test_a_nearly_full_disk_is_named_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(targets.shutil, "disk_usage", lambda _: SimpleNamespace(free=5 * 2**20))
    with pytest.raises(OSError, match="5 MiB are free on its disk: free 64 MiB or more"):
        targets.check_folder(Project(tmp_path), tmp_path)


@pytest.mark.parametrize("profile", ["quick", "paper"])
def test_kernels_start_warm_in_every_profile(project, profile, monkeypatch):
    given = []
    monkeypatch.setattr("paper.warm.serve", lambda preload, inherited: given.append(preload))
    params = {**resolve(project.notebooks), "profile": profile}
    assert not targets.started(project, params, project.root / "run").warm and not given
    write_text(project.root / "pyproject.toml", '[tool.paper]\npreload = ["wave"]\n')
    known = Project(project.root)
    assert targets.started(known, params, project.root / "run").warm == POSSIBLE
    assert given == [("wave",)] * POSSIBLE


def test_kernels_are_being_warmed_while_the_parameters_are_checked(project, monkeypatch):
    """Both import for seconds; the first kernel waits for whichever takes longer."""
    order = []
    monkeypatch.setattr("paper.warm.serve", lambda *_: order.append("serve"))
    monkeypatch.setattr(targets, "preflight", lambda *_: order.append("check") or [])
    monkeypatch.setattr("paper.warm.POSSIBLE", True)
    write_text(project.root / "pyproject.toml", '[tool.paper]\npreload = ["wave"]\n')
    main("data", "--profile", "quick")
    assert order[:2] == ["serve", "check"]
