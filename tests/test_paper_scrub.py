"""No folder of the machine in what a run leaves."""

import sys
import tempfile
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from paper.files import write_bytes, write_text
from paper.scrub import naming, scrub, scrub_notebook

ROOT = Path("/srv/ann/project")
SITE = "/opt/ann/.venv/lib/python3.12/site-packages"


@pytest.mark.parametrize(
    "text, clean",
    [
        (f"{ROOT}/lib/paper/a.py:3: UserWarning: x", "lib/paper/a.py:3: UserWarning: x"),
        (f"{SITE}/torch/x.py:1: UserWarning", "site-packages/torch/x.py:1: UserWarning"),
        ("C:/py/dist-packages/x.py", "C:dist-packages/x.py"),
        (f"{tempfile.gettempdir()}/ipykernel_99/123.py:3: w", "<cell>:3: w"),
        (f'"{sys.prefix}/bin/python"', '"bin/python"'),
        (f"in {ROOT}.", "in ."),
        (f"{ROOT}s/a and x{ROOT}/b", f"{ROOT}s/a and x{ROOT}/b"),  # other folders
        ("/private/texts/a.txt", "a.txt"),
        (
            "no path: a/b, 1/2, https://example.org/srv",
            "no path: a/b, 1/2, https://example.org/srv",
        ),
    ],
)
def test_paths_are_told_from_where_everyone_has_them(text, clean):
    assert scrub(text, ROOT, Path("/private/texts")) == clean


def test_every_text_of_a_notebook_is_scrubbed_and_no_picture():
    bad = f"{ROOT}/a"
    outputs = [
        new_output("stream", name="stderr", text=bad),
        new_output("error", ename="E", evalue=bad, traceback=[bad, bad]),
        new_output(
            "display_data",
            {"text/plain": bad, "text/html": bad, "image/svg+xml": bad, "image/png": bad},
        ),
    ]
    given = new_code_cell(f"corpus = '{bad}'", metadata={"tags": ["injected-parameters"]})
    book = scrub_notebook(new_notebook(cells=[given, new_code_cell(bad, outputs=outputs)]), ROOT)
    assert book.cells[0].source == "corpus = 'a'"
    stream, error, shown = book.cells[1].outputs
    assert stream.text == error.evalue == "a" and error.traceback == ["a", "a"]
    assert shown.data == {
        "text/plain": "a",
        "text/html": "a",
        "image/svg+xml": "a",
        "image/png": bad,
    }
    assert book.cells[1].source == bad  # what the author wrote is the author's


def test_files_that_name_the_machine_are_found(tmp_path):
    root = tmp_path / "project"
    run = root / "reports" / "quick"
    for suffix in ("ipynb", "json", "jsonl", "csv", "html", "txt"):
        write_text(run / f"good.{suffix}", f"reports/quick and {root}s and my-host-name")
        write_text(run / f"bad.{suffix}", f'"{root}/a"')
    write_text(run / "host.json", "ran on host-name.")
    write_text(run / ".hidden" / "a.json", str(root))
    write_bytes(run / "model.bin", str(root).encode())
    found = ["bad.csv", "bad.html", "bad.ipynb", "bad.json", "bad.jsonl", "bad.txt"]
    assert naming(run, root) == found
    assert naming(run, root, "host-name") == [*found, "host.json"]
