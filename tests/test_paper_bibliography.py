"""Citations: every key is known, every work is cited, every link leads both ways."""

import re
from pathlib import Path

import nbformat
import pytest

from paper import bibliography, prose
from paper.bibliography import Work

ROOT = Path(__file__).resolve().parent.parent
WORKS = bibliography.read()
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMED = re.compile(r"([A-Z][\w’'-]+(?: et al\.| and [A-Z][\w-]+)?)(?:,? \(?)((?:19|20)\d\d)\b")


def keys(text):
    """The keys that a text cites."""
    found = [m["keys"] for m in bibliography.CITATION.finditer(text) if m["keys"]]
    return {key.strip()[1:] for each in found for key in each.split(";")}


def sources():
    """The text of notebooks' cells, and of the library's source on one line without its marks."""
    books = [nbformat.read(path, as_version=4) for path in NOTEBOOKS]
    cells = [cell.source for book in books for cell in book.cells]
    files = [p for p in (ROOT / "lib").rglob("*") if p.suffix in (".py", ".c")]
    code = [" ".join(p.read_text(encoding="utf-8").replace("#", " ").split()) for p in files]
    return cells, code


CELLS, CODE = sources()


def plain(work):
    return re.sub(r"[a-h]$", "", work.label)


def test_every_work_is_cited_and_every_citation_known():
    cited = set().union(*map(keys, CELLS))
    assert cited <= set(WORKS)
    text = " ".join(re.sub(r"['’]s\b|[()]", " ", " ".join([*CELLS, *CODE])).split())
    assert [w.key for w in WORKS.values() if w.key not in cited and plain(w) not in text] == []


def test_what_the_library_names_is_in_the_bibliography():
    known = {plain(work) for work in WORKS.values()}
    named = {f"{who} {year}" for text in CODE for who, year in NAMED.findall(text)}
    named = {name for name in named if " et al." in name or " and " in name}
    assert named and named <= known


def test_entries_are_whole():
    for work in WORKS.values():
        assert re.match("https://|$", work.url) and work.title and work.venue, work.key
        assert work.key == work.key.lower() and str(work.year) in work.key
        assert all("," in name for name in work.authors if name != "others"), work.key


@pytest.mark.parametrize(
    "authors, label, names",
    [
        (("Shazeer, N.",), "Shazeer 2001", "Shazeer, N."),
        (("A, B.", "C, D."), "A and C 2001", "A, B., and C, D."),
        (("A, B.", "C, D.", "E, F."), "A et al. 2001", "A, B., C, D., and E, F."),
        (("A, B.", "C, D.", "others"), "A et al. 2001", "A, B., C, D., and others"),
    ],
)
def test_labels_and_names(authors, label, names):
    work = Work("x", authors, 2001, "t", "v", "u")
    assert bibliography.short(work) == label and work.names == names


def test_equal_labels_are_told_apart(tmp_path):
    entry = '[{}]\nauthors = ["A, B."]\nyear = 2001\ntitle = "t"\nvenue = "v"\nurl = "u"\n'
    path = tmp_path / "b.toml"
    path.write_text("".join(entry.format(key) for key in ("one", "two")))
    assert [work.label for work in bibliography.read(path).values()] == ["A 2001a", "A 2001b"]


def test_citations_become_links_and_code_stays():
    text = bibliography.cited("So [@su2021; @vaswani2017], and `x[@su2021]`, and a[@b.c].")
    assert text == (
        "So ([Su et al. 2021](#ref-su2021); [Vaswani et al. 2017](#ref-vaswani2017)), "
        "and `x[@su2021]`, and a[@b.c]."
    )
    with pytest.raises(ValueError, match=r"\[@su2012\] is not in .*did you mean 'su2021'"):
        bibliography.cited("[@su2012]")


@pytest.mark.parametrize("computed", [False, True])
def test_a_citation_and_its_entry_link_both_ways(computed):
    html = prose.markdown("As [@su2021] and [@su2021].", prose.Renderer("04", computed=computed))
    found = {}
    html = bibliography.anchored(html, "4", found) + bibliography.anchored(html, "5", found)
    places = [
        ("cite-su2021-1", "4"),
        ("cite-su2021-2", "4"),
        ("cite-su2021-3", "5"),
        ("cite-su2021-4", "5"),
    ]
    assert found == {"su2021": places}
    assert all(f'href="#ref-su2021" id="{id}"' in html for id, _ in found["su2021"])
    assert bibliography.plain("Hägele et al. 2024") < bibliography.plain("Hagen 2024")
    (entry,) = bibliography.listed(found)
    assert entry["work"].key == "su2021" and entry["places"] == found["su2021"]
