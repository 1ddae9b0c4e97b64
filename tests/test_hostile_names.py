"""A corpus may be called anything: every name is taken literally, by every stage and every record.

The stages are those of a toy project, run without kernels, but all that a runner writes is real."""

import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from paper import __main__ as command
from paper import execution, html, names, pack, provenance
from paper.files import read_json, sha256, write_bytes, write_json, write_text
from paper.notebook import OUT
from paper.project import NAME_BYTES, Project
from paper.scrub import naming
from paper.sources import LIB
from paper_project import make_project

NAMES = [
    "plain.txt",
    "two words.txt",
    "  padded  .txt",
    "no extension",
    ".hidden.txt",
    "...txt",
    "many.dots.in.it.txt",
    "-rf.txt",
    "--set seed=1.txt",
    "-",
    "~nobody.txt",
    "~",
    "$$ x.txt",
    "$HOME.txt",
    r"$\frac{1}{2}$.txt",
    "a_b^c.txt",
    "100 %.txt",
    "%s %d %(x)s.txt",
    "{braces} {0}.txt",
    "{{ jinja }}{% raw %}.txt",
    "`id`.txt",
    "$(id).txt",
    "a;b|c&d>e<f.txt",
    "*?[a].txt",
    'it\'s "quoted".txt',
    "'.txt",
    '".txt',
    r"back\slash.txt",
    r"trailing\\",
    "#hash # comment.txt",
    "=HYPERLINK(1).txt",
    "@mention.txt",
    "a, b; c.txt",
    "null",
    "true",
    "1e3",
    "[1, 2].txt",
    "<img src=x onerror=alert(1)>.txt",
    "<script>alert(1)<.txt",
    "notes <draft>.txt",
    "a<h2>Fake<.txt",
    "&amp; &lt;.txt",
    "# Title\n\ntext.txt",
    "new\nline.txt",
    "return\rreturn.txt",
    "tab\ttab.txt",
    "escape \x1b[31mred.txt",
    "bell \x07.txt",
    "right to left \u202egpj.txt",
    "line \u2028 separator.txt",
    "紅樓夢.txt",
    "Война и мир.txt",
    "गोदान.txt",
    "ألف ليلة وليلة.txt",
    "Canción ñ.txt",
    unicodedata.normalize("NFD", "Canción ñ.txt"),
    "ſtraße İi.txt",
    "🦊🦊.txt",
    "👩\u200d👩\u200d👧.txt",
    "x" * 200 + ".txt",
    "語" * 66 + ".txt",
    "a." + "e" * 200,
    "con.txt",
    "NUL",
    "aux.tar.gz",
    "con",
    os.fsdecode(b"caf\xe9.txt"),
    os.fsdecode(b"\xff\xfe.txt"),
    os.fsdecode("語\n".encode() + b"\x80.txt"),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A toy project that is run from the folder where the corpora are."""
    project = Project(make_project(tmp_path_factory.mktemp("project") / "p"))
    (project.root.parent / "texts").mkdir()
    return project


@pytest.fixture(autouse=True)
def without_kernels(project, monkeypatch):
    """A chapter "runs" by reading its corpus and by writing down what it was given."""

    def execute(source, part, parameters, kernel_manager_class, **_):
        book = read_json(source)
        code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
        for cell in code:
            cell["execution_count"] = 1
        given = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
        cell = {"metadata": {"tags": ["injected-parameters"]}, "source": f"# Parameters\n{given}"}
        shown = {"output_type": "stream", "name": "stderr", "text": f"{project.root}/x.py: a\n"}
        more = {"cell_type": "code", "id": "given", "execution_count": 1, "outputs": [shown]}
        book["cells"].insert(2, cell | more)
        out, text = Path(kernel_manager_class.environment[OUT]), project.root / parameters["corpus"]
        name = book["metadata"]["paper"]["name"]
        write_bytes(out / f"{name}.txt", text.read_bytes())
        write_json(out / f"{name}.json", {"name": text.stem})
        write_json(out / "claims" / f"{name}.json", [])
        write_json(part, book)

    monkeypatch.setattr(execution, "execute_notebook", execute)
    monkeypatch.setattr(provenance, "PACKAGES", ())
    monkeypatch.setattr(html, "build_html", lambda run_dir: write_text(run_dir / "index.html", "<"))
    monkeypatch.chdir(project.root.parent / "texts")
    monkeypatch.setattr(Project, "find", staticmethod(lambda start=None: project))


def run(target, *arguments):
    return command.main([target, "--profile", "quick", *arguments])


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(names.short(name, 30))[1:-1])
def test_every_stage_and_record_takes_the_name_literally(project, name, capsys):
    text = write_bytes(Path(name), f"the text of {name!a}".encode())
    assert run("report", "--set", f"corpus={name}") == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    out.encode("ascii" if name.isascii() else "utf-8")  # nothing that no stream can take
    run_dir = project.root / out.splitlines()[-1].removesuffix("/index.html")

    folder = run_dir.name
    assert folder.startswith("quick-") and folder == names.printable(folder)
    assert not set(folder) & set(r'<>:"/\|?*%$`{} ') and len(os.fsencode(folder)) < 80
    assert (run_dir / "01-data.txt").read_bytes() == text.read_bytes()
    recorded = read_json(run_dir / "run.json")["parameters"]["corpus"]
    assert recorded == names.file_name(name) and "\n" not in recorded
    stem = read_json(run_dir / "01-data.json")["name"]  # what the chapter calls its corpus
    assert stem[:15] == Path(recorded).stem[:15]

    assert naming(run_dir, project.root, str(project.root.parent)) == []
    assert not list(run_dir.glob("*.failed.ipynb")) and not list(run_dir.rglob(".part-*"))
    for path in run_dir.rglob("*"):
        if path.is_file():
            path.read_text(encoding="utf-8")
            assert "dcff" not in path.name
    check = ["sha256sum", "--quiet", "-c", "HASHES.txt"]
    assert subprocess.run(check, cwd=run_dir).returncode == 0
    assert pack.verify(pack.pack_run(project, run_dir)) == len(list(pack.stages.artefacts(run_dir)))

    assert run("report", "--set", f"corpus={name}") == 0
    assert "done in" not in capsys.readouterr().out  # it is current


@pytest.mark.parametrize("name", NAMES[::6], ids=ascii)
def test_a_name_that_is_no_file_is_one_line(project, name, capsys):
    if Path(name).exists():
        Path(name).unlink()
    for given_name in (name, name * 20):
        assert run("data", "--set", f"corpus={given_name}") == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "is neither a text file nor a known name" in err
        assert len(err) < 400 and err[:-1].isprintable()


def test_a_folder_and_an_unreadable_text_are_named_as_such(project, capsys, monkeypatch):
    Path("folder.txt").mkdir()
    assert run("data", "--set", "corpus=folder.txt") == 2
    assert "corpus 'folder.txt' is a folder: give a text file in it" in capsys.readouterr().err
    Path("secret.txt").write_text("x")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert run("data", "--set", "corpus=secret.txt") == 2
    assert "corpus 'secret.txt' may not be read" in capsys.readouterr().err


def test_names_that_differ_by_case_only_are_two_corpora_of_one_folder(project, capsys):
    for name in ("Poems.txt", "poems.txt"):  # on a system where these are two files
        Path(name).write_text("the same")
        assert run("data", "--set", f"corpus={name}") == 0
        assert "01-data done" in capsys.readouterr().out
        (run_dir,) = project.reports.glob("quick-poems-*")
        assert read_json(run_dir / "run.json")["parameters"]["corpus"] == name


def test_a_text_that_changes_is_another_run(project, capsys):
    for words in ("one", "two"):
        Path("draft.txt").write_text(words)
        assert run("data", "--set", "corpus=draft.txt") == 0
    assert len(list(project.reports.glob("quick-draft-*"))) == 2


def test_an_undecodable_name_reaches_a_terminal_that_takes_ascii_only(project):
    name = os.fsdecode(b"caf\xe9.txt")
    words = [sys.executable, "-m", "paper", "data", "--profile", "quick", "--set"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(LIB)}
    done = subprocess.run(
        [*words, f"corpus=no such {name}"],
        cwd=project.root,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "no such caf\\udce9.txt" in done.stderr.replace("\\\\", "\\")
    assert done.stderr.count("\n") == 1


@given(st.text(st.characters(codec=None), max_size=80))
@example("con")
@example("\udcff")
@settings(max_examples=300, deadline=None)
def test_a_slug_is_a_portable_name(text):
    slug = names.slug(text, NAME_BYTES)
    assert slug and len(slug.encode()) <= NAME_BYTES and slug == slug.lower()
    assert not slug.startswith("-") and not slug.endswith("-")
    assert all(c == "-" or unicodedata.category(c)[0] in "LNM" for c in slug)
    assert unicodedata.is_normalized("NFC", slug)
    assert names.slug(slug) == slug


@pytest.mark.parametrize(
    "text, slug",
    [
        ("紅樓夢", "紅樓夢"),
        ("Война и мир", "война-и-мир"),
        ("Canción ñ", "cancion-n"),
        ("गोदान", "गोदान"),
        ("🦊", "text"),
        ("<img src=x>", "img-src-x"),
    ],
)
def test_a_slug_keeps_what_a_name_is_known_by(text, slug):
    assert names.slug(text) == slug


@given(st.dictionaries(st.text(st.characters(codec=None), min_size=1), st.just("0" * 64)))
@settings(max_examples=200, deadline=None)
def test_lists_of_hashes_are_read_as_they_were_written(listed):
    text = "".join(names.hash_line(sha, name) for name, sha in listed.items())
    assert names.read_hash_lines(text) == listed


def test_sha256sum_reads_the_lines_of_every_name(tmp_path):
    kept = [name for name in NAMES if name not in ("-", "~")]
    for name in kept:
        write_bytes(tmp_path / name, name.encode(errors="surrogateescape"))
    lines = [names.hash_line(sha256(tmp_path / name), name) for name in kept]
    write_text(tmp_path / "HASHES.txt", "".join(lines))
    check = subprocess.run(
        ["sha256sum", "--strict", "-c", "HASHES.txt"], cwd=tmp_path, capture_output=True
    )
    assert check.returncode == 0 and check.stdout.count(b": OK") == len(kept)


@given(st.text(st.characters(codec=None)))
@settings(max_examples=200, deadline=None)
def test_any_text_survives_a_record_and_prints_on_one_line(text):
    value = {"name": text}
    assert names.printable(text).isprintable()
    assert json.loads(_written(value)) == value


def _written(value):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return write_json(Path(folder) / "v.json", value).read_text(encoding="utf-8")
