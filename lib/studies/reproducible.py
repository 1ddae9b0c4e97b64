"""Is it the same text everywhere, on disk, and when more of it is asked for?"""

from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from minitransformer.corpus import PINNED, SPLITS, Corpus, Language, encode, uniform_corpus

SEED, SALT = 42, "1a2b3c4d5e6f7890abcdef1234567890"  # the original report's
OTHER = "1a2b3c4d5e6f78900000000000000000"
SHOWN = 16  # digits of a hash, enough to tell two apart


def pinned(tokens: int = 50_000) -> pd.DataFrame:
    """The languages whose hashes are pinned in the source, generated again, a row each."""
    rows = []
    for (seed, salt), wanted in PINNED.items():
        ids = Language(seed, salt).generate("train", tokens).ids
        digest = sha256(ids.astype("<i2").tobytes()).hexdigest()
        known = {"sha256": digest[:SHOWN], "as_pinned": digest == wanted}
        rows.append({"seed": seed, "salt": salt} | known)
    return pd.DataFrame(rows)


def saved(data, folder: Path) -> pd.DataFrame:
    """The corpus written into `folder` and read back: what was compared, and whether it is the
    same."""
    data.save(folder)
    back = Corpus.load(folder)
    rows = {
        "text": back.texts == data.texts and back.sha256 == data.sha256,
        "ids": all(np.array_equal(back.splits[s], data.splits[s]) for s in SPLITS),
        "provenance": back.meta == data.meta,
        "held-out text, encoded again": all(
            np.array_equal(encode(back.tokenizer, back.text(s)), back.splits[s]) for s in SPLITS[1:]
        ),
    }
    return pd.DataFrame({"what": list(rows), "same": list(rows.values())})


def prefix(seed, salt, fewer: int = 1_000, more: int = 4_000) -> tuple[int, int]:
    """(equal, compared): tokens of a short split of the language that a longer one begins with."""
    short, long = (Language(seed, salt).generate("train", n).ids for n in (fewer, more))
    return int((short == long[:fewer]).sum()), fewer


def controls() -> pd.DataFrame:
    """SHA-256 of the original report's kind of corpus: made, made again, saved and loaded, and made
    with another salt; whether it is that of the first, and whether it should be."""
    first = uniform_corpus(SEED, SALT)
    with TemporaryDirectory() as folder:
        first.save(Path(folder))
        kept = Corpus.load(Path(folder)).sha256
    digests = {
        "made": first.sha256,
        "made again": uniform_corpus(SEED, SALT).sha256,
        "saved and loaded": kept,
        "another salt": uniform_corpus(SEED, OTHER).sha256,
    }
    table = pd.DataFrame({"control": list(digests)})
    table["sha256"] = [digest[:SHOWN] for digest in digests.values()]
    table["same"] = [digest == first.sha256 for digest in digests.values()]
    return table.assign(wanted=table.control != "another salt")


def unexpected(controls: pd.DataFrame, name: str | None = None) -> int:
    """How many of `controls`, or of those called `name`, are not as they have to be."""
    wrong = controls.same != controls.wanted
    return int(wrong[controls.control == name].sum() if name else wrong.sum())
