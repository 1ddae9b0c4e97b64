"""The promises of index.html, checked on the finished page: self-contained, small, accessible,
every link answered."""

import html
import re
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser

LIMIT_BYTES = 5_000_000
LOADERS = set("iframe frame object embed video audio source track base applet".split())
LOADING = {"src", "srcset", "poster", "background", "data", "action"}
CSS_LOAD = re.compile(r"@import|url\(\s*['\"]?(?!#|data:)", re.I)
VOID = set("area base br col embed hr img input link meta source track wbr".split())
READ = {"a", "th", "style", "script"}  # whose words are judged


@dataclass
class Tag:
    """An element of the page: `within` are those around it, the nearest last; `text` are the words
    of one that is judged by them."""

    name: str
    attrs: dict
    within: tuple = ()
    text: list = field(default_factory=list)

    @property
    def where(self) -> str:
        """The id of the nearest element around it that has one."""
        return next((tag.attrs["id"] for tag in reversed(self.within) if tag.attrs.get("id")), "")

    def inside(self, name) -> bool:
        """Whether an element around it is of this class."""
        return any(name in tag.attrs.get("class", "").split() for tag in self.within)

    def said(self) -> str:
        return "".join(self.text).strip()


class Elements(HTMLParser):
    """The elements of a page in their order, read once: a tree that is asked and changed costs six
    times as long."""

    def __init__(self, page):
        super().__init__()
        self.found, self.open = [], ()
        self.feed(page)
        self.close()

    def handle_starttag(self, name, attrs):
        tag = Tag(name, {key: value or "" for key, value in attrs}, self.open)
        self.found.append(tag)
        if name not in VOID:
            self.open += (tag,)

    def handle_endtag(self, name):
        for place in reversed(range(len(self.open))):
            if self.open[place].name == name:
                self.open = self.open[:place]
                break

    def handle_data(self, text):
        for tag in self.open:
            if tag.name in READ:
                tag.text.append(text)

    def named(self, *names):
        return [tag for tag in self.found if tag.name in names]


def check(page, claims=None, folders=(), script=""):
    """Raises ValueError naming every promise that the HTML text `page` breaks.

    `claims` maps the anchor of each claim's row to the anchor of the cell that computed it; both
    must exist. `folders` are those of this machine, which nothing written may name. `script` is the
    one inline module that the page may hold, besides data."""
    read = Elements(page)
    ids = Counter(tag.attrs["id"] for tag in read.found if "id" in tag.attrs)
    wrong = [*_weight(page), *_loads(read), *_images(read), *_outline(read), *_links(read, ids)]
    wrong += [*_folders(page, folders), *_scripts(read, script)]
    wrong += [f"id {id!r} occurs {n} times" for id, n in ids.items() if n > 1]
    for row, cell in (claims or {}).items():
        claim = repr(row.removeprefix("claim-"))
        if cell not in ids:
            wrong.append(f"claim {claim} points to cell {cell!r}, which is not on the page")
        if row not in ids:
            wrong.append(f"claim {claim} has no row on the page")
    if wrong:
        raise ValueError("index.html is not fit to write: " + "; ".join(wrong))


def _folders(page, folders):
    text = html.unescape(page)
    for folder in folders:
        if found := re.search(rf"(?<![\w.-]){re.escape(folder)}(?=[/\\])[^\s<>\"']{{0,60}}", text):
            yield f"{found[0]!r} names a folder of this machine: write it from the project's root"


def _weight(page):
    size = len(page.encode())
    if size >= LIMIT_BYTES:
        yield f"it has {size:,} bytes, the limit is {LIMIT_BYTES:,}: draw fewer points or figures"


def _loads(read):
    """Everything that would run, or fetch something from elsewhere. Plain links in the text are
    neither."""
    wrong = [f"<{tag.name}> is not allowed" for tag in read.named(*LOADERS)]
    for tag in read.found:
        for name, text in tag.attrs.items():
            loads = name in LOADING or name.endswith("href") and tag.name != "a"
            if loads and not re.match(r"\s*(data:|#)", text):
                wrong.append(f"<{tag.name} {name}={text[:60]!r}> would load something: embed it")
            if name.startswith("on") or text.lower().lstrip().startswith("javascript:"):
                wrong.append(f"<{tag.name} {name}> would run a script")
            if name == "style" and CSS_LOAD.search(text):
                wrong.append(f"a style attribute of <{tag.name}> would load something: embed it")
        if tag.name == "meta" and tag.attrs.get("http-equiv", "").lower() == "refresh":
            wrong.append("<meta http-equiv=refresh> is not allowed")
    styles = "".join(tag.said() for tag in read.named("style"))
    return wrong + (
        ["the style sheet would load something: embed it"] if CSS_LOAD.search(styles) else []
    )


def _scripts(read, known):
    """Scripts other than data and, once, the inline module that is known."""
    found = [t for t in read.named("script") if t.attrs.get("type") != "application/json"]
    ours = [t for t in found if t.attrs == {"type": "module"} and "".join(t.text) == known]
    yield from ("<script> is not allowed" for _ in range(len(found) - min(len(ours), 1)))


def _images(read):
    for image in read.named("img"):
        name = image.where or image.attrs.get("src", "")[:40]
        alt = image.attrs.get("alt", "")
        if not alt.strip() or "No description has been provided" in alt:
            yield f"the image in {name!r} has no alt text: give nb.figure an alt= from the data"
        if not (image.attrs.get("width") and image.attrs.get("height")):
            yield f"the image in {name!r} has no width and height"
    for drawn in read.named("svg"):
        if drawn.attrs.get("role") == "img" and not drawn.attrs.get("aria-label", "").strip():
            yield f"the drawing in {drawn.where!r} has no alternative text"


def _outline(read):
    """One h1, no level skipped, a language, a name for every scrollable region, heads with
    scope."""
    levels = [int(tag.name[1]) for tag in read.found if re.fullmatch("h[1-6]", tag.name)]
    if levels.count(1) != 1:
        yield f"it has {levels.count(1)} h1"
    for above, level in zip(levels, levels[1:], strict=False):
        if level > above + 1:
            yield f"heading level {level} follows level {above}"
    if not any(tag.attrs.get("lang") for tag in read.named("html")):
        yield "<html> has no lang"
    for tag in read.found:
        named = tag.attrs.get("aria-label") or tag.attrs.get("aria-labelledby")
        if tag.attrs.get("role") in ("region", "group") and not named:
            yield f"a scrollable <{tag.name}> has no name"
    for tag in read.named("th"):
        if not tag.attrs.get("scope"):
            yield f"a head cell {tag.said()[:30]!r} has no scope"


def _links(read, ids):
    """Inner links that lead nowhere, links without words, citations that nothing links back to, and
    relative links outside the list that says where such files lie."""
    links = [tag for tag in read.named("a") if "href" in tag.attrs]
    back = {link.attrs["href"] for link in links if link.inside("references")}
    for link in links:
        href = link.attrs["href"]
        if "cite" in link.attrs.get("class", "").split() and f"#{link.attrs.get('id')}" not in back:
            yield f"citation {href!r} has no link back: cite in a cell's text"
        if not re.match(r"#|[a-z][a-z0-9+.-]*:", href, re.I) and not link.inside("files"):
            yield f"link {href!r} leads out of the page: name a file that is listed in it"
        if href.startswith("#") and href[1:] not in ids:
            yield f"link {href!r} points nowhere"
        if not (link.said() or link.attrs.get("aria-label")):
            yield f"link {href!r} has no text"
