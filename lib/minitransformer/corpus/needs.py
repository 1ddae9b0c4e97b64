"""Where a text is, and whether it is enough for what is to be done with it: said before anything
runs."""

import hashlib
import math
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer, models

from ..fields import choice
from .encodings import script
from .registry import Progress, catalogue, find, obtain, on_disk
from .text import SPLITS, read_text, shown, split_text
from .tokenizers import BYTES, KINDS, WORDS, encode, pieces, train_tokenizer

LEAST = 2  # tokens in a split, so that one can be predicted, and different ones in training
PROBE = 400_000  # characters that are looked at for a judgement
BPE_PROBE = 1_000_000  # characters that BPE is tried on
UNSPACED = ("CJK", "THAI", "LAO", "KHMER", "MYANMAR")  # scripts without spaces between words


class Source(NamedTuple):
    """A text found, read and cut, before any tokenizer: what `text_corpus` and `check_corpus`
    share."""

    name: str
    entry: dict  # of the catalogue, or {}
    files: dict[str, Path]  # "all", or one a split
    texts: dict[str, str]  # split -> text
    encoding: str
    cut: str  # "80/10/10", "90/10" or "official"
    kind: str  # of tokenizer
    lines: bool  # each line feed is a token


class Checked(NamedTuple):
    """What `check_corpus` found: at least so many `tokens` in each split, or as many as needed."""

    name: str
    tokenizer: str
    encoding: str
    tokens: dict[str, int]


def check_corpus(name_or_path: str | Path, tokenizer: str = "",
                 needs: Mapping[str, int] | None = None, *, vocab_size: int | None = None,
                 corpora_dir: Path | None = None, download_dir: Path | None = None,
                 split: str = "", entries: dict | None = None,
                 encoding: str = "") -> Checked | None:  # fmt: skip
    """Says in a second or two whether `text_corpus` with these arguments gives enough.

    needs: tokens needed in "train", "valid" and "test" (0 or absent: two), and "types", different
    tokens in training (two). No BPE is trained where the number of words already is enough, else on
    a million characters at most. None for a name that is not on disk yet: nothing is downloaded.
    FileNotFoundError or ValueError, one line that names the corpus, what it lacks and the smallest
    change that helps."""
    needs = dict(needs or {})
    unknown = set(needs) - {*SPLITS, "types"}
    if unknown:
        raise ValueError(f"needs {sorted(unknown)} are unknown: give {', '.join(SPLITS)} or types")
    entries = catalogue() if entries is None else entries
    named = entries.get(str(name_or_path))
    if named and len(on_disk(named, corpora_dir, download_dir)) < len(named["files"]):
        check_choice(tokenizer, split)
        return None
    source = open_source(
        name_or_path, tokenizer, corpora_dir, download_dir, None, split, entries, encoding
    )
    ids = None
    if source.kind == "word":
        head = source.texts["train"][:PROBE]
        trained = train_tokenizer("word", head, vocab_size, source.lines)
        ids = encode(trained, head)
        if not source.lines and not vocab_size:
            refuse_unknown(source, ids, trained)
    counts = {s: count(source, s, max(needs.get(s, 0), LEAST), vocab_size) for s in SPLITS}
    refuse_small(source, counts, needs, ids)
    return Checked(source.name, source.kind, source.encoding, counts)


def open_source(name_or_path: str | Path, tokenizer: str, corpora_dir: Path | None,
                download_dir: Path | None, progress: Progress | None, split: str,
                entries: dict | None, encoding: str) -> Source:  # fmt: skip
    """Finds, reads and cuts a text: the arguments are those of `text_corpus`."""
    entries = catalogue() if entries is None else entries
    check_choice(tokenizer, split)
    name, entry, files = _locate(str(name_or_path), entries, corpora_dir, download_dir, progress)
    read = {part: read_text(path, encoding) for part, path in files.items()}
    if "all" in read:
        fractions, cut = ((0.9, 0.1), "90/10") if split else ((0.8, 0.1, 0.1), "80/10/10")
        texts = split_text(read["all"].text, fractions)
    else:
        texts, cut = {part: text.text for part, text in read.items()}, "official"
    kind = tokenizer or entry.get("tokenizer", "character")
    lines = kind == "word" and entry.get("eos_per_line", False)
    said = next(iter(read.values())).encoding
    return Source(name, entry, files, texts, said, cut, kind, lines)


def check_choice(tokenizer: str, split: str) -> None:
    """ValueError for a tokenizer or a split that there is none of."""
    if tokenizer:
        choice("tokenizer", tokenizer, KINDS)
    if split not in ("", "nanogpt"):
        raise ValueError(
            f"split {split!r} is unknown: give 'nanogpt' for 90/10, or nothing for 80/10/10"
        )


def _locate(
    given: str, entries: dict, corpora_dir, download_dir, progress
) -> tuple[str, dict, dict[str, Path]]:
    """(name, registry entry or {}, split -> file); a path whose bytes are those of a registered
    text takes its entry."""
    if given in entries:
        entry = entries[given]
        return given, entry, obtain(given, entry, corpora_dir, download_dir, progress)
    try:
        path = Path(given).expanduser()
        missing = not path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"corpus {shown(given)!r} is no path ({error}): give the path of a text file, or one of"
            f" {', '.join(entries)}"
        ) from error
    if missing and path.name == given and not path.suffix:
        find(given, entries)
    readable = path.is_file() and os.access(path, os.R_OK)  # else read_text says what is wrong
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if readable else ""
    for name, entry in entries.items():
        if [file["sha256"] for file in entry["files"]] == [sha256]:
            return name, entry, {"all": path}
    return shown(path.stem), {}, {"all": path}


def count(source: Source, split: str, enough: int, vocab_size: int | None = None) -> int:
    """Tokens of a split, as many as there are below `enough`, at least `enough` where there are
    more."""
    text, found = source.texts[split], 0
    if source.kind == "character":
        return len(text)  # a character not seen in training is more than one token
    if source.lines:
        return len(text.split()) + text.count("\n")
    cutter = Tokenizer(models.BPE())
    cutter.pre_tokenizer = WORDS if source.kind == "word" else BYTES
    for piece in pieces(cutter, text):
        found += len(cutter.pre_tokenizer.pre_tokenize_str(piece))
        if found >= enough:
            return found
    if source.kind == "word":
        return found
    trained = train_tokenizer("bpe", source.texts["train"][:BPE_PROBE], vocab_size)
    return len(encode(trained, text[:BPE_PROBE]))


def refuse_unknown(source: Source, ids: np.ndarray, trained: Tokenizer) -> None:
    """ValueError when words are no unit of a training text: most, or in a script without spaces a
    tenth, occur once and so are <unk>."""
    share = float(np.mean(ids == trained.token_to_id("<unk>"))) if len(ids) else 1.0
    head = source.texts["train"][:PROBE]
    scripts = Counter(script(c) for c in head[:20_000] if c.isalpha())
    main = scripts.most_common(1)[0][0] if scripts else ""
    if share > 0.1 and main in UNSPACED:
        called = "Chinese or Japanese" if main == "CJK" else main.title()
        raise ValueError(
            f"corpus {source.name!r} is in {called} script, which sets no spaces between words, so"
            f" {share:.0%} of its words are <unk>: give TOKENIZER=character or TOKENIZER=bpe"
        )
    if share > 0.5:
        raise ValueError(
            f"corpus {source.name!r} has {len(ids):,} words in its train split, of which"
            f" {share:.0%} occur only once and would be <unk>: give TOKENIZER=character or"
            " TOKENIZER=bpe, or more text"
        )


def refuse_small(
    source: Source, counts: Mapping[str, int], needs: Mapping[str, int], ids: np.ndarray | None
) -> None:
    """ValueError when a split has fewer tokens than needed or training (for words, its `ids`) has
    too few different ones; BPE spells one symbol in many tokens, so its characters count."""
    types = len(np.unique(ids)) if source.kind == "word" else len(set(source.texts["train"]))
    wanted = {s: max(needs.get(s, 0), LEAST) for s in SPLITS}
    size = sum(map(len, source.texts.values()))
    least = max(needs.get("types", 0), LEAST)
    if types < least:
        raise ValueError(
            f"corpus {source.name!r} has {types} different token{'s' * (types != 1)} in its train"
            f" split with TOKENIZER={source.kind}, and {least:,} are needed: give a text with more"
            " to predict in it"
        )
    short = {s: wanted[s] / max(counts[s], 1) for s in SPLITS if counts[s] < wanted[s]}
    if not short:
        return
    worst = max(short, key=short.get)
    longer = math.ceil(size * short[worst] * 1.05 / 100) * 100  # a cut moves on by a word
    help = [f"give a text of about {longer:,} characters (this one has {size:,})"]
    if source.kind != "character" and all(len(source.texts[s]) >= wanted[s] for s in SPLITS):
        characters = len(source.texts[worst])
        help.insert(0, f"give TOKENIZER=character, which makes {characters:,} of it")
    raise ValueError(
        f"corpus {source.name!r} has {counts[worst]:,} tokens in its {worst} split with"
        f" TOKENIZER={source.kind}, and {wanted[worst]:,} are needed: {', or '.join(help)}"
    )
