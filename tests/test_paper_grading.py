"""The grading sheet, and what the original report says of its own process."""

import subprocess
from pathlib import Path

import pytest

from claim_rows import own_row
from paper import grading, sources
from paper.claims import audit_row, seed_claims
from paper.project import Project
from paper.sources import LIB

LEDGER = seed_claims()
PAST = {"commits": 12, "unnamed": 0, "bare": 0, "commit": "b" * 40}
TESTS = {"tests": 1234, "failures": 0, "errors": 0, "skipped": 2, "coverage_percent": 97.84}


def made_at(**rows):
    made = {"commit": "a" * 40, "dirty": False, "when": "2026-01-01T00:00:00Z"}
    return {
        name.replace("_", "-"): row and {"name": name.replace("_", "-"), **made, **row}
        for name, row in rows.items()
    }


EVIDENCE = made_at(
    test={"passed": True, **TESTS},
    test_idem={"passed": True, "equal": 60, "varies": ["run.json"], "differ": []},
    verify_corpus={
        "passed": False,
        "compared": 4,
        "differ": ["corpus.txt"],
        "dirty": True,
        "run": "quick",
    },
    verify=None,
)


def test_the_sheet_shows_outcome_evidence_section_and_commit():
    rows = [
        {**own_row("a", "A", 1, True), "notebook": "02-train"},
        {**own_row("b", "B", 1, False), "notebook": "02-train"},
        {**audit_row(LEDGER, "S1-blocks", 1), "notebook": "02-train"},
    ]
    sheet = grading.grading(grading.rubric(), EVIDENCE, PAST, rows, "quick").set_index("asked")
    assert sheet["outcome"].tolist()[:5] == ["pass", "fail", grading.NOT_RUN, "pass", "pass"]
    told = sheet["evidence"].tolist()
    assert told[0] == "12 commits, 0 without a message"
    assert told[1].startswith("4 files of run quick made again") and told[1].endswith(
        "equal, 1 differ"
    )
    assert told[2] == "make verify"
    assert told[3] == "1,234 tests, 0 failed, 2 skipped; 97.8 % covered, branches included"
    assert (
        told[4]
        == "60 artefacts of two runs equal, 0 differ; 1 that may hold times were not compared"
    )
    made = sheet["commit"].tolist()
    assert made[:4] == ["b" * 12, "a" * 12 + " with changes", "", "a" * 12]
    trained = sheet.loc["A decoder-only transformer, trained"]
    assert trained["evidence"] == "bars: 1 pass, 1 fail" and trained["section"] == "02-train"
    assert trained["outcome"] == grading.SHOWN
    assert sheet["outcome"].iloc[-1] == grading.LACKING
    assert set(sheet["outcome"]) <= set(grading.OUTCOMES)


def test_evidence_of_another_run_does_not_count():
    sheet = grading.grading(grading.rubric(), EVIDENCE, PAST, [], "paper")
    assert sheet["outcome"].tolist()[:5] == ["pass", *[grading.NOT_RUN] * 2, "pass", "pass"]


def test_what_is_asked_leads_to_a_gate_or_a_chapter_that_there_is():
    project = Project.find()
    for row in grading.rubric():
        assert row["asked"] and ("gate" in row) != ("chapter" in row)
        places = (*project.chapters, "Provenance", "Claims")
        assert row.get("section", row.get("chapter")) in places


def test_every_chapter_with_bars_has_a_line_so_that_none_that_fails_is_left_out():
    asked = {row["chapter"] for row in grading.rubric() if "chapter" in row}
    project, told = Project.find(), set()
    for name in (*project.chapters, "report"):
        if "nb.bar(" in project.notebook(name).read_text(encoding="utf-8"):
            told.add(name)
    assert told and asked == told


def test_what_leads_to_provenance_is_shown_there():
    """Every gate's evidence stands in the table of the section that the sheet links."""
    asked = grading.rubric()
    shown = grading.proofs(asked, EVIDENCE, PAST, "quick").set_index("asked")
    sheet = grading.grading(asked, EVIDENCE, PAST, [], "quick").set_index("asked")
    leads = [row["asked"] for row in asked if row.get("section") == "Provenance"]
    assert len(leads) == 4 and set(leads) <= set(shown.index)
    assert shown.loc[leads, "evidence"].equals(sheet.loc[leads, "evidence"])
    source = Project.find().notebook("report").read_text(encoding="utf-8")
    section = source[source.index("## Provenance") : source.index("## Grading sheet")]
    assert "grading.proofs(" in section


@pytest.mark.parametrize(
    "passed, text", [(True, "x.tar.gz: 7 files match"), (False, "x.tar.gz was changed")]
)
def test_details_of_verify(passed, text):
    row = {"name": "verify", "passed": passed, "pack": "x.tar.gz", "files": 7}
    assert grading.details(row) == text
    more = "; with one byte changed it fails" if passed else ""
    assert grading.details(row | {"changed_byte_fails": True}) == text + more


def test_details_without_coverage():
    row = {"name": "test", **TESTS, "tests": 3, "failures": 1, "errors": 1, "skipped": 0}
    told = grading.details({**row, "coverage_percent": None})
    assert told == "3 tests, 2 failed, 0 skipped; coverage unknown"


def test_history_counts_commits_and_those_without_a_message(tmp_path):
    def git(*arguments):
        subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
            check=True,
        )

    assert grading.history(tmp_path)["commits"] == 0
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    git("commit", "-q", "--allow-empty", "--allow-empty-message", "-m", "")
    git("commit", "-q", "--allow-empty", "-m", "third", "-m", "and why")
    found = grading.history(tmp_path)
    assert [found[name] for name in ("commits", "unnamed", "bare", "dirty")] == [3, 1, 2, False]
    assert len(found["commit"]) == 40
    sheet = grading.grading(grading.rubric(), {}, found, [], "quick")
    assert sheet["outcome"].tolist() == [
        *("fail", *[grading.NOT_RUN] * 4),
        *[grading.LACKING] * (len(sheet) - 5),
    ]


def test_modules_reached_by_the_tests_of_a_project(tmp_path):
    (tmp_path / "tests").mkdir()
    assert grading.modules_reached(Project(tmp_path))[0] == 0
    source = "from paper import readme\nfrom minitransformer import Sampling\n"
    (tmp_path / "tests" / "test_a.py").write_text(source)
    reached, every = grading.modules_reached(Project(tmp_path))
    assert 1 < reached < every


def test_a_module_that_a_reached_one_names_is_reached(tmp_path, monkeypatch):
    package = tmp_path / "lib" / "paper"
    package.mkdir(parents=True)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text("from paper import one\n")
    texts = {"__init__": "", "one": 'load(["paper.two", *more])', "two": "", "three": ""}
    for name, text in texts.items():
        (package / f"{name}.py").write_text(text)
    for module in (grading, sources):
        monkeypatch.setattr(module, "LIB", package.parent)
    assert grading.modules_reached(Project(tmp_path)) == (3, 4)


def test_no_line_of_the_library_is_left_out_of_coverage():
    mark = "# pragma: " + "no cover"
    assert not [path for path in LIB.rglob("*.py") if mark in path.read_text(encoding="utf-8")]


@pytest.fixture
def bare(tmp_path):
    """A run that left two of its files, in a project without tests."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "run" / "figures").mkdir(parents=True)
    for name in ("corpus.txt", "bench.csv", "figures/quant.png"):
        (tmp_path / "run" / name).write_text("x")
    return tmp_path / "run", Project(tmp_path)


def test_the_originals_process_is_looked_for_here(bare):
    verify = made_at(verify={"passed": True, "pack": "x", "files": 7})
    found = grading.process(EVIDENCE | verify, PAST, {"machine": {"gpu": None}}, *bare)
    answers = {id: answer for id, (answer, _) in found.items()}
    modules = len(list(Path(LIB).rglob("*.py")))
    assert answers == {
        "S1-tests": 0,
        "S1-coverage": 97.84,
        "S7-unit-tests": modules,
        "S5-outputs": 5,
        "S5-plots": 1,
        "S5-idempotent": 0,
        "S5-package": 0,
        "S7-discipline": 0,
        "S7-logbooks": 0,
        "S6-cpu": 0,
    }
    for id, (answer, note) in found.items():
        assert audit_row(LEDGER, id, answer=answer, note=note)["answer"] == answer
    assert found["S1-tests"][1] == "1,232 tests ran, 2 were skipped." and not found["S6-cpu"][1]
    (bare[0] / "tables").mkdir()
    (bare[0] / "tables" / "gpu-layers.csv").write_text("format\nint8\n")
    told = [grading.process({}, PAST, {"machine": {"gpu": gpu}}, *bare) for gpu in (None, "X")]
    said = "Of this run; appendix A6 was measured apart, on a GPU."
    assert [found["S6-cpu"] for found in told] == [(0, said), (1, "")]


def test_without_evidence_the_process_is_not_examined(bare):
    broken = {"test-idem": {"passed": False, "equal": 1, "differ": ["a", "b"], "varies": []}}
    found = grading.process(broken, {**PAST, "bare": 3}, {"machine": {"gpu": "X"}}, *bare)
    answers = {id: answer for id, (answer, _) in found.items()}
    none = ("S1-tests", "S1-coverage", "S5-package", "S7-discipline")
    assert [answers[id] for id in none] == [None] * 4
    assert (answers["S5-idempotent"], answers["S7-logbooks"], answers["S6-cpu"]) == (2, 3, 1)
    broken["verify"] = {"passed": False, "pack": "x"}
    found = grading.process(broken, PAST, {}, *bare)
    assert (found["S5-package"][0], found["S7-discipline"][0]) == (1, 2)
