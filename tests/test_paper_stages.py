"""What a stage depends on, when it is current, and how a notebook opened alone gets what it
reads."""

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from paper import sources, stages
from paper.files import sha256, write_json, write_text
from paper.parameters import resolve
from paper.project import Project
from paper_project import make_project


@pytest.fixture
def project(tmp_path):
    return Project(make_project(tmp_path))


@pytest.fixture
def params(project):
    return resolve(project.notebooks)


def finish(project, stage, params, run_dir, **artefacts):
    """As if `stage` had run: its artefacts and its stamp."""
    for name, text in artefacts.items():
        write_text(run_dir / name, text)
    stages.write_stamp(
        run_dir,
        stage,
        key=stages.key(project, stage, params, run_dir),
        seconds=1.0,
        params=stages.stage_params(project, stage, params) | {"corpus": params["corpus"]},
        artefacts={name: sha256(run_dir / name) for name in artefacts},
    )


def test_a_finished_stage_is_current_until_something_it_depends_on_changes(
    project, params, tmp_path
):
    run = tmp_path / "run"
    assert not stages.current(project, "01-data", params, run)
    finish(project, "01-data", params, run, corpus="a b")
    assert stages.current(project, "01-data", params, run)
    assert stages.current(
        project, "01-data", params | {"steps": 9}, run
    )  # not a parameter of chapter 1
    assert not stages.current(project, "01-data", params | {"seed": 9}, run)
    finish(project, "02-train", params, run, model="w")
    assert stages.current(project, "02-train", params, run)
    (run / "model").write_text("v")
    assert not stages.current(project, "02-train", params, run)
    (run / "model").unlink()
    assert not stages.current(project, "02-train", params, run)


@pytest.mark.parametrize("what", ["source", "markdown", "lock", "upstream"])
def test_a_key_changes_with_source_lock_and_upstream_and_not_with_outputs(
    project, params, tmp_path, what
):
    run = tmp_path / "run"
    finish(project, "01-data", params, run, corpus="a b")
    before = stages.key(project, "02-train", params, run)
    path = project.notebook("02-train")
    book = json.loads(path.read_text())
    book["cells"][-1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x"}]
    path.write_text(json.dumps(book))
    assert stages.key(project, "02-train", params, run) == before
    if what == "source":
        book["cells"][-1]["source"] = "pass"
    elif what == "markdown":
        book["cells"][0]["source"] = "# Another"
    elif what == "lock":
        (project.root / "requirements.lock").unlink()
    else:
        finish(project, "01-data", params, run, corpus="b a")
    path.write_text(json.dumps(book))
    assert stages.key(project, "02-train", params, run) != before


def test_without_what_comes_before_there_is_no_key(project, params, tmp_path):
    assert stages.key(project, "02-train", params, tmp_path / "run") is None


def test_a_corpus_counts_by_its_content_not_its_path(project, params, tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("the same")

    def key(path):
        return stages.key(project, "01-data", params | {"corpus": path}, tmp_path)

    before = key(str(tmp_path / "a.txt"))
    assert key("a.txt") == before != key("b.txt")  # its name is part of the run's name
    (tmp_path / "a.txt").write_text("another")
    assert key("a.txt") != before


def test_imports_are_followed_through_the_package_and_its_lazy_root():
    found = sources.imports(
        "%matplotlib inline\nimport torch\nimport minitransformer.quant\nfrom minitransformer import generate\n"
        "from minitransformer.corpus import Batches\nfrom . import x"
    )
    assert found == {
        "minitransformer.quant",
        "minitransformer.decode",
        "minitransformer.corpus.Batches",
    }
    files = sources.library_files({"minitransformer.decode"})
    assert {"minitransformer/decode/__init__.py", "minitransformer/model.py"} <= set(
        files
    ) and "minitransformer/train/loop.py" not in files


def test_the_runner_is_no_dependency_of_a_notebook_but_figures_and_their_style_are():
    files = sources.library_files(
        sources.imports("from paper import open_notebook\nfrom paper.figures import lines")
    )
    assert {
        "paper/notebook.py",
        "paper/display.py",
        "paper/figures.py",
        "paper/figures.mplstyle",
    } <= set(files)
    assert not sources.RUN_SIDE & set(files)
    assert "paper/figures.mplstyle" not in sources.library_files({"minitransformer.model"})


def test_modules_that_are_not_ours_have_no_files():
    assert sources.files_of("minitransformer.nothing_such") == [
        sources.LIB / "minitransformer" / "__init__.py"
    ]
    assert sources.literal(sources.LIB / "minitransformer" / "model.py", "_EXPORTS") == {}


def test_a_notebook_opened_alone_reads_a_run_of_its_parameters_or_a_cache(project, params):
    run = project.reports / "quick"
    first = stages.alone(project, "01-data", params)
    assert first[0] == first[1] and first[0].parent == project.reports / ".cache"
    inputs, out = stages.alone(project, "02-train", params)
    assert inputs.parent == out.parent == project.reports / ".cache" and inputs != out
    assert (
        stages.alone(project, "02-train", params | {"steps": 9})[0] == inputs
    )  # steps is no parameter of what it reads
    assert stages.alone(project, "02-train", params | {"seed": 9})[0] != inputs
    finish(project, "01-data", params, run, corpus="a b")
    assert stages.alone(project, "02-train", params)[0] == run
    assert (
        stages.alone(project, "02-train", params | {"profile": "paper"})[0]
        == project.reports / "paper"
    )


def test_another_profile_must_have_run_at_these_parameters(project, params):
    params = params | {"profile": "paper"}
    run = project.reports / "paper"
    with pytest.raises(
        stages.StageError,
        match="reports/paper has no finished 02-train: run make train PROFILE=paper$",
    ):
        stages.ensure(project, "02-train", params, run)
    (project.root / "t.txt").write_text("x")
    with pytest.raises(stages.StageError, match="run make data PROFILE=paper CORPUS=t.txt"):
        stages.ensure(project, "01-data", params | {"corpus": "t.txt"}, run)
    finish(project, "01-data", params, run, corpus="a b")
    stages.ensure(project, "01-data", params, run)
    with pytest.raises(
        stages.StageError,
        match="holds 01-data at seed = 42, not 9: run make data PROFILE=paper at that value",
    ):
        stages.ensure(project, "01-data", params | {"seed": 9}, run)


def test_at_quick_size_what_is_missing_is_built_in_a_process_of_its_own(
    project, params, monkeypatch
):
    calls, inputs = [], project.reports / ".cache" / "run-x"

    def run(command, **options):
        calls.append(command)
        finish(project, "01-data", params, inputs, corpus="a b")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(stages.subprocess, "run", run)
    stages.ensure(project, "01-data", params, inputs)
    stages.ensure(project, "01-data", params, inputs)
    assert len(calls) == 1 and calls[0][2:7] == [
        "paper",
        "01-data",
        "--profile",
        "quick",
        "--into",
    ]
    assert "seed=42" in calls[0] and "run_dir=" not in calls[0] and "sizes=[10, 50]" in calls[0]


@pytest.mark.parametrize(
    "stderr, message",
    [("x\nerror: no space", "building 01-data failed: error: no space"), ("", "exit status 9")],
)
def test_a_failed_build_says_why(project, params, monkeypatch, stderr, message):
    done = subprocess.CompletedProcess([], 9, stderr=stderr)
    monkeypatch.setattr(stages.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(stages.StageError, match=message):
        stages.ensure(project, "01-data", params, project.reports / ".cache" / "run-x")


def test_a_lock_lets_one_in_at_a_time(tmp_path):
    inside = []

    def work(name):
        with stages.locked(tmp_path / "run"):
            inside.append(("in", name))
            time.sleep(0.05)
            inside.append(("out", name))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    assert [a[0] for a in inside] == ["in", "out"] * 3 and all(
        inside[i][1] == inside[i + 1][1] for i in (0, 2, 4)
    )


def test_failed_notebooks_are_no_artefacts(tmp_path):
    for name in ("a.json", "x.failed.ipynb", "x.ipynb"):
        write_json(tmp_path / name, 1)
    assert stages.artefacts(tmp_path) == ["a.json", "x.ipynb"]
