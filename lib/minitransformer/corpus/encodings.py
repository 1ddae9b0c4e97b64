"""Which encoding a text's bytes are in: the sure ones by their rules, the legacy ones by evidence,
or a refusal."""

import codecs
import re
import unicodedata
from collections import Counter
from itertools import pairwise
from typing import NamedTuple

from charset_normalizer import from_bytes

# Bytes that are control characters in every encoding we read; tab, newline, form feed, carriage
# return and escape are not.
CONTROL = bytes(set(range(32)) - {9, 10, 11, 12, 13, 27})
ASCII = bytes(range(128))
MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # begins with the mark of UTF-16, so it comes first
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
# Codec -> the name that is reported and that iconv knows. Of codecs that read the same text the
# first is named.
LEGACY = {
    "cp1252": "windows-1252", "cp1250": "windows-1250", "iso8859_2": "ISO-8859-2",
    "cp1254": "windows-1254", "cp1257": "windows-1257", "cp850": "CP850", "cp852": "CP852",
    "mac_roman": "MACINTOSH", "cp1251": "windows-1251", "koi8_r": "KOI8-R", "koi8_u": "KOI8-U",
    "cp866": "CP866", "iso8859_5": "ISO-8859-5", "mac_cyrillic": "MAC-CYRILLIC",
    "cp1253": "windows-1253", "iso8859_7": "ISO-8859-7", "mac_greek": "MACGREEK",
    "cp1255": "windows-1255", "cp862": "CP862", "cp1256": "windows-1256", "cp874": "CP874",
    "cp932": "CP932", "euc_jp": "EUC-JP", "gb18030": "GB18030", "big5": "BIG5", "cp949": "CP949",
}  # fmt: skip
LATIN = tuple(LEGACY)[:8]
# Seven-bit encodings, told by their shift sequences; everything else in them looks like ASCII.
SHIFTED = {
    "iso2022_jp": ("ISO-2022-JP", rb"\x1b\$[@B]"),
    "hz": ("HZ", rb"~\{"),
    "utf_7": ("UTF-7", rb"\+[A-Za-z0-9+/]{2,}"),
}
# What is not ASCII in the alphabets of the Latin script that 8-bit encodings were made for: of the
# west, whose words also stand in English, and of those whose texts are full of such letters.
WESTERN = (
    "àâæçéèêëîïôœùûüÿ", "áàâãçéêíóôõúü", "áéíñóúüïàèòç", "àèéìíîòóùú", "äöüßé", "åäöéüæøèêóòô",
    "áðéíóúýþæö", "éèëïöüê",
)  # fmt: skip
OTHER = (
    "ąćęłńóśźż", "áčďéěíňóřšťúůýž", "áäčďéíĺľňóôŕšťúýž", "áéíóöőúüű", "čćđšž", "ăâîșțşţ",
    "çğıiöşüâîû", "ąčęėįšųūž", "āčēģīķļņšūž", "äöõüšž",
)  # fmt: skip
DENSE = 0.025  # of the characters of the others, at least, are letters beyond ASCII
PUNCTUATION = set("“”„‘’‚–—…«»‹›¿¡°ºª§€£·•©®™½¼¾¹²³±×÷\xa0\xad´¨")
INSIDE = re.compile(r"[^\W\d_]([^\w\s\x00-\x7f’´·\xad]|[ªº¹²³])(?=[^\W\d_])")  # within a word
CJK = ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC", "HALFWIDTH", "FULLWIDTH")
SURE, CLEAR = 0.9, 0.04  # the least score of a reading, and its least lead on any other text
FEW = 3  # bytes beyond ASCII; fewer are no evidence of anything
SAMPLE = 1 << 16  # bytes that are looked at


class Text(NamedTuple):
    """A decoded text and the name of the encoding it was in."""

    text: str
    encoding: str


def decode_bytes(data: bytes, name: str, encoding: str = "") -> Text:
    """The text that bytes hold and its encoding; `encoding` (any that Python knows) overrules what
    they look like.

    UTF-8 with or without mark is read strictly. Shifted and 8-bit encodings are told apart by the
    letters they give and by `charset-normalizer`; the encoding found is returned, so that the
    caller can say it. ValueError, one line that begins with `name`, when the bytes are no text, are
    broken (with the place), or could be in several encodings (with the candidates)."""
    if encoding:
        return _as_told(data, name, encoding)
    _refuse_what_is_no_text(data, name)
    text = _shifted(data)
    if text is not None:
        return text
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return _legacy(data, name, _place(data, error))
    marked = text.startswith("\ufeff")
    return Text(text[1:], "utf-8 with byte-order mark") if marked else Text(text, "utf-8")


def script(c: str) -> str:
    """The first word of a character's Unicode name, which is its script; Han and kana are "CJK"."""
    first = unicodedata.name(c, "UNASSIGNED").split()[0]
    return "CJK" if first in CJK else first


def _refuse_what_is_no_text(data: bytes, name: str) -> None:
    for mark, called in MARKS.items():
        if data.startswith(mark):
            raise ValueError(
                f"{name} is {called}: convert it first, for instance with"
                f" iconv -f {called} -t UTF-8, or give its encoding"
            )
    # A page of text has no control characters; one in a thousand is allowed for stray ones.
    control = len(data) - len(data.translate(None, CONTROL))
    if b"\0" in data or control * 1000 > len(data):
        place = next(i for i, b in enumerate(data) if b in CONTROL)
        raise ValueError(
            f"{name} is binary (byte {data[place]:#04x} at {place:,}): give a text, best in UTF-8"
        )


def _as_told(data: bytes, name: str, encoding: str) -> Text:
    try:
        text = data.decode(encoding)
        text.encode()  # UTF-7 and a few others can spell lone surrogates, which are no text
    except LookupError:
        raise ValueError(
            f"encoding {encoding!r} is unknown: give a name such as utf-8, cp1251 or shift_jis"
        ) from None
    except UnicodeError as error:
        raise ValueError(
            f"{name} is not in {encoding} ({_place(data, error)}): give the encoding that it is in,"
            " or none to have it found"
        ) from None
    return Text(text.removeprefix("\ufeff"), encoding)


def _shifted(data: bytes) -> Text | None:
    """The text of a seven-bit encoding whose shift sequences occur and are all sound, else None."""
    if not data.isascii():
        return None
    for codec, (called, shift) in SHIFTED.items():
        if not re.search(shift, data):
            continue
        try:
            text = data.decode(codec)
            text.encode()
        except UnicodeError:
            continue
        # Chance shifts decode into unrelated scripts and unassigned code points.
        beyond = [c for c in text if c > "\x7f"]
        if len(beyond) >= FEW and _share_of_main_script(beyond) > SURE:
            return Text(text, called)
    return None


def _legacy(data: bytes, name: str, where: str) -> Text:
    if _broken_utf8(data):
        raise ValueError(
            f"{name} is UTF-8 and broken ({where}): mend it, for instance with"
            " iconv -c -f UTF-8 -t UTF-8, or give its encoding"
        )
    found = [(score, codec) for score, codec in _readings(data) if _decodes(data, codec)]
    best, codec = found[0] if found else (0.0, "")
    rival = found[1][0] if len(found) > 1 else 0.0
    if best < SURE or best - rival < CLEAR or len(data.translate(None, ASCII)) < FEW:
        names = [LEGACY[c] for s, c in found if s > max(best - 0.2, 0.5)][:4]
        could = f"could be {' or '.join(names)}" if names else "fits no encoding known here"
        raise ValueError(
            f"{name} is not UTF-8 ({where}) and {could}: convert it, for instance with"
            f" iconv -f {(names or ['CP1251'])[0]} -t UTF-8, or give its encoding"
        )
    if codec == "cp1252" and not re.search(rb"[\x80-\x9f]", data):
        return Text(data.decode("latin-1"), "latin-1")  # the same text
    return Text(data.decode(codec), LEGACY[codec])


def _broken_utf8(data: bytes) -> bool:
    """Whether bytes that are not sound UTF-8 were meant as such: most high bytes are in sound
    sequences (chance makes few), or in surrogates, or one sequence is cut at the very end."""
    sound = len(re.findall(r"[^\x00-\x7f]", data.decode(errors="ignore")))
    broken = data.decode(errors="replace").count("\ufffd")
    cut = data[:-3].isascii() and re.search(rb"[\xc2-\xf4][\x80-\xbf]{0,2}\Z", data)
    return 3 * sound > 2 * broken or bool(cut) or _decodes(data, "utf-8", "surrogatepass")


def _decodes(data: bytes, codec: str, errors: str = "strict") -> bool:
    try:
        data.decode(codec, errors)
    except UnicodeDecodeError:
        return False
    return True


def _readings(data: bytes) -> list[tuple[float, str]]:
    """(score, codec) of every different text that the legacy codecs read, best first; from the
    first lines that are not ASCII."""
    sample, high = bytearray(), len(data.translate(None, ASCII)) / len(data)
    for line in data.splitlines(keepends=True):
        if not line.isascii():
            sample += line[:SAMPLE]
        if len(sample) >= SAMPLE:
            break
    sample = bytes(sample)
    matches = {m.encoding: m for m in from_bytes(sample, cp_isolation=list(LEGACY))}
    by_text: dict[str, tuple[float, str]] = {}
    for codec in LEGACY:
        try:  # the sample may end inside a character
            text = codecs.getincrementaldecoder(codec)().decode(sample)
        except UnicodeDecodeError:
            continue
        score = _plausibility(text, high, codec in LATIN, matches.get(codec))
        if text not in by_text and score > 0:
            by_text[text] = (score, codec)
    return sorted(by_text.values(), key=lambda x: -x[0])


def _plausibility(text: str, high: float, latin_codec: bool, match) -> float:
    """How well the characters beyond ASCII fit together, 0 to about 1; `high`: the share of bytes
    that are.

    Latin letters: the share that belong to one alphabet. Other scripts: the share of one script,
    less the detector's mess; among sound ones its coherence decides."""
    beyond = Counter(c for c in text if c > "\x7f")
    letters = {c: n for c, n in beyond.items() if unicodedata.category(c)[0] in "LM"}
    latin = {c: n for c, n in letters.items() if script(c) == "LATIN"}
    total, pairs = max(beyond.total(), 1), list(pairwise(text))
    misread = sum(b > "\x7f" and b.isupper() and a.islower() for a, b in pairs)
    if 2 * sum(latin.values()) >= sum(letters.values()):
        if not latin_codec:
            return 0.0
        marks = sum(n for c, n in beyond.items() if c in PUNCTUATION) - len(INSIDE.findall(text))
        known = [sum(n for c, n in latin.items() if c.lower() in a) for a in (*WESTERN, *OTHER)]
        west, other = max(known[: len(WESTERN)]), max(known[len(WESTERN) :])
        density = high * sum(latin.values()) / total
        fit = max(west, other * min(1.0, density / DENSE))
        return max(fit + max(marks, 0) - misread, 0) / total
    if match is None or not (match.coherence or match.multi_byte_usage):
        return 0.0
    misread += sum(a.isalpha() and b.isalpha() and a.isascii() != b.isascii() for a, b in pairs)
    score = _share_of_main_script(beyond.elements()) - match.chaos - misread / total
    if len({c.isupper() for c in letters if c.lower() != c.upper()}) == 1:
        score -= 2 * CLEAR  # in a script with two cases, a text has both
    return score if score < SURE else score + match.coherence / 2


def _share_of_main_script(characters) -> float:
    """The share of the commonest script among letters."""
    scripts = Counter(script(c) for c in characters if c.isalpha())
    return max(scripts.values(), default=0) / max(scripts.total(), 1)


def _place(data: bytes, error: UnicodeError) -> str:
    if not isinstance(getattr(error, "object", None), bytes):
        return "its bytes spell no characters"
    at = error.start
    return f"byte {data[at]:#04x} at {at:,}, line {data.count(10, 0, at) + 1:,}"
