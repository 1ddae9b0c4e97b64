"""Where corpora come from: the synthetic language, chance (the control), and real texts by name or
path."""

import dataclasses
import hashlib
import math
from pathlib import Path

import numpy as np

from .dataset import Corpus
from .language import LARGE, SPECIALS, Language, LanguageSpec, spell, uniform_words
from .needs import open_source, refuse_small, refuse_unknown
from .registry import Progress
from .streams import Stream, check_salt, check_seed
from .text import SPLITS, shown
from .tokenizers import encode, train_tokenizer, words_tokenizer


def _spelt(words: list[str], ids: np.ndarray) -> str:
    """Words separated by one space, on one line."""
    return " ".join(words[i] for i in ids.tolist()) + "\n" if len(ids) else ""


def language_corpus(
    seed, salt, spec: LanguageSpec = LARGE, n_train=200_000, n_valid=20_000, n_test=20_000
) -> Corpus:
    """A corpus of the synthetic language, each split from its own stream: any may grow without
    changing another."""
    language = Language(seed, salt, spec)
    samples = {
        s: language.generate(s, n) for s, n in zip(SPLITS, (n_train, n_valid, n_test), strict=False)
    }
    splits = {s: sample.ids.astype(np.int32) for s, sample in samples.items()}
    texts = {s: _spelt(language.words, ids) for s, ids in splits.items()}
    oracle = {s: sample.log2p * math.log(2) for s, sample in samples.items()}
    mechanism = {s: sample.mechanism for s, sample in samples.items()}
    numbers = {
        k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(spec).items()
    }
    meta, tokenizer = _synthetic(seed, salt) | dict(spec=numbers), words_tokenizer(language.words)
    known = language.entropy_nats, oracle, mechanism, meta
    return Corpus("language", "language", splits, texts, tokenizer, *known)


def uniform_corpus(
    seed, salt, n_train=40_000, n_valid=0, n_test=10_000, vocab_size: int = 1004
) -> Corpus:
    """The control: independent uniform words, cut by position; nothing to learn, floor = the number
    of words."""
    ids = uniform_words(seed, salt, n_train + n_valid + n_test, vocab_size).astype(np.int32)
    splits = dict(zip(SPLITS, np.split(ids, [n_train, n_train + n_valid]), strict=False))
    words = [*SPECIALS, *spell(Stream(seed, salt, "uniform/v1"), vocab_size - len(SPECIALS))]
    texts = {s: _spelt(words, part) for s, part in splits.items()}
    floor, meta = math.log(vocab_size - len(SPECIALS)), _synthetic(seed, salt)
    return Corpus("uniform", "uniform", splits, texts, words_tokenizer(words), floor, meta=meta)


def _synthetic(seed, salt) -> dict:
    return dict(
        seed=int(check_seed(seed)),
        salt=check_salt(salt),
        tokenizer="word",
        encoding="utf-8",
        licence="none needed: generated",
        split="a stream for each split",
    )


def text_corpus(
    name_or_path: str | Path,
    tokenizer: str = "",
    vocab_size: int | None = None,
    corpora_dir: Path | None = None,
    download_dir: Path | None = None,
    progress: Progress | None = None,
    split: str = "",
    entries: dict | None = None,
    encoding: str = "",
) -> Corpus:
    """A corpus from a name of the catalogue or from the path of a text file.

    tokenizer: "word", "character" or "bpe"; "" is word for WikiText-2, character otherwise; trained
    on the train split only. split: "" takes the official split where there is one, else 80/10/10 by
    position; "nanogpt" takes 90/10. encoding: "" finds it (see `read_text`); either way it stands
    in meta["encoding"]. Raises FileNotFoundError or ValueError naming the file, what is wrong with
    it and the remedy; `check_corpus` says the same before anything is built."""
    source = open_source(
        name_or_path, tokenizer, corpora_dir, download_dir, progress, split, entries, encoding
    )
    texts, kind, entry = source.texts, source.kind, source.entry
    trained = train_tokenizer(kind, texts["train"], vocab_size, source.lines)
    splits = {s: encode(trained, texts[s]) for s in SPLITS}
    counts = {s: len(ids) for s, ids in splits.items()}
    if kind == "word" and not source.lines and not vocab_size:
        refuse_unknown(source, splits["train"], trained)
    refuse_small(source, counts, {}, splits["train"])
    own, paths = "a file of your own", source.files.values()
    meta = dict(
        tokenizer=kind,
        title=entry.get("title", source.name),
        encoding=source.encoding,
        split=source.cut,
        licence=entry.get("licence", f"not stated: {own}"),
        source=entry.get("source", own),
        files={shown(p.name): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths},
        test_is_valid=source.cut == "90/10",
    )
    return Corpus(source.name, "text", splits, texts, trained, meta=meta)
