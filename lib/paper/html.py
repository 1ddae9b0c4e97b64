"""The report as one HTML file: executed notebooks, claims and provenance in, index.html out.

Conventions
    chapter      NN-name.ipynb, executed, in the run's folder; a chapter that has not run is named
    in a notice head         first Markdown cell: `# Title`, then `*Question?*`; the answer is what
    nb.answer showed front        report.ipynb: "## Abstract" stands in the masthead; what stands
    under "## Claims" and "## Audit …" follows
                 the tables that are built here; its other `##` sections (Limits, Provenance,
Grading sheet) close the page
    headline     headline.json, the tiles of `headline.headlines`: {claim, label, value, unit,
interval, limit_text, seed_text,
                 strip}, the last as `marks.strip` takes it
    claims       claims/NN-name.json of the notebooks shown; rows with a kind form the audit
    anchors      cell "NN-<cell id>", claim "claim-<id>", figure "fig-<id>", table "tbl-<id>",
    chapter its notebook's name

The file loads nothing: no script, no style sheet, font or image from anywhere. `check` refuses a
page that would."""

import json
from pathlib import Path

from . import bars
from .audit_section import audit_section
from .chapter import Book, claim_anchor, in_order, prefix
from .checks import check
from .claims import audited, seed_claims
from .files import read_json, write_text
from .marks import strip, written
from .names import slug
from .project import Project
from .summary import counts
from .words import visible

TEMPLATE = Path(__file__).resolve().parents[2] / "reports" / "template"
BUILT = ("abstract", "claims", "audit")


def build_html(run_dir, notebooks_dir=None) -> Path:
    """Writes run_dir/index.html from the executed notebooks in `notebooks_dir` (the run's folder
    unless given).

    FileNotFoundError if there is no executed notebook; ValueError if the page would break one of
    the report's promises."""
    run_dir = Path(run_dir)
    folder = Path(notebooks_dir or run_dir)
    chapters_of_book = Project.find(run_dir).chapters
    names = [name for name in chapters_of_book if (folder / f"{name}.ipynb").is_file()]
    front = folder / "report.ipynb"
    if not names and not front.is_file():
        raise FileNotFoundError(f"no executed notebook in {folder}: run make report first")
    run = _json(run_dir / "run.json", {})
    seconds = run.get("durations_s", {})
    shown = [*names, *(["report"] if front.is_file() else [])]
    claims = [row for name in shown for row in _json(run_dir / "claims" / f"{name}.json", [])]
    book = Book(TEMPLATE, claims, run_dir)
    chapters = [book.chapter(folder / f"{name}.ipynb", seconds.get(name)) for name in names]
    matter = book.chapter(front, seconds.get("report")) if front.is_file() else None
    parts = dict(
        style="".join(
            (TEMPLATE / name).read_text(encoding="utf-8") for name in ("style.css", "audit.css")
        ),
        run=run,
        chapters=chapters,
        missing=[name for name in chapters_of_book if name not in names]
        + ([] if matter else ["report"]),
        **_claims(claims, chapters, matter),
        **_front(matter),
        stats=[_tile(it) for it in _json(run_dir / "headline.json", [])],
        corpus=Path(str(run.get("parameters", {}).get("corpus", ""))).stem,
        took=sum(seconds.get(name, 0) for name in shown),
    )
    page = visible(in_order(book.env.get_template("page.html.j2").render(parts), book.token))
    cells = {claim_anchor(row["id"]): cell_anchor(row) for row in claims}
    check(page, cells, _folders(run_dir, run))
    return write_text(run_dir / "index.html", page)


def _folders(run_dir, run):
    """This machine's folders that the page must not name: the project's and the user's, unless the
    text or the parameters given hold them, which are shown as they are."""
    data = json.dumps(run.get("parameters", {}), ensure_ascii=False)
    for name in ("corpus.txt", "corpus.json"):
        path = Path(run_dir) / name
        data += path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    folders = {str(TEMPLATE.parents[1]), str(Path.home())} - {"/"}
    return [folder for folder in sorted(folders) if folder not in data]


def _json(path, missing):
    return read_json(path) if path.is_file() else missing


def cell_anchor(row):
    """The anchor of the cell that computed a claim."""
    return f"{prefix(row['notebook'])}-{row['cell_id']}"


def _claims(claims, chapters, matter):
    """Our own claims by chapter with the count of their verdicts, and the audit."""
    numbers = {}
    for chapter in [*chapters, *([matter] if matter else [])]:
        numbers |= chapter.labels
    rows = [
        {
            **row,
            "href": cell_anchor(row),
            "cell": numbers.get(cell_anchor(row), ""),
            "bar": f"{row['op']} {row['bound']}" if row.get("op") else row["threshold"],
            "shown": written(row["measured"], row["unit"], row["interval"]),
        }
        for row in claims
    ]
    own = [row for row in rows if not audited(row)]
    return {
        "own": _by_chapter(own, chapters),
        "counts": counts(rows),
        "changed": _changed(own),
        "audit": audit_section(rows, seed_claims()),
    }


def _changed(own):
    """The bars of this run that are not as they were first written: {bar, row, changes}."""
    known = bars.read()
    pairs = [(known[row["id"]], row) for row in own if row["id"] in known]
    return [{"bar": bar, "row": row} for bar, row in pairs if bar.changes]


def _by_chapter(rows, chapters):
    """[(heading, rows)] of our own claims, in the chapters' order; those of report.ipynb last."""
    headings = {chapter.name: f"{chapter.no} {chapter.title}" for chapter in chapters}
    groups = {}
    for row in rows:
        groups.setdefault(headings.get(row["notebook"], "The whole"), []).append(row)
    return list(groups.items())


def _tile(tile):
    """A headline number for the page: its text and unit, its strip, and a label that breaks only
    between words."""
    unit = "" if tile["unit"] == "perplexity" else tile["unit"]  # the label says it
    text = written(tile["value"], "", tile["interval"])  # as in the abstract
    label = tile["label"].replace(" = ", "\u00a0=\u00a0")
    return {**tile, "label": label, "unit": unit, "text": text, "strip": strip(**tile["strip"])}


def _front(matter):
    """The sections of report.ipynb: abstract, what follows the built tables, and the rest in
    order."""
    parts = {
        (slug(title).partition("-")[0] if slug(title).startswith("audit") else slug(title)): (
            title,
            body,
        )
        for title, body in (matter.parts if matter else {}).items()
    }
    named = {name: parts.pop(name, ("", ""))[1] for name in BUILT}
    return {
        "front": named,
        "closing": [(name, title, body) for name, (title, body) in parts.items()],
    }
