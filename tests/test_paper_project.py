"""Folders, stages, and what a run is called."""

import re
from pathlib import Path

import pytest

from paper import project as module
from paper.files import write_text
from paper.names import slug
from paper.project import Chapter, ChapterError, Project, declared, in_order
from paper_project import PARAMETERS, make_project, write_notebook


@pytest.fixture
def project(tmp_path):
    return Project(make_project(tmp_path / "p"))


def test_the_root_is_found_from_below_and_else_from_the_package(project, tmp_path, monkeypatch):
    assert Project.find(project.notebooks).root == project.root
    assert (Project.find(tmp_path).root / "lib" / "minitransformer").is_dir()  # this checkout
    monkeypatch.setattr(
        module, "__file__", str(tmp_path / "site" / "minitransformer" / "report" / "project.py")
    )
    with pytest.raises(FileNotFoundError, match="no project above"):
        Project.find(tmp_path)


def test_only_chapters_that_exist_are_stages(project):
    assert project.stages == ("01-data", "02-train", "report")
    assert project.upstream("report") == ("01-data", "02-train") and project.upstream(
        "02-train"
    ) == ("01-data",)
    assert project.upstream("99-mine") == ()


def test_paths_inside_the_project_do_not_name_the_machine(project, tmp_path):
    assert project.relative(project.reports / "x") == "reports/x"
    assert project.relative(tmp_path / "x") == str(tmp_path / "x")


def test_runs_of_different_corpora_have_different_folders(project, tmp_path):
    text = tmp_path / "Mi quijote ñ.txt"
    text.write_text("En un lugar")
    assert project.run_dir({"profile": "paper"}).name == "paper"
    first = project.run_dir({"profile": "quick", "corpus": str(text)}).name
    assert first.startswith("quick-mi-quijote-n-") and len(first.rsplit("-", 1)[1]) == 8
    text.write_text("de la Mancha")
    assert project.run_dir({"profile": "quick", "corpus": str(text)}).name != first
    assert slug("¿?") == "text"


@pytest.mark.parametrize("where", module.CATALOGUES)
def test_a_named_corpus_is_tagged_by_its_hashes(project, where):
    write_text(project.root / where, f'[tiny]\nsha256 = "{"a" * 64}"\n')
    assert project.corpus_file("tiny") is None
    assert project.run_dir({"profile": "quick", "corpus": "tiny"}).name.startswith("quick-tiny-")
    with pytest.raises(
        FileNotFoundError,
        match="'nix' is neither a text file nor a known name: give a path, or one of tiny",
    ):
        project.run_dir({"profile": "quick", "corpus": "nix"})


def test_a_relative_corpus_is_looked_for_where_the_caller_is_first(project, tmp_path):
    for folder in (project.root, tmp_path):
        (folder / "a.txt").write_text("x")
    assert project.corpus_file("a.txt", tmp_path) == tmp_path / "a.txt"
    assert project.corpus_file("a.txt") == Path(project.root / "a.txt")


def test_a_notebook_declares_itself_and_that_is_all_a_chapter_needs(project):
    write_notebook(project.notebook("03-mine"), PARAMETERS, needs=["02-train"], targets=["mine"])
    write_notebook(project.notebook("A1-appendix"), PARAMETERS, needs=["01-data"])
    again = Project(project.root)
    assert again.stages == ("01-data", "02-train", "03-mine", "A1-appendix", "report")
    assert again.chapters == again.stages[:-1] == again.upstream("report")
    assert again.targets["mine"] == "03-mine" and again.targets["A1-appendix"] == "A1-appendix"
    assert again.upstream("03-mine") == ("01-data", "02-train")


def test_a_copy_and_a_scratch_notebook_are_no_chapters(project):
    text = project.notebook("02-train").read_text()
    changed = text.replace('"needs": [', '"needs": ["nothing-such",')
    assert changed != text
    project.notebook("02-train-Copy1").write_text(changed)
    project.notebook("scratch").write_text('{"cells": [], "metadata": {}}')
    assert Project(project.root).stages == ("01-data", "02-train", "report")


@pytest.mark.parametrize(
    "chapters, message",
    [
        ([("01-a", ["02-b"]), ("02-b", [])], "01-a needs 02-b, which comes after it: number it"),
        ([("01-a", ["01-a"])], "01-a needs 01-a, which comes after it"),
        ([("01-a", ["00-x"])], "01-a needs 00-x, which is no chapter"),
        ([("01-a", ["report"]), ("report", ["*"])], "01-a needs report, which comes after it"),
    ],
)
def test_what_a_chapter_needs_comes_before_it(chapters, message):
    with pytest.raises(ChapterError, match=message):
        in_order([Chapter(name, tuple(needs)) for name, needs in chapters])


def test_a_target_has_one_owner():
    found = [Chapter("01-a", targets=("x",)), Chapter("02-b", targets=("x",))]
    with pytest.raises(ChapterError, match="01-a and 02-b both claim the target x"):
        in_order(found)


def test_the_committed_chapters_need_what_they_read():
    """`nb.require(stage)` asks for what the notebook declares, or for what that needs itself."""
    project = Project.find(Path(__file__).parent)
    for name in project.stages:
        text = project.notebook(name).read_text(encoding="utf-8")
        asked = set(re.findall(r'nb\.require\(\\?"([^"\\]+)', text))
        assert asked <= set(project.upstream(name)), name
        assert declared(project.notebook(name)) == project.declared[name]
    assert project.targets["tokenize"] == "01-data" and project.targets["run"] == "report"
