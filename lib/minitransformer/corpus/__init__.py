"""Corpora: the synthetic language with its known floor, the uniform control, real texts, tokenizers and batches."""

from .language import LARGE, MECHANISMS, SMALL, SPECIALS, Language, LanguageSpec, Sample, uniform_words

__all__ = ["LARGE", "MECHANISMS", "SMALL", "SPECIALS", "Language", "LanguageSpec", "Sample", "uniform_words"]
