"""Whether a text of one's own is enough for what the chapters ask, before anything is made of it.

A lower bound that costs a second: the exact number of tokens is known when the tokenizer has been
trained, but a text that has fewer characters than tokens are wanted needs no tokenizer.
"""

import re
from collections import Counter
from pathlib import Path

from minitransformer.corpus.text import read_text, split_text


def text(path: Path, tokenizer: str, asked: dict) -> None:
    """ValueError, one line with the smallest change that helps, where the text file `path` under
    `tokenizer` ("word", "character" or "bpe"; "" is character) cannot give the tokens `asked`:
    split -> (tokens, what asks for them)."""
    whole = read_text(path)[0]
    kind, splits = tokenizer or "character", split_text(whole)
    symbols = len(set(whole) - set(" \n\r\t"))
    if symbols < 2:
        raise ValueError(
            f"corpus {path.name} is one symbol again and again: give a text in which something can "
            "be predicted"
        )
    counted = {split: count(part, kind) for split, part in splits.items()}
    lacking = {s: (n, *asked[s]) for s, n in counted.items() if s in asked and n < asked[s][0]}
    if lacking:
        split, (has, wanted, why) = max(
            lacking.items(), key=lambda row: row[1][1] / (row[1][0] + 1)
        )
        times = wanted / max(has, 1)
        other = " or a character tokenizer," if kind == "word" else ""
        raise ValueError(
            f"corpus {path.name} has {'at most ' if kind == 'bpe' else ''}{has:,} tokens in its "
            f"{split} split, and {why} needs {wanted:,}: give a text {times:.1f} times as long,"
            f"{other} or lower that"
        )
    if kind == "word":
        varied(path, splits["train"])


def count(part: str, kind: str) -> int:
    """Tokens of `part`; for BPE its bytes, which are never fewer."""
    if kind == "word":
        return len(re.findall(r"\w+|[^\w\s]+", part))
    return len(part.encode()) if kind == "bpe" else len(part)


def varied(path: Path, train: str) -> None:
    """A word tokenizer keeps what occurs twice: there must be some of it."""
    words = Counter(re.findall(r"\w+|[^\w\s]+", train))
    kept = sum(n for n in words.values() if n > 1)
    if kept < 0.2 * words.total():
        raise ValueError(
            f"corpus {path.name} has {words.total():,} words in its train split, and only "
            f"{kept:,} of them occur again: give TOKENIZER=character, or a longer text"
        )
