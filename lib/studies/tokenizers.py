"""What do three ways to cut the text into tokens cost and keep?"""

import math
import re

import numpy as np
import pandas as pd

from minitransformer.corpus import decode, encode, train_tokenizer
from minitransformer.corpus.tokenizers import KINDS

STRANGE = "ñ á “quotes” — 漢字 🏳️‍🌈 \x00 <unk>"


def beginning(data, split: str, characters: int) -> str:
    """The first characters of a split up to white space: half a word would be an unknown one."""
    most = f".{{1,{characters}}}"
    return re.match(rf"(?s){most}(?!\S)|{most}", data.text(split))[0]


def trained(data, characters: int = 400_000) -> dict:
    """A tokenizer of each kind from the beginning of the training split."""
    head = beginning(data, "train", characters)
    return {kind: train_tokenizer(kind, head) for kind in KINDS}


def compared(data, made: dict, characters: int = 60_000) -> pd.DataFrame:
    """A row a tokenizer, on the beginning of the test split: how many bytes a token spells,
    what share it does not know, and the bits a byte of frequencies (add-one, counted on as much of
    the training split) and of a uniform guess."""
    probe, seen = beginning(data, "test", characters), beginning(data, "train", 4 * characters)
    n_bytes, rows = len(probe.encode()), []
    for kind, tokenizer in made.items():
        size, ids = tokenizer.get_vocab_size(), encode(tokenizer, probe)
        count = np.bincount(encode(tokenizer, seen), minlength=size) + 1.0
        unknown = tokenizer.token_to_id("<unk>") if kind == "word" else -1
        rows.append(
            {
                "tokenizer": kind,
                "vocabulary": size,
                "bytes_per_token": n_bytes / len(ids),
                "unknown_percent": round(100 * float(np.mean(ids == unknown)), 2),
                "frequencies_bits_per_byte": -np.log2(count / count.sum())[ids].sum() / n_bytes,
                "uniform_bits_per_byte": len(ids) * math.log2(size) / n_bytes,
                "text_comes_back": decode(tokenizer, ids) == probe,
            }
        )
    return pd.DataFrame(rows)


def lossless(data, made: dict, characters: int = 60_000) -> tuple[int, int]:
    """(given back, tried): characters and BPE on a piece of the test split and on a string of
    characters that no training text holds."""
    texts = (beginning(data, "test", characters), STRANGE)
    back = [decode(made[k], encode(made[k], t)) == t for k in ("character", "bpe") for t in texts]
    return sum(back), len(back)
