"""Three tokenizers through Hugging Face `tokenizers`: words, characters, byte-level BPE; and texts
to ids and back.

What a word is stands in one place, the pattern in the tokenizer itself: training counts with it and
tokenizer.json carries it, so no second regular-expression engine can disagree. No tokenizer
normalises: what a text spells in two ways (é as one code point or two) stays two, because
characters and BPE must give back the very text, and to unify spellings (NFC) is the user's to
choose."""

import re
from collections.abc import Iterator

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from ..fields import choice, whole
from .language import SPECIALS

KINDS = ("word", "character", "bpe")
CHUNK = 1 << 16  # characters encoded at once: a whole book at once would need gigabytes
LONGEST = 1024  # characters without white space that BPE trains on at once: merging is quadratic
MOST_WORDS = 32_768

# A word: letters, marks (vowel signs, points, combining accents), digits, underscores, with the
# joiners and soft hyphens inside. Anything else that is no white space stands alone, a whole
# character as the reader sees it (\X): a flag, a family, a keycap is one.
WORDS = pre_tokenizers.Split(
    Regex(r"[\p{L}\p{M}\p{N}\p{Pc}\x{AD}\x{200C}\x{200D}]+|(?!\s)\X"), "removed", invert=True
)
LINES = pre_tokenizers.WhitespaceSplit()
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False)
EOS = normalizers.Replace("\n", " <eos> ")
BORDER = re.compile(r"\S[ \n]")
LOOK_AHEAD = 8  # characters behind a token that can decide where it ends, and more


def words_tokenizer(words: list[str], lines: bool = False, punctuation: bool = False) -> Tokenizer:
    """White-space words with the ids of `words` (specials first); other words are <unk>.

    lines: each line feed is a token <eos>. punctuation: marks are words of their own."""
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WORDS if punctuation else LINES
    if lines:
        tokenizer.normalizer = EOS
    return tokenizer


def train_words(text: str, vocab_size: int | None = None, lines: bool = False) -> Tokenizer:
    """A word tokenizer from a training text: the most frequent words, ties in code-point order.

    lines True (WikiText-2): every white-space word. Otherwise punctuation is apart, a word that
    occurs once becomes <unk>, so that <unk> is trained, and no more than 32,768 words are kept
    unless vocab_size says so. A script that sets no spaces between words has words as long as its
    clauses: see `check_corpus`."""
    counter = words_tokenizer([], lines, punctuation=not lines)
    most = vocab_size or (len(text) if lines else MOST_WORDS)
    counter.train_from_iterator(
        list(pieces(counter, text)),  # whole: an iterator that used the tokenizer would block it
        trainers.WordLevelTrainer(
            vocab_size=most + len(SPECIALS),
            min_frequency=1 if lines else 2,
            special_tokens=[],
            show_progress=False,
        ),
    )
    ranked = [w for w in vocabulary(counter) if w not in SPECIALS]
    kept = [*SPECIALS, *ranked]
    size = len(kept) if lines and not vocab_size else max(most, len(SPECIALS))
    return words_tokenizer(kept[:size], lines, punctuation=not lines)


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
    size = min(vocab_size or 1024, 256 + 4 * len(text))  # no text has more; the trainer takes room
    if size < 256:
        raise ValueError(
            f"vocab_size {size} is too small for byte-level BPE: give at least 256, one for each"
            " byte"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = BYTES
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    runs = [run for piece in pieces(tokenizer, text) for run in _short_runs(piece)]
    tokenizer.train_from_iterator(runs, trainer)
    return tokenizer


def train_tokenizer(
    kind: str, text: str, vocab_size: int | None = None, lines: bool = False
) -> Tokenizer:
    """The tokenizer of a kind, "word", "character" or "bpe", from a training text. ValueError for
    another kind, or a vocabulary that none can have."""
    choice("tokenizer", kind, KINDS)
    if vocab_size is not None:
        vocab_size = whole("vocab_size", vocab_size)
    if kind == "word":
        return train_words(text, vocab_size, lines)
    return train_bpe(text, vocab_size) if kind == "bpe" else train_characters(text)


def _short_runs(piece: str) -> Iterator[str]:
    """A text's runs with and without white space, none longer than LONGEST: what BPE counts."""
    start = 0
    for run in re.finditer(rf"\S{{{LONGEST}}}|\s{{{LONGEST}}}", piece):
        yield piece[start : run.end()]
        start = run.end()
    yield piece[start:]


def pieces(tokenizer: Tokenizer, text: str) -> Iterator[str]:
    """Pieces of about CHUNK characters whose concatenation is the text and whose ids are, one after
    the other, those of the whole text.

    A tokenizer that is not one of this module's may look across any border: it gets the text whole.
    """
    start, cut = 0, _separable(tokenizer)
    while cut and len(text) - start > CHUNK:
        end = _border(tokenizer.pre_tokenizer, text, start)
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def _separable(tokenizer: Tokenizer) -> bool:
    """Whether no token crosses from something to white space behind it, and none is prepended."""
    before, normalizer = tokenizer.pre_tokenizer, repr(tokenizer.normalizer)
    if before is None:  # a character is looked up, or spelt in bytes, on its own
        return normalizer == repr(None) and getattr(tokenizer.model, "byte_fallback", False)
    ours = {repr(WORDS), repr(LINES), repr(BYTES)}
    return repr(before) in ours and normalizer in (repr(None), repr(EOS))


def _border(pre_tokenizer, text: str, start: int) -> int:
    """Where the piece that begins at `start` may end: before white space, else, in a long text
    without, where the pre-tokenizer itself ends a token."""
    if pre_tokenizer is None:
        return start + CHUNK
    space = BORDER.search(text, start + CHUNK - 1, start + 2 * CHUNK)
    if space:
        return space.start() + 1
    size = 2 * CHUNK
    while start + size < len(text):
        spans = pre_tokenizer.pre_tokenize_str(text[start : start + size])
        ends = [start + b for _, (_, b) in spans if b <= size - LOOK_AHEAD]
        # White space at the end of a piece would be one token, and two before a word.
        end = next((b for b in reversed(ends) if not text[b - 1].isspace()), start)
        if end > start:
            return end
        size *= 2
    return len(text)


def encode(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """Text to ids, int32 (n,); for words, white space and words outside the vocabulary are lost
    (<unk>)."""
    if not (isinstance(tokenizer, Tokenizer) and isinstance(text, str)):
        raise TypeError(
            f"encode takes (tokenizer, text), not ({type(tokenizer).__name__},"
            f" {type(text).__name__}): give a tokenizer and a str, in this order"
        )
    ids = [tokenizer.encode(p, add_special_tokens=False).ids for p in pieces(tokenizer, text)]
    return np.concatenate([np.array(x, np.int32) for x in ids]) if ids else np.empty(0, np.int32)


def flowing(tokenizer: Tokenizer, parts: Iterator[str], name: str) -> Iterator[np.ndarray]:
    """The ids, int32 (n,) after int32 (n,), of a text that comes in parts: those of `encode` on the
    whole, without ever holding it. ValueError, which begins with `name`, for a tokenizer that may
    look across any border."""
    if not _separable(tokenizer):
        raise ValueError(
            f"{name} is one text, and its tokenizer may look across any border in it: give JSONL, "
            "or a tokenizer of this library"
        )
    text, start = "", 0
    for part in parts:
        text, start = text[start:] + part, 0
        while len(text) - start > 4 * CHUNK:
            end = _border(tokenizer.pre_tokenizer, text, start)
            if end > len(text) - LOOK_AHEAD:  # what comes next may belong to this token
                break
            yield encode(tokenizer, text[start:end])
            start = end
    yield encode(tokenizer, text[start:])


def decode(tokenizer: Tokenizer, ids) -> str:
    """Ids (n,) to text; for words, joined by one space. ValueError for ids that are no row or stand
    for no token."""
    ids = np.asarray(ids)
    size = tokenizer.get_vocab_size()
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise ValueError(
            f"ids of shape {ids.shape} and type {ids.dtype} are no row of integers: give one row,"
            " such as ids[0]"
        )
    if ids.size and not 0 <= ids.min() <= ids.max() < size:
        raise ValueError(
            f"ids span {ids.min()} to {ids.max()} and the tokenizer has {size} tokens: give ids"
            " that it made"
        )
    return tokenizer.decode(ids.tolist(), skip_special_tokens=False)


def vocabulary(tokenizer: Tokenizer) -> list[str]:
    """The tokens in the order of their ids."""
    return [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
