"""Code as the page shows it: colored by the style sheet's few kinds, and otherwise plain text."""

import html
from itertools import groupby
from operator import itemgetter

from markupsafe import Markup
from pygments.lexers import PythonLexer
from pygments.token import STANDARD_TYPES

LEXER = PythonLexer()
# The kinds of tokens that the style sheet colors.
COLORED = frozenset("k kn kc ow s1 s2 sa sd se si mi mf c1 cm nf nn nc".split())


def python(source):
    """Highlighted Python, as spans without a wrapper, and none around what has no color."""
    tokens = ((_css(kind), text) for kind, text in LEXER.get_tokens(source))
    parts = []
    for css, found in groupby(tokens, key=itemgetter(0)):
        text = html.escape("".join(text for _, text in found), quote=False)
        parts.append(f'<span class="{css}">{text}</span>' if css in COLORED else text)
    return Markup("".join(parts).rstrip("\n"))


def _css(kind):
    """The short name of a token's kind, or of the nearest kind above it that has one."""
    while kind not in STANDARD_TYPES:
        kind = kind.parent
    return STANDARD_TYPES[kind]
