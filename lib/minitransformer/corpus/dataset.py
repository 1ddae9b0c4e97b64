"""A corpus: three splits of ids with their text, tokenizer, floor and provenance, written and read
back whole."""

import hashlib
import io
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from ..files import read_json, read_tokenizer, replacing
from .language import Language, LanguageSpec
from .text import SPLITS
from .tokenizers import vocabulary

LINE = 1024  # ids in a line of tokens.jsonl


@dataclass
class Corpus:
    """Three splits "train", "valid", "test" and everything known about them.

    kind: "language", "uniform" or "text". floor_nats: entropy rate in nats a token, None where
    nobody knows it. oracle: split -> log-probability in nats of each token given the whole past;
    mechanism: split -> index into MECHANISMS."""

    name: str
    kind: str
    splits: dict[str, np.ndarray]  # int32 (n,)
    texts: dict[str, str]
    tokenizer: Tokenizer
    floor_nats: float | None = None
    oracle: dict[str, np.ndarray] | None = None  # float64 (n,)
    mechanism: dict[str, np.ndarray] | None = None  # int8 (n,)
    meta: dict = field(default_factory=dict)

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.get_vocab_size()

    @property
    def types(self) -> int:
        """How many different tokens occur; the vocabulary may hold more (specials, bytes of
        characters never seen)."""
        return len(np.unique(np.concatenate(list(self.splits.values()))))

    @property
    def n_bytes(self) -> dict[str, int]:
        """Split -> bytes of its text in UTF-8, for bits per byte."""
        return {split: len(text.encode()) for split, text in self.texts.items()}

    def text(self, split: str) -> str:
        return self.texts[split]

    @property
    def sha256(self) -> str:
        """Of the text of all splits, UTF-8: the hash of corpus.txt."""
        return hashlib.sha256(self._whole_text()).hexdigest()

    @property
    def ids_sha256(self) -> str:
        """Of the ids of all splits, as little-endian int32."""
        ids = b"".join(self.splits[s].astype("<i4").tobytes() for s in SPLITS)
        return hashlib.sha256(ids).hexdigest()

    @property
    def language(self) -> Language:
        """The language that generated the corpus; ValueError where no language did."""
        if self.kind != "language":
            raise ValueError(
                f"corpus {self.name!r} is {self.kind}, not a language: only a language has an"
                " oracle"
            )
        spec = {k: tuple(v) if isinstance(v, list) else v for k, v in self.meta["spec"].items()}
        return Language(self.meta["seed"], self.meta["salt"], LanguageSpec(**spec))

    def _whole_text(self) -> bytes:
        # nanoGPT's split scores the same tenth twice; the file holds it once.
        once = [s for s in SPLITS if not (s == "test" and self.meta.get("test_is_valid"))]
        return "".join(self.texts[s] for s in once).encode()

    def save(self, directory: Path) -> None:
        """Writes corpus.txt, tokens.jsonl, vocab.txt, tokenizer.json, oracle.npz (the language)
        and, last, corpus.json."""
        directory = Path(directory)
        _write(directory / "corpus.txt", self._whole_text())
        _write(directory / "tokens.jsonl", "".join(_token_lines(self.splits)).encode())
        tokens = "".join(_visible(token) + "\n" for token in vocabulary(self.tokenizer))
        _write(directory / "vocab.txt", tokens.encode())
        _write(directory / "tokenizer.json", self.tokenizer.to_str(pretty=True).encode())
        (directory / "oracle.npz").unlink(missing_ok=True)
        if self.oracle is not None:
            arrays = {f"log_prob_{s}": self.oracle[s] for s in SPLITS}
            arrays |= {f"mechanism_{s}": self.mechanism[s] for s in SPLITS}
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **arrays)
            _write(directory / "oracle.npz", buffer.getvalue())
        about = json.dumps(self.describe(), indent=2, ensure_ascii=False) + "\n"
        _write(directory / "corpus.json", about.encode())

    def describe(self) -> dict:
        """What corpus.json holds: provenance, hashes, floor, and the sizes and boundaries of the
        splits."""
        sizes, start = {}, 0
        for split in SPLITS:
            if split == "test" and self.meta.get("test_is_valid"):
                start -= len(self.texts["valid"])
            stop = start + len(self.texts[split])
            sizes[split] = dict(
                tokens=len(self.splits[split]), characters=[start, stop], bytes=self.n_bytes[split]
            )
            start = stop
        nats = self.floor_nats
        floor = dict(floor_nats=nats, floor_perplexity=None if nats is None else math.exp(nats))
        hashes = dict(sha256=self.sha256, ids_sha256=self.ids_sha256)
        sizes_of = dict(vocab_size=self.vocab_size, types=self.types)
        return dict(
            name=self.name, kind=self.kind, **hashes, **floor, **sizes_of, splits=sizes, **self.meta
        )

    @staticmethod
    def load(directory: Path) -> "Corpus":
        """Reads back exactly what `save` wrote; ValueError where a file is gone or damaged, or text
        or ids no longer have the hash in corpus.json."""
        directory = Path(directory)
        if not (directory / "corpus.json").is_file():
            raise FileNotFoundError(
                f"no corpus in {directory}: corpus.json is missing; make it first (make data)"
            )
        try:
            return Corpus._whole(directory)
        except Exception as error:  # damaged files fail in as many ways as they have bytes
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            reason = " ".join(f"{kind}{error}".split())[:300]
            raise ValueError(
                f"{directory} holds no whole corpus ({reason}): make it again (make data)"
            ) from error

    @staticmethod
    def _whole(directory: Path) -> "Corpus":
        about = read_json(directory / "corpus.json")
        text = (directory / "corpus.txt").read_bytes()
        _compare(directory / "corpus.txt", hashlib.sha256(text).hexdigest(), about.pop("sha256"))
        text, sizes = text.decode(), about.pop("splits")
        texts = {s: text[slice(*sizes[s]["characters"])] for s in SPLITS}
        ids = {s: [np.empty(0, np.int32)] for s in SPLITS}
        for line in (directory / "tokens.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            ids[row["split"]].append(np.array(row["ids"], np.int32))
        tokenizer = read_tokenizer(directory / "tokenizer.json", "make it again")
        oracle = mechanism = None
        if (directory / "oracle.npz").is_file():
            with np.load(directory / "oracle.npz") as file:
                oracle = {s: file[f"log_prob_{s}"] for s in SPLITS}
                mechanism = {s: file[f"mechanism_{s}"] for s in SPLITS}
        known = ("name", "kind", "floor_nats", "ids_sha256")
        name, kind, floor, ids_hash = map(about.pop, known)
        computed = ("floor_perplexity", "vocab_size", "types")
        meta = {k: v for k, v in about.items() if k not in computed}
        splits = {s: np.concatenate(parts) for s, parts in ids.items()}
        corpus = Corpus(name, kind, splits, texts, tokenizer, floor, oracle, mechanism, meta)
        _compare(directory / "tokens.jsonl", corpus.ids_sha256, ids_hash)
        return corpus


def _token_lines(splits: dict[str, np.ndarray]):
    for split in SPLITS:
        for start in range(0, len(splits[split]), LINE):
            ids = splits[split][start : start + LINE].tolist()
            yield json.dumps(dict(split=split, start=start, ids=ids)) + "\n"


def _visible(token: str) -> str:
    """A token on a line of its own: as it is, or, where it holds a backslash or anything not
    printable (a line end of any kind, a control character, a lone surrogate), with Python's
    `unicode_escape`; so a reader finds every token again exactly."""
    plain = token.isprintable() and "\\" not in token
    return token if plain else token.encode("unicode_escape").decode()


def _write(path: Path, data: bytes) -> None:
    with replacing(path) as part:
        part.write_bytes(data)


def _compare(path: Path, actual: str, expected: str) -> None:
    if actual != expected:
        raise ValueError(f"{path} has changed: sha256 {actual}, corpus.json says {expected}")
