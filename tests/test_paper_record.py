"""What a run recorded: claims, the command that makes it again, provenance, limits, who made it."""

import subprocess

import pandas as pd
import pytest

from claim_rows import own_row
from paper import about, companions, derived, prose, record
from paper.claims import audit_row, seed_claims
from paper.files import write_json, write_text
from paper.project import Project
from paper_project import make_project
from report import limits
from report.headline import Fact

LUCK = pd.DataFrame({"seed": [1, 2, 3], "valid_nats": [3.9, 4.0, 4.1]})
PAST = {"commit": "a" * 40, "dirty": True, "commits": 3, "unnamed": 0}
RUN = {
    "profile": "paper",
    "parameters": {"profile": "paper", "lr": 0.001, "seed": 7, "quant_tokens": 60, "corpus": ""},
    "machine": {"cpu": "Some CPU", "cores": 2, "gpu": None, "python": "3.12.1"},
    "threads": 2,
    "versions": {"torch": "2.13.0", "numpy": None, "onnx": "1.2", "gguf": None},
    "durations_s": {"01-data": 16.2},
    "keys": {"01-data": "0123456789abcdef", "report": "f" * 40},
}
SPLITS = {"train": {"tokens": 1000}, "test": {"tokens": 100}}
CORPUS = {"kind": "language", "name": "language", "splits": SPLITS, "floor_perplexity": 24.86}


@pytest.fixture
def project(tmp_path):
    return Project(make_project(tmp_path / "p"))


def test_claims_and_artefacts_are_read_in_the_chapters_order(project, tmp_path):
    run = project.reports / "quick"
    write_json(run / "claims" / "02-train.json", [{"id": "b"}])
    write_json(run / "claims" / "01-data.json", [{"id": "a"}])
    write_json(run / "claims" / "report.json", [{"id": "c"}])
    assert [row["id"] for row in record.read_claims(run)] == ["a", "b"]
    assert record.read(run, "corpus.json") == {} and record.table(run, "no.csv").empty
    write_json(run / "corpus.json", CORPUS)
    write_text(run / "a.csv", "n,x\n1,2\n")
    assert record.read(run, "corpus.json") == CORPUS
    assert record.table(run, "a.csv").to_dict("records") == [{"n": 1, "x": 2}]


@pytest.mark.parametrize(
    "changed, command",
    [
        ({}, "make report PROFILE=paper"),
        ({"seed": 9}, "python -m paper report --profile paper --set seed=9"),
        (
            {"corpus": "a b.txt", "sizes": [1, 2]},
            "python -m paper report --profile paper --set 'corpus=a b.txt' --set 'sizes=[1,2]'",
        ),
        ({"salt": "a b"}, "python -m paper report --profile paper --set 'salt=a b'"),
    ],
)
def test_the_command_that_makes_a_run_again(project, changed, command):
    parameters = {**RUN["parameters"], **changed}
    assert record.made_by(project, {**RUN, "parameters": parameters}) == command


def test_a_run_without_a_profile_or_with_one_that_is_gone(project):
    assert record.made_by(project, {}) == "make report"
    assert record.made_by(project, {"profile": "gone"}) == "make report PROFILE=gone"


def test_provenance_names_command_machine_versions_and_text(project):
    table = record.provenance(project, RUN, PAST, CORPUS)
    told = dict(zip(table["what"], table["value"], strict=True))
    assert told["made by"] == "make report PROFILE=paper" and told["processor"] == "Some CPU"
    assert told["commit"] == "a" * 12 + " with changes" and told["accelerator"] == "none"
    assert told["corpus tokens"] == "1,100" and told["libraries"] == "torch 2.13.0"
    assert told["compared with"] == "onnx 1.2"


def test_chapters_are_listed_with_bars_and_statements():
    rows = [
        {**own_row("a", "A", 1), "notebook": "01-data"},
        {**audit_row(seed_claims(), "S1-blocks", 1), "notebook": "01-data"},
    ]
    table = record.chapters(RUN, rows)
    assert table.iloc[0].tolist() == ["01-data", 16.2, 1, 1, "0123456789ab"]
    assert table["chapter"].tolist() == ["01-data"], "its own run has not ended"


def test_the_limit_of_each_kind_of_source_is_its_own():
    texts = {
        kind: limits.source_limit({"kind": kind}) for kind in ("language", "text", "uniform", None)
    }
    assert (
        len(set(texts.values())) == 4
        and "synthetic" in texts["language"]
        and "synthetic" not in texts["text"]
    )


def test_limits_say_what_the_run_cannot_and_why_numbers_differ():
    found = {"parameters": Fact(456_556), "perplexity": Fact(30.59), "floor": Fact(24.83)}
    formats = pd.DataFrame({"format": ["fp32", "int8"], "perplexity": [30.42, 30.5]})
    text = limits.limits(RUN, CORPUS, found, formats, LUCK)
    heads = [line.partition(".**")[0].removeprefix("- **") for line in text.splitlines()]
    assert heads == [
        *("Scale", "Source", "One training", "One machine", "Profile"),
        *("Numbers that look alike", "Not available", "No accelerator"),
    ]
    assert "A model of 456,556 parameters" in text and "Some CPU (2 cores, 2 threads" in text
    assert "30.59, is of the whole test split; formats are compared on its first 60 tokens" in text
    assert "less than 0.61 nats between two" in text  # √2 · 0.1 · t(0.975; 2)
    assert "3 shorter trainings" in text and "by 0.100 nats" in text and "10.5 % of" in text
    assert "30.42" in text and "in closed form is 24.86" in text and "reaches 24.83" in text
    assert "trained for seconds" not in text and "side by side" not in text
    busy = {**RUN, "side_by_side": {"04-kv-bench": ["A1-cache"], "A1-cache": ["04-kv-bench"]}}
    text = prose.inline(limits.limits(busy, CORPUS, found, formats, LUCK))
    assert "Chapters ran side by side (04-kv-bench, A1-cache; run.json says which" in text


def test_what_was_measured_apart_on_a_gpu_is_not_called_unexamined():
    found = {"parameters": Fact(1)}
    none = limits.limits(RUN, CORPUS, found, pd.DataFrame(), LUCK, pd.DataFrame())
    kept = limits.limits(RUN, CORPUS, found, pd.DataFrame(), LUCK, pd.DataFrame({"ms": [1]}))
    assert "CUDA kernels was not examined" in none and "not examined" not in kept
    assert "This run had none. What a GPU gives was measured apart" in kept


def test_limits_of_a_quick_run_of_a_text_on_an_accelerator():
    run = {**RUN, "profile": "quick", "machine": {"gpu": "X"}}
    corpus = {"kind": "text", "splits": SPLITS}
    text = limits.limits(run, corpus, {"parameters": Fact(1)}, pd.DataFrame(), LUCK[:1])
    assert "trained for seconds" in text and "No accelerator" not in text
    assert "was trained once" in text and "shorter trainings" not in text
    assert "Numbers that look alike" not in text and "One text, split by position" in text


def test_who_made_it_is_what_pyproject_says(tmp_path):
    assert about.about(tmp_path)["authors"] == "" and about.about(tmp_path)["original"] == {}
    write_text(
        tmp_path / "pyproject.toml",
        '[project]\nauthors = [{name = "A B"}, {email = "c@d.e"}]\nlicense = "MIT"\n'
        '[project.urls]\nRepository = "https://x.org/y"\n[tool.paper]\ncourse = "C"\n',
    )
    found = about.about(tmp_path)
    assert (found["authors"], found["licence"], found["course"]) == ("A B", "MIT", "C")
    assert found["repository"] == "https://x.org/y"
    assert about.about(Project.find().root)["original"]["date"] == "2025-10-16"


@pytest.mark.parametrize(
    ("remote", "page"),
    [
        ("https://x.org/a/b.git", "https://x.org/a/b"),
        ("https://me:secret@x.org:8443/a/b.git/", "https://x.org:8443/a/b"),
        ("http://x.org/b", "http://x.org/b"),
        ("git@x.org:a/b.git", "https://x.org/a/b"),
        ("x.org:a/b", "https://x.org/a/b"),
        ("ssh://git@x.org:22/a/b", "https://x.org/a/b"),
        *((private, "") for private in ("", "/srv/b.git", "../b", "file:///srv/b", "C:/b")),
        *((private, "") for private in ("box:b", "ssh://10.0.0.1/b", "git@git.lan:b")),
        *((f"http://{host}/b", "") for host in ("localhost:1", "[", "x.org:z")),
    ],
)
def test_a_remote_has_a_public_address_or_none(remote, page):
    assert about.address(remote) == page


def test_without_an_address_of_its_own_the_repository_is_gits_origin(tmp_path):
    write_text(tmp_path / "pyproject.toml", "[project]\n")
    git = ["git", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "--quiet"], check=True)
    assert about.about(tmp_path)["repository"] == ""
    subprocess.run([*git, "remote", "add", "origin", "git@x.org:a/b.git"], check=True)
    assert about.about(tmp_path)["repository"] == "https://x.org/a/b"
    write_text(tmp_path / "pyproject.toml", '[project.urls]\nSource = "https://y.org"\n')
    assert about.about(tmp_path)["repository"] == "https://y.org"


def test_a_page_is_made_again_where_its_repository_gets_an_address(project):
    before = derived.page_key(project, project.reports / "quick")
    assert before == derived.page_key(project, project.reports / "quick")
    text = (project.root / "pyproject.toml").read_text("utf-8")
    write_text(
        project.root / "pyproject.toml", f'{text}\n[project.urls]\nSource = "https://y.org"\n'
    )
    assert derived.page_key(project, project.reports / "quick") != before


def test_companions_are_what_is_published(tmp_path):
    for name in ("a.csv", "tables/b.csv", "01-x.ipynb", "01-x.failed.ipynb", "model/w.bin"):
        write_text(tmp_path / name, "x" * 1500)
    for name in (".work/c.csv", ".02-y.part.ipynb"):  # what a killed execution leaves
        write_text(tmp_path / name, "x")
    assert companions.published(tmp_path) == [
        *companions.ALWAYS,
        *("01-x.ipynb", "a.csv", "tables/b.csv"),
    ]
    groups = companions.listed(tmp_path)
    assert [(head, [it["path"] for it in files]) for head, files in groups] == [
        ("Executed notebooks", ["01-x.ipynb"]),
        ("Claims and provenance", ["HASHES.txt"]),
        ("Results", ["a.csv"]),
        ("Tables", ["tables/b.csv"]),
    ]
    (entry,) = groups[3][1]
    assert (entry["anchor"], entry["size"]) == ("file-tables-b.csv", "2 kB")
    assert len(entry["sha"]) == 12 and groups[1][1][0]["sha"] == ""
