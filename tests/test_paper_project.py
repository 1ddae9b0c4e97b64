"""Folders, stages, and what a run is called."""

from pathlib import Path

import pytest

from paper import project as module
from paper.project import Project, slug
from paper_project import make_project


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
    assert first.startswith("quick-mi-quijote-") and len(first.rsplit("-", 1)[1]) == 8
    text.write_text("de la Mancha")
    assert project.run_dir({"profile": "quick", "corpus": str(text)}).name != first
    assert slug("¿?") == "text"


def test_a_named_corpus_is_tagged_by_its_hashes(project):
    (project.root / "data").mkdir()
    (project.root / "data" / "corpora.toml").write_text(f'[tiny]\nsha256 = "{"a" * 64}"\n')
    assert project.corpus_file("tiny") is None and project.corpus_tag("tiny").startswith("tiny-")
    with pytest.raises(
        FileNotFoundError,
        match="'nix' is neither a text file nor a known name: give a path, or one of tiny",
    ):
        project.corpus_tag("nix")


def test_a_relative_corpus_is_looked_for_where_the_caller_is_first(project, tmp_path):
    for folder in (project.root, tmp_path):
        (folder / "a.txt").write_text("x")
    assert project.corpus_file("a.txt", tmp_path) == tmp_path / "a.txt"
    assert project.corpus_file("a.txt") == Path(project.root / "a.txt")
