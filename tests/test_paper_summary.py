"""What the report's own chapter reads out of a run, and the headline table of the README."""

import subprocess
from types import SimpleNamespace

import pytest

from claim_rows import own_row
from paper import commands, headline, marks, readme, statements, summary
from paper.claims import audit_row, seed_claims
from paper.files import write_json
from paper.marks import written
from paper.project import Project

LEDGER = seed_claims()
CORPUS = {"kind": "language", "name": "language"}
TIME_MODEL = {
    "speedup": [{"new_tokens": 50, "roofline": 2.2}, {"new_tokens": 500, "roofline": 14.0}]
}


def own(id, measured, holds=True, **options):
    row = own_row(
        id, "Static cache, 500 new tokens" if id == "speedup" else id, measured, holds, **options
    )
    return {**row, "notebook": "04-kv-bench", "cell_id": "speedup"}


def audited(id, *measured, **options):
    return {
        **audit_row(LEDGER, id, *measured, **options),
        "notebook": "02-train",
        "cell_id": "parameters",
    }


@pytest.fixture
def rows():
    return [
        own("report-perplexity", 45.0, interval=(44.0, 46.0), threshold="< 91, the best n-gram"),
        own("report-gap", 87.5, unit="%"),
        own("speedup", 11.2, unit="×", interval=(11, 11.4), threshold="≥ 9.8×"),
        own("quant-ratio-int8", 3.81, unit="×", threshold="≥ 3.7×"),
        own("quant-ratio-int4-g32", 6.1, False, unit="×", threshold="≥ 6.3×"),
        own("report-bits-per-byte", 1.75),
        audited("S1-perplexity", 1060.0, (1000.0, 1120.0)),
        audited("S2-parameters", 456_556),
        audited("S1-blocks", 1),
        audited("S7-cache-essential", 1.4, (1.3, 1.5)),
        audited("S33-cached-latency", 4.0, (3.9, 4.1)),
        audited("S1-tests", answer=0),
    ]


def of(kind):
    return sum(row["kind"] == kind for row in LEDGER.values())


def test_the_headlines_are_five_claims_with_limit_and_the_seed_reports_number(rows):
    tiles = headline.headlines(rows, LEDGER, headline.limits(30.0, TIME_MODEL))
    names = [
        "report-perplexity",
        "speedup",
        "quant-ratio-int8",
        "quant-ratio-int4-g32",
        "report-gap",
    ]
    assert [tile["claim"] for tile in tiles] == names
    assert [tile["limit_text"] for tile in tiles] == [
        f"floor {written(30.0)}",
        f"roofline {written(14.0, '×')}, 80 % reached",
        f"limit {written(4.0, '×')}, 95 % reached",
        f"limit {written(8.0, '×')}, 76 % reached",
        "",
    ]
    assert [tile["seed_text"] for tile in tiles] == [
        f"seed report: {x}" for x in ("1,045.31", "1.95×", "1.88×", "1.88×")
    ] + [""]
    assert tiles[1]["label"] == "Cache speed-up, n = 500"
    assert tiles[0]["strip"] == {
        "value": 45.0,
        "interval": [44.0, 46.0],
        "limit": 30.0,
        "seed": 1045.31,
        "beyond": "below",
        "log": True,
    }
    assert [bool(marks.strip(**tile["strip"])) for tile in tiles] == [True] * 4 + [False]


def test_without_a_floor_the_bits_per_byte_are_the_fifth(rows):
    rows = [row for row in rows if row["id"] != "report-gap"]
    tiles = headline.headlines(rows, {}, headline.limits(None, {}))
    assert [tile["claim"] for tile in tiles][4] == "report-bits-per-byte"
    assert [tile["strip"]["limit"] for tile in tiles] == [None, None, 4.0, 8.0, None]
    assert [tile["strip"]["beyond"] for tile in tiles] == [None, None, "above", "above", None]
    assert {tile["seed_text"] for tile in tiles} == {""}


def test_the_abstract_says_what_was_measured(rows):
    tiles = headline.headlines(rows, LEDGER, headline.limits(30.0, TIME_MODEL))
    text = headline.abstract(tiles, rows, CORPUS, LEDGER)
    for part in (
        "entropy rate is known",
        "**45.0 [44.0, 46.0]**, 1.50 times the floor of ",
        f"**{written(87.5, '%')}** of the gap",
        "**11.20× [11.00, 11.40]** faster at 500 tokens, 80 % of what this",
        f"**{written(3.81, '×')}** in int8 and **{written(6.1, '×')}** in int4",
        f"the {len(LEDGER)} statements",
        f"Of {of('arithmetic')} counts and calculations 0 hold, ",
        f"of {of('measurement')} measured numbers 1 (1 cannot be compared:",
        f"of {of('conclusion')} conclusions 0; {of('setting')} settings are only copied.",
        "Its strongest findings: a loss above a uniform guess; 3.1 times the parameters.",
        "Of 6 bars",
    ):
        assert part in text


def test_the_abstract_of_a_real_text_has_no_floor(rows):
    corpus = {"kind": "text", "name": "quijote"}
    rows = [row for row in rows if row["id"] != "report-gap"]
    text = headline.abstract(
        headline.headlines(rows, LEDGER, headline.limits(None, {})), rows, corpus, LEDGER
    )
    assert "the text *quijote*" in text and f"That is **{written(1.75)}** bits per byte." in text
    assert not any(word in text for word in ("floor", "synthetic", "entropy", "without overhead"))


def test_the_abstract_of_an_empty_run_still_reads():
    text = headline.abstract([], [], {"kind": "uniform"}, LEDGER)
    assert "nothing to learn" in text and text.endswith("settings are only copied.")
    assert "findings" not in text


def metric(system, value, measure="perplexity"):
    return {
        "system": system,
        "measure": measure,
        "value": value,
        "low": value - 1,
        "high": value + 1,
    }


def test_standing_finds_model_twin_best_n_gram_and_floor():
    systems = {
        "uniform guess": 1000.0,
        "bigram": 120.0,
        "3-gram (best on validation)": 100.0,
        "1 block": 50.0,
        "2 blocks": 40.0,
    }
    metrics = [metric(*pair) for pair in systems.items()] + [metric("1 block", 0.5, "accuracy")]
    metrics.append({"system": "1 block", "measure": "bits_per_byte", "value": 1.5})
    found = headline.standing([*metrics, metric("floor (oracle)", 10.0)])
    assert [found[key]["perplexity"] for key in ("model", "twin", "gram")] == [50.0, 40.0, 100.0]
    assert found["gap_of_gram"] == pytest.approx(50.0) and found["gap"] == pytest.approx(
        65.05, abs=0.01
    )
    assert headline.standing(metrics) | {
        "floor": None,
        "gap": None,
        "gap_of_gram": None,
    } == headline.standing(metrics)
    assert found["model"] == {
        "system": "1 block",
        "perplexity": 50.0,
        "low": 49.0,
        "high": 51.0,
        "bits_per_byte": 1.5,
    }
    assert headline.standing([]) == {}


def test_the_audit_by_section_counts_every_statement_once(rows):
    table = summary.audit_by_section(rows, LEDGER).set_index("section")
    assert table.loc["all", "statements"] == len(LEDGER)
    assert table.loc["all", "settings"] == of("setting") and table.loc["§1", "settings"] == 1
    assert table.loc["§1", "holds"] == 2 and table.loc["§2", "arithmetic slip"] == 1
    assert table.loc["§3.3", "not comparable"] == table.loc["§7", "does not hold"] == 1
    assert (table["statements"] == table[["settings", *statements.VERDICTS]].sum(axis=1)).all()


def test_the_audit_by_kind_counts_verdicts_at_both_settings(rows):
    table = summary.audit_by_kind(rows, LEDGER).set_index("kind")
    assert list(table.index) == list(statements.KINDS)
    assert [table.loc[kind, "statements"] for kind in table.index] == list(map(of, table.index))
    at_home = table[list(statements.VERDICTS)].sum(axis=1)
    assert (at_home == table["statements"].where(~table.index.isin(["process", "future"]), 0)).all()
    assert table.loc["measurement", ["holds", "not comparable"]].tolist() == [1, 1]
    assert table.loc["process", ["answer holds", "answer not examined"]].tolist() == [
        1, of("process") - 1
    ]  # fmt: skip
    assert table.loc["setting", "holds"] == 1 and "answer arithmetic slip" not in table


def test_the_limit_of_each_kind_of_source_is_its_own():
    texts = {
        kind: summary.source_limit({"kind": kind}) for kind in ("language", "text", "uniform", None)
    }
    assert (
        len(set(texts.values())) == 4
        and "synthetic" in texts["language"]
        and "synthetic" not in texts["text"]
    )


def test_our_own_bars_are_counted_by_verdict(rows):
    assert summary.counts(rows) == {"pass": 5, "fail": 1, "undecided": 0}


def test_the_seed_reports_own_arithmetic():
    table = summary.own_arithmetic(LEDGER).set_index("what")
    assert table["follows"].tolist() == [
        7.18,
        9.44,
        1052.43,
        1052.43,
        0.7,
        0.9,
        0.25,
        6.96,
        1.95,
        2.5,
        1.88,
        13.4,
    ]
    agrees = [False] * 4 + [True] * 3 + [False] + [True] * 3 + [False]
    assert table["agrees"].tolist() == agrees


def test_claims_and_artefacts_are_read_in_the_chapters_order(tmp_path, rows):
    write_json(tmp_path / "claims" / "04-kv-bench.json", rows[2:4])
    write_json(tmp_path / "claims" / "01-data.json", rows[:1])
    assert [row["id"] for row in summary.read_claims(tmp_path)] == [
        "report-perplexity",
        "speedup",
        "quant-ratio-int8",
    ]
    assert summary.read(tmp_path, "corpus.json") == {}
    write_json(tmp_path / "corpus.json", CORPUS)
    assert summary.read(tmp_path, "corpus.json") == CORPUS


def made_at(**rows):
    made = {"commit": "a" * 40, "dirty": False, "when": "2026-01-01T00:00:00Z"}
    return {
        name.replace("_", "-"): row and {"name": name.replace("_", "-"), **made, **row}
        for name, row in rows.items()
    }


def test_the_grading_sheet_reads_evidence_with_its_commit():
    found = made_at(
        test={
            "passed": True,
            "tests": 1234,
            "failures": 0,
            "errors": 0,
            "skipped": 2,
            "coverage_percent": 97.84,
        },
        test_idem={"passed": True, "equal": 60, "varies": ["run.json"], "differ": []},
        verify_corpus={"passed": False, "compared": 4, "differ": ["corpus.txt"], "dirty": True},
        verify=None,
    )
    sheet = summary.grading(found, {"commits": 12, "unnamed": 0, "commit": "b" * 40}).set_index(
        "gate"
    )
    assert sheet["outcome"].to_dict() == {
        "traceable history": "pass",
        "corpus hash verified": "fail",
        "verify clean": summary.NOT_RUN,
        "tests and coverage": "pass",
        "idempotence": "pass",
    }
    assert (
        sheet.loc["tests and coverage", "evidence"]
        == "1,234 tests, 0 failed, 2 skipped; 97.8 % covered, branches included"
    )
    assert (
        sheet.loc["idempotence", "evidence"]
        == "60 artefacts of two runs equal, 0 differ; 1 hold times and are named"
    )
    assert sheet.loc["corpus hash verified", "evidence"].endswith("equal, 1 differ")
    assert sheet["commit"].tolist() == [
        "b" * 12,
        "a" * 12 + " with changes",
        "–",
        "a" * 12,
        "a" * 12,
    ]


@pytest.mark.parametrize(
    "passed, text", [(True, "x.tar.gz: 7 files match"), (False, "x.tar.gz was changed")]
)
def test_details_of_verify(passed, text):
    assert (
        summary.details({"name": "verify", "passed": passed, "pack": "x.tar.gz", "files": 7})
        == text
    )


def test_details_without_coverage():
    row = {
        "name": "test",
        "tests": 3,
        "failures": 1,
        "errors": 1,
        "skipped": 0,
        "coverage_percent": None,
    }
    assert summary.details(row) == "3 tests, 2 failed, 0 skipped; coverage unknown"


def test_history_counts_commits_and_those_without_a_message(tmp_path):
    def git(*arguments):
        subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
            check=True,
        )

    assert summary.history(tmp_path)["commits"] == 0
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    git("commit", "-q", "--allow-empty", "--allow-empty-message", "-m", "")
    found = summary.history(tmp_path)
    assert (found["commits"], found["unnamed"], len(found["commit"]), found["dirty"]) == (
        2,
        1,
        40,
        False,
    )
    assert summary.grading({}, found)["outcome"].tolist() == ["fail", *[summary.NOT_RUN] * 4]


def test_modules_reached_by_the_tests_of_a_project(tmp_path):
    (tmp_path / "tests").mkdir()
    assert summary.modules_reached(Project(tmp_path))[0] == 0
    source = "from paper import readme\nfrom minitransformer import Sampling\n"
    (tmp_path / "tests" / "test_a.py").write_text(source)
    reached, every = summary.modules_reached(Project(tmp_path))
    assert 1 < reached < every


def test_lines_left_out_of_coverage_are_listed(tmp_path):
    mark = "# pragma: " + "no cover"
    (tmp_path / "cpu.py").write_text(f"a = 1\nif gpu:  {mark}\n    b = '{mark} in the middle'\n")
    assert summary.exempt(tmp_path).to_dict("records") == [
        {"file": "cpu.py", "line": 2, "source": f"if gpu:  {mark}"}
    ]
    assert list(summary.exempt(tmp_path / "none").columns) == ["file", "line", "source"]


def test_readme_table_names_value_interval_bar_and_verdict(rows):
    lines = readme.headline_table(rows, LEDGER).splitlines()
    assert (
        lines[2]
        == "| Test perplexity | 1,045.31 | 45.0 [44.0, 46.0] | < 91, the best n-gram | pass |"
    )
    assert lines[3] == "| Cache speed-up, n = 500 | 1.95× | 11.20× [11.00, 11.40] | ≥ 9.8× | pass |"
    assert lines[5] == f"| Smaller in int4 | 1.88× | {written(6.1, '×')} | ≥ 6.3× | fail |"
    assert lines[6] == f"| Gap to the floor closed | – | {written(87.5, '%')} | – | pass |"


def test_update_rewrites_between_the_markers_only(tmp_path, rows):
    page, claims = tmp_path / "README.md", write_json(tmp_path / "claims.json", rows)
    page.write_text(f"before\n{readme.START}\nold\n{readme.END}\nafter\n")
    readme.update(page, claims, LEDGER)
    text = page.read_text()
    assert text.startswith(f"before\n{readme.START}\n| what |") and text.endswith(
        f"|\n{readme.END}\nafter\n"
    )
    assert "old" not in text
    assert readme.update(page, claims, LEDGER).read_text() == text


def test_publish_rewrites_the_table_in_the_readme(tmp_path, rows):
    project, run = Project(tmp_path), tmp_path / "reports" / "quick"
    write_json(run / "claims.json", rows)
    for name in ("index.html", "run.json", "HASHES.txt"):
        (run / name).write_text("x")
    (tmp_path / "README.md").write_text(f"{readme.START}\nold\n{readme.END}\n")
    commands.publish(project, {"profile": "quick"}, SimpleNamespace(into=run))
    assert readme.headline_table(rows, LEDGER) in (tmp_path / "README.md").read_text()
    assert (project.reports / "reference" / "claims.json").is_file()


def test_update_without_markers_says_so(tmp_path, rows):
    page, claims = tmp_path / "README.md", write_json(tmp_path / "claims.json", rows)
    page.write_text("no markers\n")
    with pytest.raises(ValueError, match="README.md does not hold <!-- headline:start -->"):
        readme.update(page, claims, LEDGER)
    assert page.read_text() == "no markers\n"


def test_the_projects_readme_has_the_markers():
    text = (Project.find().root / "README.md").read_text(encoding="utf-8")
    assert text.count(readme.START) == text.count(readme.END) == 1 and len(text.splitlines()) <= 120
