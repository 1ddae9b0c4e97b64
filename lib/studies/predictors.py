"""How well could anything predict this text?"""

import math

import numpy as np
import pandas as pd

from minitransformer.corpus import MECHANISMS, entropy, ladder, window_bits, without
from minitransformer.evaluate import KneserNey, block_bootstrap, block_stderr, count_grams

from .corpus_facts import unit
from .frequencies import bits

WINDOWS = (64, 256)  # tokens: what the original report's model and this one were trained with
ANSWERS = {  # by the kind of corpus, over `summary` and the corpus's `name`
    "language": "A source of {types:,} invented words, the same on every machine: a uniform guess "
    "scores {uniform:,}, frequencies alone {frequencies:.1f}, and nothing can predict it better "
    "than **{floor:.2f}**.",
    "text": "*{name}*: {tokens:,} {unit}s, {types:,} different ones. A uniform guess over them "
    "scores {uniform:,}, frequencies alone **{frequencies:.1f}**; what context can save beyond "
    "that, nobody knows in advance.",
}


def ideal(data) -> pd.DataFrame:
    """Predictors that know one thing more, from the hardest guess down: bits a token, perplexity,
    and an interval where it was measured.

    Of the language all are ideal and in closed form (windows nearly) but the oracle: it is, like
    the counts of a text, of which nobody knows them, measured on the test split."""
    table = of_language(data) if data.kind == "language" else of_text(data)
    return table.sort_values("bits", ascending=False, kind="stable", ignore_index=True)


def of_language(data) -> pd.DataFrame:
    language = data.language
    rungs = ladder(language)
    names = {
        "uniform": "uniform guess",
        "unigram": "word frequencies",
        "class": "the class, no mechanism",
        "bigram": "all that the previous word tells",
    }
    known = {name: rungs[rung] for rung, name in names.items() if rung in rungs}
    own = [m for m in MECHANISMS[1:] if language.spec.share(m)]
    known |= {f"everything but {m}": without(language, m) for m in own}
    known |= {f"everything, 1 to {w} words seen": window_bits(language, w) for w in WINDOWS}
    rows = [(name, value, np.nan, np.nan) for name, value in known.items()]
    rows.append(("the oracle, on the test split", *measured(-data.oracle["test"])))
    return frame(rows)


def of_text(data) -> pd.DataFrame:
    train, test = data.splits["train"], data.splits["test"]
    levels = count_grams(train, min(3, len(train)), data.vocab_size)
    names = ["frequencies", "the previous token, counted", "the two previous tokens, counted"]
    rows = [("uniform guess", math.log2(data.types), np.nan, np.nan)]
    for order, name in enumerate(names[: len(levels)], start=1):
        gram = KneserNey(train, order, data.vocab_size, levels)
        rows.append((name, *measured(-gram.log_probs(test))))
    return frame(rows)


def measured(nats: np.ndarray) -> tuple[float, float, float]:
    """Mean of losses in bits, with its block-bootstrap interval."""
    return tuple(x / math.log(2) for x in (nats.mean(), *block_bootstrap(nats)))


def frame(rows) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["predictor", "bits", "low", "high"])
    table.insert(2, "perplexity", 2**table.bits)
    return table.assign(low=2**table.low, high=2**table.high)


def summary(data) -> dict:
    """What the chapter's sentences say: what a token is, how many there are and how many different
    ones; perplexities of a uniform guess over those that occur, of frequencies, and the floor (NaN
    where nobody knows it); the bits that frequencies leave. Of the language frequencies are, like
    the floor, in closed form, of a text as training counts them."""
    counted, floor = bits(data.splits["train"]), data.floor_nats
    left = ladder(data.language).get("unigram", counted) if data.kind == "language" else counted
    return {
        "unit": unit(data),
        "tokens": sum(map(len, data.splits.values())),
        "types": data.types,
        "uniform": data.vocab_size if data.kind == "language" else data.types,
        "frequency_bits": left,
        "frequencies": 2**left,
        "floor": math.nan if floor is None else math.exp(floor),
    }


def limits(data) -> list[tuple[float, str]]:
    """The perplexity below which nothing can come, by its name; [] where nobody knows it."""
    return [] if data.floor_nats is None else [(math.exp(data.floor_nats), "floor")]


def off_closed_form(data) -> pd.DataFrame:
    """The oracle's mean loss on the test split against the closed form, in all and by mechanism:
    bits, and standard errors between the two, to two decimals. ValueError where there is none."""
    language, spec = data.language, data.language.spec
    losses, kinds = -data.oracle["test"] / math.log(2), data.mechanism["test"]
    rows = [("all", losses.mean(), language.entropy_bits, block_stderr(losses))]
    for i, m in enumerate(MECHANISMS):
        own = losses[kinds == i]
        if len(own) > 1:
            known = entropy(spec.succession) + entropy(spec.ranks(m))
            rows.append((m, own.mean(), known, own.std(ddof=1) / math.sqrt(len(own))))
    table = pd.DataFrame(rows, columns=["mechanism", "measured_bits", "known_bits", "stderr_bits"])
    off = (table.measured_bits - table.known_bits).abs() / table.stderr_bits
    return table.assign(standard_errors=off.round(2))


def farthest(off: pd.DataFrame) -> tuple[str, float]:
    """The mechanism that lies farthest from its closed form, and by how many standard errors."""
    alone = off[off.mechanism != "all"].set_index("mechanism").standard_errors
    return alone.idxmax(), alone.max()
