"""The runner: notebooks whole or not at all, with real kernels where it matters."""

import os
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from paper import execution, provenance, runner, stages, targets
from paper.__main__ import main
from paper.files import read_json, write_text
from paper.notebook import OUT
from paper.parameters import resolve
from paper.project import Project
from paper.warm import POSSIBLE, environment, serve
from paper_project import PARAMETERS, SETTING, make_project, write_notebook


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project whose first two chapters have run, with HOME unwritable for the kernels."""
    root = make_project(tmp_path_factory.mktemp("project"))
    project = Project(root)
    run_dir = project.reports / "quick"
    home = os.environ.get("HOME", "")
    os.environ["HOME"] = "/proc/nowhere"
    try:
        for stage in ("01-data", "02-train"):
            runner.run_stage(project, stage, resolve(project.notebooks), run_dir)
    finally:
        os.environ["HOME"] = home
    return project, run_dir


@pytest.fixture
def project(finished, tmp_path):
    """A copy of it, to break."""
    shutil.copytree(finished[0].root, tmp_path / "p")
    return Project(tmp_path / "p")


def bytes_of(run_dir):
    return {
        p.relative_to(run_dir): p.read_bytes()
        for p in run_dir.rglob("*")
        if p.is_file() and ".work" not in p.parts and not p.name.endswith(".failed.ipynb")
    }


def test_a_stage_leaves_artefacts_an_executed_notebook_and_a_stamp(finished):
    project, run_dir = finished
    stamp = stages.read_stamp(run_dir, "02-train")
    assert (
        set(stamp["artefacts"]) == {"02-train.ipynb", "model/config.json"} and stamp["seconds"] > 0
    )
    assert read_json(run_dir / "model" / "config.json") == {"seed": 42, "steps": 3}
    assert stages.current(project, "02-train", resolve(project.notebooks), run_dir)
    assert not list(run_dir.glob(".*part*")) and not list((run_dir / ".work").iterdir())


def test_an_executed_notebook_holds_no_paths_times_or_random_ids(finished):
    project, run_dir = finished
    text = (run_dir / "02-train.ipynb").read_text()
    assert (
        str(project.root) not in text and '"papermill": {' not in text and "start_time" not in text
    )
    book = nbformat.reads(text, as_version=4)
    assert [c.id for c in book.cells] == ["title", "parameters", "injected-parameters", "cell-0"]
    assert book.cells[-1].outputs[0].text == "trained\n"
    nbformat.validate(book)


BAD = (67, execution.CellError, "^02-train: ValueError: steps 67 is bad: give 3$")
DIED = "^02-train: the kernel died, probably out of memory: close other programs"
DEAD = (66, execution.KernelDied, DIED)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("steps, error, message", [BAD, DEAD])
def test_a_failure_leaves_what_was_there_before_whole(project, steps, error, message, warm):
    if warm and not POSSIBLE:
        pytest.skip("this system forks no kernels")
    if warm:
        serve((), {})
    run_dir, params = project.reports / "quick", resolve(project.notebooks, given={"steps": steps})
    before, kernels = bytes_of(run_dir), execution.Kernels(warm)
    with pytest.raises(error, match=message):
        runner.run_stage(project, "02-train", params, run_dir, kernels=kernels)
    assert bytes_of(run_dir) == before and (run_dir / "02-train.failed.ipynb").is_file()
    assert stages.current(project, "02-train", resolve(project.notebooks), run_dir)


def test_the_command_tells_a_full_disk_in_one_line_and_recovers(project, monkeypatch, capsys):
    monkeypatch.chdir(project.root)
    (project.reports / "quick" / "02-train.failed.ipynb").write_text("{}")
    assert main(["train", "--profile", "quick", "--set", "steps=68"]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert (
        len(lines) == 1
        and "02-train: OSError: [Errno 28] No space left on device: free some disk space"
        in lines[0]
    )
    assert main(["train", "--profile", "quick", "--set", "steps=4"]) == 0
    assert not (project.reports / "quick" / "02-train.failed.ipynb").exists()
    assert read_json(project.reports / "quick" / "model" / "config.json")["steps"] == 4


MEETING = """
import sys, time
assert ("wave" in sys.modules) == warm and os.path.basename(os.getcwd()) == "notebooks"
(out / f"{name}.pid").write_text(str(os.getpid()))
for _ in range(600):
    if all((out.parent / stage / f"{stage}.pid").is_file() for stage in ("02-train", "03-eval")):
        break
    time.sleep(0.1)
else:
    raise TimeoutError("alone")
assert str(out).endswith(name)
time.sleep(seconds)
"""


def two_that_meet(project, seconds, warm=False):
    """02-train and 03-eval, each of which goes on only when the other has begun."""
    if warm:
        write_text(project.root / "pyproject.toml", '[tool.paper]\npreload = ["wave"]\n')
    for stage in ("02-train", "03-eval"):
        known = f"name, seconds, warm = {stage!r}, {seconds}, {warm and POSSIBLE}"
        cell = SETTING + known + MEETING
        write_notebook(project.notebook(stage), PARAMETERS, cell, needs=["01-data"])


def test_two_kernels_run_side_by_side_each_in_its_own_environment(project, capsys):
    two_that_meet(project, seconds=0)
    run_dir, params = project.reports / "quick", resolve(project.notebooks)
    before = {**os.environ}, os.getcwd()
    targets.execute(project, params, run_dir, ["01-data", "02-train", "03-eval"], jobs=2)
    assert ({**os.environ}, os.getcwd()) == before
    stamps = {s: stages.read_stamp(run_dir, s) for s in ("01-data", "02-train", "03-eval")}
    beside = {stage: stamp.get("beside") for stage, stamp in stamps.items()}
    assert beside == {"01-data": [], "02-train": ["03-eval"], "03-eval": ["02-train"]}
    assert set(stamps["03-eval"]["artefacts"]) == {"03-eval.ipynb", "03-eval.pid"}
    assert "[2/3] 02-train done in" in capsys.readouterr().out
    recorded = provenance.write_run(project, run_dir, params)["side_by_side"]
    assert recorded == {"02-train": ["03-eval"], "03-eval": ["02-train"]}


def test_one_that_fails_lets_the_other_come_to_its_end(project, capsys):
    two_that_meet(project, seconds=0)
    path = project.notebook("02-train")
    path.write_text(path.read_text().replace("time.sleep(seconds)", "1 / 0"))
    run_dir, params = project.reports / "quick", resolve(project.notebooks)
    needed = ["01-data", "02-train", "03-eval"]
    with pytest.raises(execution.CellError, match="02-train: ZeroDivisionError"):
        targets.execute(project, params, run_dir, needed, jobs=2)
    assert stages.current(project, "03-eval", params, run_dir)
    assert (run_dir / "02-train.failed.ipynb").is_file()
    assert not stages.current(project, "02-train", params, run_dir)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_ends_ends_its_kernels_and_keeps_what_was_finished(project, number):
    two_that_meet(project, seconds=60, warm=True)
    command = [sys.executable, "-m", "paper", "report", "--profile", "quick", "--jobs", "2"]
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731  a background job is born ignoring Ctrl-C
    process = subprocess.Popen(
        command,
        cwd=project.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed,
    )
    work = project.reports / "quick" / ".work"
    pids = [work / stage / f"{stage}.pid" for stage in ("02-train", "03-eval")]
    for _ in range(600):
        if all(pid.is_file() and pid.read_text() for pid in pids):
            break
        time.sleep(0.1)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert process.returncode == 130
        interrupted = "interrupted: what was finished is kept, and the same command goes on from"
        assert err.strip() == f"{interrupted} there"
    assert stages.read_stamp(project.reports / "quick", "01-data")
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            for _ in range(50):
                os.kill(int(pid.read_text()), 0)
                time.sleep(0.1)


def test_a_kernel_that_did_not_start_gets_a_second_try_and_only_one(
    finished, monkeypatch, tmp_path
):
    project, calls, message = finished[0], [], "Kernel died before replying to kernel_info"

    def execute(*_, **__):
        calls.append(1)
        raise RuntimeError(message)

    monkeypatch.setattr(execution, "execute_notebook", execute)
    with pytest.raises(RuntimeError, match="before replying"):
        runner.run_stage(project, "01-data", resolve(project.notebooks), tmp_path)
    assert len(calls) == 2 and not list(tmp_path.glob("*.failed.ipynb"))
    message = "other"
    with pytest.raises(RuntimeError, match="other"):
        runner.run_stage(project, "01-data", resolve(project.notebooks), tmp_path)
    assert len(calls) == 3


def test_a_notebook_that_was_not_run_to_its_end_is_no_success(finished, monkeypatch, tmp_path):
    project = finished[0]
    monkeypatch.setattr(
        execution, "execute_notebook", lambda source, part, **_: shutil.copy(source, part)
    )
    with pytest.raises(execution.CellError, match="01-data: cell 'parameters' was not executed"):
        runner.run_stage(project, "01-data", resolve(project.notebooks), tmp_path)
    assert (tmp_path / "01-data.failed.ipynb").is_file() and stages.read_stamp(
        tmp_path, "01-data"
    ) is None


def test_incomplete_sees_errors_and_ignores_empty_cells():
    book = new_notebook(
        cells=[
            new_markdown_cell("x"),
            new_code_cell(" "),
            new_code_cell("1", id="good", execution_count=1),
        ]
    )
    assert execution.incomplete(book) is None
    error = new_output("error", ename="E", evalue="e", traceback=[])
    book.cells.append(new_code_cell("1", id="bad", execution_count=2, outputs=[error]))
    assert execution.incomplete(book) == "cell 'bad' ended in an error"


def test_erased_progress_bars_leave_no_output():
    bar = new_output("stream", name="stderr", text="\r10%\r100%\r    \r")
    kept = new_output("display_data", {"text/plain": "x"})
    book = execution.normalise(
        new_notebook(cells=[new_code_cell("1", execution_count=1, outputs=[bar, kept])])
    )
    assert book.cells[0].outputs == [kept]


def test_an_interrupted_try_at_the_same_key_goes_on_in_its_folder_and_another_key_starts_afresh(
    tmp_path,
):
    work = runner.working_folder(tmp_path, "02-train", "k1")
    write_text(work / "checkpoint", "half")
    assert (
        runner.working_folder(tmp_path, "02-train", "k1") == work
        and (work / "checkpoint").is_file()
    )
    assert not (runner.working_folder(tmp_path, "02-train", "k2") / "checkpoint").exists()


def test_adopting_deletes_what_an_earlier_version_left(tmp_path):
    stages.write_stamp(
        tmp_path, "02-train", key="k", artefacts={"old.csv": "0", "gone.csv": "0", "same.csv": "0"}
    )
    for name in ("old.csv", "same.csv", ".work/02-train/same.csv", ".work/02-train/model/new.bin"):
        write_text(tmp_path / name, name)
    work = tmp_path / ".work" / "02-train"
    written = runner.adopt(tmp_path, "02-train", work, key="k2", params={}, seconds=1)
    assert set(written) == {"same.csv", "model/new.bin"} and stages.artefacts(tmp_path) == [
        "model/new.bin",
        "same.csv",
    ]
    assert (tmp_path / "same.csv").read_text() == ".work/02-train/same.csv"
    assert stages.read_stamp(tmp_path, "02-train")["artefacts"] == written
    assert [p.name for p in (tmp_path / ".stages").iterdir()] == ["02-train.json"]


def test_two_stages_cannot_leave_the_same_file(tmp_path):
    stages.write_stamp(tmp_path, "02-train", key="k", artefacts={"tables/control.csv": "0"})
    for name in ("tables/control.csv", ".work/03-eval/tables/control.csv"):
        write_text(tmp_path / name, name)
    with pytest.raises(
        execution.CellError, match="03-eval: tables/control.csv is left by 02-train too"
    ):
        runner.adopt(tmp_path, "03-eval", tmp_path / ".work" / "03-eval")
    assert (tmp_path / "tables" / "control.csv").read_text() == "tables/control.csv"


def test_a_kernel_inherits_the_projects_settings_and_this_process_keeps_its_own(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("PYTHONHASHSEED", "5")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    before = {**os.environ}
    project, out = Project(tmp_path), tmp_path / "work"
    live = environment(project, {"threads": 2}, out, live=True)
    assert live["PYTHONHASHSEED"] == "0" and live["OMP_NUM_THREADS"] == "2"
    assert live["IPYTHONDIR"].startswith(str(tmp_path)) and live[OUT] == str(out)
    assert not {"MPLBACKEND", "TQDM_DISABLE"} & set(live)
    silent = environment(project, {}, out, live=False)
    assert silent["TQDM_DISABLE"] == "1" and silent["OMP_NUM_THREADS"] == "1"
    assert {**os.environ} == before


def test_a_notebook_is_saved_before_its_first_cell_and_after_its_last(project, monkeypatch):
    """Not at every cell, for that encodes all its figures each time."""
    saved, write = [], papermill.engines.write_ipynb

    def count(notebook, path):
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        saved.append([bool(cell.get("execution_count")) for cell in cells])
        write(notebook, path)

    monkeypatch.setattr(papermill.engines, "write_ipynb", count)
    cells = [PARAMETERS, *(f"print({number})" for number in range(4))]
    write_notebook(project.notebook("01-data"), *cells)
    runner.run_stage(project, "01-data", resolve(project.notebooks), project.reports / "quick")
    assert saved == [[False] * 6, [True] * 6]


def test_a_warm_kernel_collects_its_garbage_but_not_what_the_server_imported(tmp_path):
    if not POSSIBLE:
        pytest.skip("this system forks no kernels")
    serve((), {})
    project = Project(make_project(tmp_path / "project"))
    cell = "import gc\nassert gc.isenabled() and gc.get_freeze_count() > 1000"
    write_notebook(project.notebook("01-data"), PARAMETERS, cell)
    params, kernels = resolve(project.notebooks), execution.Kernels(warm=True)
    runner.run_stage(project, "01-data", params, tmp_path / "run", kernels=kernels)


@pytest.mark.parametrize("warm", [False, True])
def test_a_kernel_that_takes_its_time_to_end_is_waited_for(tmp_path, warm):
    """One that is told to by a signal cleans nothing up: its semaphores are left behind."""
    if warm and not POSSIBLE:
        pytest.skip("this system forks no kernels")
    if warm:
        serve((), {})
    project, told = Project(make_project(tmp_path / "project")), tmp_path / "ended"
    last = f"lambda: (time.sleep(3), pathlib.Path({str(told)!r}).write_text(''))"
    cell = f"{SETTING}import atexit, time\natexit.register({last})"
    write_notebook(project.notebook("01-data"), PARAMETERS, cell)
    params, kernels = resolve(project.notebooks), execution.Kernels(warm)
    runner.run_stage(project, "01-data", params, tmp_path / "run", kernels=kernels)
    assert told.is_file()
