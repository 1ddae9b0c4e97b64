"""index.html from a small run with invented numbers: what the page holds, what it promises, and
what it refuses."""

import json
import re
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from claim_rows import own_row
from paper import bars, display, html, marks, prose
from paper.audit_section import _asked
from paper.canvas import canvas, png_bytes, styled
from paper.chapter import Book, claim_anchor, printed
from paper.checks import check
from paper.claims import AUDIT as VERDICTS
from paper.claims import audit_row, seed_claims
from paper.code import COLORED, python
from paper.figures import ladder
from paper.html import TEMPLATE, build_html
from paper.numerals import heading
from paper.script import PARTS, joined
from paper.tables import restyle

LEDGER = seed_claims()


def small_png():
    with styled():
        return png_bytes(canvas(1.0)[0])


PNG = small_png()
ALT = 'Quotes "a" & 1 < 2 <signs>.'


@contextmanager
def recording():
    """Yields a function that calls display functions and returns the outputs a kernel would
    record."""
    outputs = []

    def record(data, raw, metadata):
        assert raw
        outputs.append(new_output("display_data", data, metadata=metadata))

    def take(*calls):
        outputs.clear()
        for function, *arguments in calls:
            function(*arguments)
        return list(outputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(display, "display", record)
        yield take


@pytest.fixture
def shown():
    with recording() as take:
        yield take


def markdown(text, id):
    return new_markdown_cell(text, id=id)


def caption(text, id="caption"):
    """What stands below a cell that shows a figure, table or text."""
    return new_markdown_cell(text, id=id, metadata={"tags": ["caption"]})


def code(id, source, outputs=(), count=None, **metadata):
    return new_code_cell(
        source, id=id, outputs=list(outputs), execution_count=count, metadata=metadata
    )


def save(run, name, cells, rows=()):
    nbformat.write(
        new_notebook(cells=cells, metadata={"language_info": {"name": "python"}}),
        run / f"{name}.ipynb",
    )
    (run / "claims").mkdir(exist_ok=True)
    rows = [{**row, "notebook": name, "cell_id": cell} for row, cell in rows]
    (run / "claims" / f"{name}.json").write_text(json.dumps(rows))
    return rows


def front_table():
    told = [("03-eval", "ppl"), ("Limits", "none of these names"), ("all", "pass")]
    return pd.DataFrame(told, columns=["where", "what"])


def make_run(folder, shown):
    """A run of two chapters and the front matter, with every kind of output."""
    own = own_row(
        "ppl",
        "The model beats every n-gram",
        61.0,
        True,
        unit="perplexity",
        interval=(60.1, 62.0),
        threshold="< 91",
    )
    fail = {"tried": "Tried: *less* work."} | own_row(
        "faster/50",
        "The cache is faster",
        0.98,
        False,
        unit="×",
        interval=(0.87, 1.09),
        threshold="≥ 1.05×",
    )
    exact = {**own_row("same", "The text is the same", True, True), "sort": "identity"}
    own, fail = own | {"op": "<", "bound": 91}, fail | {"op": ">=", "bound": 1.05}
    seed = audit_row(
        LEDGER,
        "S1-cache-speedup",
        1.42,
        (1.21, 1.63),
        answer=1.9,
        answer_interval=(1.7, 2.1),
        note="Not the *same* loop.",
    )
    words = audit_row(LEDGER, "S1-deterministic", answer=0)
    copied = audit_row(LEDGER, "S1-blocks", 1)
    ladder = pd.DataFrame({"predictor": ["uniform", "model"], "perplexity": [1004.0, 61.0]})
    ladder["interval"] = ["exact", "[60.1, 62.0]"]
    finding = "The finding is $x$. Then details with `code`."
    first = [
        markdown(
            "# Evaluation\n\n*Where does it stand,\nin one number?*\n\nIntroduction [@su2021].\n\n"
            "The outputs stored in this file are of the quick profile; the rest is not.",
            "title",
        ),
        code("parameters", "seed = 42  # a seed\n", count=1, tags=["parameters"]),
        code("zufall99", "seed = 7", count=2, tags=["injected-parameters"]),
        markdown(
            '## Results\n\nWith $e^h$ and <q lang="es">hola</q>:\n\n$$ T = o + w $$\n\n#### '
            "Deep\n\nDeeper.\n\n## Results\n\n"
            "```python\nx = 1\n```",
            "md",
        ),
        code(
            "speed",
            'for n in (1, 2):\n    print(f"{n}")',
            [
                new_output("stream", name="stdout", text="1 < 2\n\x1b[31mred\x1b[0m\n"),
                *shown(
                    (display.show_figure, PNG, "ladder", ALT, "figures/ladder.csv"),
                    (display.show_table, ladder, "ladder", "tables/ladder.csv"),
                    *(
                        (display.show_claim, row)
                        for row in (own, fail, own, exact, seed, words, copied)
                    ),
                ),
            ],
            count=3,
            papermill={"duration": 1.234},
        ),
        caption(finding, "speed-caption-1"),
        caption("The ladder.", "speed-caption-2"),
        code(
            "proof",
            "prove()",
            shown(
                (
                    display.show_certificate,
                    "the same text",
                    "No step differs.",
                    [("steps", 1536, "of 1,536"), ("error", 1e-13, "<= 1e-10")],
                    True,
                    (1.2e-5, 3.4e-2),
                    "same",
                ),
                (
                    display.show_certificate,
                    "nothing proved",
                    "It differs.",
                    [("steps", False, "yes")],
                    False,
                ),
            ),
            count=4,
        ),
        code(
            "null",
            "negative()",
            shown(
                (
                    display.show_negative,
                    "no faster",
                    "1.05×",
                    "0.98× [0.87, 1.09]",
                    "It fits the cache.",
                    "faster/50",
                ),
                (display.show_negative, "nothing", "more", "less", "why", None),
                (display.show_markdown, "A reading: **61**."),
                (display.show_answer, "At **61.0**, above the floor."),
            ),
            count=5,
        ),
        code(
            "plain",
            "df",
            [
                new_output("execute_result", {"text/html": ladder.to_html(), "text/plain": "x"}),
                new_output("execute_result", {"text/plain": "a < b"}),
            ],
        ),
        code(
            "hidden",
            "secret = 1",
            [new_output("display_data", {"text/plain": "seen"})],
            tags=["hide-input"],
        ),
        code("gone", "removed = 1", tags=["remove-cell"]),
        code("close", "nb.close()", shown((display.show_echo, "receipt"))),
    ]
    save(
        folder,
        "03-eval",
        first,
        [
            (own, "speed"),
            (fail, "null"),
            (exact, "proof"),
            (seed, "speed"),
            (words, "speed"),
            (copied, "speed"),
        ],
    )
    save(folder, "04-kv-bench", [markdown("# KV-cache", "title")])
    save(folder, "A1-cache", [markdown("# More\n\nAs in [@su2021; @chen1999].", "title")])
    front = [
        markdown("# The report\n\n*What is true?*\n\nLead.", "title"),
        markdown(
            "## Audit of the original report\n\nAfter the table.\n\n## Claims\n\nAfter the claims.",
            "audit",
        ),
        markdown("## Findings\n\nIt starts here [@vaswani2017].", "findings"),
        code("drawn", "fig", shown((display.show_figure, PNG, "story", ALT))),
        caption("Shown.", "drawn-caption"),
        markdown("## Architecture\n\nBoxes.", "architecture"),
        markdown("## Abstract", "abstract-prose"),
        code(
            "abstract",
            "nb.say(text)",
            shown(
                (display.show_markdown, "We train."),
                (display.show_table, front_table(), "front"),
            ),
        ),
        caption("First on the page."),
        markdown("## Resumen\n\nEntrenamos.", "resumen"),
        markdown("## Limits\n\n- One machine.\n\n## Provenance\n\nMade.", "end"),
        markdown("## Grading sheet\n\n### Gates", "grading"),
        code("answer", "nb.answer(x)", shown((display.show_answer, "Of 5 **all**."))),
    ]
    save(folder, "report", front)
    (folder / "figures").mkdir(exist_ok=True)
    (folder / "figures" / "ladder.csv").write_text("predictor,perplexity\n")
    strip = {
        "value": 61.0,
        "interval": [60.1, 62.0],
        "limit": 31.2,
        "seed": 1045.31,
        "beyond": "below",
        "log": None,
    }
    tiles = [
        {
            "claim": "ppl",
            "label": "Perplexity, n = 3",
            "value": 61.0,
            "unit": "",
            "interval": [60.1, 62.0],
            "limit_text": "floor 31.2",
            "seed_text": "original 1,045.31; repeated 1,154",
            "strip": strip,
        },
        {
            "claim": "faster/50",
            "label": "Cache",
            "value": 0.98,
            "unit": "×",
            "interval": None,
            "limit_text": "",
            "seed_text": "",
            "strip": {
                **strip,
                "value": 0.98,
                "interval": None,
                "limit": None,
                "seed": None,
                "beyond": None,
            },
        },
    ]
    (folder / "headline.json").write_text(json.dumps(tiles))
    (folder / "run.json").write_text(
        json.dumps(
            {
                "run": "quick-tiny",
                "profile": "quick",
                "commit": "0123456789abcdef",
                "dirty": True,
                "executed": "2026-01-02T03:04:05Z",
                "threads": 2,
                "parameters": {"corpus": "texts/tiny.txt"},
                "durations_s": {"03-eval": 31.44},
            }
        )
    )
    return folder


@pytest.fixture
def run(tmp_path, shown):
    return make_run(tmp_path, shown)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with recording() as take:
        run = make_run(tmp_path_factory.mktemp("run"), take)
    path = build_html(run)
    assert path == run / "index.html"
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def text(tag):
    return " ".join(tag.get_text().split())


def test_the_page_says_what_ran_and_what_did_not(page):
    missing, profile = page.select(".notice")
    assert "02-train" in text(missing) and "03-eval" not in text(missing)
    assert "profile “quick”" in text(profile) and "set for the profile “paper”" in text(profile)
    byline = text(page.select_one(".byline"))
    for part in (
        "Mini-Transformer authors",
        "MIT",
        "Andre Joaquin Pacheco Taboada",
        "CC0C2A Procesamiento del Lenguaje Natural",
        "2026-01-02 in 31 s on 2 threads",
        # no address: pyproject.toml names none
        "Repositoryminitransformer 1.0.0, commit 0123456789 with changes; no address known",
    ):
        assert part in byline.replace("\u202f", " ")
    assert "corpus tiny" in text(page.select_one(".kicker"))


def test_the_repository_is_linked_where_its_address_is_known_and_else_told_how_to_get(
    run, monkeypatch
):
    def shown_of(repository):
        known = {"name": "this", "version": "1", "repository": repository}
        monkeypatch.setattr(html, "about", lambda root: known)
        page = BeautifulSoup(build_html(run).read_text(encoding="utf-8"), "html.parser")
        return page.select_one(".byline"), page.find(id="files")

    for part in shown_of("https://x.org/a/b"):
        assert part.find("a", href="https://x.org/a/b") and "no address" not in text(part)
    byline, files = shown_of("")
    assert byline.find("a", href="#files") and "commit 0123456789" in text(byline)
    assert "git clone this.bundle" in text(files) and not files.find("a", href=re.compile("^http"))


def test_only_the_profile_that_the_bars_were_set_for_says_nothing_of_them(run):
    about = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**about, "profile": "paper"}))
    source = build_html(run).read_text(encoding="utf-8")
    assert "set for the profile" not in source


def test_the_page_has_its_order_and_the_contents_show_it(page):
    order = [section["id"] for section in page.select("main > section, .masthead > section")]
    assert order == [
        *("abstract", "findings", "resumen", "architecture", "03-eval", "04-kv-bench"),
        *("claims", "audit", "A1-cache", "references", "limits", "provenance", "files"),
        "grading-sheet",
    ]
    links = page.select(".toc > ol > li > a")
    assert [link["href"].removeprefix("#") for link in links] == order
    assert [text(link) for link in links][4:8] == [
        "3 Evaluation",
        "4 KV-cache",
        "Claims",
        "Audit of the original report",
    ]
    below = page.select(".toc li details a")
    assert [(a["href"], text(a)) for a in below] == [
        ("#03.results", "Results"),
        ("#03.results-2", "Results"),
    ]
    assert len(page.select(".toc li.sep")) == 4
    assert page.find(id="resumen")["lang"] == "es" and page.select_one('.also[href="#resumen"]')
    assert page.find(id="findings").select_one("figure") and page.select_one("#all-code")
    assert page.select_one('.bar a[href="#contents"]') and page.find(id="contents")


def test_headline_numbers_link_to_their_claims(page):
    first, second = page.select(".stats li")
    assert (
        text(first.select_one(".value")) == "61.0" and text(second.select_one(".value")) == "0.98×"
    )
    assert (
        first.a["href"] == "#claim-ppl"
        and "original 1,045.31; repeated 1,154" in text(first)
        and "floor 31.2" in text(first)
    )
    assert second.a["href"] == "#claim-faster-50" and "not in the original report" in text(second)
    assert len(first.select(".strip .limit")) == 1 and not second.select(".limit")


def test_claims_count_identities_apart_and_link_to_the_cells_that_computed_them(page):
    claims = page.find(id="claims")
    assert [text(row) for row in page.select("table.claims tr.group")] == ["3 Evaluation"]
    rows = page.select("table.claims tbody tr:not(.group)")
    assert [row["id"] for row in rows] == ["claim-ppl", "claim-faster-50", "claim-same"]
    assert [row.select_one(".badge").get_text() for row in rows] == ["pass", "fail", "pass"]
    link = rows[0].select_one(".src a")
    assert (
        link["href"] == "#03-speed"
        and text(link) == "03.3"
        and link["aria-label"] == "Cell 03.3, which computed ppl"
    )
    assert "61.0 perplexity" in rows[0].get_text() and "[60.1, 62.0]" in text(rows[0])
    assert "identity" in text(rows[2]) and "yes" in text(rows[2]) and not rows[2].select(".strip")
    met = [int(row.select_one(".strip .hold")["x"][:-1]) for row in rows[:2]]
    assert met == [0, 50]  # below the one bar, from the other up
    assert "After the claims." in text(claims)
    told = text(claims.p)
    assert "Of equalities, exact or up to rounding, and sizes, 1 of 1 hold" in told
    assert (
        "Of 2 measured quantities 1 meets the bar set for it, 1 fails and 0 are undecided" in told
    )


def test_changes_of_a_bar_are_counted_by_kind_and_listed_with_their_reasons(run, monkeypatch):
    """So that a reader of ten minutes sees how many were not for the better."""
    about = {"date": "2026-11-24", "was": "< 90", "why": "it was missed"}
    changes = (about | {"kind": "looser"}, about | {"kind": "words", "why": "it was unclear"})
    bar = bars.Bar("ppl", "S", "exact", "2026-11-23", "<", 91, changes=changes)
    monkeypatch.setattr(bars, "read", lambda: {"ppl": bar})
    claims = BeautifulSoup(build_html(run).read_text(encoding="utf-8"), "html.parser").find(
        id="claims"
    )
    told = (
        "1 of the bars or rules is not as first written. Of 2 changes of a bar, each with its "
        f"reason below the table, 1 {bars.CHANGES['looser']}; 1 {bars.CHANGES['words']}."
    )
    assert told in text(claims.p)
    listed = claims.find(id="changed-bars")
    assert "2 changes of 1 bar" in text(listed.summary) and len(listed.select("ul")) == 2
    assert "folded" in listed["class"]  # paper shows what the text refers to
    first, second = listed.select("li")
    assert "because it was missed." in text(first) and "because it was unclear." in text(second)


def test_works_and_citations_link_both_ways(page):
    entries = page.select(".references > li")
    assert [entry["id"] for entry in entries] == ["ref-chen1999", "ref-su2021", "ref-vaswani2017"]
    for link in page.select("a.cite"):
        entry = page.find(id=link["href"].removeprefix("#"))
        assert f"#{link['id']}" in [a["href"] for a in entry.select("small a")]
    assert [text(a) for a in entries[1].select("small a")] == ["chapter 3", "appendix A1"]
    assert text(entries[2].select("small a")[0]) == "Findings"
    assert "Chen, S. F., and Goodman, J. (1999)." in text(entries[0])


def test_files_are_listed_once_and_all_links_to_them_lead_there(page):
    files = page.find(id="files")
    relative = [a for a in page.select("a[href]") if not re.match("#|https://", a["href"])]
    assert relative and all(a.find_parent(id="files") for a in relative)
    names = [text(entry.a) for entry in files.select("li")]
    assert names[:2] == ["03-eval.ipynb", "04-kv-bench.ipynb"] and "HASHES.txt" in names
    assert page.find(id="03-eval").select_one(".kicker a")["href"] == "#file-03-eval.ipynb"
    assert page.find(id="file-figures-ladder.csv").a["href"] == "figures/ladder.csv"
    assert "python -m paper report --profile quick --set corpus=texts/tiny.txt" in text(files)
    assert "at commit 0123456789" in text(files)


def test_a_cell_that_names_a_chapter_a_claim_or_a_section_leads_there(page):
    links = [(text(a), a["href"]) for a in page.find(id="tbl-front").select("tbody a")]
    assert links == [("03-eval", "#03-eval"), ("ppl", "#claim-ppl"), ("Limits", "#limits")]
    assert text(page.find(id="tbl-front").select_one("tbody .badge.pass")) == "pass"


def test_the_audit_judges_a_statement_at_its_own_setting_and_where_it_can_be_answered(page):
    audit = page.select_one("#audit")
    groups = [text(row) for row in audit.select("table.audit tr.group")]
    assert [group.replace("\u202f", " ") for group in groups] == ["§ 1 Resumen Ejecutivo"]
    row = page.find(id="claim-S1-cache-speedup")
    assert row.q["lang"] == "es" and row.q.get_text() == LEDGER["S1-cache-speedup"]["quote"]
    own, first, there, second, remark = row.select("td")
    assert "1.42× [1.21, 1.63]" in text(own) and own.select_one(".seedmark")
    assert "1.90× [1.70, 2.10]" in text(there)
    assert text(there).endswith(LEDGER["S1-cache-speedup"]["answered_at"])
    assert [text(cell) for cell in (first, second)] == ["not comparable", "holds"]
    assert remark.em.get_text() == "same" and remark.a["href"] == "#03-speed"
    process = [text(cell) for cell in page.find(id="claim-S1-deterministic").select("td")]
    assert process[1] == "its code is not available" and process[3] == "holds"
    assert "asked: ≤ 0" in process[2] and "correct figure" not in text(audit.table)


def test_settings_stand_apart_and_what_was_not_examined_is_named(page):
    audit = page.select_one("#audit")
    copied, pending = audit.select("details.claimed.folded")  # which paper shows
    assert copied.select_one("li")["id"] == "claim-S1-blocks" and "copied" in text(copied.li)
    assert not audit.select("table.audit #claim-S1-blocks")
    assert len(pending.select("li")) == len(LEDGER) - 3 and "After the table." in text(audit)
    measured = [row for row in LEDGER.values() if row["kind"] == "measurement"]
    heads = [text(head) for head in audit.select(".audit-kinds thead th")]
    assert heads[3] == f"measured numbers{len(measured)}" and heads[1].startswith(
        "settings, copied"
    )
    own, answers = audit.select(".audit-kinds tbody")
    told = {text(row.th): [text(cell) for cell in row.select("td")] for row in own.select("tr")[1:]}
    assert list(told) == [name for name in VERDICTS if name != "better is possible"]
    apart = "–counted apart"
    assert told["not comparable"] == ["–0", "–0", "1", "–0", apart, apart]
    assert told["holds"] == [apart, "–0", "–0", "–0", apart, apart]
    holds = [text(cell) for cell in answers.select("tr")[1].select("td")]
    assert holds == [apart, "–0", "1", "–0", "1", "–0"]
    shapes = {use["href"] for use in audit.select(".badge use")}
    assert shapes <= {f"#{symbol['id']}" for symbol in page.select("symbol")} and len(shapes) == 7


def test_a_chapter_has_its_head_and_its_cells(page):
    head = page.find(id="03-eval").select_one(".chapter-head")
    assert (
        text(head.h2) == "3Evaluation#"
        and text(head.select_one(".question")) == "Where does it stand, in one number?"
    )
    assert (
        head.select_one(".answer strong").get_text() == "61.0"
        and "31.4" in text(head.p)
        and "9 cells" in text(head.p)
    )
    summaries = [text(s) for s in page.find(id="03-eval").select(".code summary")]
    assert (
        summaries[0] == "Code cell 03.1, 1 line"
        and summaries[2] == "Code cell 03.3, 2 lines, 1.23 s"
    )
    assert page.find(id="03-parameters-given") and not page.find(id="03-zufall99")
    assert page.find(id="03-hidden").find("details") is None and "seen" in text(
        page.find(id="03-hidden")
    )
    body = page.find(id="03-eval").get_text()
    assert (
        "removed" not in body
        and "receipt" not in body
        and "A reading: 61." in body
        and "Introduction (Su et al. 2021)." in body
        and "stored in this file" not in body
    )
    stream = page.find(id="03-speed").select_one("pre.stream")
    assert stream.get_text() == "1 < 2\nred\n" and "a < b" in page.find(id="03-plain").get_text()
    assert page.find(id="04-kv-bench").select_one(".answer") is None


def test_prose_has_mathml_numbered_equations_and_an_unbroken_outline(page):
    chapter = page.find(id="03-eval")
    assert chapter.find("math", display="block") and text(chapter.select_one(".eqno")) == "(3.1)"
    outline = [(h.name, h["id"]) for h in chapter.select("h3, h4")]
    assert outline == [("h3", "03.results"), ("h4", "03.deep"), ("h3", "03.results-2")]
    assert "$" not in text(chapter) and chapter.q["lang"] == "es"


def test_figures_and_tables_are_numbered_in_reading_order_with_captions_and_links(page):
    assert "Table 1. First on the page." in text(page.find(id="tbl-front"))
    assert "Table 2. The ladder." in text(page.find(id="tbl-ladder"))
    figure = page.find(id="fig-ladder")
    image = figure.img
    assert (
        image["alt"] == ALT
        and image["width"] == "1152"
        and image["src"].startswith("data:image/png;base64,")
    )
    assert text(figure.figcaption).startswith("Figure 2. The finding is x. Then details")
    assert (
        figure.figcaption.find("strong").find("math")
        and "details" not in figure.figcaption.find("strong").get_text()
    )
    assert [a["href"] for a in figure.select(".links a")] == [
        "#claim-ppl",
        "#claim-S1-cache-speedup",
        "#claim-S1-deterministic",
        "#03-speed",
        "#file-figures-ladder.csv",
    ]
    table = page.find(id="tbl-ladder")
    assert [th.get("scope") for th in table.select("thead th")] == ["col"] * 3 and not table.select(
        "[border], td[style], tbody th[style]"
    )
    assert [("n" in td.get("class", [])) for td in table.select("tbody tr")[0].select("td")] == [
        False,
        True,
        True,
    ]


def test_claims_certificates_and_negative_results_stand_in_the_chapter(page):
    claims = page.find(id="03-speed").select_one("details.claimed")
    assert len(claims.select("li")) == 6 and "6 claims settled by cell 03.3" in text(claims)
    tried = claims.select("li")[1]
    assert claims.has_attr("open") and "Tried: less work." in text(tried) and tried.em
    assert text(claims).count("Tried:") == 1
    assert "(threshold < 91)" in text(claims) and "(original report 1.95×)" in text(claims)
    assert f"{LEDGER['S1-cache-speedup']['answered_at']}: 1.90× [1.70, 2.10], holds" in text(claims)
    assert "1.42× [1.21, 1.63] (original report 1.95×)" in text(claims)
    assert text(claims.select("li")[-1]).startswith("copied S1-blocks")
    assert [text(badge) for badge in claims.select(".badge")][3:] == [
        "not comparable", "holds"
    ]  # fmt: skip
    good, bad = page.select(".certificate")
    assert (
        "Certificate 1: the same text" in text(good)
        and good.select_one(".ruler .safe")
        and good.select_one(".badge.pass")
    )
    assert "room: 2,800×" in text(good) and [text(d) for d in good.select("dd")][:2] == [
        "1,536",
        "of 1,536",
    ]
    assert (
        good.select_one('.seal a[href="#claim-same"]')
        and bad.select_one(".badge.fail")
        and not bad.select(".ruler")
    )
    first, second = page.select(".null")
    assert "Negative result: no faster" in text(first) and "stays in the table" in text(first)
    assert first.select_one('a[href="#claim-faster-50"]')
    assert "stays" not in text(second)


def test_front_matter_stands_where_it_belongs(page):
    assert "We train." in text(page.find(id="abstract")) and page.find(id="abstract").find_parent(
        "header"
    )
    assert "One machine." in text(page.find(id="limits")) and "Of 5 all." in text(
        page.find(id="grading-sheet")
    )
    assert "Lead." not in page.get_text()


def test_the_page_keeps_its_promises(run):
    build_html(run)
    source = (run / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|data|action)=.https?:", source) and "@import" not in source
    check(source, script=joined(TEMPLATE))
    assert not list(run.glob(".index*"))


def test_a_run_without_front_matter_or_provenance_still_renders(run):
    for name in (
        "report.ipynb",
        "run.json",
        "headline.json",
        "claims/report.json",
        "claims/04-kv-bench.json",
    ):
        (run / name).unlink()
    page = BeautifulSoup(build_html(run).read_text(encoding="utf-8"), "html.parser")
    assert "report have not" in text(page.select_one(".notice"))
    assert not page.select(".stats") and page.find(id="abstract") is None


def test_no_notebook_is_an_error(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FileNotFoundError, match="no executed notebook.*make report"):
        build_html(empty)


def test_claims_must_point_to_cells_and_shown_claims_must_exist(run):
    rows = json.loads((run / "claims" / "03-eval.json").read_text())
    (run / "claims" / "03-eval.json").write_text(
        json.dumps([{**rows[0], "cell_id": "nowhere"}, *rows[1:]])
    )
    with pytest.raises(ValueError, match="claim 'ppl' points to cell '03-nowhere'"):
        build_html(run)
    (run / "claims" / "03-eval.json").write_text(json.dumps(rows[1:]))
    with pytest.raises(ValueError, match="03-eval, cell speed: claims/03-eval.json lacks 'ppl'"):
        build_html(run)
    assert not (run / "index.html").exists()


@pytest.mark.parametrize(
    "cells, message",
    [
        ([markdown("No title", "a")], "has no title"),
        ([code("a", "x")], "has no title"),
        (
            [
                markdown("# T", "t"),
                code(
                    "boom",
                    "x",
                    [new_output("error", ename="ValueError", evalue="no", traceback=[])],
                ),
            ],
            "cell boom: ValueError: no",
        ),
        (
            [
                markdown("# T", "t"),
                code("pic", "x", [new_output("display_data", {"image/png": "AAAA"})]),
            ],
            "cell pic shows an image without alt",
        ),
        ([markdown("# T\n\n$\\frac{$", "t")], "cannot be set"),
    ],
)
def test_a_notebook_that_cannot_be_shown_is_named(tmp_path, cells, message):
    save(tmp_path, "01-data", cells)
    with pytest.raises(ValueError, match=message):
        build_html(tmp_path)


LIVE = {"models": {"int8": {}, "int4": {}}, "vocab": 9, "context": 8, "tokenizer": "</script>é"}


def with_talk(run, live):
    """The page of a run that has the section, and the models to talk to."""
    book = nbformat.read(run / "report.ipynb", as_version=4)
    book.cells.append(new_markdown_cell("## Talk to it\n\nIt answers.", id="talk-prose"))
    nbformat.write(book, run / "report.ipynb")
    (run / "talk.json").write_text(json.dumps(live), "utf-8")
    source = build_html(run).read_text(encoding="utf-8")
    return source, BeautifulSoup(source, "html.parser")


def test_models_that_can_be_talked_to_are_in_the_page_with_the_one_script(run):
    source, page = with_talk(run, LIVE)
    order = [section["id"] for section in page.select("main > section")]
    assert order[:3] == ["findings", "talk", "resumen"]
    assert page.select('.toc a[href="#talk"]') and page.select("#talk > form[hidden]")
    data, script = page.find_all("script")
    assert json.loads(data.string) == LIVE and data["type"] == "application/json"
    assert script.attrs == {"type": "module"}
    assert script.string == joined(TEMPLATE)
    assert [it["data-proof"] for it in page.select("[data-proof]")] == ["int8", "int4"]
    policy = page.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
    assert policy.startswith("default-src 'none'") and "connect-src" not in policy
    for more in ("<script>1</script>", str(script)):
        with pytest.raises(ValueError, match="<script> is not allowed"):
            check(source + more, script=script.string)
    with pytest.raises(ValueError, match="<script> is not allowed"):
        check(source)


def test_without_a_model_that_fits_the_section_keeps_its_words(run):
    source, page = with_talk(run, LIVE | {"models": {}})
    assert "It answers." in page.find(id="talk").get_text() and not page.find_all("form")
    assert [it.attrs for it in page.find_all("script")] == [{"type": "module"}]


def test_the_time_model_is_in_the_page_where_a_run_says_its_widths(run):
    path = run / "timemodel.json"
    for law, forms in (({"widths": []}, 0), ({"widths": [{"width": 64}], "overhead": 1e-4}, 1)):
        path.write_text(json.dumps(law), "utf-8")
        page = BeautifulSoup(build_html(run).read_text("utf-8"), "html.parser")
        assert len(page.select("form#law[hidden]")) == forms == len(page.select("#law-data"))
    assert json.loads(page.find(id="law-data").string) == law
    for slider in page.select("#law input"):
        assert page.select(f'label[for="{slider["id"]}"]') and slider["type"] == "range"


def test_the_script_is_one_module_of_all_the_files_and_stays_small():
    """Every import names a file that stands above, and no name is given twice."""
    files = {path.stem: path.read_text("utf-8") for path in TEMPLATE.glob("*.mjs")}
    assert set(files) == set(PARTS)
    assert sum(len(text.splitlines()) for text in files.values()) < 800
    for at, name in enumerate(PARTS):
        assert set(re.findall(r'^import .* from "./(.*).mjs";$', files[name], re.M)) <= {
            *PARTS[:at]
        }
        assert max(map(len, files[name].splitlines())) <= 120
    script = joined(TEMPLATE)
    assert not re.search(r"^(import|export) ", script, re.M)
    names = re.findall(r"^(?:async )?(?:function\*?|const|let|class) (\w+)", script, re.M)
    assert len(names) == len(set(names)) > 20


def test_a_text_is_shaded_by_kind_and_tells_its_numbers_without_a_script(tmp_path, shown):
    """Darker where more is lost, nothing below zero; a kind has its color and its underline."""
    kinds = pd.Categorical(["b", "a", "a"], ["a", "b"])
    words = pd.DataFrame({"token": ["<x>", "y\n", "z"], "kind": kinds, "excess_nats": [2, -1.0, 1]})
    words = words.astype({"excess_nats": float})
    how = dict(word="token", kind="kind", shade="excess_nats")
    show = partial(display.show_text, **how)
    outputs = shown((show, words, "words", "tables/words.csv"))
    cells = [markdown("# T", "t"), code("text", "x", outputs), caption("Some words.")]
    save(tmp_path, "01-data", cells)
    page = BeautifulSoup(build_html(tmp_path).read_text("utf-8"), "html.parser")
    figure = page.select_one("figure#fig-words.marked")
    assert text(figure.figcaption).startswith("Figure 1. Some words.")
    found = figure.select(".words span")
    assert [it.get_text() for it in found] == ["<x>", "y↵\n", "z"]
    assert [it["class"] for it in found] == [["k1"], ["k0"], ["k0"]]
    alphas = [float(re.search(r"([\d.]+)\)", it["style"])[1]) for it in found]
    assert alphas[0] == 0.5 and alphas[1] == 0.06 < alphas[2] < alphas[0]
    assert found[1]["title"] == "token: y↵\nkind: a\nexcess, nats: −1.00"
    assert [it.get_text() for it in figure.select(".kinds span")] == ["a", "b"]
    many = words.assign(kind=pd.Categorical(list("abc"), list("abcdef")))
    with pytest.raises(ValueError, match="text 'words' has 6 kinds: give at most 5"):
        display.show_text(many, "words", **how)


PAGE = '<html lang="en"><body><h1>T</h1>{}</body></html>'


@pytest.mark.parametrize(
    "body, message",
    [
        ("<script>1</script>", "<script> is not allowed"),
        ('<img src="https://x.org/a.png" alt="a" width="1" height="1">', "would load something"),
        ('<svg role="img" aria-label=" "></svg>', "has no alternative text"),
        ('<link rel="stylesheet" href="https://x.org/a.css">', "would load something"),
        ('<svg><use xlink:href="other.svg#i"/></svg>', "would load something"),
        ('<a href="javascript:alert(1)">x</a>', "would run a script"),
        ('<p onclick="x()">x</p>', "would run a script"),
        ('<p style="background: url(https://x.org/a)">x</p>', "a style attribute of <p>"),
        ('<style>@import "a.css";</style>', "the style sheet would load"),
        ('<style>p { background: url("a.png") }</style>', "the style sheet would load"),
        ('<meta http-equiv="refresh" content="1">', "refresh"),
        (
            '<p id="here"><img src="data:," width="1" height="1"></p>',
            "image in 'here' has no alt text",
        ),
        (
            '<img src="data:," alt="No description has been provided for this image" width="1" '
            'height="1">',
            "has no alt text",
        ),
        ('<img src="data:," alt="a">', "no width and height"),
        ("<h1>again</h1>", "2 h1"),
        ("<h3>deep</h3>", "heading level 3 follows level 1"),
        ('<div role="region">x</div>', "scrollable <div> has no name"),
        ('<pre role="group">x</pre>', "scrollable <pre> has no name"),
        ("<table><tr><th>x</th></tr></table>", "'x' has no scope"),
        ('<a href="#nowhere">x</a>', "'#nowhere' points nowhere"),
        ('<a href="#a" id="a"></a>', "has no text"),
        ('<a href="b.html">x</a>', "'b.html' leads out of the page"),
        ('<a class="cite" id="c" href="#c">x</a>', "citation '#c' has no link back"),
        ('<p id="a"></p><p id="a"></p>', "'a' occurs 2 times"),
        ("x" * 5_000_000, "the limit is 5,000,000"),
    ],
)
def test_broken_promises_are_named(body, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check(PAGE.format(body))


def test_a_folder_of_this_machine_is_named_unless_the_text_holds_it(run, monkeypatch):
    folder = "/srv/some one/paper"
    page = PAGE.format(f"<p>{folder}/lib/x.py &amp; others, relative{folder}/x, {folder}s/y</p>")
    check(page)
    with pytest.raises(ValueError, match="'/srv/some one/paper/lib/x.py' names a folder"):
        check(page, folders=[folder])
    monkeypatch.setattr("paper.html.Path.home", lambda: Path(folder))
    rows = json.loads((run / "headline.json").read_text())
    (run / "headline.json").write_text(json.dumps([{**rows[0], "limit_text": f"{folder}/x"}]))
    with pytest.raises(ValueError, match="names a folder of this machine"):
        build_html(run)
    (run / "corpus.txt").write_text(f"He wrote {folder}/x on the wall.")
    assert build_html(run).is_file()


def test_warnings_stay_in_the_notebook_and_companions_that_are_missing_are_no_links(run):
    notebook = nbformat.read(run / "03-eval.ipynb", 4)
    warned = new_output("stream", name="stderr", text="UserWarning: Glyph 32005 missing")
    next(c for c in notebook.cells if c.id == "speed").outputs.insert(0, warned)
    nbformat.write(notebook, run / "03-eval.ipynb")
    (run / "figures" / "ladder.csv").unlink()
    page = BeautifulSoup(build_html(run).read_text(encoding="utf-8"), "html.parser")
    assert "Glyph" not in page.get_text() and "red" in page.find(id="03-speed").get_text()
    links = page.find(id="fig-ladder").select_one(".links")
    assert "ladder.csv" in links.get_text() and not links.select('a[href$=".csv"]')
    assert page.select_one('#files a[href="03-eval.ipynb"]')


def test_a_heading_above_nothing_that_is_seen_is_left_out(tmp_path, shown):
    answer = shown((display.show_answer, "It is **so**."))
    cells = [
        markdown("# T\n\n*Q?*", "t"),
        markdown("## Kept", "kept"),
        code("seen", "1", [new_output("stream", name="stdout", text="seen")]),
        markdown("### Not measured", "nothing"),
        code("unseen", "2"),
        markdown("## Answer", "head"),
        code("answer", "nb.answer(x)", answer),
        code("close", "nb.close()"),
    ]
    save(tmp_path, "01-data", cells)
    page = BeautifulSoup(build_html(tmp_path).read_text(encoding="utf-8"), "html.parser")
    assert [h.get_text() for h in page.select(".chapter :is(h3, h4)")] == ["Kept#"] and page.find(
        id="01-answer"
    )
    cells[7].outputs = [new_output("stream", name="stdout", text="more")]
    save(tmp_path, "01-data", cells)
    page = BeautifulSoup(build_html(tmp_path).read_text(encoding="utf-8"), "html.parser")
    assert [h.get_text() for h in page.select(".chapter :is(h3, h4)")] == ["Kept#", "Answer#"]


def test_code_is_a_tab_stop_only_where_it_scrolls(tmp_path):
    save(
        tmp_path,
        "01-data",
        [markdown("# T", "t"), code("a", "x = 1"), code("b", "x = " + "1" * 99)],
    )
    page = BeautifulSoup(build_html(tmp_path).read_text(encoding="utf-8"), "html.parser")
    assert [pre.get("tabindex") for pre in page.select("pre[role=group]")] == [None, "0"]
    assert not page.select('[role="region"]')


def test_heads_of_columns_are_words_with_units():
    names = ["step_ms", "cache_bytes_a_token", "what", 3, "added_nats", "Not_this", "_x"]
    wanted = ["step, ms", "cache bytes a token", "what", 3, "added, nats", "Not_this", "_x"]
    assert [heading(name) for name in names] == wanted
    names = ["us_per_token", "tokens_per_s", "ms_per_token", "tokens_per_second"]
    wanted = ["µs per token", "tokens per s", "ms per token", "tokens per second"]
    assert [heading(name) for name in names] == wanted


def test_a_number_and_its_interval_share_a_column(shown):
    frame = pd.DataFrame(
        {
            "loop": ["a", "b", "c"],
            "gain": [1.8123, 1.0, 0.002],
            "low": [1.7601, 1.0, -0.001],
            "high": [1.8502, 1.0, 0.0051],
            "step_ms": [2, 3, 4],
            "step_low": [1.5, float("nan"), 3.5],
            "step_high": [2.5, float("nan"), 4.5],
            "follow": [1.0, 2.0, 3.0],
            "high_water": [4.0, 5.0, 6.0],
        }
    )
    out = display.joined(frame)
    assert list(out.columns) == ["loop", "gain", "step_ms", "follow", "high_water"]
    assert list(out["gain"]) == [
        "1.812 [1.760, 1.850]",
        "1.00",
        "0.002 [−0.001, 0.005]",
    ]
    assert list(out["step_ms"]) == ["2.0 [1.5, 2.5]", "3.00", "4.0 [3.5, 4.5]"]
    assert len(frame.columns) == 9 and display.joined(frame[["low", "high"]]).shape == (3, 2)
    twice = frame[["gain", "low", "high"]].assign(step_low=1.0, step_high=2.0)
    assert list(display.joined(twice).columns) == [
        "gain",
        "step_low",
        "step_high",
    ]  # ends, no values
    (table,) = shown((display.show_table, frame, "t"))
    cells = BeautifulSoup(restyle(table.data["text/html"]), "html.parser").select("td.n")
    assert "1.812 [1.760, 1.850]" in [cell.get_text() for cell in cells]  # set as a number


def test_an_interval_shows_whether_it_holds_no_change():
    times = [(2.29, 1.757, 2.998), (1.2287, 0.9933, 1.5198), (1.59, 1.138, 2.229)]
    shown = display.joined(pd.DataFrame(times, columns=["times", "low", "high"]))
    assert shown.times.tolist() == ["2.3 [1.8, 3.0]", "1.23 [0.99, 1.52]", "1.6 [1.1, 2.2]"]


def test_a_table_can_show_more_decimals_than_its_intervals_support(shown):
    frame = pd.DataFrame({"nats": [1.52153, 1.87362], "low": [1.49356, float("nan")]})
    frame["high"] = [1.54952, float("nan")]
    assert display.joined(frame).nats.tolist() == ["1.522 [1.494, 1.550]", "1.87"]
    (table,) = shown((display.show_table, frame, "t", None, 1))
    assert (
        "1.5215 [1.4936, 1.5495]" in table.data["text/html"]
        and ">1.874<" in (table.data["text/html"])
    )


def test_numbers_of_unlike_size_in_one_column_have_each_its_own_digits():
    rows = [(1153.66, 1121.47, 1186.78), (3.14, 1.7196, 4.5612), (0.0069, -0.2365, 0.2503)]
    frame = pd.DataFrame([*rows, (0.00057, -0.0204, 0.0216)], columns=["here", "low", "high"])
    told = ["1,154 [1,121, 1,187]", "3.1 [1.7, 4.6]", "0.01 [−0.24, 0.25]", "0.001 [−0.020, 0.022]"]
    assert display.joined(frame).here.tolist() == told


def test_what_is_allowed_passes():
    check(
        PAGE.format(
            '<a href="https://x.org">x</a><svg><use href="#i"/></svg><p id="i" style="--n:5">x</p>'
        )
    )
    with pytest.raises(ValueError, match="no lang"):
        check("<html><body><h1>T</h1></body></html>")
    with pytest.raises(ValueError, match="claim 'a' has no row"):
        check(PAGE.format('<p id="cell"></p>'), {"claim-a": "cell"})


@pytest.mark.parametrize(
    "arguments, dot, marks_expected",
    [
        (dict(value=12, bar=(">=", 10)), 58.0, {"hold": (50, 50), "limit": 50}),
        (dict(value=5, bar=("<=", 10.0)), 30.0, {"hold": (0, 50), "limit": 50}),
        (dict(value=1e-13, bar=("<", 1e-10)), 10.0, {"hold": (0, 50), "limit": 50}),
        (dict(value=5, interval=(0, 10), bar=(">", 10)), 30.0, {"hold": (50, 50), "limit": 50}),
        (dict(value=10, interval=(5, 12), seed=20), 37.3, {"seed": 88}),
        (dict(value=50, seed=5000, limit=30, beyond="below"), 19.6, {"limit": 12, "seed": 88}),
        (dict(value=2, limit=4, beyond="above", log=False), 12, {"limit": 88}),
        (dict(value=2, limit=4, beyond="above", log=True, start=1), 50, {"limit": 88}),
        (dict(value=3, interval=(2, 4), bar=(">", 0)), 80.0, {"hold": (50, 50), "limit": 50}),
    ],
)
def test_a_strip_places_its_marks(arguments, dot, marks_expected):
    soup = BeautifulSoup(marks.strip(**arguments), "html.parser")
    assert float(soup.circle["cx"].rstrip("%")) == pytest.approx(dot, abs=0.06)
    if "hold" in marks_expected:
        assert (int(soup.rect["x"][:-1]), int(soup.rect["width"][:-1])) == marks_expected["hold"]
    if "limit" in marks_expected:
        assert float(soup.select_one(".limit")["x1"][:-1]) == marks_expected["limit"]
    assert bool(soup.select(".seedmark")) == ("seed" in marks_expected)


def test_a_strip_s_place_is_a_share_of_the_threshold_whatever_the_interval():
    places = [
        BeautifulSoup(marks.strip(11, interval, (">=", 10)), "html.parser").circle["cx"]
        for interval in (None, (10.9, 11.1), (2, 20))
    ]
    assert set(places) == {"54%"}


@pytest.mark.parametrize(("value", "x"), [(90, "97%"), (-40, "3%")])
def test_what_is_further_out_than_the_strip_is_an_arrow(value, x):
    soup = BeautifulSoup(marks.strip(value, bar=(">=", 10)), "html.parser")
    assert not soup.circle and soup.find("path", class_="dot").parent["x"] == x


def test_a_logarithmic_strip_has_ticks_that_crowd():
    def ticks(*arguments, **options):
        soup = BeautifulSoup(marks.strip(*arguments, **options), "html.parser")
        return [float(t["x1"][:-1]) for t in soup.select(".axis") if t["y2"] == "10"]

    found = ticks(15, seed=300)
    assert len(found) == 4  # 20, 50, 100, 200
    gaps = [b - a for a, b in zip(found, found[1:], strict=False)]
    assert gaps[0] > gaps[1] and gaps[1] == pytest.approx(gaps[2], abs=0.2)
    assert ticks(15, seed=30) == [] and len(ticks(1e-6, seed=1.0)) == 7


def test_a_strip_clamps_its_marks_and_is_empty_without_a_number():
    soup = BeautifulSoup(marks.strip(1.0, (0.9, 1.1), (">=", 1.05), seed=1e6), "html.parser")
    assert soup.find("svg", attrs={"overflow": "visible"})["x"] == "97%"
    assert [marks.strip(v) for v in ("text", None, True, float("nan"))] == [""] * 4
    assert marks.strip(3, (2, 4)) == ""  # nothing to compare with
    assert marks.strip(3, bar=(">", 0)) == "" != marks.strip(3, (1, 5), (">", 0))
    assert not BeautifulSoup(marks.strip(1.0, (None, 2), seed=3), "html.parser").select(
        ".iv, .limit"
    )


def test_values_are_written_with_units_and_the_digits_their_interval_supports():
    assert (
        marks.written(12.345, "×", (11.9, 12.8)) == "12.35×"
        and marks.written(61.04, "%", (55, 68)) == "61\u202f%"
    )
    assert (
        marks.written(3.86, "x") == "3.86×"
        and marks.written(4.0, "") == "4"
        and marks.written(-2, "B") == "−2\u202fB"
    )
    assert [marks.written(1, unit) for unit in ("blocks", "heads, in all", "nats", "bytes")] == [
        "1 block",
        "1 head, in all",
        "1\u202fnats",
        "1 byte",
    ]
    assert marks.stated(1, "blocks") == "1 block" and marks.stated(2, "blocks") == "2 blocks"
    assert (
        marks.written("text", "B") == "text"
        and marks.written(True) == "yes"
        and marks.written(None) == "–"
    )
    assert (
        marks.written(1e-13, "") == "1.0·10⁻¹³"
        and marks.written(2e-9, "", (1e-9, 3e-9)) == "2.0·10⁻⁹"
    )
    row = {"printed": True, "seed_value": 1045.31, "unit": "perplexity", "interval": None}
    assert marks.measured({**row, "measured": 1052.4349}) == "1,052.43 perplexity"
    assert marks.measured({**row, "measured": 1052.4349, "printed": False}) == "1,052 perplexity"
    assert marks.measured({**row, "measured": None}) == "–"
    assert marks.stated(1045.31, "ms") == "1,045.31\u202fms" and marks.stated("~149K") == "~149K"
    assert marks.interval_text(None) == "" and marks.interval_text([1.894, 2.116]) == "[1.89, 2.12]"
    assert marks.interval_text([2, 2]) == ""  # compared with itself
    assert marks.interval_text([1.547, 2.614]) == "[1.5, 2.6]"
    assert marks.interval_text([1.547, 2.614], 1.5) == "[1.55, 2.61]"  # 1.5 would meet "≤ 1.5"
    assert marks.interval_text([1.5, 2.614], 1.5) == "[1.5, 2.6]"  # it is the bound itself


@pytest.mark.parametrize(
    "error, margin, words",
    [
        (1e-5, 1e-2, "room: 1,000×"),
        (0, 1e-3, "exact"),
        (1e-2, 1e-3, "the error is not below the margin"),
        (1e-3, 1e-3, "the error is not below the margin"),
        (1.0, 2.0, "room: 2.0× between them"),
    ],
)
def test_the_ruler_shows_the_room_between_error_and_margin(error, margin, words):
    soup = BeautifulSoup(marks.ruler(error, margin), "html.parser")
    assert words in soup.svg["aria-label"] + soup.get_text()
    assert bool(soup.select(".safe")) == (error < margin)
    assert all(0 <= float(t["x"]) <= 560 for t in soup.find_all("text"))


def test_a_figure_of_ours_is_shown_as_svg_and_png_with_what_its_labels_cover(shown):
    fig, ax = canvas(1.0)
    ax.set(xticks=[], yticks=[])
    (figure,) = shown((display.show_figure, fig, "a", "Alt."))
    assert figure.metadata["image/png"] == {"width": 576, "height": 96, "alt": "Alt."}
    assert figure.data["image/svg+xml"].startswith("<svg ") and figure.data["image/png"]
    assert figure.metadata[display.KEY]["overlaps"] == []
    ax.plot([0.5], [0.5], "o")
    ax.text(0.5, 0.5, "here", ha="center", va="center")
    (figure,) = shown((display.show_figure, fig, "a", "Alt."))
    assert figure.metadata[display.KEY]["overlaps"] == ["'here' covers a point"]
    ax.imshow([[1.0]])
    (figure,) = shown((display.show_figure, fig, "a", "Alt."))
    assert "image/svg+xml" not in figure.data and figure.data["image/png"]
    (figure,) = shown((display.show_figure, PNG, "a", "Alt."))
    assert "overlaps" not in figure.metadata[display.KEY]


def test_the_page_holds_a_figure_as_svg_that_turns_over_in_the_dark(tmp_path, shown):
    fig = ladder(pd.DataFrame({"w": ["model", "floor"], "v": [3.0, 2.0]}), "w", "v", xlabel="p")
    outputs = shown(
        (display.show_figure, fig, "one", ALT),
        (display.show_figure, fig, "two", ALT),
    )
    head = markdown("# Title\n\n*Question?*", "head")
    below = [caption("One.", "first"), caption("Two.", "second")]
    save(tmp_path, "01-data", [head, code("pic", "x", outputs), *below])
    page = BeautifulSoup(build_html(tmp_path).read_text(encoding="utf-8"), "html.parser")
    for id in ("one", "two"):
        assert f"{id.title()}." in page.find(id=f"fig-{id}").figcaption.get_text()
        drawn = page.find(id=f"fig-{id}").svg
        assert drawn["role"] == "img" and drawn["aria-label"] == ALT
        assert "model" in [tag.get_text() for tag in drawn.find_all("text")]
        assert drawn.parent["class"] == ["frame"] and drawn.parent["style"] == "--least:504px"
    assert not page.find_all("img") and "prefers-color-scheme:dark){.plot" in page.style.get_text()


def test_a_figure_or_table_without_a_caption_is_refused_and_a_caption_alone_as_well(
    tmp_path, shown
):
    head, frame = markdown("# Title\n\n*Question?*", "head"), pd.DataFrame({"x": [1]})
    both = shown((display.show_table, frame, "one"), (display.show_table, frame, "two"))
    cells = [head, code("pair", "x", both), caption("One.", "first"), caption(" ", "second")]
    save(tmp_path, "01-data", cells)
    with pytest.raises(ValueError, match="cell 'pair', shows 2 and has 1 captions: write below"):
        build_html(tmp_path)
    save(tmp_path, "01-data", [head, caption("One.", "first"), code("none", "x")])
    with pytest.raises(ValueError, match="cell 'first' is a caption and follows no code"):
        build_html(tmp_path)


def test_the_tables_of_an_appendix_stand_folded_behind_their_captions(tmp_path, shown):
    for name in ("01-data", "A1-cache"):
        table = shown((display.show_table, pd.DataFrame({"x": [1]}), f"of-{name.lower()}"))
        cells = [markdown("# Title\n\n*Question?*", "head"), code("show", "x", table)]
        save(tmp_path, name, [*cells, caption("What is in it.")])
    page = BeautifulSoup(build_html(tmp_path).read_text(encoding="utf-8"), "html.parser")
    open_, folded = page.find(id="tbl-of-01-data"), page.find(id="tbl-of-a1-cache")
    assert not open_.find_parent("details") and "What is in it." in text(open_.caption)
    assert text(folded.find_parent("details").summary) == "Table 2. What is in it."
    assert "What is in it." not in text(folded)
    style = page.style.get_text()
    assert "@media print" in style and ".folded::details-content" in style


def test_display_refuses_what_the_report_could_not_show(shown):
    with pytest.raises(ValueError, match="figure 'a' has no alt"):
        display.show_figure(PNG, "a", " ")
    for ruler in ((1, 0), (-1, 2), (0, float("inf"))):
        with pytest.raises(ValueError, match="ruler"):
            display.show_certificate("t", "s", [], True, ruler)
    (table,) = shown(
        (
            display.show_table,
            pd.DataFrame({"x": [1234]}, index=pd.Index(["r"], name="row")),
            "t",
        )
    )
    assert "1,234" in table.data["text/plain"]
    row = {
        "id": "a",
        "verdict": "pass",
        "statement": "S",
        "measured": 2,
        "unit": "×",
        "threshold": None,
        "seed_value": None,
    }
    (line,) = shown((display.show_claim, row))
    assert line.data["text/plain"] == "a pass: S: 2×"
    assert line.data["text/html"] == "<p><code>a</code> <b>pass</b>: S: 2×</p>"
    (line,) = shown((display.show_claim, row | {"tried": "Tried: <more>."}))
    assert line.data["text/plain"].endswith("S: 2×. Tried: <more>.")


def test_tables_of_pandas_lose_their_boxes():
    frame = pd.DataFrame(
        {("a", "x"): [1, 2], ("a", "y"): ["one", "two"]}, index=pd.Index(["r", "s"], name="row")
    )
    soup = BeautifulSoup(restyle(frame.to_html()), "html.parser")
    assert soup.find("th", colspan=True)["scope"] == "colgroup"
    assert not soup.select("[border], td[style], tbody th[style]")
    source = "<style>x</style>" + frame["a"].to_html() + "<table><tr><td>1</td></tr></table>"
    named = BeautifulSoup(restyle(source), "html.parser")
    heads = named.table.thead.find_all("tr")
    assert (
        len(heads) == 1
        and [th.get_text() for th in heads[0].find_all("th")] == ["row", "x", "y"]
        and not named.style
    )
    kept = BeautifulSoup(restyle(frame["a"].rename_axis(columns="what").to_html()), "html.parser")
    assert len(kept.table.thead.find_all("tr")) == 2


def test_numbers_stand_right_and_words_left_even_those_that_begin_with_a_digit():
    columns = {
        "model": ["1 block", "2 blocks"],
        "commit": ["656eea997950", "4362704e4eb2"],
        "equal": ["9 of 64", "64 of 64"],
        "worst": ["5.7·10⁻⁶", "–"],
        "time": ["38.6 µs [37, 40]", "2.1 ms"],
    }
    soup = BeautifulSoup(restyle(pd.DataFrame(columns).to_html(index=False)), "html.parser")
    assert [th.get_text() for th in soup.select("th.n")] == ["equal", "worst", "time"]


def test_words_have_the_room_that_their_length_asks_for():
    """Where space is short; a long text in the narrowest column would make rows of ten lines."""
    columns = {"name": ["a", "w" * 90], "n": [1, 2], "why": ["b", "w" * 90], "ok": ["yes", "no"]}
    frame = pd.DataFrame(columns | {"told": "w" * 900})
    heads = BeautifulSoup(restyle(frame.to_html(index=False)), "html.parser").select("thead th")
    asked = {th.get_text(): th.get("style") for th in heads}
    assert asked["n"] is None and asked["ok"] == "--ch:3"
    assert [asked[name] for name in ("name", "why", "told")] == ["--ch:14", "--ch:20", "--ch:24"]


def test_a_printed_table_scrolls_and_printed_sentences_are_broken():
    assert 'class="stream aligned" tabindex="0"' in printed("a   b\n1  22\n", "1.2")
    for words in ("one  line\n", "x = 1\ny = 2\n", "many words " * 20):
        assert "aligned" not in printed(words, "1.2")


def test_a_sign_and_a_unit_stay_with_their_number_in_tables_too():
    kept = restyle(pd.DataFrame({"bar": ["< 5 %, the n-gram's"]}).to_html())
    assert "&lt;\u202f5\u202f%, the n-gram's" in kept
    assert prose.inline("a bar of < 5 % and 3 things") == "a bar of &lt;\u202f5\u202f% and 3 things"


def test_bars_that_are_asked_no_more_are_listed_below_the_claims(page):
    listed = [text(item).replace("\u202f", " ") for item in page.select("#dropped-bars li")]
    gone = bars.dropped()
    assert len(listed) == len(gone) and "folded" in page.find(id="dropped-bars")["class"]
    for shown, bar in zip(listed, gone, strict=True):
        assert shown.startswith(f"{bar.id} ({bar.statement}: {bar.bound})")
        assert shown.endswith(f"dropped on {bar.dropped}: {bar.why}.")
    assert f"{len(gone)} more bars were dropped" in text(page.select_one("#claims > p"))


def test_bars_that_the_run_did_not_ask_are_listed_below_the_claims(page):
    judged = {row["id"].removeprefix("claim-") for row in page.select("#claims tbody tr[id]")}
    left = [bar for bar in bars.read().values() if bar.id not in judged]
    listed = [text(item).replace("\u202f", " ") for item in page.select("#unasked-bars li")]
    assert [shown.partition(" ")[0] for shown in listed] == [bar.id for bar in left]
    shown = dict(zip((bar.id for bar in left), listed, strict=True))
    bar = bars.read()["peers-f32"]
    assert (
        shown[bar.id]
        == f"{bar.id} ({bar.statement}: {bar.threshold}), first written {bar.written}."
    )
    assert f"{len(left)} more bars were not judged, because" in text(page.select_one("#claims > p"))


def test_captions_put_the_finding_in_bold():
    assert prose.caption("One. Two.") == "<strong>One.</strong> Two."
    assert prose.inline("88 % of `5 % 3`") == "88\u202f% of <code>5 % 3</code>"
    assert prose.caption("Only one") == "<strong>Only one</strong>"
    assert prose.caption("With **own** marks. Two.") == "With <strong>own</strong> marks. Two."
    environment = prose.markdown("\\begin{equation}a=b\\end{equation}", prose.Renderer("report"))
    assert "<math" in environment and '<span class="eqno"></span>' in environment
    assert claim_anchor("a b/c") == "claim-a-b-c" and Book(TEMPLATE).claims == {}


def test_what_is_asked_of_a_rough_number_has_no_zeros_behind_it():
    rough = {"seed_value": 7.0, "step": 0.01}
    assert _asked({"threshold": None}, rough) == "7 ± 0.005"
    assert _asked({"threshold": None}, {"seed_value": 149_000, "step": 1000}) == "149,000 ± 500"


def test_code_is_colored_by_the_style_sheet_and_reads_as_it_was_written():
    style = (TEMPLATE / "style.css").read_text(encoding="utf-8")
    rules = ",".join(re.findall(r"pre :is\(([^)]*)\)", style))
    assert {name.strip(" .") for name in rules.split(",")} == COLORED
    source = 'def f(x: int = 1) -> str:  # why\n    """Doc <b>."""\n    return f"{x} & 2" or 0.5'
    code = BeautifulSoup(f"<pre>{python(source)}</pre>", "html.parser")
    assert code.get_text() == source
    found = {span["class"][0]: span.get_text() for span in code.find_all("span")}
    assert found["k"] == "return" and found["ow"] == "or" and set(found) <= COLORED
    assert found["nf"] == "f" and found["c1"] == "# why" and found["mf"] == "0.5"


def test_what_follows_from_printed_numbers_is_said_to_and_stands_under_no_table(shown):
    module = Book(TEMPLATE).env.get_template("outputs.html.j2").module
    rows = [audit_row(LEDGER, "S34-fp32-row", 1052.43), audit_row(LEDGER, "S2-parameters", 149_000)]
    at = {"anchor": "04-a", "number": "04.1"}
    links = BeautifulSoup(module.sources({"csv": ""}, at, rows), "html.parser")
    assert [a["href"] for a in links.select("a")] == ["#claim-S2-parameters", "#04-a"]
    lines = BeautifulSoup(module.claims({}, at, rows, rows, {}), "html.parser").select("li")
    assert [("from its own numbers" in text(line)) for line in lines] == [True, False]
    (line,) = shown((display.show_claim, rows[0]))
    claim = {**rows[0], "notebook": "A2-quant", "cell_id": "a"}
    ((_, _, (row,)),) = html._claims([claim], [], None)["audit"]["groups"]
    for said in (text(lines[0]), line.data["text/plain"], row["shown"]):
        assert "1,052.43 perplexity" in said  # as it is printed
