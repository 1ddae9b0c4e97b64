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
    weights = np.array(spec.succession) / sum(spec.succession)
    np.add.at(forward, (np.arange(C)[:, None], language.successors), weights)
    further = np.linalg.matrix_power(forward.T, spec.offset)
    back = {1: forward.T, 2: further, 3: np.eye(C)[language.source]}
    # the rank behind each index, (C, values, M)
    shifted = (np.arange(M) - language.rotation[:, :, None]) % M
    # induction's register walks uniformly: over the class, or over the values
    p = np.full((C, M), 1 / M)
    recalled = (np.arange(M) - spec.unit * np.arange(spec.values)[:, None]) % M  # (values, M)
    for _ in range(rounds):
        before = p.copy()
        # (C, values)
        value = np.stack([p[:, v :: spec.values].sum(1) for v in range(spec.values)], axis=1)
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
    h, kinds = bits(marginals(language)), language.mechanism_of_class
    used = [(i, m) for i, m in enumerate(MECHANISMS) if language.spec.share(m)]
    return {m: float(h[kinds == i].mean()) for i, m in used}


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


def bits_after(language: Language, seen) -> np.ndarray:
    """Bits a token of the ideal predictor that sees only the last `seen` tokens, 1 or more (or so
    many each).

    The bigram and the offset reach back a fixed distance. For recency and induction it is nearly
    right: they find what they look back to with probability 1 - (1 - 1/g)^seen, as if every step
    were as likely to hold it, g the mean gap: the number of classes for recency, classes x keys /
    classes that share a memory for induction."""
    spec, hidden, total = language.spec, hidden_bits(language), language.entropy_bits
    # classes that write into one memory
    remembering = 1 if spec.recall == "index" else spec.layout.count("I")
    reach = {"free": 0, "bigram": 1, "offset": spec.offset}
    gap = {"recency": spec.classes, "induction": spec.classes * spec.keys / max(remembering, 1)}
    for m in hidden:
        lost = (1 - 1 / gap[m]) ** np.asarray(seen) if m in gap else np.less(seen, reach[m])
        total = total + lost * spec.share(m) * (hidden[m] - entropy(spec.ranks(m)))
    return total


def window_bits(language: Language, window: int) -> float:
    """Bits a token of the ideal predictor that sees only its own window: as in training and in
    scores, the first token that it predicts has one before it, the last the whole window."""
    return float(bits_after(language, np.arange(1, window + 1)).mean())
