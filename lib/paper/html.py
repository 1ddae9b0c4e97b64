"""The report as one HTML file: executed notebooks, claims and provenance in, index.html out.

Conventions
    chapter      NN-name.ipynb, executed, in the run's folder; one that has not run is named in a
                 notice; the appendices A1-... stand behind the claims and the audit
    head         first Markdown cell: `# Title`, then `*Question?*`; the answer is what nb.answer
                 showed
    front        report.ipynb by its `##` headings: Abstract stands in the masthead, Findings, Talk
                 to it, Resumen and Architecture before the chapters, what is under Claims and Audit
                 below the tables that are built here; its other sections close the page in their
                 order
    live         talk.json, what the script lets the reader talk to under Talk to it
    law          timemodel.json, what sliders below the figure "latency" move
    headline     headline.json, the tiles of `headline.tiles`, each with a strip as `marks.strip`
                 takes it
    claims       claims/NN-name.json of the notebooks shown; rows about the original report form
                 the audit
    anchors      cell "NN-<cell id>", claim "claim-<id>", figure "fig-<id>", table "tbl-<id>",
                 file "file-<path>", work "ref-<key>", chapter its notebook's name

The file loads nothing: no script, style sheet, font or image from anywhere; its own script is in
it. `check` refuses a page that would, and the page asks the browser to refuse as well."""

import json
from dataclasses import replace
from pathlib import Path

from . import bars, bibliography, companions, prose, svg
from .about import about
from .audit_section import audit_section
from .chapter import APPENDIX, Book, claim_anchor, prefix
from .checks import check
from .claims import audited, seed_claims
from .files import read_json, write_text
from .marks import measured, strip, written
from .names import slug
from .project import OWN, Project
from .record import made_by
from .script import joined
from .words import visible

TEMPLATE = Path(__file__).resolve().parents[2] / "reports" / "template"
STYLES = ("style.css", "audit.css", "talk.css")
BEFORE = ("findings", "talk", "resumen", "architecture")  # sections before the chapters
BUILT = ("abstract", *BEFORE, "claims", "audit")
BARS_FOR = "paper"  # the profile that the bars were set for


def build_html(run_dir) -> Path:
    """Writes run_dir/index.html from the executed notebooks in `run_dir`.

    FileNotFoundError if there is no executed notebook; ValueError if the page would break one of
    the report's promises."""
    run_dir = Path(run_dir)
    run = read_json(run_dir / "run.json", {})
    project = _project(run_dir, run)
    names = [name for name in project.chapters if (run_dir / f"{name}.ipynb").is_file()]
    front = run_dir / "report.ipynb"
    if not names and not front.is_file():
        raise FileNotFoundError(f"no executed notebook in {run_dir}: run make report first")
    shown = [*names, *(["report"] if front.is_file() else [])]
    claims = [row for name in shown for row in read_json(run_dir / "claims" / f"{name}.json", [])]
    book = Book(TEMPLATE, claims, run_dir, project.chapters)
    seconds = run.get("durations_s", {})
    talk, law = (read_json(run_dir / f"{name}.json", {}) for name in ("talk", "timemodel"))
    matter = book.chapter(front, seconds.get("report")) if front.is_file() else None
    chapters = [book.chapter(run_dir / f"{name}.ipynb", seconds.get(name)) for name in names]
    parts = dict(
        style="".join((TEMPLATE / name).read_text(encoding="utf-8") for name in STYLES)
        + svg.stylesheet(),
        about=about(project.root),
        missing=[name for name in (*project.chapters, "report") if name not in shown],
        took=sum(seconds.get(name, 0) for name in shown),
        **_run(project, run),
        **_claims(claims, chapters, matter),
        **_front(matter),
        chapters=[chapter for chapter in chapters if not APPENDIX.match(chapter.name)],
        appendices=[chapter for chapter in chapters if APPENDIX.match(chapter.name)],
        references=bibliography.listed(book.cites),
        companions=companions.listed(run_dir),
        stats=[_tile(it) for it in read_json(run_dir / "headline.json", [])],
        before=BEFORE,
        live=talk if talk.get("models") else {},  # none may be small enough
        law=law if law.get("widths") else {},
        script=joined(TEMPLATE),
    )
    parts["ending"] = _ending(parts)
    parts["contents"] = _contents(parts)
    page = visible(book.finished(book.env.get_template("page.html.j2").render(parts)))
    cells = {claim_anchor(row["id"]): cell_anchor(row) for row in claims}
    check(page, cells, _folders(run_dir, run), parts["script"])
    return write_text(run_dir / "index.html", page)


def _project(run_dir, run):
    """The project with the chapters that made the run: those about a model where one was given."""
    own = OWN if run.get("parameters", {}).get("model") else ""
    return replace(Project.find(run_dir), part=own)


def _run(project, run):
    """What the page says of the run as a whole."""
    profile = run.get("profile")
    return {
        "run": run,
        "corpus": Path(str(run.get("parameters", {}).get("corpus", ""))).stem,
        "made_by": made_by(project, run),
        "bars_for": BARS_FOR,
        "other_bars": profile not in (None, BARS_FOR) and not project.part,
        "model": run.get("parameters", {}).get("model", ""),
    }


def _ending(parts):
    """What closes the page: the works cited, the last sections of report.ipynb, and behind its
    provenance the files beside the page."""
    files = {"id": "files", "title": "Files beside this page"}
    ending = [{"id": "references", "title": "References"}] if parts["references"] else []
    for it in parts["closing"]:
        ending += [it, files] if it["id"] == "provenance" else [it]
    return ending if files in ending else [*ending, files]


def _contents(parts):
    """Groups of {id, title, no, sections, lang}, in the page's order."""

    def entry(id, title, no="", sections=(), lang=""):
        return {"id": id, "title": title, "no": no, "sections": sections, "lang": lang}

    def chapters(found):
        return [entry(it.name, prose.inline(it.title), it.no, it.sections) for it in found]

    front = [
        entry(name, parts["front"][name]["title"], lang="es" if name == "resumen" else "")
        for name in ("abstract", *BEFORE)
        if parts["front"][name]["body"]
    ]
    judged = [entry("claims", "Claims")] if parts["own"] else []
    judged += [entry("audit", "Audit of the original report")] if parts["audit"]["examined"] else []
    closing = [entry(it["id"], it["title"]) for it in parts["ending"]]
    groups = (front, chapters(parts["chapters"]), judged, chapters(parts["appendices"]), closing)
    return [group for group in groups if group]


def _folders(run_dir, run):
    """This machine's folders that the page must not name: the project's and the user's, unless the
    text or the parameters given hold them, which are shown as they are."""
    data = json.dumps(run.get("parameters", {}), ensure_ascii=False)
    for name in ("corpus.txt", "corpus.json"):
        path = Path(run_dir) / name
        data += path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    folders = {str(TEMPLATE.parents[1]), str(Path.home())} - {"/"}
    return [folder for folder in sorted(folders) if folder not in data]


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
            "bar": (row["op"], row["bound"]) if row.get("op") else None,
            "shown": measured(row),
        }
        for row in claims
    ]
    own = [row for row in rows if not audited(row)]
    return {
        "own": _by_chapter(own, chapters),
        "tally": bars.tally(own),
        "changed": bars.changed(own),
        "dropped": bars.dropped(),
        "unasked": bars.unasked(own),
        "audit": audit_section(rows, seed_claims()),
    }


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
    times = tile["unit"] * (tile["unit"] == "×")  # has its own digits, and is set apart
    text = written(tile["value"], times, tile["interval"]).removesuffix("×")  # as in the abstract
    label = tile["label"].replace(" = ", "\u00a0=\u00a0")
    return {**tile, "label": label, "text": text, "strip": strip(**tile["strip"])}


def _front(matter):
    """The sections of report.ipynb: those with a place of their own by name, the rest in order."""
    named = {name: {"title": "", "body": ""} for name in BUILT}
    closing = []
    for title, body in (matter.parts if matter else {}).items():
        id = slug(title)
        name = id if id in BUILT else id.partition("-")[0]
        if name in BUILT:
            named[name] = {"title": title, "body": body}
        else:
            closing.append({"id": id, "title": title, "body": body})
    return {"front": named, "closing": closing}
