"""What is the text made of, and what is each part of it worth?"""

import unicodedata
from collections import Counter

import pandas as pd

from minitransformer.corpus import (
    MECHANISMS,
    Language,
    entropy,
    hidden_bits,
    train_bpe,
    train_characters,
    train_words,
)

PROBE = 200_000  # characters of a text that are looked at
CATEGORIES = {
    "L": "letters",
    "M": "marks on letters",
    "N": "digits",
    "Z": "white space",
    "P": "punctuation",
}
TRAINERS = {"word": train_words, "character": train_characters, "bpe": train_bpe}


def rule(data):
    """The function that makes the corpus what it is: the language's one loop, or what trains the
    tokenizer of a text."""
    return Language._rotate if data.kind == "language" else TRAINERS[data.meta["tokenizer"]]


def parts(data) -> pd.DataFrame:
    """A row a mechanism of the language, or a row a kind of character of a text."""
    return mechanisms(data.language) if data.kind == "language" else characters(data.text("train"))


def mechanisms(language: Language) -> pd.DataFrame:
    """What each looks back to, its share of the words, and the bits of a word whose class is known:
    when what it looks back to is known and when it is hidden. `worth_bits` is what knowing it saves
    per word of the whole text."""
    spec, hidden = language.spec, hidden_bits(language)
    looks = {
        "free": "nothing",
        "bigram": "the previous word",
        "offset": f"the word {spec.offset} back",
        "recency": f"the last word of one of {spec.sources} classes",
        "induction": f"what it last put behind this key, one of {spec.keys}",
    }
    own = [m for m in MECHANISMS if m in hidden]
    rows = [(m, looks[m], 100 * spec.share(m), entropy(spec.ranks(m)), hidden[m]) for m in own]
    columns = ["mechanism", "looks back to", "share_percent", "known_bits", "hidden_bits"]
    table = pd.DataFrame(rows, columns=columns)
    saved = table.hidden_bits - table.known_bits
    return table.assign(worth_bits=saved * table.share_percent / 100)


def characters(text: str) -> pd.DataFrame:
    """Kinds of character by Unicode's general categories: share, how many different ones, and the
    most frequent; over the first 200,000 characters."""
    seen = pd.DataFrame(Counter(text[:PROBE]).most_common(), columns=["character", "count"])
    grouped = seen.assign(kind=[kind(c) for c in seen.character]).groupby("kind", sort=False)
    table = grouped.agg(
        share_percent=("count", "sum"),
        different=("character", "size"),
        most_frequent=("character", lambda c: " ".join(x for x in c.head(6) if not x.isspace())),
    ).reset_index()
    return table.assign(share_percent=100 * table.share_percent / seen["count"].sum())


def kind(character: str) -> str:
    """Letters, marks, digits, white space, punctuation, or other."""
    if character.isspace():
        return CATEGORIES["Z"]
    return CATEGORIES.get(unicodedata.category(character)[0], "other")
