"""Where corpora come from: the synthetic language, chance (the control), and real texts by name or
path."""

import dataclasses
import hashlib
import math
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from .dataset import Corpus
from .language import LARGE, SPECIALS, Language, LanguageSpec, spell, uniform_words
from .registry import DATA, Progress, find, named_corpora, obtain
from .streams import Stream, check_salt, check_seed
from .text import SPLITS, read_text, split_text
from .tokenizers import KINDS, encode, train_bpe, train_characters, train_words, words_tokenizer


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
    return Corpus(
        "language",
        "language",
        splits,
        texts,
        tokenizer,
        language.entropy_nats,
        oracle,
        mechanism,
        meta,
    )


def uniform_corpus(
    seed, salt, n_train=40_000, n_valid=0, n_test=10_000, vocab_size: int = 1004
) -> Corpus:
    """The control: independent uniform words, cut by position; nothing to learn, floor = the number
    of words."""
    ids = uniform_words(seed, salt, n_train + n_valid + n_test, vocab_size).astype(np.int32)
    splits = dict(zip(SPLITS, np.split(ids, [n_train, n_train + n_valid]), strict=False))
    words = [*SPECIALS, *spell(Stream(seed, salt, "uniform/v1"), vocab_size - len(SPECIALS))]
    texts = {s: _spelt(words, part) for s, part in splits.items()}
    floor = math.log(vocab_size - len(SPECIALS))
    return Corpus(
        "uniform",
        "uniform",
        splits,
        texts,
        words_tokenizer(words),
        floor,
        meta=_synthetic(seed, salt),
    )


def _synthetic(seed, salt) -> dict:
    return dict(seed=int(check_seed(seed)), salt=check_salt(salt), tokenizer="word", encoding="utf-8",
                licence="none needed: generated", split="a stream for each split")  # fmt: skip


def text_corpus(name_or_path: str | Path, tokenizer: str = "", vocab_size: int | None = None, corpora_dir: Path | None = None,
                download_dir: Path = DATA, progress: Progress | None = None, split: str = "",
                entries: dict | None = None) -> Corpus:  # fmt: skip
    """A corpus from a name of data/corpora.toml or from the path of a UTF-8 or Latin-1 text file.

    tokenizer: "word", "character" or "bpe"; "" is word for WikiText-2, character otherwise; trained
    on the train split only. split: "" takes the official split where there is one, else 80/10/10 by
    position; "nanogpt" takes 90/10. Raises FileNotFoundError or ValueError naming the file, what is
    wrong with it and the remedy."""
    entries = named_corpora() if entries is None else entries
    if tokenizer not in ("", *KINDS):
        raise ValueError(f"tokenizer {tokenizer!r} is unknown: choose one of {', '.join(KINDS)}")
    if split not in ("", "nanogpt"):
        raise ValueError(
            f"split {split!r} is unknown: give 'nanogpt' for 90/10, or nothing for 80/10/10"
        )
    name, entry, files = _locate(str(name_or_path), entries, corpora_dir, download_dir, progress)
    read = {part: read_text(path) for part, path in files.items()}
    if "all" in read:
        texts, cut = (
            split_text(read["all"][0], (0.9, 0.1) if split else (0.8, 0.1, 0.1)),
            "90/10" if split else "80/10/10",
        )
    else:
        texts, cut = {part: text for part, (text, _) in read.items()}, "official"
    kind = tokenizer or entry.get("tokenizer", "character")
    trained = _train(kind, texts["train"], vocab_size, entry.get("eos_per_line", False))
    meta = dict(tokenizer=kind, title=entry.get("title", name), encoding=next(iter(read.values()))[1], split=cut,
                licence=entry.get("licence", "not stated: a file of your own"), source=entry.get("source", "a file of your own"),
                files={path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files.values()},
                test_is_valid=cut == "90/10")  # fmt: skip
    return Corpus(
        name, "text", {s: encode(trained, texts[s]) for s in SPLITS}, texts, trained, meta=meta
    )


def _train(kind: str, text: str, vocab_size: int | None, lines: bool) -> Tokenizer:
    if kind == "word":
        return train_words(text, vocab_size, lines)
    return train_bpe(text, vocab_size) if kind == "bpe" else train_characters(text)


def _locate(
    given: str, entries: dict, corpora_dir, download_dir, progress
) -> tuple[str, dict, dict[str, Path]]:
    """(name, registry entry or {}, split -> file); a path whose bytes are those of a registered
    text takes its entry."""
    if given in entries:
        return (
            given,
            entries[given],
            obtain(given, entries[given], corpora_dir, download_dir, progress),
        )
    path = Path(given).expanduser()
    if not path.exists() and "/" not in given and not path.suffix:
        find(given, entries)
    read_text(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    for name, entry in entries.items():
        if [file["sha256"] for file in entry["files"]] == [sha256]:
            return name, entry, {"all": path}
    return path.stem, {}, {"all": path}
