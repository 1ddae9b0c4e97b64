"""Corpora: the synthetic language with its known floor, the uniform control, real texts, tokenizers
and batches."""

from .batches import Batches
from .dataset import Corpus
from .ladder import hidden_bits, ladder, marginals, window_bits, without
from .language import (
    LARGE,
    MECHANISMS,
    PINNED,
    SMALL,
    SPECIALS,
    Language,
    LanguageSpec,
    Sample,
    entropy,
    uniform_words,
)
from .registry import named_corpora
from .sources import language_corpus, text_corpus, uniform_corpus
from .text import SPLITS, read_text, split_text
from .tokenizers import (
    decode,
    encode,
    train_bpe,
    train_characters,
    train_words,
    vocabulary,
    words_tokenizer,
)

__all__ = [
    "LARGE", "MECHANISMS", "PINNED", "SMALL", "SPECIALS", "SPLITS", "Batches", "Corpus", "Language", "LanguageSpec",
    "Sample", "decode", "encode", "entropy", "hidden_bits", "ladder", "language_corpus", "marginals", "named_corpora",
    "read_text", "split_text", "text_corpus", "train_bpe", "train_characters", "train_words", "uniform_corpus",
    "uniform_words", "vocabulary", "window_bits", "without", "words_tokenizer",
]  # fmt: skip
