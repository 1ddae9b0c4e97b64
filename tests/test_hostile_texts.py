"""Texts, encodings and file names that break text pipelines, through the functions that build
corpora: the right result, or one line that names the thing, its value and the remedy.

Everything is generated here: words of random letters in many scripts, and a few sentences of our
own."""

import random
import re
import unicodedata

import numpy as np
import pytest

from minitransformer.corpus import (
    SPLITS,
    Corpus,
    check_corpus,
    decode,
    encode,
    read_text,
    text_corpus,
    vocabulary,
)
from vocabularies import vocabulary_of

KINDS = ("word", "character", "bpe")
SPACE = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")


def span(*ranges) -> str:
    """The assigned letters and marks of ranges of code points."""
    every = (chr(c) for a, b in ranges for c in range(a, b + 1))
    return "".join(c for c in every if unicodedata.category(c)[0] in "LM")


def words_of(letters: str, marks: str = "", seed: int = 0, count: int = 30) -> list[str]:
    """Words of 2 to 5 letters, each with up to two marks."""
    rng, found = random.Random(seed), {}
    while len(found) < count:
        parts = (
            rng.choice(letters) + "".join(rng.choices(marks, k=rng.randrange(3)) if marks else [])
            for _ in range(rng.randint(2, 5))
        )
        found["".join(parts)] = None
    return list(found)


def prose(words: list[str], times: int = 30, joint: str = " ", seed: int = 0) -> str:
    """Each word `times` times in random order, with full stops and line ends."""
    every = words * times
    random.Random(seed).shuffle(every)
    lines = [joint.join(every[i : i + 9]) for i in range(0, len(every), 9)]
    return ".\n".join(lines) + ".\n"


def decomposed(letters: str) -> str:
    return unicodedata.normalize("NFD", letters)


LATIN = "abcdefghijklmnopqrstuvwxyz"
ACCENTS = "\u0300\u0301\u0302\u0303\u0306\u0308\u0309\u0323\u031b\u0327"
# name -> (letters, marks)
SCRIPTS = {
    "French, composed": (LATIN + "éèêëàâçîïôùûœ", ""),
    "French, decomposed": (LATIN, "\u0300\u0301\u0302\u0308\u0327"),
    "Vietnamese, composed": (LATIN + "ăâđêôơưạảấầẩẫậắằẳẵặẹẻẽếềểễệ", ""),
    "Vietnamese, decomposed": (LATIN, ACCENTS),
    "Turkish": (LATIN + "çğıöşüİ", ""),
    "Yoruba": ("abdefghijklmnoprstuwẹọṣ", "\u0300\u0301"),
    "Greek, polytonic": (span((0x1F00, 0x1FFC)), ""),
    "Cyrillic with stress": (span((0x430, 0x44F)), "\u0301"),
    "Old Church Slavonic": (span((0x430, 0x44F), (0x460, 0x481)), "\u0483\u0487"),
    "Hebrew with points": (span((0x5D0, 0x5EA)), span((0x5B0, 0x5BC))),
    "Arabic with harakat": (span((0x621, 0x63A), (0x641, 0x64A)), span((0x64B, 0x652))),
    "Syriac": (span((0x712, 0x72F)), span((0x730, 0x74A))),
    "Thaana": (span((0x780, 0x7A5)), span((0x7A6, 0x7B0))),
    "Hindi": (span((0x915, 0x939)), span((0x93E, 0x94D), (0x901, 0x903))),
    "Bengali": (span((0x995, 0x9B9)), span((0x9BE, 0x9CD))),
    "Gurmukhi": (span((0xA15, 0xA39)), span((0xA3E, 0xA4D), (0xA70, 0xA71))),
    "Gujarati": (span((0xA95, 0xAB9)), span((0xABE, 0xACD))),
    "Tamil": (span((0xB95, 0xBB9)), span((0xBBE, 0xBCD))),
    "Telugu": (span((0xC15, 0xC39)), span((0xC3E, 0xC4D))),
    "Kannada": (span((0xC95, 0xCB9)), span((0xCBE, 0xCCD))),
    "Malayalam": (span((0xD15, 0xD39)), span((0xD3E, 0xD4D))),
    "Sinhala": (span((0xD9A, 0xDC6)), span((0xDCA, 0xDDF))),
    "Thai, spaced": (span((0xE01, 0xE2E)), span((0xE31, 0xE3A), (0xE47, 0xE4E))),
    "Lao, spaced": (span((0xE81, 0xEAE)), span((0xEB1, 0xEBC), (0xEC8, 0xECD))),
    "Tibetan": (span((0xF40, 0xF6C)), span((0xF71, 0xF7D), (0xF90, 0xFBC))),
    "Burmese, spaced": (span((0x1000, 0x1020)), span((0x102B, 0x103E))),
    "Khmer, spaced": (span((0x1780, 0x17A2)), span((0x17B6, 0x17D1))),
    "Georgian": (span((0x10D0, 0x10FA)), ""),
    "Ethiopic": (span((0x1200, 0x1357)), "\u135f"),
    "Cherokee": (span((0x13A0, 0x13F4)), ""),
    "Mongolian": (span((0x1820, 0x1842)), "\u180b\u180c"),
    "Korean": (span((0xAC00, 0xD7A3)), ""),
    "Korean, decomposed": (decomposed(span((0xAC00, 0xAC40))), ""),
    "Chinese, spaced": (span((0x4E00, 0x4FFF)), ""),
    "Chinese beyond the BMP": (span((0x20000, 0x20100)), ""),
    "Gothic": (span((0x10330, 0x10340)), ""),
    "Adlam": (span((0x1E900, 0x1E943)), span((0x1E944, 0x1E94A))),
    "mathematical letters": (span((0x1D400, 0x1D454)), ""),
    "Persian with joiners": (span((0x627, 0x642)) + "\u200c", ""),
    "Hindi with joiners": (span((0x915, 0x939)), "\u094d\u200d\u200c"),
    "soft hyphens": (LATIN + "\xad", ""),
    "Zalgo": (LATIN, span((0x300, 0x36F))),
}
EMOJI = {
    "faces": ["😀", "😂", "🥹", "🫠", "🙃"],
    "families": ["👨‍👩‍👧‍👦", "👩‍❤️‍💋‍👨", "👩‍👩‍👧", "🧑‍🚀", "🏴‍☠️"],
    "skin tones": ["👍🏻", "👍🏿", "👩🏽‍🔬", "🤝🏾", "👋🏼"],
    "flags": ["🇫🇷", "🇩🇪", "🇻🇳", "🇪🇸", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"],
    "variation selectors": ["☺️", "☺︎", "❤️", "©️", "™️"],
    "keycaps": ["1️⃣", "#️⃣", "*️⃣", "0️⃣", "9️⃣"],
}
SPACED = {name: prose(words_of(*of, seed=i)) for i, (name, of) in enumerate(SCRIPTS.items())}
SPACED |= {f"emoji: {k}": prose([*v, *words_of(LATIN, count=20)], 60) for k, v in EMOJI.items()}
MIXED = words_of(LATIN, count=25)
SPACED |= {
    "emoji glued to words": prose(
        [w + e for w, e in zip(MIXED, "😀😂🥹🙃👍" * 5, strict=True)], 60
    ),
    "apostrophes": prose([*MIXED, "don't", "l’été", "rock'n'roll", "o'", "'s", "'re"], 40),
    "carriage returns": prose(MIXED, 40).replace("\n", "\r\n"),
    "old Mac line ends": prose(MIXED, 40).replace("\n", "\r"),
    "Unicode line separators": prose(MIXED, 40).replace("\n", "\u2028\u2029\x85"),
    "no-break and ideographic spaces": prose(MIXED, 40, "\xa0\u3000\u2009"),
    "zero-width spaces": prose(MIXED, 40, "\u200b "),
    "byte-order marks inside": prose([*MIXED, "\ufeffab"], 40),
    "direction marks": prose([*MIXED, "\u202bab\u202c", "\u2067cd\u2069"], 40),
    "noncharacters": prose([*MIXED, "a\ufffeb", "\uffff", "\U0010ffff"], 40),
    "private use": prose([*MIXED, "\ue000\ue001", "\U000f0000"], 40),
    "file separators": prose([*MIXED, "a\x1bb"], 40),
    "special tokens": prose([*MIXED, "<unk>", "<pad>", "<0x41>", "</s>", "[MASK]", "<eos>"], 40),
    "the page's own brackets": prose([*MIXED, "⟦x 1⟧", "⟦", "$$", "\\frac{1}{2}", "`a`"], 40),
    "HTML and formulas": prose([*MIXED, "<script>alert(1)</script>", "=1+1", "&amp;"], 40),
    "combining marks on spaces": prose([*MIXED, "\u0301a", "\u20ddb"], 40),
    "replacement characters": prose([*MIXED, "a\ufffdb"], 40),
    "backslashes": prose([*MIXED, "\\n", "\\u2028", "\\\\", "C:\\new"], 40),
}


def built(tmp_path, data, kind: str, name: str = "text.txt", **options) -> Corpus | str:
    """The corpus, or the line with which it was refused; `check_corpus` must say the same."""
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    options = {"vocab_size": 400} | options if kind == "bpe" else options
    answers = []
    for make in (check_corpus, text_corpus):
        try:
            answers.append(make(path, kind, **options))
        except ValueError as error:
            line = str(error)
            assert "\n" not in line and re.search(r": (give|convert|mend|see) ", line), line
            assert "corpus" in line or "encoding" in line
            answers.append(line)
    checked, corpus = answers
    assert isinstance(checked, str) == isinstance(corpus, str), answers
    if not isinstance(corpus, str):
        assert all(checked.tokens[s] <= len(corpus.splits[s]) for s in SPLITS)
    return corpus


def right(corpus: Corpus, text: str, kind: str):
    """The whole text is there, the ids spell it, and what is saved is loaded again."""
    assert "".join(corpus.texts.values()) == text
    ids, unknown = corpus.splits, corpus.tokenizer.token_to_id("<unk>")
    if kind != "word":
        assert all(decode(corpus.tokenizer, ids[s]) == corpus.texts[s] for s in SPLITS)
        return
    tokens = vocabulary(corpus.tokenizer)
    for s in SPLITS:
        if unknown not in ids[s]:
            spelt = "".join(tokens[i] for i in ids[s])
            assert spelt == SPACE.sub("", corpus.texts[s])


@pytest.mark.parametrize("name", SPACED)
def test_frequent_words_are_known_in_every_script(tmp_path, name):
    text = SPACED[name]
    for kind in ("word", ("character", "bpe")[[*SPACED].index(name) % 2]):
        corpus = built(tmp_path, text, kind)
        right(corpus, text, kind)
        if kind == "word":
            ids = np.concatenate(list(corpus.splits.values()))
            assert np.mean(ids == corpus.tokenizer.token_to_id("<unk>")) < 0.01
            if name in SCRIPTS:  # no word is torn
                assert {w for w in re.split(r"[.\s]+", text) if w} <= {
                    *vocabulary(corpus.tokenizer)
                }
            corpus.save(tmp_path / "saved")
            again = Corpus.load(tmp_path / "saved")
            assert again.texts == corpus.texts and again.ids_sha256 == corpus.ids_sha256
            assert vocabulary_of(tmp_path / "saved" / "vocab.txt") == vocabulary(corpus.tokenizer)
            assert encode(again.tokenizer, text).tolist() == encode(corpus.tokenizer, text).tolist()


def test_emoji_are_words_of_their_own(tmp_path):
    for name, words in EMOJI.items():
        corpus = built(tmp_path, SPACED[f"emoji: {name}"], "word")
        assert set(words) <= set(vocabulary(corpus.tokenizer)), name


@pytest.mark.parametrize(
    "script", [f"{s}, spaced" for s in "Chinese Thai Lao Khmer Burmese".split()]
)
def test_scripts_without_spaces_are_refused_for_words_and_fine_otherwise(tmp_path, script):
    text = prose(words_of(*SCRIPTS[script]), joint="")
    refused = built(tmp_path, text, "word")
    assert "sets no spaces between words" in refused and "TOKENIZER=character" in refused
    for kind in ("character", "bpe"):
        right(built(tmp_path, text, kind), text, kind)


# --- small and degenerate

RNG = random.Random(5)
DEGENERATE = {
    "one character": "a" * 3000,
    "one emoji": "😀" * 2000,
    "one family": "👩‍👩‍👧" * 500,
    "one line feed a letter": "a\n" * 1500,
    "one word": "word " * 600,
    "a full stop and spaces": ". " * 1500,
    "no white space, DNA": "".join(RNG.choices("ACGT", k=4000)),
    "no white space but at the end": "".join(RNG.choices("ACGT", k=9000)) + "\n",
    "base64": "".join(RNG.choices(LATIN + LATIN.upper() + "0123456789+/", k=5000)),
    "hexadecimal": "".join(RNG.choices("0123456789abcdef", k=70_000)),
    "every word once": " ".join(f"w{i}x" for i in range(2000)),
    "digits": "".join(str(i) for i in range(3000)),
    "mostly white space": ("x" + " " * 400 + "\n") * 30,
    "one long line of equals signs": "=" * 70_000,
    "CJK without a break": "".join(RNG.choices(span((0x4E00, 0x51FF)), k=9_000)),
    "1,000 characters": prose(MIXED, 40)[:1000],
    "all different": "".join(map(chr, range(0x4E00, 0x4E00 + 2000))),
    "one word at the end": "a" * 2000 + " b",
    "periodic": "ab" * 3000,
    "long words": " ".join("".join(RNG.choices("abc", k=5000)) for _ in range(10)),
}
EMPTY = {
    "nothing": b"",
    "line feeds": b"\n" * 5000,
    "no-break spaces": ("\xa0\u3000" * 2000).encode(),
    "a mark only": b"\xef\xbb\xbf",
    "a mark and spaces": b"\xef\xbb\xbf" + b" " * 5000,
    "999 characters": b"word " * 199 + b"wor\n",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_texts_are_built_rightly_or_refused(tmp_path, name, kind):
    text = DEGENERATE[name]
    corpus = built(tmp_path, text, kind)
    if isinstance(corpus, str):
        assert kind != "character" or len(set(text[: len(text) // 2])) == 1, corpus
        assert "corpus 'text'" in corpus
        return
    right(corpus, text, kind)
    assert min(map(len, corpus.splits.values())) >= 2
    assert len(np.unique(corpus.splits["train"])) >= 2
    if kind == "word":
        assert np.mean(corpus.splits["train"] == 1) <= 0.5


@pytest.mark.parametrize("name", EMPTY)
def test_empty_and_short_files_are_said_to_be(tmp_path, name):
    for kind in KINDS:
        line = built(tmp_path, EMPTY[name], kind)
        assert ("too short (999" if name[0] == "9" else "is empty") in line


# --- needs


def test_what_a_text_lacks_is_said_with_the_smallest_change_that_helps(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text(prose(MIXED, 40))  # about 4,000 characters, 400 in each of the last splits
    with pytest.raises(ValueError) as error:
        check_corpus(path, "word", {"test": 300})
    line = str(error.value)
    assert re.fullmatch(
        r"corpus 'notes' has \d+ tokens in its test split with TOKENIZER=word, and 300 are needed:"
        r" give TOKENIZER=character, which makes \d+ of it, or give a text of about [\d,]+"
        r" characters \(this one has [\d,]+\)",
        line,
    )
    longer = int(re.search(r"about ([\d,]+)", line)[1].replace(",", ""))
    path.write_text((prose(MIXED, 40) * 10)[:longer])
    assert check_corpus(path, "word", {"test": 300}).tokens["test"] >= 300
    for kind in KINDS:
        with pytest.raises(ValueError, match="2,049 are needed: give a text of about") as error:
            path.write_text(prose(MIXED, 40))
            check_corpus(path, kind, {"test": 2049})
        assert "give TOKENIZER" not in str(error.value)
    with pytest.raises(ValueError, match=r"has \d+ different tokens .* and 5,000 are needed"):
        check_corpus(path, "character", {"types": 5000})
    with pytest.raises(ValueError, match="needs .'tset'. are unknown"):
        check_corpus(path, "character", {"tset": 1})


@pytest.mark.parametrize("kind", KINDS)
def test_the_check_is_the_corpus(tmp_path, kind):
    """Exactly at the limit: what the corpus has is enough, one token more is not."""
    path = tmp_path / "text.txt"
    path.write_text(prose(MIXED, 40))
    made = text_corpus(path, kind, 300 if kind == "bpe" else None)
    for s in SPLITS:
        have = len(made.splits[s])
        options = dict(vocab_size=300) if kind == "bpe" else {}
        assert check_corpus(path, kind, {s: have}, **options).tokens[s] >= have
        with pytest.raises(ValueError, match=f"has {have:,} tokens in its {s} split"):
            check_corpus(path, kind, {s: have + 1}, **options)


# --- encodings

SENTENCES = dict(
    es="Ayer por la mañana el niño comió una manzana pequeña y corrió al jardín, ¿quién sabe? ",
    fr="L’été dernier, nous avons marché près de la forêt où les arbres étaient déjà en fleurs. ",
    de="Die Straße führt über grüne Hügel, und für müde Füße gibt es schöne Bänke. ",
    pt="Não há razão para não começar amanhã: a lição é fácil e o coração já está pronto. ",
    sv="Åke går över ån på våren och köper ägg, smör och blåbär i den lilla affären. ",
    pl="Wczoraj żółty pies pobiegł przez łąkę, a później wrócił do domu z gałęzią. ",
    cs="Včera večer šel žlutý pes přes louku a pak se vrátil domů s větví. ",
    hu="Tegnap este a sárga kutya átszaladt a réten, és később hűvös lett az idő. ",
    ru="Вчера вечером жёлтая собака пробежала через луг, а потом вернулась домой с веткой. ",
    uk="Учора ввечері жовтий собака пробіг через луку, а потім повернувся додому з гілкою. ",
    el="Χθες το βράδυ ο κίτρινος σκύλος έτρεξε μέσα από το λιβάδι και μετά γύρισε στο σπίτι. ",
    tr="Dün akşam sarı köpek çayırdan koştu ve sonra bir dalla eve döndü, ığdır güzeldi. ",
    he="אתמול בערב הכלב הצהוב רץ דרך האחו ואחר כך חזר הביתה עם ענף. הילדים אמרו שבפעם הבאה ילכו. ",
    ar="مساء أمس ركض الكلب الأصفر عبر المرج ثم عاد إلى البيت ومعه غصن. ",
    ja="昨日の夕方、黄色い犬が草原を走り抜けて、それから枝をくわえて家に帰った。\n",
    zh="昨天傍晚，黄色的狗跑过草地，然后带着树枝回了家。孩子们说下次要早点去。\n",
    tw="昨天傍晚，黃色的狗跑過草地，然後帶著樹枝回了家。孩子們說下次要早點去。\n",
    ko="어제 저녁에 노란 개가 풀밭을 가로질러 달려간 다음 나뭇가지를 물고 집으로 돌아왔다. ",
    th="เมื่อวานเย็นสุนัขสีเหลืองวิ่งผ่านทุ่งหญ้าแล้วกลับบ้านพร้อมกิ่งไม้ ",
)
ENCODED = [
    ("es", "latin-1"), ("es", "cp1252"), ("es", "cp850"), ("fr", "cp1252"), ("de", "latin-1"),
    ("pt", "latin-1"), ("sv", "latin-1"), ("pl", "cp1250"), ("pl", "iso8859_2"), ("cs", "cp1250"),
    ("cs", "iso8859_2"), ("hu", "cp1250"), ("ru", "cp1251"), ("ru", "koi8_r"), ("ru", "cp866"),
    ("ru", "iso8859_5"), ("ru", "utf_7"), ("uk", "cp1251"), ("uk", "koi8_u"), ("el", "cp1253"),
    ("tr", "cp1254"), ("he", "cp1255"), ("ar", "cp1256"), ("ja", "shift_jis"), ("ja", "euc_jp"),
    ("ja", "iso2022_jp"), ("ja", "utf_7"), ("zh", "gb18030"), ("zh", "hz"), ("tw", "big5"),
    ("ko", "euc_kr"), ("th", "cp874"),
]  # fmt: skip


@pytest.mark.parametrize("language, codec", ENCODED)
def test_a_legacy_encoding_is_read_rightly_and_said(tmp_path, language, codec):
    text = SENTENCES[language] * 30
    data = text.encode(codec)
    read = read_text(write(tmp_path, data))
    assert read.text == text
    assert read.encoding.lower() not in ("utf-8", "") and data.decode(read.encoding) == text
    assert text_corpus(tmp_path / "text.txt").meta["encoding"] == read.encoding


UNKNOWN = dict(
    latin="cp437 cp775 cp857 cp858 iso8859_3 iso8859_4 iso8859_9 iso8859_13 iso8859_15 iso8859_16"
    " mac_latin2 mac_turkish cp1258 big5hkscs ",
    cyrillic="cp855 ptcp154 mac_cyrillic",
    greek="cp737 mac_greek cp869 iso8859_7",
    hebrew="cp862 iso8859_8",
    arabic="cp864 iso8859_6 cp720",
    east="johab euc_jis_2004 shift_jisx0213 big5hkscs gbk gb2312 iso2022_kr iso2022_jp_2004",
    every="utf-8 utf-8-sig utf-16 utf-16-le utf-32 utf_7 cp1252 cp1250 cp1251 koi8_r cp1253",
)


@pytest.mark.parametrize("language", SENTENCES)
def test_no_text_is_read_wrongly_in_any_encoding(tmp_path, language):
    """Whatever the encoding, known here or not: the right text, or a refusal; never another."""
    text = SENTENCES[language] * (1200 // len(SENTENCES[language]))
    kin = {"ru": "cyrillic", "uk": "cyrillic", "el": "greek", "he": "hebrew", "ar": "arabic"}
    kin = kin.get(language, "latin" if language in "es fr de pt sv pl cs hu tr".split() else "east")
    own = [codec for name, codec in ENCODED if name == language]
    for codec in (*own, *UNKNOWN[kin].split(), *UNKNOWN["every"].split()):
        try:
            data = text.encode(codec)
        except UnicodeEncodeError:
            continue
        try:
            read = read_text(write(tmp_path, data))
        except ValueError as error:
            assert "\n" not in str(error) and re.search(r": (give|convert|mend) ", str(error))
        else:
            assert read.text == text, (codec, read.encoding)
        told = read_text(tmp_path / "text.txt", codec)
        assert told.text == text and told.encoding == codec


SPANISH = (SENTENCES["es"] * 20).encode()
BROKEN = {
    "one bad byte": (
        SPANISH[:301] + b"\xff" + SPANISH[301:],
        "UTF-8 and broken (byte 0xff at 301,",
    ),
    "cut in a character": (SPANISH[: SPANISH.rindex(b"\xc3") + 1], "UTF-8 and broken (byte 0xc3"),
    "ASCII, cut in a character": (
        b"plain words " * 99 + b"\xe2\x82",
        "broken (byte 0xe2 at 1,188,",
    ),
    "surrogates": (
        b"plain \xed\xa0\xbd\xed\xb8\x80 words " * 99,
        "broken (byte 0xed at 6, line 1)",
    ),
    "a Latin-1 line in UTF-8": (SPANISH + "año\n".encode("latin-1") * 9, "UTF-8 and broken"),
    "one odd byte": (b"plain words " * 99 + b"\x96 and more", "could be windows-1252"),
    "noise": (bytes(random.Random(1).choices(range(128, 256), k=4000)), "is not UTF-8 (byte"),
    "NUL": (SPANISH + b"\0", "is binary (byte 0x00"),
    "UTF-16": ((SENTENCES["es"] * 20).encode("utf-16"), "is UTF-16: convert it"),
    "UTF-32": ((SENTENCES["es"] * 20).encode("utf-32"), "is UTF-32: convert it"),
    "UTF-16 without a mark": ((SENTENCES["es"] * 20).encode("utf-16-le"), "is binary"),
    "PDF": (b"%PDF-1.7\n\x00\x01\x02" + bytes(range(256)) * 9, "is binary"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(range(256)) * 9, "is binary"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_with_the_place(tmp_path, name):
    data, message = BROKEN[name]
    for kind in KINDS:
        assert message in built(tmp_path, data, kind)


@pytest.mark.parametrize(
    "text",
    [
        "int C++ = a+b; x+abc; foo+barbaz- c+dddd- ",
        "dGhlIHF1aWNr+GJyb3du/yBmb3gganVtcHM+abcd\n",
        "cd ~{x} ~{y~} ~{ab~} ",
        "\x1b[31mred\x1b[0m and plain ",
        "2+2=4, 3+3=6 and a+b+c+d ",
    ],
)
def test_ascii_that_looks_like_shifts_stays_ascii(tmp_path, text):
    assert read_text(write(tmp_path, (text * 60).encode())) == (text * 60, "utf-8")


def test_the_encoding_that_is_told_overrules(tmp_path):
    data = (SENTENCES["ru"] * 20).encode("koi8_r")
    path = write(tmp_path, data)
    told = text_corpus(path, encoding="cp1251")
    assert "".join(told.texts.values()) == data.decode("cp1251")
    assert told.meta["encoding"] == "cp1251"
    with pytest.raises(ValueError, match=r"is not in utf-8 \(byte 0xf7 at 0, line 1\): give"):
        text_corpus(path, encoding="utf-8")
    for wrong in ("nonsense", "rot13", "hex"):
        with pytest.raises(ValueError, match=f"encoding '{wrong}' is unknown: give"):
            check_corpus(path, encoding=wrong)


# --- file names

NAMES = [
    "a b.txt", "$$ x.txt", "⟦x 1⟧.txt", "紅樓夢.txt", "<img src=x onerror=y>.txt", "-rf.txt",
    "a\nb.txt", "a\u2028b.txt", "tab\t.txt", "\udcf1andu.txt", "quote'\".txt", "back\\slash.txt",
    "é.txt", "e\u0301.txt", "noext", ".hidden",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_file_name_makes_a_corpus_that_is_saved_and_loaded(tmp_path, name):
    corpus = built(tmp_path, SPACED["apostrophes"], "character", name)
    corpus.save(tmp_path / "out")
    again = Corpus.load(tmp_path / "out")
    assert again.name == corpus.name and again.meta == corpus.meta
    for said in (corpus.name, *corpus.meta["files"]):
        assert said.isprintable() and said.encode()
    line = built(tmp_path, b"short text", "character", name)
    assert line.isprintable() and "too short (10 characters)" in line


@pytest.mark.parametrize("given", ["x" * 5000 + ".txt", "~nobody-here/x.txt", "a\0b.txt", "", "."])
def test_what_is_no_path_is_said_in_one_line(given):
    for make in (check_corpus, text_corpus):
        with pytest.raises(
            (ValueError, FileNotFoundError), match="corpus .*give the path"
        ) as error:
            make(given)
        assert str(error.value).isprintable()


def write(tmp_path, data: bytes):
    path = tmp_path / "text.txt"
    path.write_bytes(data)
    return path
