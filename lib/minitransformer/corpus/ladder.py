"""What each piece of knowledge about a language is worth, in closed form: the rungs between uniform
and the floor."""

import math

import numpy as np

from .language import MECHANISMS, Language, entropy


def bits(p: np.ndarray) -> np.ndarray:
    """Entropy in bits of distributions along the last axis."""
    return -np.sum(p * np.log2(np.where(p > 0, p, 1)), axis=-1)


def marginals(language: Language, rounds: int = 200) -> np.ndarray:
    """The stationary distribution of the index in each class, (classes, words): what remains when
    the past is hidden.

    Its fixed point: rotate the class's rank distribution by what the token it looks back to is, in
    turn, likely to be."""
    spec = language.spec
    C, M = spec.classes, spec.words
    forward = np.zeros((C, C))
    np.add.at(
        forward,
        (np.arange(C)[:, None], language.successors),
        np.array(spec.succession) / sum(spec.succession),
    )
    back = {
        1: forward.T,
        2: np.linalg.matrix_power(forward.T, spec.offset),
        3: np.eye(C)[language.source],
    }
    shifted = (
        np.arange(M) - language.rotation[:, :, None]
    ) % M  # (C, values, M): the rank behind each index
    p = np.full(
        (C, M), 1 / M
    )  # induction's register walks uniformly: over the class, or over the values
    recalled = (np.arange(M) - spec.unit * np.arange(spec.values)[:, None]) % M  # (values, M)
    for _ in range(rounds):
        before = p.copy()
        value = np.stack(
            [p[:, v :: spec.values].sum(1) for v in range(spec.values)], axis=1
        )  # (C, values)
        for c, kind in enumerate(language.mechanism_of_class.tolist()):
            q = np.array(spec.ranks(MECHANISMS[kind])) / sum(spec.free)
            if kind in back:
                p[c] = (back[kind][c] @ value) @ q[shifted[c]]
            elif kind == 0:
                p[c] = q
            elif spec.recall == "value":
                p[c] = q[recalled].mean(0)
        if np.array_equal(p, before):
            break
    return p


def hidden_bits(language: Language) -> dict[str, float]:
    """For each mechanism the mean entropy in bits of its word, class known, when what it looks back
    to is hidden."""
    h = bits(marginals(language))
    return {
        m: float(h[language.mechanism_of_class == i].mean())
        for i, m in enumerate(MECHANISMS)
        if language.spec.share(m)
    }


def ladder(language: Language) -> dict[str, float]:
    """Bits a token of ideal predictors with less and less left to learn: each knows everything
    above it and one thing more.

    The rungs: the vocabulary, the word frequencies, the class, then bigram, offset, recency and
    induction (the floor)."""
    spec, hidden = language.spec, hidden_bits(language)
    mean = math.fsum(spec.share(m) * h for m, h in hidden.items())
    rungs = {"uniform": math.log2(spec.vocab_size), "unigram": math.log2(spec.classes) + mean}
    rungs["class"] = level = entropy(spec.succession) + mean
    for m in (m for m in MECHANISMS[1:] if m in hidden):
        level -= spec.share(m) * (hidden[m] - entropy(spec.ranks(m)))
        rungs[m] = level
    return rungs


def without(language: Language, mechanism: str) -> float:
    """Bits a token of the ideal predictor to which one mechanism is hidden and everything else is
    known."""
    gain = hidden_bits(language)[mechanism] - entropy(language.spec.ranks(mechanism))
    return language.entropy_bits + language.spec.share(mechanism) * gain


def window_bits(language: Language, window: int) -> float:
    """Bits a token of the ideal predictor that sees only its own window: context before the
    window's start is hidden.

    A token finds what it looks back to with probability 1 - (1 - 1/g)^t at place t, g the mean gap:
    the number of classes for recency, classes x keys / classes that share a memory for induction;
    the bigram and the offset reach back a fixed distance."""
    spec, hidden, total = language.spec, hidden_bits(language), language.entropy_bits
    remembering = (
        1 if spec.recall == "index" else spec.layout.count("I")
    )  # classes that write into one memory
    gap = {"recency": spec.classes, "induction": spec.classes * spec.keys / max(remembering, 1)}
    for m in hidden:
        if m in gap:
            seen = 1 - gap[m] / window * (1 - (1 - 1 / gap[m]) ** window)
        else:
            seen = max(0.0, 1 - {"free": 0, "bigram": 1, "offset": spec.offset}[m] / window)
        total += (1 - seen) * spec.share(m) * (hidden[m] - entropy(spec.ranks(m)))
    return total
