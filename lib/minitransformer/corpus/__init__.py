"""Corpora: the synthetic language with its known floor, the uniform control, real texts, tokenizers
and batches."""

from .batches import Batches
from .dataset import Corpus
from .encodings import Text
from .ladder import bits_after, hidden_bits, ladder, marginals, window_bits, without
from .language import (
    LARGE,
    MECHANISMS,
    MINIMAL,
    PINNED,
    SMALL,
    SPECIALS,
    Language,
    LanguageSpec,
    Sample,
    entropy,
    uniform_words,
)
from .needs import Checked, check_corpus
from .registry import catalogue, on_disk
from .sources import language_corpus, text_corpus, uniform_corpus
from .store import Store, build
from .text import SPLITS, read_text, split_text
from .tokenizers import (
    decode,
    encode,
    train_bpe,
    train_characters,
    train_tokenizer,
    train_words,
    vocabulary,
    words_tokenizer,
)

__all__ = [
    "Batches", "Checked", "Corpus", "LARGE", "Language", "LanguageSpec", "MECHANISMS", "MINIMAL",
    "PINNED", "SMALL", "SPECIALS", "SPLITS", "Sample", "Store", "Text", "bits_after", "build",
    "catalogue", "check_corpus", "decode", "encode", "entropy", "hidden_bits", "ladder",
    "language_corpus", "marginals", "on_disk", "read_text", "split_text", "text_corpus",
    "train_bpe", "train_characters", "train_tokenizer", "train_words", "uniform_corpus",
    "uniform_words", "vocabulary", "window_bits", "without", "words_tokenizer",
]  # fmt: skip
