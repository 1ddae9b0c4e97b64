"""Names that come from outside, in a folder's name, on a terminal and in a list of hashes.

A file may be called anything: markup, mathematics, line ends, bytes that are no UTF-8. Every name
is taken literally; what cannot be written is shown by its code."""

import re
import unicodedata

ACCENTS = re.compile("(?<=[a-z])[\u0300-\u036f]+")
SURROGATES = re.compile("[\ud800-\udfff]")
KEPT = "LNM"  # letters, numbers and the marks that belong to letters, of every script
ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}  # of GNU sha256sum


def slug(text: str, most: int | None = None) -> str:
    """Lower-case letters of any script, digits and hyphens, at most `most` bytes of UTF-8: for file
    names and anchors. The accents of Latin letters go."""
    plain = ACCENTS.sub("", unicodedata.normalize("NFKD", text.lower()))
    kept = (c if unicodedata.category(c)[0] in KEPT else " " for c in plain)
    name = "-".join(unicodedata.normalize("NFC", "".join(kept)).lower().split())
    return name.encode()[:most].decode(errors="ignore").strip("-") or "text"


def printable(text: str) -> str:
    """`text` on one line, with a code for every character that a terminal would obey and for every
    byte of a file's name that is no UTF-8."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))


def short(text: str, most: int = 60) -> str:
    """`text`, with its middle left out if it has more than `most` characters."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def file_name(name: str) -> str:
    """A file's name that UTF-8 text can hold on one line: a replacement character for each byte
    that is no UTF-8 and for each control character."""
    bad = ("Cc", "Cs", "Zl", "Zp")
    return "".join("\ufffd" if unicodedata.category(c) in bad else c for c in name)


def brief_name(name: str, most: int = 120) -> str:
    """`file_name`, its middle left out where it has more than `most` bytes, so that every file
    system takes it with something before or after it."""
    data = file_name(name).encode()
    if len(data) <= most:
        return data.decode()
    half = most // 2
    return f"{data[:half].decode(errors='ignore')}…{data[-half:].decode(errors='ignore')}"


def hash_line(sha: str, name: str) -> str:
    """A line for `sha256sum -c`: a name with a line end or a backslash is escaped, and a backslash
    before the line says so."""
    escaped = "".join(ESCAPES.get(c, c) for c in name)
    return f"{chr(92) if escaped != name else ''}{sha}  {escaped}\n"


def read_hash_lines(text: str) -> dict[str, str]:
    """{name: SHA-256} of what `hash_line` wrote."""
    back = {escape: c for c, escape in ESCAPES.items()}
    found = {}
    for line in text.split("\n")[:-1]:
        sha, _, name = line.removeprefix("\\").partition("  ")
        if line.startswith("\\"):
            name = re.sub(r"\\.", lambda match: back.get(match[0], match[0]), name)
        found[name] = sha
    return found
