"""One executed notebook as a chapter: its head, and its body as HTML with numbered figures, tables
and certificates."""

import html
import json
import re
import secrets
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from nbconvert import HTMLExporter, TemplateExporter

from . import bibliography, companions, marks, prose
from .bars import VERDICTS
from .captions import KINDS, captions, is_caption, need
from .claims import settled
from .code import python
from .display import KEY
from .names import slug
from .numerals import number, unbroken
from .tables import restyle

FITS = 96  # characters of code that stand beside the contents without scrolling
READABLE = 0.875  # of a figure's own size: then its labels of 12 pixels are 10.5 high
HEADING = re.compile("h[2-6]")
ALIGNED = re.compile(r"\S {2,}\S")  # as columns are, in a text of several lines
NUMBERED = re.compile(r"(\d\d|A\d+)-")  # chapters and appendices
APPENDIX = re.compile(r"A\d+-")
# What a first cell says of the notebook's own outputs, of a chapter on the page untrue.
STORED = re.compile(r"The outputs stored in this file are of[^.]*\.\s*")
HEAD = re.compile(
    r"\s*# +(?P<title>.+?)\s*\n+(?:\*(?P<question>[^*\n]+(?:\n[^*\n]+)*)\*\s*(?:\n|$))?"
)


@dataclass
class Chapter:
    """What the page needs of one notebook; `body` is HTML, `parts` are the bodies under its `##`
    headings by title."""

    name: str
    title: str
    question: str
    answer: Markup
    seconds: float | None
    cells: int
    body: Markup
    parts: dict = field(default_factory=dict)
    labels: dict = field(default_factory=dict)  # "04.7" by cell anchor
    sections: list = field(default_factory=list)  # (id, heading) of its own level

    @property
    def no(self):
        return prefix(self.name).lstrip("0")


class Book:
    """Renders notebooks one after the other; `in_order` numbers what they show once the page is put
    together.

    `template` is the folder with chapter/ and outputs.html.j2; `claims` the rows of claims.json,
    `run_dir` the folder in which the page's companions lie, `chapters` the names that a table's
    cells link to. `cites` collects where each work is cited."""

    def __init__(self, template: Path, claims=(), run_dir=None, chapters=()):
        self.template = template
        self.env = Environment(
            loader=FileSystemLoader(template), autoescape=True, trim_blocks=True, lstrip_blocks=True
        )
        self.env.filters.update(
            inline=prose.inline,
            caption=prose.caption,
            quiet=prose.quiet,
            key=claim_anchor,
            file=companions.anchor,
            number=number,
            written=marks.written,
            measured=marks.measured,
            stated=marks.stated,
            interval=marks.interval_text,
            unbroken=unbroken,
            settled=settled,
            data=data,
        )
        self.env.globals.update(strip=marks.strip, ruler=marks.ruler, beside=self._beside)
        self.run_dir = run_dir
        self.claims = {row["id"]: row for row in claims}
        self.links = {name: f"#{name}" for name in chapters if self._beside(f"{name}.ipynb")}
        self.links |= {id: f"#{claim_anchor(id)}" for id in self.claims}
        self.cites = {}
        self.numbered = count(1)
        self.token = secrets.token_hex(8)  # marks what in_order numbers: no text can hold it
        self.drawings = []

    def chapter(self, path: Path, seconds=None) -> Chapter:
        """The chapter of an executed notebook; ValueError if a cell raised, or shows an image that
        has no alt text."""
        notebook = nbformat.read(path, as_version=4)
        name = path.stem
        title, question = _take_head(notebook, name)
        _take_captions(notebook, name)
        answer = self._number(notebook, name)
        shift = 1 if NUMBERED.match(name) else 0
        if not shift:
            self.links |= {title: f"#{slug(title)}" for title in _titles(notebook)}
        renderer = prose.Renderer(prefix(name), shift)
        computed = prose.Renderer(prefix(name), shift, computed=True)
        computed.used = renderer.used
        self.at = name, renderer, computed
        body, _ = TemplateExporter.from_notebook_node(self.exporter, notebook)  # not parsed twice
        soup = BeautifulSoup(body, "html.parser")
        _drop_empty_headings(soup)
        labels = {
            c.metadata["report"]["anchor"]: c.metadata["report"]["number"]
            for c in notebook.cells
            if c.cell_type == "code"
        }
        answer = answer and prose.inline(answer)
        about = (name, title, question, answer, seconds, len(labels))
        if shift:
            kind = "appendix" if APPENDIX.match(name) else "chapter"
            place = f"{kind} {prefix(name).lstrip('0')}"
            return Chapter(*about, self._cited(soup, place), {}, labels, _sections(soup))
        parts = {title: self._cited(body, title) for title, body in _parts(soup).items()}
        return Chapter(*about, Markup(""), parts, labels)

    @cached_property
    def exporter(self):
        """One for all chapters, because it reads its templates once; its filters write for the
        chapter that `at` names with its renderers."""
        found = HTMLExporter(template_name="chapter", extra_template_basedirs=[str(self.template)])
        found.register_filter("markdown2html", lambda text: prose.markdown(text, self.at[1]))
        found.register_filter("python", python)
        found.register_filter("printed", printed)
        found.register_filter(
            "shown", lambda output, cell: self._shown(output, cell, self.at[0], self.at[2])
        )
        return found

    def _badges(self):
        """The verdicts about our own bars, which stand in tables as they do elsewhere."""
        badge = self.env.get_template("outputs.html.j2").module.badge
        return {verdict: str(badge(verdict)) for verdict in VERDICTS}

    def _cited(self, html, place):
        return Markup(bibliography.anchored(str(html), place, self.cites))

    def _beside(self, path):
        """Whether a file lies beside the page, so that a link to it has an end."""
        return self.run_dir is not None and (Path(self.run_dir) / path).is_file()

    def _aside(self, drawing):
        """A mark in the place of a drawing, which no parser need read; "" for none."""
        if not drawing:
            return ""
        self.drawings.append(drawing)
        return f"{self.token}@{len(self.drawings) - 1};"

    def finished(self, page) -> str:
        """The page with its numbers and its drawings."""
        page = in_order(page, self.token)
        return re.sub(rf"{self.token}@(\d+);", lambda found: self.drawings[int(found[1])], page)

    def _number(self, notebook, name):
        """Writes anchors and numbers into the metadata; returns the answer, which leaves the
        body."""
        answer, ordinal = "", 0
        # a chapter's answer stands in its head
        hidden = ("echo", "answer") if NUMBERED.match(name) else ("echo",)
        for cell in notebook.cells:
            if cell.cell_type != "code":
                continue
            ordinal = cell.execution_count or ordinal + 1
            label = f"{prefix(name)}.{ordinal}"
            given = "injected-parameters" in cell.metadata.get("tags", ())
            id = "parameters-given" if given else cell.id
            took = cell.metadata.get("papermill", {}).get("duration")
            cell.metadata["report"] = {
                "id": id,
                "anchor": f"{prefix(name)}-{id}",
                "number": label,
                "lines": len(cell.source.strip().splitlines()),
                "wide": max(map(len, cell.source.splitlines()), default=0) > FITS,
                "took": f", {number(float(took), 3)} s" if took else "",
                "folded": bool(APPENDIX.match(name)),  # its tables stand behind their captions
            }
            answer = next(
                (o.metadata[KEY]["text"] for o in cell.outputs if _kind(o) == "answer"), answer
            )
            shown = [
                o for o in cell.outputs if _kind(o) not in hidden and o.get("name") != "stderr"
            ]
            cell.outputs = _merged(shown)
            for output in cell.outputs:
                if output.output_type == "error":
                    raise ValueError(
                        f"{name}, cell {cell.id}: {output.ename}: {output.evalue}: run the "
                        "notebook again"
                    )
                if (kind := _kind(output)) in (*KINDS, "certificate"):
                    kind = "figure" if kind == "text" else kind
                    output.metadata[KEY]["number"] = f"{self.token}{kind} {next(self.numbered)};"
        return answer

    def _shown(self, output, cell, name, renderer):
        """The HTML of one output by its kind; Markdown, HTML, then text where it carries none."""
        kind, at, data = _kind(output), cell.metadata["report"], output.data
        if kind in (*KINDS, "certificate", "negative", "claims"):
            about = dict(output.metadata[KEY])
            if kind == "figure":
                about["svg"] = Markup(self._aside(data.get("image/svg+xml", "")))
                about["least"] = round(about["width"] / 2 * READABLE)  # pixels of the page
                if not about["svg"]:
                    about["src"] = f"data:image/png;base64,{''.join(data['image/png'].split())}"
            if kind == "text":
                about["words"] = Markup(data["text/html"])
            if kind == "table":
                id = f"tbl-{about['id']}"
                source = restyle(data["text/html"], id, self.links, self._badges())
                head, found, body = source.partition("<thead>")
                columns = (found + body).partition("</tr>")[0].count("<th ")
                # the caption goes between
                about |= {"before": Markup(head), "after": Markup(found + body), "columns": columns}
            rows = [self._claim(id, name, at) for id in about.get("ids", ())]
            own = (row for row in self.claims.values() if row["notebook"] == name)
            here = [row for row in own if row["cell_id"] == at["id"]]
            template = self.env.get_template("outputs.html.j2")
            return getattr(template.module, kind)(
                about=about, at=at, rows=rows, here=here, claims=self.claims
            )
        if "text/markdown" in data:
            return prose.markdown(data["text/markdown"], renderer)
        if "text/html" in data:
            source = restyle(data["text/html"])
            if "<table" not in source:  # a listing scrolls by itself, by the keyboard too
                named = (
                    f'<pre tabindex="0" role="group" aria-label="Listing of cell {at["number"]}"'
                )
                return Markup(source.replace("<pre", named))
            return Markup(_scroll(source, f"Table of cell {at['number']}"))
        if any(mime.startswith("image/") for mime in data):
            raise ValueError(
                f"{name}, cell {cell.id} shows an image without alt text: show it with "
                "nb.figure(..., alt=...)"
            )
        return printed(data.get("text/plain", ""), at["number"])

    def _claim(self, id, name, at):
        if id not in self.claims:
            raise ValueError(
                f"{name}, cell {at['id']}: claims/{name}.json lacks {id!r}: run the notebook again"
            )
        return self.claims[id]


def in_order(page, token):
    """Figures, tables and certificates of the finished page, marked by the book's `token`, numbered
    from 1 in the order in which a reader meets them."""
    seen = {}

    def numbered(found):
        ours = seen.setdefault(found[1], {})
        return str(ours.setdefault(found[0], len(ours) + 1))

    return re.sub(rf"{token}(\w+) \d+;", numbered, page)


def prefix(name):
    """ "04" of "04-kv-bench", "A1" of "A1-cache"; the whole name where it has no number."""
    found = NUMBERED.match(name)
    return found[1] if found else name


def claim_anchor(id):
    return "claim-" + re.sub(r"[^A-Za-z0-9_.-]+", "-", id)


def data(value):
    """Anything as JSON inside a script element, where no tag may stand."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def printed(text, number):
    """Plain text that the cell of this number printed. Lines are broken where they are too long,
    but those of a table, whose columns stand under one another, scroll instead."""
    table = "\n" in text.strip() and ALIGNED.search(text)
    kind = 'class="stream aligned" tabindex="0"' if table else 'class="stream"'
    named = f'role="group" aria-label="Output of cell {number}"'
    return Markup(f"<pre {kind} {named}>{html.escape(text)}</pre>")


def _kind(output):
    return output.get("metadata", {}).get(KEY, {}).get("kind")


def _merged(outputs):
    """Claims that follow one another as one output of kind "claims"; a claim made twice counts
    once."""
    result = []
    for output in outputs:
        if _kind(output) != "claim":
            result.append(output)
            continue
        id = output.metadata[KEY]["id"]
        if not result or _kind(result[-1]) != "claims":
            result.append(
                nbformat.v4.new_output(
                    "display_data", {}, metadata={KEY: {"kind": "claims", "ids": []}}
                )
            )
        ids = result[-1].metadata[KEY]["ids"]
        ids.extend([id] if id not in ids else [])
    return result


def _take_head(notebook, name):
    """Title and question from the first Markdown cell, `# Title` and `*Question?*`, which are
    removed from it."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            found = HEAD.match(cell.source + "\n")
            if not found:
                break
            cell.source = STORED.sub("", cell.source[found.end() :]).strip()
            return found["title"], " ".join((found["question"] or "").split())
    raise ValueError(
        f"{name}: the first Markdown cell has no title: start it with '# Title' and then "
        "'*Question?*'"
    )


def _take_captions(notebook, name):
    """Gives every figure, table and text the caption that stands below its cell, and takes these
    cells away."""
    texts = captions(notebook.cells)
    for cell in notebook.cells:
        shown = [o for o in cell.get("outputs", ()) if _kind(o) in KINDS]
        if shown:
            need(f"{name}, cell {cell.id!r},", len(shown), texts[cell.id])
            for output, text in zip(shown, texts[cell.id], strict=False):
                output.metadata[KEY]["caption"] = text
    notebook.cells = [cell for cell in notebook.cells if not is_caption(cell)]


def _drop_empty_headings(soup):
    """Takes away every heading behind which nothing is seen before the next of its rank: what a
    chapter did not measure, or an answer that stands in the chapter's head."""
    for heading in reversed(soup.find_all(HEADING, recursive=False)):
        after = heading.find_next_sibling(lambda other: "silent" not in other.get("class", ()))
        if after is None or (HEADING.fullmatch(after.name) and after.name <= heading.name):
            heading.decompose()


def _titles(notebook):
    """The `##` headings of a notebook's Markdown."""
    texts = (cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return [title for text in texts for title in re.findall(r"^## +(.+?)\s*$", text, re.M)]


def _sections(soup):
    return [
        (tag["id"], tag.get_text().removesuffix("#").strip())
        for tag in soup.find_all("h3", id=True)
    ]


def _parts(soup):
    """The HTML below each level-2 heading, by the heading's text; nothing where there is none."""
    parts = {}
    for heading in soup.find_all("h2", id=True):
        heading.find("a", class_="anchor").extract()
        title = heading.get_text().strip()
        rest = []
        for sibling in heading.next_siblings:
            if getattr(sibling, "name", None) == "h2":
                break
            rest.append(str(sibling))
        parts[title] = Markup("".join(rest).strip())
    return parts


def _scroll(table, label):
    return f'<div class="scroll" role="group" aria-label="{label}">{table}</div>'
