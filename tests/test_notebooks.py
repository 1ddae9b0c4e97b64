"""The committed notebooks: written to the same rules, executed at the quick size, and checkable by
nbval."""

import ast
import re
import tokenize
from io import StringIO
from pathlib import Path
from statistics import median

import nbformat
import pytest
from papermill.inspection import inspect_notebook

from paper.captions import captions
from paper.parameters import (
    check,
    known_parameters,
    parameters_cell,
    read_profile,
    saved_changes,
)
from paper.project import Project

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
EVERY = sorted(FOLDER.rglob("*.ipynb"))
SETUP = ["setup"]
FOLDERS = (
    "data/",
    "reports/",
    "notebooks/",
    "dist/",
    "./",
    "../",
)  # what a bare relative path would start with
CELL_LINES, MEDIAN_LINES = 12, 6  # of a code cell but the parameters
LINES = 900  # of code in all chapters, beside parameters and set-up


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def python(cell):
    return "\n".join(line for line in cell.source.splitlines() if not line.startswith(("%", "!")))


def written(cell):
    """Its lines of code, without blank ones."""
    return sum(bool(line.strip()) for line in cell.source.splitlines())


each = pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
every = pytest.mark.parametrize("path", EVERY, ids=lambda p: p.relative_to(FOLDER).as_posix())


def test_every_chapter_is_there():
    assert {path.stem for path in PATHS} == set(Project.find(FOLDER).stages)


@every
def test_the_format_is_valid_with_authored_unique_ids(path):
    book = read(path)
    nbformat.validate(book)
    ids = [cell.id for cell in book.cells]
    assert len(set(ids)) == len(ids) and book.nbformat_minor >= 5
    assert all(id == id.lower() and not id.isdigit() and len(id) < 40 for id in ids)
    assert book.metadata.kernelspec.name == "python3" and "papermill" not in book.metadata


@every
def test_no_cell_is_called_as_its_chapter(path):
    """On the page cell "train" of chapter 02 is #02-train, and so is the chapter itself."""
    assert path.stem.partition("-")[2] not in [cell.id for cell in read(path).cells]


@every
def test_it_opens_with_title_and_question(path):
    first = read(path).cells[0]
    lines = [line for line in first.source.splitlines() if line.strip()]
    assert (
        first.cell_type == "markdown"
        and lines[0].startswith("# ")
        and (path.stem == "report" or lines[1].startswith("*"))
    )


@every
def test_papermill_reads_every_parameter(path, caplog):
    found = inspect_notebook(
        str(path)
    )  # a quote or an equals sign in a comment would make it miss one
    assert (
        set(found) == set(parameters_cell(path))
        and not caplog.records
        and all(p["help"] for p in found.values())
        and {name: type(value).__name__ for name, value in parameters_cell(path).items()}
        == {name: p["inferred_type_name"] for name, p in found.items()}
    )


@every
def test_the_parameters_are_literals_with_a_comment_each_and_the_guard_follows(path):
    cells = code_cells(read(path))
    assert cells[0].metadata.get("tags") == ["parameters"]
    lines = [line for line in cells[0].source.splitlines() if line.strip()]
    comments = {
        t.start[0]
        for t in tokenize.generate_tokens(StringIO(cells[0].source).readline)
        if t.type == tokenize.COMMENT
    }
    assert len(comments) >= len(parameters_cell(path)) == len(lines)
    assert f'open_notebook("{path.stem}", globals())' in cells[1].source


@every
def test_cells_are_short_and_define_nothing(path):
    for cell in code_cells(read(path))[1:]:  # the parameters may be many
        nodes = list(ast.walk(ast.parse(python(cell))))
        assert written(cell) <= CELL_LINES, cell.id
        assert max(map(len, cell.source.splitlines())) <= 100, cell.id
        assert not any(
            isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            for node in nodes
        ), cell.id
        texts = [
            node.value
            for node in nodes
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        assert not [
            text
            for text in texts
            if text.startswith(FOLDERS) and "\n" not in text and " " not in text
        ], cell.id


def test_the_code_of_all_chapters_is_short():
    cells = [cell for path in PATHS for cell in code_cells(read(path))[1:]]
    lines = [written(cell) for cell in cells if cell.metadata.get("tags") != SETUP]
    assert sum(lines) <= LINES and median(lines) <= MEDIAN_LINES


@every
def test_what_a_cell_shows_has_its_captions_below_it(path):
    """In words alone: a number in a caption would be a copy of one that is computed."""
    book = read(path)
    texts = captions(book.cells)
    for cell in code_cells(book):
        calls = [n for n in ast.walk(ast.parse(python(cell))) if isinstance(n, ast.Call)]
        shown = [c for c in calls if ast.unparse(c.func) in ("nb.figure", "nb.table", "nb.text")]
        assert len(shown) <= len(texts[cell.id]) and bool(shown) == bool(texts[cell.id]), cell.id
        assert all(texts[cell.id]) and not any("{" in text for text in texts[cell.id]), cell.id


def most_said(nodes):
    """How many sentences these lines say at most: one way or the other, any number in a loop."""

    def most(node):
        if isinstance(node, ast.If):
            return max(most_said(node.body), most_said(node.orelse))
        own = isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "say"
        often = 2 if isinstance(node, (ast.For, ast.While)) else 1
        return own + often * most_said(ast.iter_child_nodes(node))

    return sum(map(most, nodes))


def test_sentences_are_counted_on_each_way():
    lines = "if a:\n  nb.say(x)\nelif b:\n  nb.say(y)\nelse:\n  nb.table(z)\n"
    assert most_said(ast.parse(lines).body) == 1
    assert most_said(ast.parse(lines + "if c:\n  nb.say(z)").body) == 2
    assert most_said(ast.parse("for a in b:\n  nb.say(a)").body) == 2


@every
def test_a_section_has_at_most_one_computed_sentence(path):
    """A section is what stands between two headings of any level."""
    heading, said = "the top", 0
    for cell in read(path).cells:
        if cell.cell_type == "code":
            said += most_said(ast.parse(python(cell)).body)
            assert said <= 1, heading
        elif found := re.findall(r"^#+ .+", cell.source, re.MULTILINE):
            heading, said = found[-1], 0


@each
def test_no_claim_is_shown_twice(path):
    shown = [
        output
        for cell in code_cells(read(path))
        for output in cell.outputs
        if output.output_type == "execute_result"
    ]
    assert not [
        output for output in shown if output.data.get("text/plain", "").startswith("{'id'")
    ]  # a row: end it with ;


@each
def test_it_is_committed_executed_from_top_to_bottom_without_errors_or_warnings(path):
    book = read(path)
    assert [cell.execution_count for cell in code_cells(book)] == list(
        range(1, len(code_cells(book)) + 1)
    )
    outputs = [output for cell in code_cells(book) for output in cell.outputs]
    assert outputs and not [
        o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"
    ]
    assert not any("injected-parameters" in cell.metadata.get("tags", ()) for cell in book.cells)


@each
def test_at_least_three_outputs_are_compared_exactly(path):
    checked = [
        cell
        for cell in code_cells(read(path))
        if "nbval-check-output" in cell.metadata.get("tags", ())
    ]
    assert len(checked) >= 3 and all(cell.outputs for cell in checked)


@every
def test_the_last_cell_closes_the_chapter(path):
    assert "nb.close(" in code_cells(read(path))[-1].source


@every
def test_no_folder_of_a_machine_is_named(path):
    text = path.read_text(encoding="utf-8")
    assert str(FOLDER.parent) not in text and "/home/" not in text and "site-packages" not in text


def test_one_default_a_name_and_profiles_that_fit():
    """A matter of the commit alone: a reader's copy may say otherwise, see `saved_changes`."""
    known = known_parameters(FOLDER)
    assert known["profile"] == "quick" and known["run_dir"] == ""
    assert saved_changes(FOLDER) == {}
    quick = read_profile(FOLDER / "profiles" / "quick.yaml")
    assert {*quick} == {*known} - {"profile", "run_dir"}
    for path in (FOLDER / "profiles").glob("*.yaml"):
        assert check(read_profile(path), known)


def stored(cell):
    """The names that a cell assigns in the kernel; those of comprehensions are their own."""
    tree = ast.parse(python(cell))
    inner = [node for node in ast.walk(tree) if isinstance(node, ast.comprehension)]
    own = {id(name) for node in inner for name in ast.walk(node.target)}
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in own]
    imported = (ast.Import, ast.ImportFrom)
    aliases = [a for node in ast.walk(tree) if isinstance(node, imported) for a in node.names]
    return {n.id for n in names if isinstance(n.ctx, ast.Store)} | {
        a.asname or a.name for a in aliases
    }


@each
def test_no_variable_of_a_chapter_is_named_as_a_parameter_of_any(path):
    known = known_parameters(FOLDER)
    for cell in code_cells(read(path)):
        if "parameters" not in cell.metadata.get("tags", ()):
            assert not stored(cell) & {*known}, cell.id


@every
def test_no_cell_is_changed_by_opening_it(path):
    """JupyterLab writes the kernel's display name into a notebook that has another."""
    assert read(path).metadata.kernelspec.display_name == "Python 3 (ipykernel)"


@each
def test_it_says_of_which_profile_its_stored_outputs_are(path):
    assert "outputs stored in this file are of the quick profile" in read(path).cells[0].source


def test_the_seed_profile_holds_the_seed_reports_values():
    wanted = {
        "seed": 42,
        "salt": "1a2b3c4d5e6f7890abcdef1234567890",
        "context": 512,
        "lr": 0.001,
        "n_heads": 4,
        "d_model": 128,
        "bench_seed": 42,
        "recipe": "seed",
    }
    values = check(read_profile(FOLDER / "profiles" / "seed.yaml"), known_parameters(FOLDER))
    assert {name: values.get(name) for name in wanted} == wanted
    assert (
        values["train_tokens"] + values["test_tokens"] == 50_000
    )  # split 80/20, as in the original report


def test_no_two_chapters_share_a_figure_or_table():
    shown = [
        (output.metadata["minitransformer"]["kind"], output.metadata["minitransformer"]["id"])
        for path in PATHS
        for cell in code_cells(read(path))
        for output in cell.outputs
        if output.get("metadata", {}).get("minitransformer", {}).get("kind") in ("figure", "table")
    ]
    assert shown and not [pair for pair in set(shown) if shown.count(pair) > 1]


def test_all_that_was_measured_apart_is_declared_by_a_chapter_that_reads_it():
    """What a chapter does not declare may change without the chapter being made again."""
    books = [read(path).metadata["paper"] for path in PATHS]
    patterns = {pattern for book in books for pattern in book.get("reads", ())}
    read_by_some = {path for pattern in patterns for path in FOLDER.parent.glob(pattern)}
    assert {*(FOLDER.parent / "reports" / "long").iterdir()} == read_by_some
