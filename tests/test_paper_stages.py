"""What a stage depends on, and when it is current."""

import json

import pytest

from paper import sources, stages
from paper.files import write_json
from paper.parameters import resolve
from paper.project import Project
from paper_project import PARAMETERS, finish, make_project, write_notebook


@pytest.fixture
def project(tmp_path):
    return Project(make_project(tmp_path))


@pytest.fixture
def params(project):
    return resolve(project.notebooks)


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


def test_a_bar_that_changes_is_judged_again_and_others_are_not(
    project, params, tmp_path, monkeypatch
):
    path = tmp_path / "bars.toml"
    monkeypatch.setattr(stages.bars, "BARS", path)
    bar = (
        '[[bar]]\nid = "{}"\nstatement = "s"\nrule = "exact"\nwritten = 2026-01-01\n'
        'op = ">"\nvalue = {}\n'
    )
    monkeypatch.setattr(stages.bars.read, "__defaults__", (path,))
    mine = PARAMETERS, 'nb.bar("mine", 3)'
    write_notebook(project.notebook("01-data"), *mine, targets=["data"])

    def key(of_mine, of_another):
        path.write_text(bar.format("mine", of_mine) + bar.format("another", of_another))
        return stages.key(project, "01-data", params, tmp_path / "run")

    assert key(1, 1) == key(1, 2) != key(2, 2)


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


def test_names_are_followed_through_packages_to_the_files_that_define_them():
    found = sources.imports(
        "%matplotlib inline\nimport torch\nimport minitransformer.quant\n"
        "from minitransformer import generate, bench\n"
        "from minitransformer.corpus import Batches\n"
        "from minitransformer.checkpoint import save\nfrom . import x"
    )
    assert found == {
        "minitransformer.quant",
        "minitransformer.decode.generation",
        "minitransformer.bench",
        "minitransformer.corpus.batches",
        "minitransformer.checkpoint",  # save is defined in the package itself
    }
    files = sources.library_files({"minitransformer.decode.generation"})
    assert "minitransformer/model.py" in files and "minitransformer/cache/__init__.py" in files
    assert not [
        f
        for f in files
        if f.startswith(("minitransformer/train", "minitransformer/d"))
        and f.endswith(("__init__.py", "loop.py", "scheduler.py"))
    ]
    whole = sources.library_files({"minitransformer.bench"})  # a module: any name of it may be used
    assert {"minitransformer/bench/__init__.py", "minitransformer/bench/timing.py"} <= {*whole}


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
    assert sources.file_of("minitransformer.nothing_such") is None
    assert sources.library_files({"torch", "minitransformer.nothing_such"}) == {}
    assert sources.imports("from minitransformer import nothing_such") == {"minitransformer"}
    assert sources.literal(sources.LIB / "minitransformer" / "model.py", "_EXPORTS") == {}


def test_failed_notebooks_are_no_artefacts(tmp_path):
    for name in ("a.json", "x.failed.ipynb", "x.ipynb"):
        write_json(tmp_path / name, 1)
    assert stages.artefacts(tmp_path) == ["a.json", "x.ipynb"]


def test_a_chapter_runs_again_where_what_it_lacked_is_there(project, tmp_path, monkeypatch):
    """One that finds all that it looks for has the key of one that looks for nothing."""
    looks = {"03-none": [], "04-here": ["pathlib", "sys|nowhere"], "05-lacks": ["nowhere|another"]}
    for name, finds in looks.items():
        write_notebook(project.notebook(name), PARAMETERS, "pass", finds=finds)
    usual = resolve(project.notebooks)

    def keys():
        return [stages.key(project, name, usual, tmp_path / "run") for name in looks]

    none, here, lacks = keys()
    assert none == here != lacks
    monkeypatch.setattr(stages.shutil, "which", lambda name: name == "another" or None)
    assert keys() == [none] * 3


OUTSIDE = {
    "folders": ["clone"],
    "sees": ["data/*/*.txt"],
    "reads": ["reports/long/**/*"],
    "writes": ["keeps"],
}


def test_a_chapter_depends_on_what_it_says_that_it_reads_outside_a_run(project, tmp_path):
    path, more = project.notebook("03-texts"), 'clone = ""  # a folder\nkeeps = False  # whether\n'
    write_notebook(path, PARAMETERS + more, "pass", **OUTSIDE)
    usual = resolve(project.notebooks)

    def key(stage="03-texts", **given):
        return stages.key(project, stage, usual | given, tmp_path / "run")

    keys, another = [key(), key(clone="here")], key("01-data")
    assert key(clone="there") == keys[1]  # a folder of this machine counts by being given
    (project.root / "data" / "book").mkdir(parents=True)
    text = project.root / "data" / "book" / "book.txt"
    text.write_text("a")
    keys.append(key())
    text.write_text("b")  # its name counts
    assert key() == keys[-1]
    kept = project.reports / "long" / "seed" / "texts.csv"
    kept.parent.mkdir(parents=True)
    for content in "ab":
        kept.write_text(content)
        keys.append(key())
    assert len({*keys}) == len(keys) and key("01-data") == another
    kept.write_text("c")
    assert key(keeps=True) not in keys
    before = key(keeps=True)
    kept.write_text("d")
    assert key(keeps=True) == before and stages.outside(project, "01-data", usual) == {}
    assert "clone" not in stages.stage_params(project, "03-texts", usual)
