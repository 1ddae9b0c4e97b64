"""Words that come from data (a text's tokens, a file's name), made literal wherever they are shown.

visible    nothing that hides, reorders what stands beside it, or does not fit into UTF-8
literal    for Markdown: no character of it is markup, mathematics or HTML
drawable   for figures: no character that the figures' font lacks
csv_text   for CSV files: verbatim, so that pandas reads back what was measured"""

import csv
import re
import unicodedata
from functools import cache

from matplotlib.font_manager import FontProperties, findfont, get_font

# Controls, lone surrogates, noncharacters, and what is drawn as nothing or turns the direction of
# its neighbours. Joiners, variation selectors and direction marks stay: scripts need them.
UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u180e\u200b\u2028-\u202e\u2060-\u206f\ud800-\udfff"
    "\ufdd0-\ufdef\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f]"
)
PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")  # of ASCII: all that Markdown and TeX can be made of
LONGEST = 44  # characters of a label: more would leave no room for what it names
CODED = re.compile(r"⟨U\+((?:[0-9A-F]{4,6}\b ?)+)([^⟩]*)⟩")
SPELLED = 7  # characters without a glyph that a label spells out one by one


def visible(text: str) -> str:
    """`text` with every unseen character as its escape: \\x00, \\u202e, \\udce9."""
    return UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def seen(value):
    """`visible` for every string in nested lists, tuples and dicts."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {seen(key): seen(one) for key, one in value.items()}
    return type(value)(map(seen, value)) if isinstance(value, (list, tuple)) else value


def literal(text) -> str:
    """Words for a sentence in Markdown: they are shown as they are, on one line.

    Each mark of ASCII becomes a character reference, which CommonMark never takes for structure."""
    words = " ".join(visible(str(text)).split())
    return PUNCTUATION.sub(lambda found: f"&#{ord(found[0])};", words)


def drawable(text, longest=None) -> str:
    """Words for a figure: composed characters, no more than two lines, and `⟨U+7D05 6A13⟩` for
    what the font cannot draw (`spoken` gives it back); cut in the middle to `longest`
    characters."""
    lines = [" ".join(line.split()) for line in str(text).splitlines() if line.strip()]
    words = ("\n" if len(lines) == 2 else " ").join(lines)
    words = visible(unicodedata.normalize("NFC", words))
    words = words.replace("⟨U+", "⟨U+27E8⟩U+")  # what the text itself spells is not taken for ours
    words = re.sub(_lacking(), _spelled, words)
    if longest and len(words) > longest:
        words = words[: longest * 2 // 3] + "…" + words[-(longest // 3) :]
    return words


def spoken(text) -> str:
    """The characters that `drawable` has spelled by their codes, for where a font has them: `…`
    stands for those it has left out."""
    return CODED.sub(
        lambda found: (
            "".join(chr(int(code, 16)) for code in found[1].split()) + "…" * bool(found[2])
        ),
        text,
    )


def label(text, longest=LONGEST) -> str:
    """`drawable`, short enough to stand beside what it names."""
    return drawable(text, longest)


def csv_text(df) -> str:
    """A DataFrame as CSV. Text stands verbatim, also where a spreadsheet would take it for a
    formula (=, +, -, @): pandas reads back what was measured, and people import it as text."""
    named = type(df.index).__name__ != "RangeIndex"  # a name or labels carry data
    text = df.to_csv(index=named, lineterminator="\n")
    if "\r" in text:  # which pandas reads as the end of a line unless it is quoted
        text = df.to_csv(index=named, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    text = text.replace("\0", "\\x00")
    return text.encode("utf-8", "backslashreplace").decode()  # lone surrogates fit no file


def _spelled(found):
    codes = [f"{ord(character):04X}" for character in found[0]]
    if len(codes) > SPELLED:
        codes[SPELLED - 1 :] = [f"and {len(codes) - SPELLED + 1} more"]
    return f"⟨U+{' '.join(codes)}⟩"


@cache
def _lacking():
    """A pattern of the runs of characters that the upright or the slanted face does not hold."""
    faces = (FontProperties(family="DejaVu Sans", style=style) for style in ("normal", "italic"))
    held = set.intersection(*(set(get_font(findfont(face)).get_charmap()) for face in faces))
    held |= set(range(0xFE00, 0xFE10)) | {0x0A}  # variation selectors and our own line break
    codes, ranges = sorted(held - set(range(0x20)) | {0x0A}), []
    for code in codes:
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return re.compile("[^" + "".join(rf"\U{a:08x}-\U{b:08x}" for a, b in ranges) + "]+")
