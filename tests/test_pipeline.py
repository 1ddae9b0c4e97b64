"""The quick pipeline end to end, as `make report PROFILE=quick` runs it, and what its report
promises."""

import os
import re
import subprocess
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from click.testing import CliRunner
from papermill.cli import papermill as command_line

from paper import __main__ as command
from paper import runner
from paper.chapter import prefix as numbered
from paper.claims import AUDIT, OWN
from paper.display import KEY
from paper.files import read_json
from paper.project import Project
from paper.scrub import naming

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def run_dir():
    """reports/quick, made by the command itself."""
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        assert command.main(["report", "--profile", "quick"]) == 0
        yield ROOT / "reports" / "quick"
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def page(run_dir):
    return BeautifulSoup((run_dir / "index.html").read_text(encoding="utf-8"), "html.parser")


def test_every_chapter_ran_to_its_end(run_dir):
    for stage in Project(ROOT).stages:
        book = nbformat.read(run_dir / f"{stage}.ipynb", as_version=4)
        cells = [c for c in book.cells if c.cell_type == "code" and c.source]
        assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1)), stage
        assert not [
            o
            for c in cells
            for o in c.outputs
            if o.output_type == "error" or o.get("name") == "stderr"
        ], stage


def test_the_run_leaves_what_the_design_lists(run_dir):
    names = [
        "corpus.txt",
        "tokens.jsonl",
        "vocab.txt",
        "corpus.json",
        "train.jsonl",
        "metrics.json",
        "bench.csv",
        "bench_quant.csv",
        "certificates.csv",
        "ablations.csv",
        "claims.json",
        "run.json",
        "HASHES.txt",
        "figures/latency.png",
        "figures/quant.png",
    ]
    names += [
        f"{model}/{file}"
        for model in (
            "model",
            "model-2block",
            "model-smeared",
            "model-smeared-2block",
            "model-gqa",
            "model-draft",
            "model-int8",
            "model-int4",
        )
        for file in ("config.json", "model.safetensors", "tokenizer.json")
    ]
    assert [name for name in names if not (run_dir / name).is_file()] == []
    for png in (run_dir / "figures").glob("*.png"):
        assert png.with_suffix(".csv").is_file(), png.name
    assert not list(run_dir.rglob("*.part*")) and not list(run_dir.glob("*.failed.ipynb"))
    assert subprocess.run(["sha256sum", "--quiet", "-c", "HASHES.txt"], cwd=run_dir).returncode == 0


def shown(run_dir, kind):
    """(where, output) of every output of a kind in the run's notebooks."""
    for path in sorted(run_dir.glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", ()):
                about = output.get("metadata", {}).get(KEY, {})
                if about.get("kind") == kind:
                    yield f"{path.stem}: {about['id']}", output


def test_no_label_of_any_figure_covers_a_mark_or_another_label(run_dir):
    """At the data of this very run: each figure says what its labels cover when it is drawn."""
    figures = dict(shown(run_dir, "figure"))
    assert len(figures) > 30
    covered = {where: output.metadata[KEY]["overlaps"] for where, output in figures.items()}
    assert {where: told for where, told in covered.items() if told} == {}


def test_every_figure_stands_on_the_page_as_svg_smaller_than_its_png(run_dir, page):
    for where, output in shown(run_dir, "figure"):
        svg, png = output.data["image/svg+xml"], output.data["image/png"]
        assert len(svg) < len(png), where
        drawn = page.find(id=f"fig-{output.metadata[KEY]['id']}").svg
        assert drawn["role"] == "img" and drawn["aria-label"].strip(), where


def test_the_heads_of_tables_are_words(run_dir):
    for where, output in shown(run_dir, "table"):
        heads = BeautifulSoup(output.data["text/html"], "html.parser").select("thead th")
        names = [head.get_text() for head in heads]
        assert not [name for name in names if re.search(r"[a-z0-9]_[a-z0-9]", name)], where


def test_claims_have_verdicts_and_lead_to_the_cell_that_computed_them(run_dir, page):
    rows = read_json(run_dir / "claims.json")
    assert len(rows) > 40 and {row["verdict"] for row in rows} <= {*OWN, *AUDIT}
    ids = {tag["id"] for tag in page.find_all(id=True)}
    for row in rows:
        prefix = numbered(row["notebook"])
        assert f"{prefix}-{row['cell_id']}" in ids, row["id"]


def test_the_page_loads_nothing_and_can_be_heard(page, run_dir):
    assert (run_dir / "index.html").stat().st_size < 5_000_000
    kinds = [script.attrs for script in page.find_all("script")]
    data = [{"type": "application/json", "id": f"{name}-data"} for name in ("talk", "law")]
    assert kinds == [*data, {"type": "module"}]
    assert not page.find_all(["iframe", "object", "embed"]) and not page.find_all(
        "link", href=re.compile("^(?!data:)")
    )
    assert all(
        image["src"].startswith("data:") and image.get("alt", "").strip()
        for image in page.find_all("img")
    )
    assert not re.search(
        r"@import|url\(\s*['\"]?(?!#|data:)",
        "".join(style.get_text() for style in page.find_all("style")),
    )
    assert (
        len(page.find_all("h1")) == 1
        and page.html["lang"]
        and page.find("main")
        and page.find("nav")
    )
    levels = [int(tag.name[1]) for tag in page.find_all(re.compile("^h[1-6]$"))]
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False))


def test_every_link_inside_the_page_arrives(page, run_dir):
    ids = {tag["id"] for tag in page.find_all(id=True)}
    targets_ = [a["href"] for a in page.find_all("a", href=True)]
    assert not [href for href in targets_ if href.startswith("#") and href[1:] not in ids]
    local = [href for href in targets_ if not re.match(r"#|https?:|mailto:", href)]
    assert not [href for href in local if not (run_dir / href.partition("#")[0]).exists()]


def test_nothing_names_this_machine(run_dir):
    host = os.uname().nodename
    assert naming(run_dir, ROOT, *([host] if len(host) > 6 else [])) == []


def test_a_second_report_executes_nothing(run_dir, monkeypatch):
    monkeypatch.setattr(runner, "run_stage", None)
    before = (run_dir / "HASHES.txt").read_bytes()
    assert command.main(["report", "--profile", "quick"]) == 0
    assert (run_dir / "HASHES.txt").read_bytes() == before


def test_the_run_packs_and_one_changed_byte_is_found(run_dir, capsys):
    assert (
        command.main(["pack", "--profile", "quick"]) == 0
        and command.main(["verify", "--profile", "quick"]) == 0
    )
    path = next((ROOT / "dist").glob("mini-transformer-quick-v*.tar.gz"))
    data = path.read_bytes()
    try:
        path.write_bytes(data[:99] + bytes([data[99] ^ 1]) + data[100:])
        assert (
            command.main(["verify", "--profile", "quick"]) == 1
            and "was changed" in capsys.readouterr().err
        )
    finally:
        path.write_bytes(data)
    assert command.main(["verify", "--profile", "quick"]) == 0


def test_the_corpus_is_made_again_to_the_byte(run_dir):
    assert command.main(["verify-corpus", "--profile", "quick"]) == 0


@pytest.fixture
def papermill(tmp_path, monkeypatch):
    """The papermill command in a folder of its own, on chapter 1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    words = [str(ROOT / "notebooks" / "01-data.ipynb"), "out.ipynb", "--no-progress-bar"]
    return lambda *given: CliRunner().invoke(command_line, [*words, *given])


def test_plain_papermill_works_from_any_folder(papermill, tmp_path):
    values = tmp_path / "v.yaml"
    values.write_text("lr: 1e-3\ntrain_tokens: 20000\nvalid_tokens: 2000\ntest_tokens: 2000\n")
    done = papermill("-p", "seed", "7", "-f", str(values))
    assert done.exit_code == 0, done.exception
    assert (tmp_path / "out.ipynb").is_file() and not (tmp_path / "reports").exists()


def test_plain_papermill_refuses_an_unknown_parameter(papermill):
    done = papermill("-p", "sed", "7")
    assert "parameter sed = 7 is unknown: did you mean seed?" in str(done.exception)


def test_the_project_is_found_from_its_notebooks():
    assert Project.find(ROOT / "notebooks").root == ROOT
