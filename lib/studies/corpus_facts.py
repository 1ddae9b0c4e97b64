"""What is this corpus, and where does it come from?"""

import numpy as np
import pandas as pd

from minitransformer.corpus import SPLITS

UNITS = {"character": "character", "bpe": "token"}  # of a tokenizer; of words it is the word
ABOUT = ("title", "source", "licence", "seed", "salt", "encoding", "split", "tokenizer")


def unit(data) -> str:
    """What one token of the corpus is: word, character, or token where it is neither."""
    return UNITS.get(data.meta["tokenizer"], "word")


def in_words(data) -> str:
    """The corpus in a line: its name, its splits, its vocabulary."""
    sizes = ", ".join(f"{len(data.splits[s]):,} {s}" for s in SPLITS)
    return (
        f"{data.name}: {sizes} {unit(data)}s; a vocabulary of {data.vocab_size:,}, of which "
        f"{data.types:,} occur"
    )


def download(progress):
    """A callback (file, bytes done, bytes in all) that shows each file on a bar of its own,
    `progress(total, description)`, made when there is something to show."""
    bars = {}

    def told(file, done, total):
        if file not in bars:
            bars[file] = progress(total, file)
        bars[file].total = total
        bars[file].update(done - bars[file].n)

    return told


def origin(data) -> pd.DataFrame:
    """What is known of the corpus, a row each: what, value; the hash is that of all its text."""
    known = {name: data.meta[name] for name in ABOUT if name in data.meta}
    files = {f"SHA-256 of {name}": digest for name, digest in data.meta.get("files", {}).items()}
    rows = {"name": data.name} | known | files | {"SHA-256 of the text": data.sha256}
    return pd.DataFrame({"what": list(rows), "value": [str(value) for value in rows.values()]})


def beginnings(data, characters: int = 160) -> pd.DataFrame:
    """How each split begins, white space made single."""
    texts = {s: " ".join(data.text(s)[:characters].split()) for s in SPLITS}
    return pd.DataFrame({"split": SPLITS, "how it begins": [f"{t} …" for t in texts.values()]})


def splits(data) -> pd.DataFrame:
    """A row a split: its tokens, their share, its bytes in UTF-8, and its different tokens."""
    parts = [data.splits[s] for s in SPLITS]
    sizes = np.array([len(ids) for ids in parts])
    return pd.DataFrame(
        {
            "split": SPLITS,
            f"{unit(data)}s": sizes,
            "share_percent": 100 * sizes / sizes.sum(),
            "bytes": [data.n_bytes[s] for s in SPLITS],
            "different": [len(np.unique(ids)) for ids in parts],
        }
    )
