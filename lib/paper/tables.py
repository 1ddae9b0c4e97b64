"""HTML tables of pandas in the report's style: rules instead of boxes, words left, numbers right,
heads that say their scope."""

import re

from bs4 import BeautifulSoup

from .numerals import UNITS, unbroken

NUMERIC = re.compile(r"(exact|yes|no|–|[<>≤≥=≈±]?\s*\[?[−+±-]?[\d.∞].{0,40})?")

LETTERS = re.compile(r"[A-Za-zµ]+")
UNIT_WORDS = {*UNITS.values(), *"exact yes no of to tokens B kB GB GiB dB h min".split()}


def restyle(source, id=None, links=None, badges=None):
    """A DataFrame's HTML with the report's marks: no inline style, `scope` on heads, numbers right,
    words left; a cell that is a name of `links` leads to what it names, and one that is a word of
    `badges` is set as the HTML given there."""
    soup = BeautifulSoup(source, "html.parser")
    if id:
        soup.table["id"] = id
    for tag in soup.find_all("style"):
        tag.decompose()
    for tag in soup.find_all(True):
        for attribute in ("style", "border", "bgcolor", "align", "valign"):
            tag.attrs.pop(attribute, None)
    for table in soup.find_all("table"):
        _restyle_table(table)
    for cell in soup.select("tbody td, tbody th"):
        if cell.string:
            cell.string.replace_with(unbroken(cell.string))
        if cell.string in (links or ()):
            cell.string.wrap(soup.new_tag("a", href=links[cell.string]))
        elif cell.string in (badges or ()):
            cell.string.replace_with(BeautifulSoup(badges[cell.string], "html.parser"))
    return str(soup)


def _is_number(text):
    """Whether a cell holds a number, with its unit or interval: no hash, no "2 blocks"."""
    return NUMERIC.fullmatch(text) and {*LETTERS.findall(text)} <= UNIT_WORDS


def _room(texts, place):
    """Characters that a column of words should hold in a line where space is short: a short text
    whole, a longer one in few lines; the first column, which names the rows, leaves room for the
    others."""
    longest = max(map(len, texts), default=0)
    return min(longest, 9 + longest // 8, 24 if place else 14)


def _restyle_table(table):
    if table.caption:
        table.caption.decompose()
    heads = table.thead.find_all("tr") if table.thead else []
    if len(heads) == 2 and not any(th.get_text(strip=True) for th in heads[1].find_all("th")[1:]):
        # pandas gives a named index a row of its own
        name = heads[1].find("th").get_text(strip=True)
        if not heads[0].find("th").get_text(strip=True):
            heads[0].find("th").string = name
            heads.pop().decompose()
    rows = [
        row.find_all(["th", "td"])
        for row in (table.tbody or table).find_all("tr")
        if row.parent.name != "thead"
    ]
    width = max((len(row) for row in rows), default=0)
    for place in range(width):
        column = [row[place] for row in rows if len(row) == width]
        texts = [cell.get_text(strip=True) for cell in column]
        rest = (head.find_all("th") for head in heads)
        named = [cells[place] for cells in rest if len(cells) == width]
        if all(map(_is_number, texts)) and any(t[:1].isdigit() or t[1:2].isdigit() for t in texts):
            for cell in (*column, *named):
                cell["class"] = [*cell.get("class", []), "n"]
        else:
            for cell in named[-1:]:
                cell["style"] = f"--ch:{_room(texts, place)}"
    for head in heads:
        for th in head.find_all("th"):
            th["scope"] = "colgroup" if th.get("colspan") else "col"
    for row in rows:
        for th in (cell for cell in row if cell.name == "th"):
            th["scope"] = "row"
