"""Markdown of a notebook to the report's HTML: mathematics as MathML, headings one level down with
unique ids."""

import re

from latex2mathml.converter import convert
from markupsafe import Markup
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from .names import slug

SENTENCE = re.compile(r"(?s)(.+?[.!?])(\s+(?=[A-Z0-9“\"(\[$]).*)")


class Renderer(IPythonRenderer):
    """nbconvert's renderer with MathML, numbered display equations and ids that are unique over the
    report.

    `prefix` is the chapter's number ("04"), `shift` how many levels its headings move down.
    """

    def __init__(self, prefix, shift=1):
        super().__init__(escape=False, exclude_anchor_links=True)
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

    def inline_math(self, body):
        return mathml(body, "inline")

    def block_math(self, body):
        self.equations += 1
        number = (
            f"({self.prefix.lstrip('0')}.{self.equations})" if self.prefix[:1].isdigit() else ""
        )
        return f'<span class="equation"><span class="eq">{mathml(body, "block")}</span><span class="eqno">{number}</span></span>'

    def latex_environment(self, name, body):
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")


def mathml(latex, display):
    """MathML of a formula; ValueError names one that cannot be converted."""
    try:
        return convert(latex.strip(), display=display).replace(
            ' xmlns="http://www.w3.org/1998/Math/MathML"', ""
        )
    except Exception as error:  # latex2mathml raises many unrelated types
        reason = f"{type(error).__name__} {error}"
        raise ValueError(
            f"formula {latex.strip()!r} cannot be set: {reason}: write it in plain LaTeX"
        ) from error


def markdown(text, renderer):
    """Markdown as HTML blocks."""
    return Markup(MarkdownWithMath(renderer=renderer).render(text))


def inline(text):
    """One paragraph of Markdown without its <p>: captions, answers, statements."""
    html = str(markdown(text, Renderer(""))).strip()  # str: substituting in Markup would escape it
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
