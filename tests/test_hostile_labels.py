"""Words that come from data are literal wherever they are shown: figures, tables, claims, prose, CSV
and the page.

The words below are what users, their texts and their file systems hold: mathematics, markup,
templates, other scripts, what cannot be seen, and what a spreadsheet would run."""

import warnings

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from paper import figures
from paper.canvas import png_bytes
from paper.words import drawable

MATHEMATICS = (
    "$$", "$", "a$b", "$x$", "$\\frac$", "$\\frac{1}{2}$", "\\[x\\]", "\\(x\\)", "\\\\[x\\\\]",
    "\\begin{equation}a\\end{equation}", "_", "^", "a_b^c", "%", "100 %", "\\", "\\\\", "&", "#",
    "{}", "{", "\\$5", "~x~", "\\N{BULLET}", "$ 5 and $ 6", "$$ x.txt",
)  # fmt: skip
MARKUP = (
    "<img src=x onerror=alert(1)>", "<h2>Fake<", "<h2>Fake</h2>", "<script>alert(1)</script>",
    "</script>", "<!--", "-->", "]]>", "<![CDATA[", "&amp;", "&lt;b&gt;", "notes <draft>.txt",
    "<a href='//x.org'>", "</pre></div>", "<style>*{}</style>", "**bold**", "__init__", "`code`",
    "``` x", "[x](javascript:alert(1))", "![x](http://x.org/a.png)", "# Heading", "- item", "1. one",
    "> quote", "| a | b |", "---", "https://x.org", "<https://x.org>", "[^1]", "- [ ] task",
    "    four", "⟦figure 3⟧", "⟦x 1⟧", "{{ x }}", "{% raw %}", "{# x", "\"quoted\" 'so'", "a=b:c,;",
)  # fmt: skip
SCRIPTS = (
    "紅樓夢", "紅樓夢.txt", "हिन्दी", "ไทย", "שלום", "مرحبا", "Ελληνικά", "Русский", "한국어",
    "e\u0301a\u0308", "a\u0301\u0302\u0303", "😀", "👍🏽", "👨\u200d👩\u200d👧", "🏴\U000e0067\U000e007f",
    "𝔘𝔫𝔦", "\u0915", "ﷺ",
)  # fmt: skip
UNSEEN = (
    "a\u2028b", "a\u2029b", "\u202eabc", "\u2066abc", "a\u200bb", "\ufeffa", "a\x00b", "\x07", "\x1b[31mred",
    "\ue000", "\ufffe", "\U0010ffff", "\ud800", "caf\udce9.txt", "a\tb", "a\nb", "a\r\nb\nc", " ",
    "  two  spaces  ", "\xa0",
)  # fmt: skip
FORMULAS = ('=HYPERLINK("http://x.org","a")', "=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1")
LONG = ("a" * 300, "紅" * 300, "word " * 80, "$" * 101)
HOSTILE = (*MATHEMATICS, *MARKUP, *SCRIPTS, *UNSEEN, *FORMULAS, *LONG)


def draw(name, words):
    """The figure function `name`, with eight words wherever a word of data can stand."""
    a, b, c, d, *more = words
    y = [1.0, 2.0, 4.0]
    long = pd.DataFrame(
        [(x, k + y[i], g) for k, g in enumerate(words[:4]) for i, x in enumerate((1, 10, 100))]
    )
    long = long.set_axis(list("xyg"), axis=1).assign(z=lambda df: 3 * df.y)
    rows = pd.DataFrame({"w": words, "v": np.arange(8.0, 0, -1), "shown": words[::-1]})
    rows = rows.assign(lo=rows.v - 0.1, hi=rows.v + 0.2)
    pairs = [(w, g, 2.0) for w in more for g in (a, b)]
    frame = pd.DataFrame(np.arange(8.0).reshape(4, 2), index=more, columns=[c, d])
    named = dict(xlabel=more[0], ylabel=more[1])
    limits = dict(limits=[(2.0, more[2])], xlimits=[(5.0, more[3])])
    calls = {
        "lines": lambda f: f(long, "x", "y", "g", log="xy", seed=[(20, 4, a)], **named, **limits),
        "learning_curves": lambda f: f(long, "x", "y", "g", limits=[(1.5, more[2])], **named),
        "pareto": lambda f: f(rows, "v", "v", "w", "lo", "hi", **named, **limits),
        "heatmap": lambda f: f({a: frame, b: frame}, label=c, annotate=True, **named),
        "histograms": lambda f: f(long, "x", "y", "g", {a: [1, 2]}, **named),
        "reserves": lambda f: f(long, "x", "y", "z", "g", "g", words=more[2:], **named),
        "dots": lambda f: f(rows, "w", "v", "lo", "hi", xlabel=c, limits=[(2, d)], values="shown"),
        "ladder": lambda f: f(rows, "w", "v", xlabel=c, limits=[(0.5, d)]),
        "bars": lambda f: f(
            pd.DataFrame(pairs, columns=list("wgv")), "w", "v", "g", xlabel=d, limits=[(2, c)]
        ),
        "waterfall": lambda f: f(rows, "w", "v", xlabel=c, limit=(0.5, d), unit=" s"),
    }
    return calls[name](getattr(figures, name))


FEW = ("histograms", "learning_curves", "reserves")  # take four groups or panels
FUNCTIONS = sorted(set(figures.__all__) - {"png_bytes"})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_figure_draws_every_word_literally_and_without_a_warning(name):
    groups = [[*HOSTILE[i : i + 8], *"abcdefgh"][:8] for i in range(0, len(HOSTILE), 8)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for words in groups[FUNCTIONS.index(name) % 5 :: 5]:  # each word in two functions
            fig = draw(name, words)
            fig.draw(fig.canvas.get_renderer())
            found = fig.findobj(Text)
            assert not any(text.get_parse_math() for text in found), words
            written = "\n".join(text.get_text() for text in found)
            shown = (
                words if name not in ("histograms", "learning_curves", "reserves") else words[:4]
            )
            for word in shown:
                assert drawable(word, 16)[:8].strip() in written, (name, word)
