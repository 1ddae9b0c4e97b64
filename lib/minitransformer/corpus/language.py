"""The synthetic language: a source whose entropy rate is known in closed form, token by token.

Each step draws a class, then a word of that class. The class follows a Markov chain that is a
mixture of four disjoint permutations, so every class is equally frequent and costs the same. The
word is a *rank* drawn from a fixed distribution, *rotated* by something found in the past. A
rotation never changes an entropy; what differs between classes is only where the rotation is to be
found, which is what a model has to learn:

    U free        nowhere: the rank is the word
    B bigram      the previous token
    S offset      the token `offset` places back (a position)
    R recency     the last token of a certain class (content, at no fixed distance)
    I induction   what it last put behind a token of the previous one's key (two hops)

The state is a function of the past (a unifilar source, Shannon 1948), so the entropy rate is the
plain average of the entropies of the drawn distributions and -log2 p of each token is exact. Every
probability is an integer over 2^16."""

import math
from dataclasses import dataclass

import numpy as np

from ..fields import whole
from .streams import Dice, Stream

MECHANISMS = ("free", "bigram", "offset", "recency", "induction")
LETTERS = "UBSRI"  # of the layout, in the order of MECHANISMS
SPECIALS = ("<pad>", "<unk>", "<bos>", "<eos>")
TOTAL = 1 << 16  # weights are integers out of this
CONSONANTS, VOWELS, ENDINGS = "bdfgjklmnprstvz", "aeiou", ("", "n", "r", "s", "l")


def entropy(weights) -> float:
    """Entropy in bits of integer weights out of 2^16."""
    return -math.fsum(w / TOTAL * math.log2(w / TOTAL) for w in weights)


def shared_out(head: tuple[int, ...], n: int) -> tuple[int, ...]:
    """n weights: `head` first, then what is left of 2^16 shared as evenly as integers allow."""
    count, rest = n - len(head), TOTAL - sum(head)
    return (*head, *(rest // count + (i < rest % count) for i in range(count)))


@dataclass(frozen=True)
class LanguageSpec:
    """The numbers of a language: weights are integers out of 2^16, `layout` has one letter of UBSRI
    for each class.

    values: how many different rotations a context can ask for; unit: by how much they differ; keys:
    how many keys an induction class tells apart; recall: each induction class remembers the "index"
    that followed a key, or all of them together only its "value"; free, sharp, stay: rank
    distributions of the free, of the bigram/offset/recency and of the induction classes. Raises
    ValueError naming the field, its value and the remedy."""

    classes: int
    words: int  # of each class
    layout: str
    free: tuple[int, ...]
    sharp: tuple[int, ...]
    stay: tuple[int, ...]
    values: int = 10
    keys: int = 4
    unit: int = 5
    recall: str = "index"
    offset: int = 3
    sources: int = 2  # classes that recency looks back to
    succession: tuple[int, ...] = (TOTAL // 2, TOTAL // 4, TOTAL // 8, TOTAL // 8)

    def __post_init__(self):
        if len(self.layout) != self.classes or set(self.layout) - set(LETTERS):
            raise ValueError(
                f"layout {self.layout!r} does not fit {self.classes} classes: give"
                f" one letter of {LETTERS} for each"
            )
        for name in ("free", "sharp", "stay", "succession"):
            weights = getattr(self, name)
            size = len(weights) if name == "succession" else self.words
            if len(weights) != size or sum(weights) != TOTAL or min(weights) < 1:
                raise ValueError(
                    f"{name} {weights} is not a distribution: give {size} positive integers that"
                    f" sum to {TOTAL}"
                )
        if self.vocab_size > 8192:
            raise ValueError(
                f"vocabulary of {self.vocab_size} is too large to spell: keep 4 + classes x words"
                " within 8192"
            )
        if self.recall not in ("index", "value"):
            raise ValueError(f"recall {self.recall!r} is unknown: choose index or value")
        limits = dict.fromkeys(("values", "keys", "unit"), self.words)
        limits |= {"sources": self.classes, "offset": 64}
        for name, limit in limits.items():
            if not 1 <= getattr(self, name) <= limit:
                raise ValueError(f"{name} {getattr(self, name)} is out of range: give 1 to {limit}")
        if len(self.succession) >= self.classes:
            raise ValueError(
                f"succession of {len(self.succession)} does not fit {self.classes} classes: give"
                " fewer weights"
            )

    @property
    def vocab_size(self) -> int:
        return len(SPECIALS) + self.classes * self.words

    def ranks(self, mechanism: str) -> tuple[int, ...]:
        """The rank distribution of one of MECHANISMS."""
        return {"free": self.free, "induction": self.stay}.get(mechanism, self.sharp)

    def share(self, mechanism: str) -> float:
        """The fraction of tokens that use one of MECHANISMS."""
        return self.layout.count(LETTERS[MECHANISMS.index(mechanism)]) / self.classes

    @property
    def entropy_bits(self) -> float:
        """The entropy rate in bits a token: the class, then the mean over classes of the rank's
        entropy."""
        of_rank = math.fsum(self.share(m) * entropy(self.ranks(m)) for m in MECHANISMS)
        return entropy(self.succession) + of_rank


def dyadic(*runs: tuple[int, int]) -> tuple[int, ...]:
    """Weights from runs of (how many, exponent): 2^-exponent each."""
    return tuple(TOTAL >> exponent for count, exponent in runs for _ in range(count))


SHARP_HEAD = (TOTAL // 2, TOTAL // 8, TOTAL // 8, TOTAL // 16, TOTAL // 16)
STAY_HEAD = (7 * TOTAL // 8,)

LARGE = LanguageSpec(
    classes=20, words=50, layout="UUUUBBBBSSSSRRRRIIII", values=5, keys=2, unit=11, recall="value",
    free=dyadic((2, 3), (4, 4), (8, 5), (4, 6), (16, 7), (16, 8)),
    sharp=shared_out(SHARP_HEAD, 50), stay=shared_out(STAY_HEAD, 50),
)  # fmt: skip
SMALL = LanguageSpec(
    classes=10, words=25, layout="UUBBSSRRII", values=5, keys=2, unit=6, recall="value",
    free=dyadic((2, 3), (4, 4), (13, 5), (6, 6)),
    sharp=shared_out(SHARP_HEAD, 25), stay=shared_out(STAY_HEAD, 25),
)  # fmt: skip
MINIMAL = LanguageSpec(  # one class for each mechanism: learnt in the fewest steps
    classes=5, words=25, layout="UBSRI", values=5, keys=2, unit=6, recall="value", sources=1,
    free=SMALL.free, sharp=SMALL.sharp, stay=SMALL.stay,
)  # fmt: skip

# SHA-256 of the first 50,000 training ids of LARGE (int16, little-endian), by (seed, salt): equal
# on every machine.
PINNED = {
    (42, "1a2b3c4d5e6f7890abcdef1234567890"):
        "b94ded566b664cd0b31b94a2eec38b2afc9cecb76e9ee1a34dbfb15cbc4aff35",
    (7, "00112233445566778899aabbccddeeff"):
        "94d19ae21ec422b3c063f21f7c5c957b2a44bc4d99a7a74e25172829150cb6f9",
    (2025, "feedfacecafebeef"): "ab6f05b748145ca8b4147985e10b3943d5a2afe42235fb8a5a60418e009b3e4c",
}  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """Generated tokens, and what an observer who knows the language would have expected of each."""

    ids: np.ndarray  # (n,) int16
    # (n,) float64: the oracle's log2 probability of each token given the whole past
    log2p: np.ndarray
    mechanism: np.ndarray  # (n,) int8: index into MECHANISMS


class Language:
    """The language that a seed (decimal) and a salt (hexadecimal, at least 16 digits) choose among
    those of a spec.

    `words[id]` spells each token; `class_of_id` and `index_of_id` (V,) tell its class and its index
    there (-1: special)."""

    def __init__(self, seed: int | str, salt: str, spec: LanguageSpec = LARGE):
        self.spec, self._stream = spec, Stream(seed, salt, "lang/v1")
        C, M, V = spec.classes, spec.words, spec.vocab_size
        dice = Dice(self._stream.draw("tables", 8192 + 4 * V + C * spec.values))
        rho, tau = dice.permutation(C), dice.permutation(C)
        steps = [1 + x for x in dice.permutation(C - 1)[: len(spec.succession)]]
        after = [[tau[(rho[c] + d) % C] for d in steps] for c in range(C)]
        self.successors = np.array(after)  # (C, 4)
        types = [LETTERS.index(x) for x in spec.layout]
        self.mechanism_of_class = np.array([types[i] for i in dice.permutation(C)], np.int8)
        ids = [len(SPECIALS) + i for i in dice.permutation(C * M)]
        self.id_of = np.array(ids, np.int16).reshape(C, M)
        turns = [[spec.unit * x for x in dice.permutation(spec.values)] for _ in range(C)]
        self.rotation = np.array(turns)
        sources = dice.permutation(C)[: spec.sources]
        # the class that recency looks back to
        self.source = np.array([sources[c % spec.sources] for c in range(C)])
        self.class_of_id, self.index_of_id = np.full(V, -1), np.full(V, -1)
        self.class_of_id[self.id_of] = np.arange(C)[:, None]
        self.index_of_id[self.id_of] = np.arange(M)
        self.words = [*SPECIALS, *spell(self._stream, C * M)]

    @property
    def entropy_bits(self) -> float:
        return self.spec.entropy_bits

    @property
    def entropy_nats(self) -> float:
        return self.entropy_bits * math.log(2)

    def generate(self, role: str, n: int) -> Sample:
        """The first n tokens of a role ("train", "valid", "test": independent streams); fewer
        tokens are a prefix of more."""
        spec, draws = self.spec, self._stream.draw(role, n)
        steps = np.repeat(np.arange(len(spec.succession)), spec.succession)  # (2^16,)
        step = steps[draws & np.uint64(0xFFFF)]
        state = int(self._stream.draw(role + "/start", 1)[0]) % spec.classes
        after, classes = self.successors.tolist(), []
        for k in step.tolist():
            state = after[state][k]
            classes.append(state)
        mechanism = self.mechanism_of_class[np.array(classes, int)]
        ranks = [np.repeat(np.arange(spec.words), spec.ranks(m)) for m in MECHANISMS]
        # of (5, 2^16)
        rank = np.stack(ranks)[mechanism, draws >> np.uint64(16) & np.uint64(0xFFFF)]
        log2 = np.array([[math.log2(w / TOTAL) for w in spec.ranks(m)] for m in MECHANISMS])
        of_class = np.array([math.log2(w / TOTAL) for w in spec.succession])
        log2p = of_class[step] + log2[mechanism, rank]
        index = self._rotate(classes, mechanism.tolist(), rank.tolist())
        return Sample(self.id_of[np.array(classes, int), np.array(index, int)], log2p, mechanism)

    def _rotate(self, classes: list[int], mechanism: list[int], rank: list[int]) -> list[int]:
        """Ranks to indices: the one loop that has to look back. Everything unseen counts as index
        0."""
        spec, rotation, source = self.spec, self.rotation.tolist(), self.source.tolist()
        words, values, keys, offset = spec.words, spec.values, spec.keys, spec.offset
        own, kept, factor = (1, words, 1) if spec.recall == "index" else (0, values, spec.unit)
        register = [[0] * keys for _ in range(spec.classes)]
        last, out = [0] * spec.classes, [0] * offset  # offset zeros stand before the first token
        for c, kind, w in zip(classes, mechanism, rank, strict=False):
            if kind == 1:
                w = (w + rotation[c][out[-1] % values]) % words
            elif kind == 2:
                w = (w + rotation[c][out[-offset] % values]) % words
            elif kind == 3:
                w = (w + rotation[c][last[source[c]] % values]) % words
            elif kind == 4:
                memory, key = register[c * own], out[-1] % keys
                w = (factor * memory[key] + w) % words
                memory[key] = w % kept
            out.append(w)
            last[c] = w
        return out[offset:]


def spell(stream: Stream, n: int) -> list[str]:
    """n distinct pronounceable words: consonant, vowel, consonant, vowel and sometimes one more
    consonant."""
    syllables = len(CONSONANTS) * len(VOWELS)
    # a dictionary keeps the order and drops repeats
    dice, words = Dice(stream.draw("words", 16 * n + 64)), {}
    while len(words) < n:
        ending, pair = divmod(dice.below(syllables**2 * len(ENDINGS)), syllables**2)
        letters = [divmod(syllable, len(VOWELS)) for syllable in divmod(pair, syllables)]
        word = "".join(CONSONANTS[c] + VOWELS[v] for c, v in letters)
        words[word + ENDINGS[ending]] = None
    return list(words)


def uniform_words(seed: int | str, salt: str, n: int, vocab_size: int = 1004) -> np.ndarray:
    """The control: n independent, uniform words, ids 4..vocab_size-1, int16 (n,). Its floor is the
    number of words."""
    count = whole("vocab_size", vocab_size, len(SPECIALS) + 1, 8192) - len(SPECIALS)
    # 64 bits modulo the count: no word is more likely than another by more than 1 in 10^16.
    drawn = Stream(seed, salt, "uniform/v1").draw("words", n) % np.uint64(count)
    return (len(SPECIALS) + drawn).astype(np.int16)
