"""The synthetic language: pinned tokens, its closed-form entropy, its oracle, its ladder."""

import hashlib
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitransformer.corpus import (
    LARGE,
    MECHANISMS,
    MINIMAL,
    PINNED,
    SMALL,
    Language,
    LanguageSpec,
    bits_after,
    entropy,
    hidden_bits,
    ladder,
    marginals,
    streams,
    uniform_words,
    window_bits,
    without,
)
from minitransformer.corpus.language import TOTAL, dyadic, shared_out
from minitransformer.corpus.streams import Dice, Stream, check_salt, check_seed, draw

SEED, SALT = 42, "1a2b3c4d5e6f7890abcdef1234567890"
SHARP = shared_out((TOTAL // 2, TOTAL // 8, TOTAL // 8, TOTAL // 16, TOTAL // 16), 50)
# The first version of the language. Its numbers are pinned here so that they survive a retuning of
# LARGE.
PROTOTYPE = LanguageSpec(
    classes=20, words=50, layout="UUUUUBBBBSSSSRRRRIII", values=10, keys=4, offset=3, sharp=SHARP,
    free=dyadic((2, 3), (4, 4), (8, 5), (4, 6), (16, 7), (16, 8)),
    stay=shared_out((3 * TOTAL // 4,), 50),
)  # fmt: skip
TINY = LanguageSpec(
    classes=6, words=8, layout="UBSRIU", values=4, keys=2, offset=3, free=dyadic((8, 3)),
    sharp=shared_out((TOTAL // 2,), 8), stay=shared_out((TOTAL // 2,), 8),
)  # fmt: skip


def sha(ids) -> str:
    return hashlib.sha256(ids.astype("<i2").tobytes()).hexdigest()


@pytest.fixture(scope="module")
def prototype():
    return Language(SEED, SALT, PROTOTYPE)


@pytest.fixture(scope="module")
def sample(prototype):
    return prototype.generate("train", 200_000)


def test_the_prototype_gives_its_pinned_tokens(sample):
    assert sample.ids[:8].tolist() == [569, 270, 916, 130, 721, 178, 484, 137]
    assert (
        sha(sample.ids[:50_000])
        == "85e88c03b6f2e7ff19992eda90d822553884b3de253fac26369c2188a489c214"
    )
    assert (
        sample.ids.dtype == np.int16
        and sample.log2p.dtype == np.float64
        and sample.mechanism.dtype == np.int8
    )


def test_two_more_seeds_and_salts_are_pinned():
    ids = Language("7", "00112233445566778899aabbccddeeff", PROTOTYPE).generate("train", 50_000).ids
    assert sha(ids) == "d63e326df69e9ed1150ef09db397c7a208fda5d3cff6cd087eb4a40c9c712857"
    ids = Language(2025, "FEEDFACECAFEBEEF", PROTOTYPE).generate("test", 50_000).ids
    assert sha(ids) == "935841af508bbd3497e8554f5edc5bcf12cdcfcc34d5d7fa329786663c708cb5"


@pytest.mark.parametrize("seed, salt", PINNED)
def test_the_language_of_the_report_gives_its_pinned_hashes(seed, salt):
    assert sha(Language(seed, salt).generate("train", 50_000).ids) == PINNED[seed, salt]


def test_another_key_than_hexadecimal_gives_the_numbers_of_the_derivation(monkeypatch):
    monkeypatch.setattr(streams, "check_salt", lambda salt: salt)
    language = Language(42, "salt", PROTOTYPE)
    ids = language.generate("train", 50_000).ids
    assert ids[:8].tolist() == [372, 510, 12, 397, 244, 387, 852, 407]
    assert sha(ids) == "a5bfb4c498086d160ae25cda441f97907d8380eb54b7d731930b955de0685029"
    assert language.entropy_bits == pytest.approx(4.956632194617351, abs=1e-12)


def test_the_entropy_does_not_depend_on_seed_and_salt(prototype):
    other = Language(1, "f" * 16, PROTOTYPE)
    assert other.entropy_bits == prototype.entropy_bits
    assert prototype.entropy_nats == pytest.approx(3.43568, abs=1e-5)
    assert other.generate("train", 8).ids.tolist() != prototype.generate("train", 8).ids.tolist()


def test_upper_case_and_text_seeds_are_the_same_language():
    a, b = Language("042", SALT.upper(), TINY), Language(42, SALT, TINY)
    assert a.generate("train", 50).ids.tolist() == b.generate("train", 50).ids.tolist()


@pytest.mark.parametrize(
    "spec",
    [LARGE, SMALL, MINIMAL, PROTOTYPE, TINY],
    ids=["large", "small", "minimal", "prototype", "tiny"],
)
def test_the_oracle_meets_the_closed_form(spec):
    language = Language(SEED, SALT, spec)
    log2p = language.generate("test", 100_000).log2p
    # Neighbouring tokens are nearly uncorrelated, so the plain standard error is close enough.
    assert abs(-log2p.mean() - language.entropy_bits) < 4 * log2p.std() / math.sqrt(len(log2p))


def test_the_oracle_knows_each_mechanism_apart(prototype, sample):
    for i, m in enumerate(MECHANISMS):
        own = -sample.log2p[sample.mechanism == i]
        expected = 1.75 + sum(-w / TOTAL * math.log2(w / TOTAL) for w in PROTOTYPE.ranks(m))
        assert abs(own.mean() - expected) < 4 * own.std() / math.sqrt(len(own))
        assert len(own) / len(sample.ids) == pytest.approx(PROTOTYPE.share(m), abs=0.01)


def test_the_oracle_is_the_probability_of_an_independent_reading(prototype, sample):
    """Reads the tokens back word by word, by the definition, and gets the same probabilities."""
    spec, ids, n = prototype.spec, sample.ids.tolist(), 3000
    last, register, past, before = [0] * 20, {}, [0, 0, 0], 0
    for t in range(n):
        c, w = int(prototype.class_of_id[ids[t]]), int(prototype.index_of_id[ids[t]])
        m = MECHANISMS[prototype.mechanism_of_class[c]]
        look = dict(bigram=past[-1], offset=past[-3], recency=last[prototype.source[c]])
        if m == "induction":
            shift, register[c, past[-1] % 4] = register.get((c, past[-1] % 4), 0), w
        else:
            shift = int(prototype.rotation[c][look[m] % 10]) if m in look else 0
        p = spec.ranks(m)[(w - shift) % 50] / TOTAL
        if t:
            p *= spec.succession[prototype.successors[before].tolist().index(c)] / TOTAL
            assert math.log2(p) == pytest.approx(sample.log2p[t], abs=1e-12)
        before, last[c], past = c, w, [*past[1:], w]


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(0, 400), st.integers(0, 400))
def test_fewer_tokens_are_a_prefix_of_more(a, b):
    language = LANGUAGE_TINY
    short, long = language.generate("valid", min(a, b)), language.generate("valid", max(a, b))
    for field in ("ids", "log2p", "mechanism"):
        assert np.array_equal(getattr(short, field), getattr(long, field)[: min(a, b)])


LANGUAGE_TINY = Language(SEED, SALT, TINY)


def test_roles_are_different_streams(prototype):
    streams_ = [prototype.generate(role, 100).ids.tolist() for role in ("train", "valid", "test")]
    assert all(a != b for a, b in itertools.combinations(streams_, 2))


def test_no_tokens_is_no_error(prototype):
    assert len(prototype.generate("train", 0).ids) == 0


@pytest.mark.parametrize("spec", [LARGE, SMALL, MINIMAL])
def test_words_are_distinct_pronounceable_and_specials_come_first(spec):
    words = Language(SEED, SALT, spec).words
    assert (
        words[:4] == ["<pad>", "<unk>", "<bos>", "<eos>"]
        and len(set(words)) == len(words) == spec.vocab_size
    )
    for word in words[4:]:
        assert (
            word.isalpha()
            and all((x in "aeiou") == (i % 2 == 1) for i, x in enumerate(word))
            and 4 <= len(word) <= 5
        )


def test_ids_and_class_tables_are_inverse(prototype):
    c, i = prototype.class_of_id[4:], prototype.index_of_id[4:]
    assert (
        np.array_equal(prototype.id_of[c, i], np.arange(4, 1004))
        and (prototype.class_of_id[:4] == -1).all()
    )
    assert (
        sorted(prototype.mechanism_of_class.tolist())
        == [0] * 5 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 3
    )


def test_presets_have_the_promised_sizes():
    assert [spec.vocab_size for spec in (LARGE, SMALL, MINIMAL)] == [1004, 254, 129]
    assert {MINIMAL.share(m) for m in MECHANISMS} == {0.2}


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(layout="UUU"), "layout 'UUU' does not fit 20 classes"),
        (dict(layout="X" * 20), "layout"),
        (dict(sharp=(TOTAL,)), "sharp"),
        (dict(free=(TOTAL - 49, *[1] * 48, 2)), "free"),
        (dict(stay=(TOTAL - 48, 0, *[1] * 48)), "stay"),
        (dict(values=51), "values 51 is out of range: give 1 to 50"),
        (dict(offset=0), "offset 0"),
        (dict(classes=4, layout="UBSR"), "succession of 4 does not fit 4 classes"),
        (dict(classes=200, layout="U" * 200), "too large to spell"),
    ],
)
def test_a_wrong_spec_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        replace(PROTOTYPE, **change)


@pytest.mark.parametrize(
    "salt, message", [("xyz", "not hexadecimal"), ("", "not hexadecimal"), ("12ab", "has 4 hexa")]
)
def test_a_wrong_salt_is_named(salt, message):
    with pytest.raises(ValueError, match=message):
        check_salt(salt)


@pytest.mark.parametrize("seed", ["0x2a", "-1", "", 1.5, True, "४२"])
def test_a_seed_is_decimal(seed):
    with pytest.raises(ValueError, match="is not a decimal number"):
        check_seed(seed)


# --- the ladder


def test_marginals_are_those_of_a_long_sample(prototype):
    ids = prototype.generate("train", 600_000).ids
    counts = np.zeros((20, 50))
    np.add.at(counts, (prototype.class_of_id[ids], prototype.index_of_id[ids]), 1)
    expected = marginals(prototype)
    assert np.allclose(expected.sum(1), 1)
    induction = (
        prototype.mechanism_of_class == 4
    )  # its words stay for long, so they are counted less exactly
    difference = np.abs(counts / counts.sum(1, keepdims=True) - expected)
    assert difference[~induction].max() < 0.008 and difference[induction].max() < 0.02


def test_the_ladder_descends_from_uniform_to_the_floor(prototype):
    rungs = ladder(prototype)
    assert list(rungs) == [
        "uniform",
        "unigram",
        "class",
        "bigram",
        "offset",
        "recency",
        "induction",
    ]
    levels = list(rungs.values())
    assert all(a > b for a, b in itertools.pairwise(levels)) and 2 ** levels[0] == pytest.approx(
        1004
    )
    assert levels[-1] == pytest.approx(prototype.entropy_bits, abs=1e-12)
    assert (
        2 ** without(prototype, "induction")
        == pytest.approx(2 ** rungs["recency"])
        == pytest.approx(44.36, abs=0.1)
    )


def test_a_language_without_a_mechanism_has_no_rung_of_it():
    language = Language(SEED, SALT, replace(TINY, layout="UUUBBI"))
    assert list(ladder(language)) == ["uniform", "unigram", "class", "bigram", "induction"]


def test_a_window_hides_context_and_a_long_one_hides_nothing(prototype):
    windows = [window_bits(prototype, w) for w in (1, 64, 256, 10**6)]
    assert all(a > b for a, b in itertools.pairwise(windows)) and windows[-1] == pytest.approx(
        prototype.entropy_bits, abs=1e-3
    )
    assert windows[1] == pytest.approx(bits_after(prototype, [*range(1, 65)]).mean())
    # A window of one token predicts with that one before it: the bigram is known, the offset not.
    hidden = hidden_bits(prototype)
    first, known = bits_after(prototype, 1), prototype.entropy_bits
    gaps = {"bigram": 1, "offset": 0, "recency": 1 / 20, "induction": 1 / 80}
    lost = sum(
        (1 - found) * PROTOTYPE.share(m) * (hidden[m] - entropy(PROTOTYPE.ranks(m)))
        for m, found in gaps.items()
    )
    assert windows[0] == first == pytest.approx(known + lost)


def test_what_a_window_hides_is_nearly_what_a_generated_text_shows():
    """Counted in windows of 64 words, each read after one more: how often what a word looks back
    to lies before the window."""
    source, w = Language(SEED, SALT, LARGE), 64
    made = source.generate("test", 40_000)
    ids, hidden = np.asarray(made.ids, int), hidden_bits(source)
    classes, keys = source.class_of_id[ids], source.index_of_id[ids] % LARGE.keys
    lost, starts = 0.0, range(0, len(ids) - w, w)
    for start, place in itertools.product(starts, range(1, w + 1)):
        i = start + place
        m = MECHANISMS[made.mechanism[i]]
        if m == "offset":
            seen = place >= LARGE.offset
        elif m == "recency":
            seen = source.source[classes[i]] in classes[start:i]
        elif m == "induction":
            wrote = made.mechanism[start + 1 : i] == MECHANISMS.index("induction")
            seen = keys[i - 1] in keys[start : i - 1][wrote]
        else:
            continue
        lost += (not seen) * (hidden[m] - entropy(LARGE.ranks(m)))
    counted = source.entropy_bits + lost / (len(starts) * w)
    assert window_bits(source, w) == pytest.approx(counted, abs=0.02)


# --- streams and the control


def test_a_stream_is_shake_256_of_key_and_role():
    key = Stream(SEED, SALT, "p").key
    expected = hashlib.shake_256(key + b"|train").digest(24)
    assert Stream(SEED, SALT, "p").draw("train", 3).tobytes() == expected
    assert draw(b"x", 5)[:2].tolist() == draw(b"x", 2).tolist()


def test_dice_reject_what_would_bias_them():
    limit = 2**64 - 2**64 % 6
    dice = Dice(np.array([limit, 7, 2**64 - 1, 11], np.uint64))
    assert (dice.below(6), dice.below(6)) == (1, 5)
    with pytest.raises(IndexError):
        dice.below(6)
    assert sorted(Dice(draw(b"p", 20)).permutation(9)) == list(range(9))


def test_the_control_is_uniform_and_pinned():
    ids = uniform_words(SEED, SALT, 50_000)
    assert (ids.min(), ids.max(), len(np.unique(ids))) == (4, 1003, 1000)
    counts = np.bincount(ids)[4:]
    chi2 = ((counts - 50) ** 2 / 50).sum()
    assert abs(chi2 - 999) < 5 * math.sqrt(2 * 999)
    assert sha(ids) == "bdb8b8a9d1d6436980103271e2f9a019b70b10d7e0288dd6921e3033e03daa4b"
    assert np.array_equal(uniform_words(SEED, SALT, 100), ids[:100])


@pytest.mark.parametrize("size", [4, -1, 40_000, "12"])
def test_a_vocabulary_that_cannot_be_drawn_is_refused(size):
    with pytest.raises(ValueError, match=f"^vocab_size '?{size}'? is not .*: give 5 to 8192$"):
        uniform_words(SEED, SALT, 100, size)
