"""The works that the report refers to: data/bibliography.toml, citations `[@key]` in Markdown, and
the list in which each work links back to where it is cited."""

import difflib
import re
import tomllib
import unicodedata
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

FILE = Path(__file__).resolve().parents[2] / "data" / "bibliography.toml"
# Code is left as it stands; what else looks like [@one; @two] cites.
CITATION = re.compile(r"(?P<code>(`+).+?\2)|\[(?P<keys>@[\w-]+(?:; *@[\w-]+)*)\]", re.S)
LINK = re.compile(r'<a class="cite" href="#ref-([\w-]+)">')


@dataclass(frozen=True)
class Work:
    """An entry; `label` is what stands in the text, such as "Leviathan et al. 2023"."""

    key: str
    authors: tuple[str, ...]
    year: int
    title: str
    venue: str
    url: str = ""
    label: str = ""

    @property
    def names(self) -> str:
        """The authors in one line: "Chen, S. F., and Goodman, J."."""
        if self.authors[-1] == "others":
            return ", ".join(self.authors[:-1]) + ", and others"
        *most, last = self.authors
        return f"{', '.join(most)}, and {last}" if most else last


@cache
def read(path: Path = FILE) -> dict[str, Work]:
    """The works by key, in the file's order; two with one label get the letters a, b, ..."""
    rows = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    works = {
        key: Work(key, **{**row, "authors": tuple(row["authors"])}) for key, row in rows.items()
    }
    found = {}
    for work in works.values():
        found.setdefault(short(work), []).append(work.key)
    letters = {
        key: "abcdefgh"[i] for keys in found.values() if keys[1:] for i, key in enumerate(keys)
    }
    return {k: replace(w, label=short(w) + letters.get(k, "")) for k, w in works.items()}


def short(work: Work) -> str:
    """Surnames and year: one, two, or the first "et al."."""
    names = [name.partition(",")[0] for name in work.authors]
    who = f"{names[0]} et al." if names[2:] else " and ".join(names)
    return f"{who} {work.year}"


def plain(label: str) -> str:
    """A label as it is sorted: "Hägele" beside "Hagen"."""
    apart = unicodedata.normalize("NFKD", label.casefold())
    return "".join(mark for mark in apart if not unicodedata.combining(mark))


def cited(text: str, works: dict[str, Work] | None = None) -> str:
    """Markdown in which every citation is a link to its entry, in round brackets; ValueError names
    a key that is not in the bibliography, and the closest one."""
    works = read() if works is None else works

    def link(key):
        if key not in works:
            near = difflib.get_close_matches(key, works, n=1, cutoff=0)
            remedy = f": did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"citation [@{key}] is not in {FILE.name}{remedy}")
        return f"[{works[key].label}](#ref-{key})"

    def links(found):
        if found["code"]:
            return found["code"]
        return f"({'; '.join(link(part.strip()[1:]) for part in found['keys'].split(';'))})"

    return CITATION.sub(links, text)


def anchored(html: str, place: str, found: dict) -> str:
    """`html` with an id on every citation; `found` gets (id, place) by the work's key, in order."""

    def number(match):
        key = match[1]
        ids = found.setdefault(key, [])
        ids.append((f"cite-{key}-{len(ids) + 1}", place))
        return f'{match[0][:-1]} id="{ids[-1][0]}">'

    return LINK.sub(number, html)


def listed(found: dict) -> list[dict]:
    """The works that are cited, by their authors' names, with the places that cite them."""
    works = sorted(read().values(), key=lambda work: (plain(work.label), work.key))
    return [{"work": work, "places": found[work.key]} for work in works if work.key in found]
