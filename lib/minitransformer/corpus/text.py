"""Text files: read to the character, and cut into train, valid and test by position."""

import re
from pathlib import Path

from .encodings import Text, decode_bytes

SPLITS = ("train", "valid", "test")
MINIMUM = 1000  # characters; below this a tenth of the text measures nothing
REACH = 1000  # characters that a cut moves on, at most, to come behind white space


def read_text(path: Path, encoding: str = "") -> Text:
    """The text of a file, to the character, and its encoding: see `decode_bytes`; "" finds it.

    FileNotFoundError if there is none; ValueError if it is empty, binary, broken, too short, or in
    an encoding that cannot be told."""
    path = Path(path)
    name = f"corpus file {shown(path)}"
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        what = "is a folder" if path.is_dir() else what
        raise FileNotFoundError(f"{name} {what}: give the path of a text file, best in UTF-8")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{name} cannot be read ({error.strerror}): see to its rights") from error
    text = Text("", "") if not data.strip() else decode_bytes(data, name, encoding)
    if not text.text.strip():
        raise ValueError(
            f"{name} is empty ({len(data):,} bytes): give a text of at least {MINIMUM:,} characters"
        )
    if len(text.text) < MINIMUM:
        raise ValueError(
            f"{name} is too short ({len(text.text)} characters): give at least {MINIMUM:,}"
        )
    return text


def shown(path: str | Path) -> str:
    """A path or name on one line that any file can hold: what is not printable (a line feed, a byte
    that is not UTF-8) as escapes."""
    escape = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(path))
    return "".join(escape)


def split_text(text: str, fractions: tuple[float, ...] = (0.8, 0.1, 0.1)) -> dict[str, str]:
    """Train, valid and test by position; each cut moves on to the next white space within 1,000
    characters, or within a fiftieth of a shorter text.

    Two fractions (0.9, 0.1) are nanoGPT's split: cut at exactly that character, and the last tenth
    is valid and test."""
    if len(fractions) == 2:
        at = int(len(text) * fractions[0])
        return dict(train=text[:at], valid=text[at:], test=text[at:])
    cuts, reach = [0], min(REACH, len(text) // 50)
    for share in (fractions[0], fractions[0] + fractions[1]):
        at = round(len(text) * share)
        space = re.compile(r"\s+").search(text, at, at + reach)
        cuts.append(space.end() if space else at)
    ends = [*cuts[1:], len(text)]
    return {name: text[a:b] for name, a, b in zip(SPLITS, cuts, ends, strict=True)}
