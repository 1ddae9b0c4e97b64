"""Markdown of a notebook to the report's HTML: mathematics as MathML, citations as links, headings
one level down with unique ids.

An author's cell may hold HTML. What a cell computed may hold words of a user's text or a file's
name: HTML, images and links that run something are shown there as they were written."""

import re

from latex2mathml.converter import convert
from markupsafe import Markup, escape
from mistune.util import safe_entity
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from .bibliography import cited
from .names import slug
from .numerals import unbroken

SAFE_LINK = re.compile(
    r"(#(claim|fig|tbl|ref|\d\d)[-.]|https?://|(?!#|//|[a-z][a-z0-9+.-]*:))", re.I
)
SENTENCE = re.compile(r"(?s)(.+?[.!?])(\s+(?=[A-Z0-9“\"(\[$]).*)")


class Renderer(IPythonRenderer):
    """nbconvert's renderer with MathML, numbered display equations and ids that are unique over the
    report.

    `prefix` is the chapter's number ("04"), `shift` how many levels its headings move down."""

    def __init__(self, prefix, shift=1, computed=False):
        super().__init__(escape=computed, exclude_anchor_links=True)
        self.computed = computed
        self.prefix, self.shift = prefix, shift
        self.equations, self.level, self.used = 0, 2, set()

    def heading(self, text, level, **attrs):
        """A heading with its own link; a skipped level is closed up, so that the outline has no
        holes."""
        self.level = level = min(level + self.shift, self.level + 1, 6)
        name = base = f"{self.prefix}.{slug(Markup(text).striptags())}"
        while name in self.used:
            name = f"{base}-{sum(other.startswith(base) for other in self.used) + 1}"
        self.used.add(name)
        link = f'<a class="anchor" href="#{name}" aria-label="Link to this section">#</a>'
        return f'<h{level} id="{name}">{text}{link}</h{level}>\n'

    def text(self, text):
        text = unbroken(text)
        return safe_entity(text)  # with escape=True the base class would show &#36; itself

    def link(self, text, url, title=None):
        if self.computed and not (text.strip() and SAFE_LINK.match(url.strip())):
            return f"{text} ({escape(url)})"
        if url.startswith("#ref-"):
            return f'<a class="cite" href="{escape(url)}">{text}</a>'
        return super().link(text, url, title)

    def image(self, text, url, title=None):
        if self.computed:  # it would load something, and has no size
            return f"{escape(text)} ({escape(url)})"
        return super().image(text, url, title)

    def inline_math(self, body):
        return self._mathml(body, "inline") or str(escape(f"${body}$"))

    def block_math(self, body):
        formula = self._mathml(body, "block")
        if not formula:
            return str(escape(f"$${body}$$"))
        self.equations += 1
        numbered = any(map(str.isdigit, self.prefix[:2]))
        number = f"({self.prefix.lstrip('0')}.{self.equations})" if numbered else ""
        inside = f'<span class="eq">{formula}</span><span class="eqno">{number}</span>'
        return f'<span class="equation">{inside}</span>'

    def _mathml(self, body, display):
        """The formula's MathML; "" for one that a user's words made by chance."""
        try:
            return mathml(body, display)
        except ValueError:
            if not self.computed:
                raise
            return ""

    def latex_environment(self, name, body):
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")


def mathml(latex, display):
    """MathML of a formula; ValueError names one that cannot be converted."""
    try:
        found = convert(latex.strip(), display=display)
        return found.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "")
    except Exception as error:  # latex2mathml raises many unrelated types
        reason = f"{type(error).__name__} {error}"
        raise ValueError(
            f"formula {latex.strip()!r} cannot be set: {reason}: write it in plain LaTeX"
        ) from error


def markdown(text, renderer):
    """Markdown as HTML blocks, its citations linked."""
    return Markup(MarkdownWithMath(renderer=renderer).render(cited(text)))


def inline(text):
    """One paragraph of Markdown without its <p>: captions, answers, statements."""
    html = str(markdown(text, Renderer("", computed=True))).strip()  # Markup would escape the next
    return Markup(re.sub(r"^<p>(.*)</p>$", r"\1", html, flags=re.S))


def caption(text):
    """A caption with its first sentence, the finding, in bold, unless it marks something bold
    itself."""
    found = SENTENCE.match(text)
    if "**" in text:
        return inline(text)
    return inline(f"**{found[1]}**{found[2]}" if found else f"**{text.strip()}**")


def quiet(text):
    """Plain text for an attribute: one line, left for the template to escape."""
    return " ".join(text.split())
