"""The promises of index.html, checked on the finished page: self-contained, small, accessible,
every link answered."""

import html
import re
from collections import Counter

from bs4 import BeautifulSoup

LIMIT_BYTES = 5_000_000
LOADERS = (
    "iframe",
    "frame",
    "object",
    "embed",
    "video",
    "audio",
    "source",
    "track",
    "base",
    "applet",
)
LOADING = ("src", "srcset", "poster", "background", "data", "action")
CSS_LOAD = re.compile(r"@import|url\(\s*['\"]?(?!#|data:)", re.I)


def check(page, claims=None, folders=(), script=""):
    """Raises ValueError naming every promise that the HTML text `page` breaks.

    `claims` maps the anchor of each claim's row to the anchor of the cell that computed it; both
    must exist. `folders` are those of this machine, which nothing written may name. `script` is the
    one inline module that the page may hold, besides data."""
    soup = BeautifulSoup(page, "html.parser")
    ids = Counter(tag["id"] for tag in soup.find_all(id=True))
    wrong = [*_weight(page), *_loads(soup), *_images(soup), *_outline(soup), *_links(soup, ids)]
    wrong += [*_folders(page, folders), *_scripts(soup, script)]
    wrong += [f"id {id!r} occurs {n} times" for id, n in ids.items() if n > 1]
    for row, cell in (claims or {}).items():
        claim = repr(row.removeprefix("claim-"))
        wrong += (
            [f"claim {claim} points to cell {cell!r}, which is not on the page"]
            if cell not in ids
            else []
        )
        wrong += [f"claim {claim} has no row on the page"] if row not in ids else []
    if wrong:
        raise ValueError("index.html is not fit to write: " + "; ".join(wrong))


def _folders(page, folders):
    text = html.unescape(page)
    for folder in folders:
        if found := re.search(rf"(?<![\w.-]){re.escape(folder)}(?=[/\\])[^\s<>\"']{{0,60}}", text):
            yield f"{found[0]!r} names a folder of this machine: write it from the project's root"


def _weight(page):
    size = len(page.encode())
    return (
        [f"it has {size:,} bytes, the limit is {LIMIT_BYTES:,}: draw fewer points or figures"]
        if size >= LIMIT_BYTES
        else []
    )


def _loads(soup):
    """Everything that would run, or fetch something from elsewhere. Plain links in the text are
    neither."""
    wrong = [f"<{tag.name}> is not allowed" for tag in soup.find_all(LOADERS)]
    for tag in soup.find_all(True):
        for name, value in tag.attrs.items():
            text = value if isinstance(value, str) else " ".join(value)
            outside = not re.match(r"\s*(data:|#)", text)
            if (name in LOADING or name.endswith("href") and tag.name != "a") and outside:
                wrong.append(f"<{tag.name} {name}={text[:60]!r}> would load something: embed it")
            if name.startswith("on") or text.lower().lstrip().startswith("javascript:"):
                wrong.append(f"<{tag.name} {name}> would run a script")
            if name == "style" and CSS_LOAD.search(text):
                wrong.append(f"a style attribute of <{tag.name}> would load something: embed it")
        if tag.name == "meta" and tag.get("http-equiv", "").lower() == "refresh":
            wrong.append("<meta http-equiv=refresh> is not allowed")
    styles = "".join(tag.get_text() for tag in soup.find_all("style"))
    return wrong + (
        ["the style sheet would load something: embed it"] if CSS_LOAD.search(styles) else []
    )


def _scripts(soup, known):
    """Scripts other than data and, once, the inline module that is known."""
    found = [tag for tag in soup.find_all("script") if tag.get("type") != "application/json"]
    ours = [tag for tag in found if tag.attrs == {"type": "module"} and tag.string == known]
    yield from ("<script> is not allowed" for _ in range(len(found) - min(len(ours), 1)))


def _images(soup):
    for image in soup.find_all("img"):
        where = image.find_parent(id=True)
        name = where["id"] if where else image.get("src", "")[:40]
        if not image.get("alt", "").strip() or "No description has been provided" in image["alt"]:
            yield f"the image in {name!r} has no alt text: give nb.figure an alt= from the data"
        if not (image.get("width") and image.get("height")):
            yield f"the image in {name!r} has no width and height"
    for drawn in soup.find_all("svg", role="img"):
        if not drawn.get("aria-label", "").strip():
            where = drawn.find_parent(id=True)
            yield f"the drawing in {where['id'] if where else ''!r} has no alternative text"


def _outline(soup):
    """One h1, no level skipped, a language, a name for every scrollable region, heads with
    scope."""
    levels = [int(tag.name[1]) for tag in soup.find_all(re.compile("h[1-6]"))]
    if levels.count(1) != 1:
        yield f"it has {levels.count(1)} h1"
    yield from (
        f"heading level {b} follows level {a}"
        for a, b in zip(levels, levels[1:], strict=False)
        if b > a + 1
    )
    if not (soup.html and soup.html.get("lang")):
        yield "<html> has no lang"
    for tag in soup.find_all(attrs={"role": ("region", "group")}):
        if not (tag.get("aria-label") or tag.get("aria-labelledby")):
            yield f"a scrollable <{tag.name}> has no name"
    yield from (
        f"a head cell {th.get_text(strip=True)[:30]!r} has no scope"
        for th in soup.find_all("th")
        if not th.get("scope")
    )


def _links(soup, ids):
    """Inner links that lead nowhere, links without words, citations that nothing links back to, and
    relative links outside the list that says where such files lie."""
    back = {link["href"] for entry in soup.select(".references") for link in entry.find_all("a")}
    for link in soup.find_all("a", href=True):
        if "cite" in link.get("class", ()) and f"#{link.get('id')}" not in back:
            yield f"citation {link['href']!r} has no link back: cite in a cell's text"
        if not re.match(r"#|[a-z][a-z0-9+.-]*:", link["href"], re.I) and not link.find_parent(
            class_="files"
        ):
            yield f"link {link['href']!r} leads out of the page: name a file that is listed in it"
        if link["href"].startswith("#") and link["href"][1:] not in ids:
            yield f"link {link['href']!r} points nowhere"
        if not (link.get_text(strip=True) or link.get("aria-label")):
            yield f"link {link['href']!r} has no text"
