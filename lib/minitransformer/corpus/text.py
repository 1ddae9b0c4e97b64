"""Text files: their encoding told apart, and their text cut into train, valid and test by
position."""

import codecs
import re
from pathlib import Path

SPLITS = ("train", "valid", "test")
MINIMUM = 1000  # characters; below this a tenth of the text measures nothing
# Bytes that are control characters in every encoding we read; tab, newline, form feed, carriage
# return and escape are not.
CONTROL = bytes(set(range(32)) - {9, 10, 11, 12, 13, 27})


def read_text(path: Path) -> tuple[str, str]:
    """The text of a file, to the character, and its encoding: UTF-8 with or without mark, Latin-1
    or Windows-1252.

    FileNotFoundError if there is none; ValueError if it is empty, binary, in another encoding or
    too short."""
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(
            f"corpus file {path} {what}: give the path of a UTF-8 or Latin-1 text file"
        )
    return decode(path.read_bytes(), str(path))


def decode(data: bytes, name: str) -> tuple[str, str]:
    """Bytes to (text, encoding name); ValueError naming `name` when they are no text that we
    read."""
    if not data.strip():
        raise ValueError(
            f"corpus file {name} is empty ({len(data)} bytes): give a text of at least {MINIMUM:,} characters"
        )
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError(
            f"corpus file {name} is UTF-16: convert it first, for instance with iconv -f UTF-16 -t UTF-8"
        )
    # A page of text has no control characters; one in a thousand is allowed for stray ones.
    control = len(data) - len(data.translate(None, CONTROL))
    if b"\0" in data or control * 1000 > len(data):
        place = next(i for i, b in enumerate(data) if b in CONTROL)
        raise ValueError(
            f"corpus file {name} is binary (byte {data[place]:#04x} at {place:,}): give a UTF-8 or Latin-1 text"
        )
    text, encoding = _decode(data)
    if len(text) < MINIMUM:
        raise ValueError(
            f"corpus file {name} is too short ({len(text)} characters): give at least {MINIMUM:,}"
        )
    return text, encoding


def _decode(data: bytes) -> tuple[str, str]:
    for encoding, name in (("utf-8", "utf-8"), ("cp1252", "windows-1252")):
        # 80-9F are control characters in Latin-1, quotes and dashes in Windows-1252.
        if name == "utf-8" or re.search(rb"[\x80-\x9f]", data):
            try:
                text = data.decode(encoding)
            except UnicodeDecodeError:
                continue
            marked = name == "utf-8" and text.startswith("\ufeff")
            return (text[1:], "utf-8 with byte-order mark") if marked else (text, name)
    return data.decode("latin-1"), "latin-1"


def split_text(text: str, fractions: tuple[float, ...] = (0.8, 0.1, 0.1)) -> dict[str, str]:
    """Train, valid and test by position; each cut moves on to the next white space within 1,000
    characters.

    Two fractions (0.9, 0.1) are nanoGPT's split: cut at exactly that character, and the last tenth
    is valid and test."""
    if len(fractions) == 2:
        at = int(len(text) * fractions[0])
        return dict(train=text[:at], valid=text[at:], test=text[at:])
    cuts = [0]
    for share in (fractions[0], fractions[0] + fractions[1]):
        at = round(len(text) * share)
        space = re.compile(r"\s+").search(text, at, at + 1000)
        cuts.append(space.end() if space else at)
    return {
        name: text[a:b] for name, a, b in zip(SPLITS, cuts, [*cuts[1:], len(text)], strict=False)
    }
