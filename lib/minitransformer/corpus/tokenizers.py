"""Three tokenizers through Hugging Face `tokenizers`: words, characters, byte-level BPE; and texts
to ids and back."""

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from .language import SPECIALS

KINDS = ("word", "character", "bpe")
CHUNK = 1 << 16  # characters encoded at once: a whole book at once would need gigabytes


def words_tokenizer(words: list[str], lines: bool = False, punctuation: bool = False) -> Tokenizer:
    """White-space words with the ids of `words` (specials first); other words are <unk>.

    lines: each line feed is a token <eos>. punctuation: marks are words of their own.
    """
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Whitespace() if punctuation else pre_tokenizers.WhitespaceSplit()
    )
    if lines:
        tokenizer.normalizer = normalizers.Replace("\n", " <eos> ")
    return tokenizer


def train_words(text: str, vocab_size: int | None = None, lines: bool = False) -> Tokenizer:
    """A word tokenizer from a training text: the most frequent words, ties in alphabetical order.

    lines True (WikiText-2): every white-space word. Otherwise punctuation is apart, a word that
    occurs once becomes <unk>, so that <unk> is trained, and no more than 32,768 words are kept
    unless vocab_size says so."""
    if lines:
        counts, least = Counter(text.split()), 1
    else:
        counts, least = Counter(re.findall(r"\w+|[^\w\s]+", text)), 2
    ranked = sorted(
        (w for w, n in counts.items() if n >= least and w not in SPECIALS),
        key=lambda w: (-counts[w], w),
    )
    size = vocab_size or (len(SPECIALS) + len(ranked) if lines else 32_768)
    return words_tokenizer(
        [*SPECIALS, *ranked][: max(size, len(SPECIALS))], lines, punctuation=not lines
    )


def train_characters(text: str) -> Tokenizer:
    """A token for each character of the training text, in code-point order; any other is spelt in
    its UTF-8 bytes.

    The byte tokens come last, and only those that a character outside the text can need. Lossless
    on any Unicode."""
    seen = sorted(set(text))
    # UTF-8 never uses the bytes C0, C1 and F5-FF.
    needed = [
        b
        for b in range(0xF5)
        if (b >= 0x80 and b not in (0xC0, 0xC1)) or (b < 0x80 and chr(b) not in seen)
    ]
    vocab = {token: i for i, token in enumerate([*seen, *(f"<0x{b:02X}>" for b in needed)])}
    tokenizer = Tokenizer(models.BPE(vocab, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def train_bpe(text: str, vocab_size: int | None = None) -> Tokenizer:
    """Byte-level BPE (Sennrich et al. 2016; GPT-2's pre-tokenizer) with `vocab_size` tokens (1024),
    the 256 bytes among them."""
    size = vocab_size or 1024
    if size < 256:
        raise ValueError(
            f"vocab_size {size} is too small for byte-level BPE: give at least 256, one for each byte"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(chunks(text), trainer)
    return tokenizer


def chunks(text: str) -> Iterator[str]:
    """Pieces of at most CHUNK characters whose concatenation is the text, cut behind white space
    where there is some."""
    start = 0
    while start < len(text):
        end = start + CHUNK
        if end < len(text):
            end = max(text.rfind("\n", start, end), text.rfind(" ", start, end)) + 1 or end
        yield text[start:end]
        start = end


def encode(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """Text to ids, int32 (n,)."""
    ids = [tokenizer.encode(chunk, add_special_tokens=False).ids for chunk in chunks(text)]
    return np.concatenate([np.array(x, np.int32) for x in ids]) if ids else np.empty(0, np.int32)


def decode(tokenizer: Tokenizer, ids) -> str:
    """Ids to text; for words, joined by one space."""
    return tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)


def vocabulary(tokenizer: Tokenizer) -> list[str]:
    """The tokens in the order of their ids."""
    return [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
