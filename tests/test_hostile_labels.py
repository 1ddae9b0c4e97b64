"""Words that come from data are literal wherever they are shown: figures, tables, claims, prose,
CSV and the page.

The words below are what users, their texts and their file systems hold: mathematics, markup,
templates, other scripts, what cannot be seen, and what a spreadsheet would run."""

import io
import json
import warnings

import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text

from claim_rows import own_row
from paper import display, figures, prose
from paper.chapter import Book
from paper.html import TEMPLATE, build_html
from paper.words import _lacking, csv_text, drawable, literal, visible

MATHEMATICS = (
    "$$", "$", "a$b", "$x$", "$\\frac$", "$\\frac{1}{2}$", "\\[x\\]", "\\(x\\)", "\\\\[x\\\\]",
    "\\begin{equation}a\\end{equation}", "_", "^", "a_b^c", "%", "100 %", "\\", "\\\\", "&", "#",
    "{}", "{", "\\$5", "~x~", "\\N{BULLET}", "$ 5 and $ 6", "$$ x.txt",
)  # fmt: skip
MARKUP = (
    "<img src=x onerror=alert(1)>", "<h2>Fake<", "<h2>Fake</h2>", "<script>alert(1)</script>",
    "</script>", "<!--", "-->", "]]>", "<![CDATA[", "&amp;", "&lt;b&gt;", "notes <draft>.txt",
    "<a href='//x.org'>", "</pre></div>", "<style>*{}</style>", "**bold**", "__init__", "`code`",
    "``` x", "[x](javascript:alert(1))", "![x](http://x.org/a.png)", "# Heading", "- item",
    "1. one",
    "> quote", "| a | b |", "---", "https://x.org", "<https://x.org>", "[^1]", "- [ ] task",
    "    four", "⟦figure 3⟧", "⟦x 1⟧", "{{ x }}", "{% raw %}", "{# x", "\"quoted\" 'so'", "a=b:c,;",
)  # fmt: skip
SCRIPTS = (
    "紅樓夢", "紅樓夢.txt", "हिन्दी", "ไทย", "שלום", "مرحبا", "Ελληνικά", "Русский", "한국어",
    "e\u0301a\u0308", "a\u0301\u0302\u0303", "😀", "👍🏽", "👨\u200d👩\u200d👧",
    "🏴\U000e0067\U000e007f",
    "𝔘𝔫𝔦", "\u0915", "ﷺ",
)  # fmt: skip
UNSEEN = (
    "a\u2028b", "a\u2029b", "\u202eabc", "\u2066abc", "a\u200bb", "\ufeffa", "a\x00b", "\x07",
    "\x1b[31mred",
    "\ue000", "\ufffe", "\U0010ffff", "\ud800", "caf\udce9.txt", "a\tb", "a\nb", "a\r\nb\nc", " ",
    "  two  spaces  ", "\xa0",
)  # fmt: skip
FORMULAS = ('=HYPERLINK("http://x.org","a")', "=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1")
LONG = ("a" * 300, "紅" * 300, "word " * 80, "$" * 101)
HOSTILE = (*MATHEMATICS, *MARKUP, *SCRIPTS, *UNSEEN, *FORMULAS, *LONG)

ENCODED = [w for w in HOSTILE if w not in ("\ud800", "caf\udce9.txt")]


def draw(name, words):
    """The figure function `name`, with eight words wherever a word of data can stand."""
    a, b, c, d, *more = words
    y = [1.0, 2.0, 4.0]
    long = pd.DataFrame(
        [(x, k + y[i], g) for k, g in enumerate(words[:4]) for i, x in enumerate((1, 10, 100))]
    )
    long = long.set_axis(list("xyg"), axis=1).assign(z=lambda df: 3 * df.y)
    rows = pd.DataFrame({"w": words, "v": np.arange(8.0, 0, -1)})
    rows = rows.assign(lo=rows.v - 0.1, hi=rows.v + 0.2)
    pairs = [(w, g, 2.0) for w in more for g in (a, b)]
    frame = pd.DataFrame(np.arange(8.0).reshape(4, 2), index=more, columns=[c, d])
    named = dict(xlabel=more[0], ylabel=more[1])
    limits = dict(limits=[(2.0, more[2])], xlimits=[(5.0, more[3])])
    calls = {
        "lines": lambda f: f(long, "x", "y", "g", log="xy", seed=[(20, 4, a)], **named, **limits),
        "pareto": lambda f: f(rows, "v", "v", "w", "lo", "hi", **named, limits=limits["limits"]),
        "heatmap": lambda f: f({a: frame, b: frame}, label=c, annotate=True, **named),
        "reserves": lambda f: f(long.assign(p=d), "x", "y", "z", "g", "p", words=more[2:], **named),
        "dots": lambda f: f(rows, "w", "v", "lo", "hi", xlabel=c, limits=[(2, d)]),
        "ladder": lambda f: f(rows, "w", "v", xlabel=c, limits=[(0.5, d)]),
        "bars": lambda f: f(
            pd.DataFrame(pairs, columns=list("wgv")), "w", "v", "g", xlabel=d, limits=[(2, c)]
        ),
        "waterfall": lambda f: f(rows, "w", "v", xlabel=c, unit=" s"),
    }
    return calls[name](getattr(figures, name))


FEW = ("reserves",)  # takes four groups and panels
FUNCTIONS = sorted(set(figures.__all__) - {"png_bytes"})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_figure_draws_every_word_literally_and_without_a_warning(name):
    count = len(HOSTILE) // 8 + 1  # figures; each of them holds words of every kind
    groups = [[*HOSTILE[i::count], *"abcdefgh"][:8] for i in range(count)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for words in groups[FUNCTIONS.index(name) :: len(FUNCTIONS)]:
            fig = draw(name, words)
            fig.draw(fig.canvas.get_renderer())
            found = fig.findobj(Text)
            assert not any(text.get_parse_math() for text in found), words
            written = "\n".join(text.get_text() for text in found)
            shown = words[:4] if name in FEW else words
            for word in shown:
                assert drawable(word, 16)[:8].strip() in written, (name, word)


def shown(text):
    return " ".join(visible(str(text)).split())


def test_a_label_spells_out_what_the_font_lacks_and_keeps_to_its_length():
    assert drawable("a$b_{c}^2 \\frac %") == "a$b_{c}^2 \\frac %"
    assert drawable("紅樓夢.txt") == "⟨U+7D05 6A13 5922⟩.txt" and drawable("שלום") == "שלום"
    assert drawable("紅" * 9) == f"⟨U+{'7D05 ' * 6}and 3 more⟩" and drawable("e\u0301") == "é"
    assert drawable("\u202ea\x07\tb\ud800") == "\\u202ea\\x07 b\\ud800"
    assert drawable("int4\ngroup") == "int4\ngroup" and drawable("a\nb\nc") == "a b c"
    assert len(drawable("x" * 300, 44)) <= 44 and drawable("x" * 44, 44) == "x" * 44


@given(st.text(max_size=60))
def test_any_text_is_drawable(text):
    assert not _lacking().search(drawable(text)) and drawable(text).count("\n") <= 1


@pytest.mark.parametrize("word", HOSTILE)
def test_a_word_in_a_sentence_of_markdown_is_literal(word):
    html = prose.inline(f"Of *{literal(word)}* the **{literal(word)}**; {literal(word)}.")
    soup = BeautifulSoup(html, "html.parser")
    assert {tag.name for tag in soup.find_all(True)} <= {"em", "strong"}
    said = shown(soup.get_text())
    assert said.count(shown(word)) >= 3, said


@given(st.text(max_size=40))
def test_any_word_in_a_sentence_is_literal(word):
    html = prose.inline(f"It is [{literal(word)}], no more.")
    assert not BeautifulSoup(html, "html.parser").find(True)
    assert BeautifulSoup(html, "html.parser").get_text() == f"It is [{shown(word)}], no more."


@pytest.mark.parametrize("word", HOSTILE)
def test_what_a_cell_computed_never_becomes_html_that_acts(word):
    """Also where a notebook forgets `literal`."""
    html = prose.markdown(f"A {word} b\n\n{word}", prose.Renderer("01", computed=True))
    soup = BeautifulSoup(html, "html.parser")
    assert not soup.find(["script", "img", "style", "iframe", "q", "div"], class_=None)
    assert not any("javascript:" in str(a.get("href", "")).lower() for a in soup.find_all("a"))


def outputs(monkeypatch, *calls):
    found = []
    monkeypatch.setattr(
        display,
        "display",
        lambda data, raw, metadata: found.append(
            nbformat.v4.new_output("display_data", data, metadata=metadata)
        ),
    )
    for function, *arguments in calls:
        function(*arguments)
    return found


def test_the_page_shows_every_word_and_is_never_refused(tmp_path, monkeypatch):
    words = pd.DataFrame({"word": HOSTILE}).map(visible).assign(count=range(len(HOSTILE)))
    said = "; ".join(map(literal, HOSTILE))
    png = figures.png_bytes(figures.ladder(words[:2].assign(count=1.5), "word", "count", xlabel=""))
    rows = [own_row(f"c{i}", literal(w), w, True, threshold=w) for i, w in enumerate(HOSTILE[::3])]
    rows = [{**row, "notebook": "01-data", "cell_id": "all"} for row in rows]
    found = outputs(
        monkeypatch,
        (display.show_markdown, said),
        (display.show_answer, said),
        (display.show_figure, png, "words", " ".join(HOSTILE), "words.csv"),
        (display.show_table, words, "words"),
        (display.show_certificate, said, said, [(w, w, 1) for w in HOSTILE], True, (1, 2)),
        (display.show_negative, said, said, said, said),
        *((display.show_claim, row) for row in rows),
    )
    stream = nbformat.v4.new_output("stream", name="stdout", text="\n".join(map(visible, HOSTILE)))
    value = nbformat.v4.new_output("execute_result", {"text/plain": "\n".join(ENCODED)})
    cells = [
        nbformat.v4.new_markdown_cell("# Words\n\n*Which?*", id="head"),
        nbformat.v4.new_code_cell("show()", id="all", outputs=[*found, stream]),
        *(
            nbformat.v4.new_markdown_cell(text, id=f"caption-{i}", metadata={"tags": ["caption"]})
            for i, text in enumerate((f"Caption. {said}", f"Words. {said}"))
        ),
        nbformat.v4.new_code_cell("show()", id="more", outputs=[value]),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbformat.write(notebook, tmp_path / "01-data.ipynb")
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "01-data.json").write_text(json.dumps(rows))
    about = {"profile": "p", "run": "r", "parameters": {"corpus": "x/<b>" + HOSTILE[0] + ".txt"}}
    (tmp_path / "run.json").write_text(json.dumps(about))
    soup = BeautifulSoup(build_html(tmp_path).read_text(encoding="utf-8"), "html.parser")
    assert [script.attrs for script in soup.find_all("script")] == [{"type": "module"}]  # our own
    assert not soup.find_all("iframe") and len(soup.find_all("img")) == 1
    assert [h.get_text() for h in soup.find(id="01-data").find_all(["h2", "h3"])] == ["1Words#"]
    places = (
        ".answer",
        "figcaption",
        "caption",
        ".certificate dl",
        ".null",
        "pre.stream",
        "table.claims",
    )
    for place in places:
        tag = soup.find(id="01-data").select_one(place) or soup.select_one(place)
        text = shown(tag.get_text())
        for word in HOSTILE[::3] if place == "table.claims" else HOSTILE:
            assert shown(word) in text, (place, word)


def test_nothing_in_a_text_is_taken_for_the_number_of_a_figure():
    book = Book(TEMPLATE)
    assert len(book.token) == 16 and book.token != Book(TEMPLATE).token


def test_csv_files_give_pandas_the_words_back():
    df = pd.DataFrame({"word": [w for w in ENCODED if "\0" not in w]}).assign(n=1)
    back = pd.read_csv(io.StringIO(csv_text(df), newline=""), keep_default_na=False)
    assert back.word.tolist() == df.word.tolist() and '"=HYPERLINK(' in csv_text(df)
    assert csv_text(pd.DataFrame({"w": ["a\0b"]})) == "w\na\\x00b\n"
    series = pd.DataFrame({"v": [1]}, index=pd.Index(["r"], name="row"))
    assert csv_text(series) == "row,v\nr,1\n"
