"""The `nb` object: guard, folders, artefacts, claims, close."""

import warnings

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from paper import figures, open_notebook
from paper import notebook as module
from paper.bars import Bar
from paper.claims import seed_claims
from paper.files import read_json, write_json
from paper.parameters import ParameterError
from paper_project import PARAMETERS, make_project, write_notebook


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.delenv(module.OUT, raising=False)
    return make_project(tmp_path)


@pytest.fixture
def nb(root):
    return open_notebook("01-data", {"seed": 42, "run_dir": "reports/x"}, root)


def displayed(capsys):
    return capsys.readouterr().out


def test_the_guard_coerces_into_the_namespace_and_resolves_a_profile(root):
    names = {"profile": "paper", "lr": "2e-3", "run_dir": "reports/x"}
    nb = open_notebook("02-train", names, root)
    assert (
        names["lr"] == nb.params.lr == 0.002
        and names["seed"] == nb.params.seed == 7
        and nb.params.steps == 3
    )
    assert not hasattr(open_notebook("01-data", {}, root).params, "steps")


def test_the_guard_refuses_unknown_names(root):
    with pytest.raises(ParameterError, match="did you mean seed"):
        open_notebook("01-data", {"sed": 3}, root)


def test_a_chapter_starts_from_the_same_state_whatever_ran_before(root):
    write_notebook(
        root / "notebooks" / "03-eval.ipynb", PARAMETERS + "threads = 2  # CPU threads\n"
    )
    before = torch.get_num_threads()
    try:
        torch.set_grad_enabled(False)
        open_notebook("03-eval", {"threads": 1}, root)
        assert torch.get_num_threads() == 1 and torch.is_grad_enabled()
    finally:
        torch.set_num_threads(before)
        torch.set_grad_enabled(True)


@pytest.mark.parametrize(
    "said, told",
    [
        (
            "Glyph 32005 missing in /usr/lib/x/z.ttf,\n see https://a.org/b/c",
            "Glyph 32005 missing in z.ttf, see https://a.org/b/c",
        ),
        (r"read C:\Users\me\data.csv", "read data.csv"),
        ("a/b and 1 / 2 stay", "a/b and 1 / 2 stay"),
    ],
)
def test_a_warning_names_no_folder_of_the_machine(root, monkeypatch, said, told):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # put back afterwards
    open_notebook("01-data", {}, root)
    shown = warnings.formatwarning(said, UserWarning, "/home/me/x.py", 3)
    assert shown == f"UserWarning: {told}\n"


def test_the_guard_asks_the_project_what_the_chapters_need(root, monkeypatch, tmp_path):
    """Only of a notebook alone: the runner has asked, and knows parameters this one has not."""
    (root / "pyproject.toml").write_text('[tool.paper]\npreflight = "toy_guard:check"\n')
    (tmp_path / "toy_guard.py").write_text(
        "def check(params, stages, folder):\n"
        "    raise ValueError(f'{params[\"steps\"]} steps in {stages}: give more')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ParameterError, match="3 steps in .'01-data', '02-train'.: give more"):
        open_notebook("02-train", {}, root)
    open_notebook("02-train", {"run_dir": "reports/x"}, root)


def test_a_value_saved_elsewhere_is_told_and_the_opened_notebooks_counts(root, capsys):
    write_notebook(root / "notebooks" / "02-train.ipynb", "seed = 43  # seed\nsteps = 9  # it\n")
    nb = open_notebook("01-data", {}, root)
    assert nb.params.seed == 42 and nb._all["steps"] == 3 + 6
    assert "seed is saved as 43 in 02-train.ipynb: this run takes 42" in displayed(capsys)
    cell = "seed = 43  # seed\nsteps = 9  # steps\n"
    names = {"In": ["", cell], "seed": 1}
    assert open_notebook("02-train", names, root).params.seed == names["seed"] == 43
    assert "saved" not in displayed(capsys)


def test_a_corpus_file_is_given_to_the_notebook_as_an_absolute_path(root, tmp_path, monkeypatch):
    (root / "a.txt").write_text("x")
    assert open_notebook(
        "01-data", {"corpus": "a.txt", "run_dir": "reports/x"}, root
    ).params.corpus == str(root / "a.txt")
    here = tmp_path / "elsewhere"
    here.mkdir()
    (here / "a.txt").write_text("y")
    monkeypatch.chdir(here)
    assert open_notebook("01-data", {"corpus": "a.txt"}, root).params.corpus == str(here / "a.txt")
    with pytest.raises(FileNotFoundError, match="neither a text file nor a known name"):
        open_notebook("01-data", {"corpus": "b.txt"}, root)


def test_a_named_corpus_stays_a_name(root):
    (root / "data").mkdir()
    (root / "data" / "corpora.toml").write_text("[tiny]\n")
    assert (
        open_notebook("01-data", {"corpus": "tiny", "run_dir": "reports/x"}, root).params.corpus
        == "tiny"
    )


def test_under_the_runner_it_writes_into_the_working_folder(root, monkeypatch):
    monkeypatch.setenv(module.OUT, str(root / "work"))
    nb = open_notebook("02-train", {"run_dir": "reports/x"}, root)
    assert (
        nb.inputs == root / "reports" / "x"
        and nb.out == root / "work"
        and nb.require("01-data") == nb.inputs
    )


def test_alone_it_asks_for_what_it_reads(root, monkeypatch):
    asked = []
    monkeypatch.setattr(
        module.variants,
        "ensure",
        lambda project, stage, params, inputs: asked.append((stage, inputs)),
    )
    nb = open_notebook("02-train", {}, root)
    assert (
        nb.require("01-data") == nb.inputs
        and asked == [("01-data", nb.inputs)]
        and ".cache" in str(nb.out)
    )


def test_a_figure_leaves_its_png_and_its_data_and_is_closed(nb, capsys):
    fig, ax = plt.subplots()
    ax.plot([1, 2])
    nb.figure(ax, "latency", alt="a rising line", data=pd.DataFrame({"n": [1, 2]}))
    assert (nb.out / "figures" / "latency.png").read_bytes()[
        :4
    ] == b"\x89PNG" and not plt.fignum_exists(fig.number)
    assert (nb.out / "figures" / "latency.csv").read_text() == "n\n1\n2\n"
    png = (nb.out / "figures" / "latency.png").read_bytes()
    nb.figure(png, "again", alt="x", data=pd.DataFrame({"n": [1]}))
    assert (nb.out / "figures" / "again.png").is_file()


def test_a_figure_of_ours_knows_what_it_draws_and_others_are_told(nb):
    drawn = pd.DataFrame({"what": ["a", "b"], "n": [1.0, 2.0]})
    nb.figure(figures.dots(drawn, "what", "n", xlabel="n"), "ours")
    assert (nb.out / "figures" / "ours.csv").read_text() == "what,n\na,1.0\nb,2.0\n"
    nb.figure(figures.dots(drawn, "what", "n", xlabel="n"), "more", data=drawn.assign(m=3))
    assert (nb.out / "figures" / "more.csv").read_text().startswith("what,n,m\n")
    with pytest.raises(ValueError, match="'other' does not know what it draws: give its table"):
        nb.figure(plt.figure(), "other", alt="x")


def test_a_series_of_yes_and_no_is_counted(nb):
    row = nb.bar("data-saved", pd.Series([True, False, True]), cell="cell-0")
    assert row["measured"] == "2/3" and row["verdict"] == "fail"
    assert nb.bar("data-saved", pd.Series([1, 1]) == 1, cell="cell-0")["verdict"] == "pass"
    none = pd.DataFrame({"case": [], "x": [], "low": [], "high": []})
    assert nb.bar("data-saved", rows=none, cell="cell-0") == {}


def test_a_folder_is_the_projects_and_a_source_is_shown_as_it_is_written(nb, root):
    assert nb.folder("") is None and nb.folder("texts") == root / "texts"
    assert nb.source(make_project).data.startswith("def make_project(")
    assert nb.source(type(nb).folder).data.startswith("def folder(")  # a method's from its margin


def test_a_table_keeps_a_named_index(nb):
    nb.table(pd.DataFrame({"v": [1.5]}, index=pd.Index(["a"], name="what")), "sizes")
    assert (nb.out / "tables" / "sizes.csv").read_text() == "what,v\na,1.5\n"


def test_a_table_without_a_row_is_neither_shown_nor_kept(nb, capsys):
    nb.table(pd.DataFrame({"v": []}), "none")
    assert not (nb.out / "tables" / "none.csv").exists() and capsys.readouterr().out == ""


def test_what_a_saved_cell_shows_needs_a_caption_below_it(root, monkeypatch):
    path, frame = root / "notebooks" / "01-data.ipynb", pd.DataFrame({"v": [1]})
    write_notebook(path, PARAMETERS, "nb.table(a); nb.table(b)")
    book = read_json(path)
    tagged = {"cell_type": "markdown", "id": "below", "metadata": {"tags": ["caption"]}}
    write_json(path, book | {"cells": [*book["cells"], tagged | {"source": ["The one."]}]})
    monkeypatch.setattr(module, "running_cell", lambda path: book["cells"][-1]["id"])
    nb = open_notebook("01-data", {"run_dir": "reports/x"}, root)
    nb.table(frame, "one")
    nb.table(frame, "one")  # the cell was run again
    with pytest.raises(ValueError, match="shows 2 and has 1 captions: write below it a Markdown"):
        nb.table(frame, "two")
    monkeypatch.setattr(module, "running_cell", lambda path: "unsaved")
    nb.table(frame, "two")


@pytest.mark.parametrize("id", ["Latency", "a b", "", "../x"])
def test_ids_are_slugs(nb, id):
    with pytest.raises(ValueError, match="is not a slug"):
        nb.table(pd.DataFrame({"v": [1]}), id)
    with pytest.raises(ValueError, match="is not a slug"):
        nb.figure(b"", id, alt="x", data=pd.DataFrame())


def test_claims_are_written_when_the_notebook_closes(nb, capsys):
    nb.write_json("corpus.json", {"seed": 42})
    nb.path("model/config.json").write_text("{}")
    (nb.out / "empty").mkdir()
    nb._bars = {"bar": Bar("bar", "Fast enough", "interval", "2026-11-25", ">=", 3, "×")}
    nb.bar("bar", 3.5, (3.1, 3.9), cell="cell-0")
    nb.bar("bar", 2.5, (2.4, 2.6), cell="cell-0")  # the cell was run again
    some = next(iter(seed_claims()))
    nb.audit(some, 2, note="{n:.1f} {{blocks}}", n=2, cell="cell-0")
    with pytest.raises(ValueError, match="01-data has no answer"):
        nb.close(["corpus.json"])
    nb.answer("It holds.")
    for missing in ("nothing.json", "empty"):
        with pytest.raises(FileNotFoundError, match=f"artefact {missing} is missing or empty"):
            nb.close([missing])
    nb.close(["corpus.json", "model"])
    rows = read_json(nb.out / "claims" / "01-data.json")
    assert [(r["id"], r["verdict"], r["notebook"], r["cell_id"]) for r in rows] == [
        ("bar", "fail", "01-data", "cell-0"),
        (some, "does not hold", "01-data", "cell-0"),
    ]
    assert rows[1]["note"] == "2.0 {blocks}"
    receipt = "in reports/x/; 1 bars (1 fail); 1 statements (1 does not hold)."
    assert receipt in displayed(capsys)


def test_a_claim_belongs_to_one_existing_cell(nb):
    with pytest.raises(
        ValueError,
        match="cell 'cell-9' is not a cell of 01-data: give one of title, parameters, cell-0",
    ):
        nb.bar("data-saved", (1, 1), cell="cell-9")
    nb.bar("data-saved", (1, 1), cell="cell-0")
    with pytest.raises(ValueError, match="made in cell 'cell-0' and in 'title'"):
        nb.bar("data-saved", (1, 1), cell="title")


def test_a_notebook_without_a_file_takes_every_parameter_and_cell(root):
    nb = open_notebook("09-mine", {"run_dir": "reports/x"}, root)
    assert (
        nb.params.steps == 3
        and nb.bar("data-saved", (1, 1), cell="anything")["cell_id"] == "anything"
    )


def test_where_there_is_nothing_to_say_nothing_is_shown(nb, capsys):
    nb.say("")
    nb.say("{what}", what="")
    assert displayed(capsys) == ""


def test_readings_certificates_and_negative_results_are_shown(nb, capsys):
    nb.say("It took **3** steps.")
    nb.certificate(
        "identity", "The same tokens.", [("error", 1e-12, 1e-10)], True, ruler=(1e-12, 1e-10)
    )
    nb.negative("no gain", "faster", "slower", "overhead", "bar")
    with pytest.raises(ValueError, match="the answer is empty"):
        nb.answer(" ")
    out = displayed(capsys)
    assert "3" in out and "identity" in out and "no gain" in out


def test_progress_takes_a_total_or_an_iterable(nb, monkeypatch):
    assert list(nb.progress(range(3), "x")) == [0, 1, 2]
    bar = nb.progress(3, "x")
    bar.update(3)
    assert bar.total == 3
    bar.close()


def test_the_report_itself_needs_no_answer(root):
    nb = open_notebook("report", {"run_dir": "reports/x"}, root)
    nb.close()
    assert read_json(nb.out / "claims" / "report.json") == []


def test_an_audit_call_that_does_not_suit_its_statement_is_refused(nb):
    with pytest.raises(ValueError, match="'S1-block' is not in seed_claims.toml: did you mean 'S1"):
        nb.audit("S1-block", 1, cell="cell-0")
    with pytest.raises(ValueError, match="'S1-tests' is of kind 'process'"):
        nb.audit("S1-tests", 1, cell="cell-0")
    for given in ({"verdict": "holds"}, {"unit": "tests"}, {"fiel": 2, "note": "{file}"}):
        with pytest.raises(ValueError, match="does not occur in both its note"):
            nb.audit("S1-tests", answer=0, cell="cell-0", **given)
    told = nb.audit("S1-tests", answer=0, note="{n[ran]} ran.", n={"ran": 7}, cell="cell-0")
    assert told["note"] == "7 ran."
    whole = nb.audit("S2-positions", "rope", note="No {braces} are read.", cell="cell-0")
    assert whole["note"] == "No {braces} are read."
    row = nb.audit("S6-synthetic", note="Its text is not available.", cell="cell-0")
    assert row["verdict"] == "not examined" and row["measured"] is None


def test_a_statement_brings_its_note_unless_the_chapter_has_another(nb):
    row = nb.audit("S1-deterministic", answer=0, cell="cell-0")
    assert row["note"].startswith("made again, saved and loaded")
    assert nb.audit("S1-deterministic", answer=0, note="So.", cell="cell-0")["note"] == "So."


def test_the_ledgers_note_is_filled_with_what_the_call_names(nb):
    row = nb.audit("S2-positions", "rope", other="sinusoidal", cell="cell-0")
    assert row["note"] == "As an option: sinusoidal."
    for given in ({}, {"others": "none"}):
        with pytest.raises(ValueError, match="does not occur in both its note and the call"):
            nb.audit("S2-positions", "rope", cell="cell-0", **given)


def test_a_claim_is_shown_with_what_was_asked_and_its_answer(nb, capsys):
    nb.audit(
        "S32-int4-acceptable", 0.2, (0.1, 0.3), answer=9.8, answer_interval=(9, 10), cell="cell-0"
    )
    nb.audit("S2-dim", 128, cell="cell-0")
    nb.audit("S6-synthetic", cell="cell-0")
    nb.audit("S33-ratio", 1.95, cell="cell-0")
    shown = displayed(capsys).replace("\\u202f", " ")
    assert "is 1.95: 1.95× (from its own numbers) (original report 1.95×)" in shown
    assert shown.count("from its own numbers") == 2  # once in HTML, once in plain text
    assert "less than 1 %: 0.20 % of perplexity [0.10, 0.30] (asked < 1 %); the trained" in shown
    assert "rule: 9.8 % of perplexity [9.0, 10.0], does not hold" in shown
    assert "S2-dim copied: The model width is 128: 128 units (original report 128 units)" in shown
    assert "natural language: not examined" in shown
