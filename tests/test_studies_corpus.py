"""The experiments of the corpus chapter, at tiny size: known answers, and what must always hold."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitransformer.corpus import (
    LARGE,
    MECHANISMS,
    SMALL,
    ladder,
    language_corpus,
    text_corpus,
    train_bpe,
    train_characters,
    uniform_corpus,
    window_bits,
)
from studies import (
    control,
    corpus_facts,
    frequencies,
    passages,
    predictors,
    reproducible,
    structure,
    tokenizers,
)

SALT = "00112233445566778899aabbccddeeff"
SPANISH = (
    "En un lugar de la Mancha, de cuyo nombre no quiero acordarme, no ha mucho tiempo que vivía un "
    "hidalgo de los de lanza en astillero, adarga antigua, rocín flaco y galgo corredor; 1605.\n"
)


@pytest.fixture(scope="module")
def language():
    return language_corpus(7, SALT, SMALL, 4000, 400, 3000)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "quijote.txt"
    path.write_text(SPANISH * 40, encoding="utf-8")
    return {kind: text_corpus(path, kind) for kind in ("word", "character", "bpe")}


def test_a_token_is_called_what_it_is(language, texts):
    assert corpus_facts.unit(language) == "word"
    units = {kind: corpus_facts.unit(text) for kind, text in texts.items()}
    assert units == {"word": "word", "character": "character", "bpe": "token"}


def test_the_origin_names_seed_or_file_and_the_hash_of_the_text(language, texts):
    known = corpus_facts.origin(language).set_index("what").value
    assert known["salt"] == SALT and known["SHA-256 of the text"] == language.sha256
    own = corpus_facts.origin(texts["word"]).set_index("what").value
    assert len(own["SHA-256 of quijote.txt"]) == 64 and own["tokenizer"] == "word"
    assert "seed" not in own and set(map(type, own)) == {str}


def test_a_corpus_is_told_in_a_line(language, texts):
    told = corpus_facts.in_words(language)
    assert told.startswith("language: 4,000 train, 400 valid, 3,000 test words; ")
    assert f"{SMALL.vocab_size:,}, of which {language.types:,} occur" in told
    assert "tokens; a vocabulary of" in corpus_facts.in_words(texts["bpe"])


def test_splits_are_counted_and_begin_as_they_begin(language):
    table = corpus_facts.splits(language).set_index("split")
    assert table["words"].tolist() == [4000, 400, 3000]
    assert table.share_percent.sum() == pytest.approx(100)
    assert table.bytes["valid"] == len(language.text("valid").encode())
    begins = corpus_facts.beginnings(language, 30).set_index("split")["how it begins"]
    assert language.text("test").startswith(begins["test"].removesuffix(" …"))


def test_a_download_is_shown_file_by_file():
    made = []

    def progress(total, name):
        made.append(SimpleNamespace(total=total, n=0, name=name))
        made[-1].update = lambda more, bar=made[-1]: setattr(bar, "n", bar.n + more)
        return made[-1]

    told = corpus_facts.download(progress)
    for file, done, total in (("a", 3, 10), ("a", 10, 12), ("b", 4, 4)):
        told(file, done, total)
    assert [(bar.name, bar.n, bar.total) for bar in made] == [("a", 10, 12), ("b", 4, 4)]


def test_pinned_languages_are_made_again_and_another_is_told_apart(monkeypatch):
    assert reproducible.pinned().as_pinned.all()
    key = next(iter(reproducible.PINNED))
    monkeypatch.setitem(reproducible.PINNED, key, "0" * 64)
    assert reproducible.pinned().as_pinned.tolist() == [False, True, True]


def test_what_is_saved_comes_back_and_a_loss_is_seen(language, texts, tmp_path, monkeypatch):
    for data in (language, *texts.values()):
        assert reproducible.saved(data, tmp_path / data.meta["tokenizer"]).same.all()
    monkeypatch.setattr(reproducible, "encode", lambda tokenizer, text: np.zeros(3))
    table = reproducible.saved(language, tmp_path / "broken").set_index("what").same
    assert table["text"] and not table["held-out text, encoded again"]


@pytest.mark.parametrize(
    "lost, change",
    [
        ("text", {"texts": {"train": "", "valid": "", "test": ""}}),
        ("ids", {"splits": {s: np.zeros(3, np.int32) for s in ("train", "valid", "test")}}),
        ("provenance", {"meta": {}}),
    ],
)
def test_each_part_that_does_not_come_back_is_named(language, tmp_path, monkeypatch, lost, change):
    changed = SimpleNamespace(load=lambda folder: replace(language, **change))
    monkeypatch.setattr(reproducible, "Corpus", changed)
    same = reproducible.saved(language, tmp_path).set_index("what").same
    assert not same[lost] and same.drop([lost, "held-out text, encoded again"]).all()


def test_a_split_begins_as_a_shorter_one_and_the_control_has_one_hash_a_salt():
    assert reproducible.prefix(7, SALT, 50, 90) == (50, 50)
    made = reproducible.controls().set_index("control")
    assert (made.same == made.wanted).all() and not made.same["another salt"]
    assert made.sha256.nunique() == 2 and set(made.sha256.str.len()) == {reproducible.SHOWN}
    assert reproducible.unexpected(made.reset_index()) == 0


def test_a_hash_that_is_not_as_it_has_to_be_is_counted():
    made = pd.DataFrame({"control": ["made", "saved and loaded", "another salt"]})
    made["same"], made["wanted"] = [True, False, True], [True, True, False]
    assert reproducible.unexpected(made) == 2
    assert reproducible.unexpected(made, "saved and loaded") == 1
    assert reproducible.unexpected(made, "made") == 0


def test_mechanisms_are_worth_what_lies_between_class_and_floor(language):
    table = structure.parts(language)
    rungs = ladder(language.language)
    assert table.worth_bits.sum() == pytest.approx(rungs["class"] - language.language.entropy_bits)
    assert table.share_percent.sum() == pytest.approx(100) and list(table.mechanism) == [
        *MECHANISMS
    ]
    assert table.worth_bits[0] == pytest.approx(0)


def test_characters_are_told_by_kind(texts):
    table = structure.characters("aé हि7 !+\n").set_index("kind")
    assert table.share_percent.sum() == pytest.approx(100)
    assert table.different.to_dict() == {
        "letters": 3, "white space": 2, "marks on letters": 1, "digits": 1, "punctuation": 1,
        "other": 1,
    }  # fmt: skip
    assert structure.parts(texts["word"]).set_index("kind").share_percent["letters"] > 70


def test_the_rule_shown_is_the_rule_used(language, texts):
    assert structure.rule(language).__name__ == "_rotate"
    assert structure.rule(texts["bpe"]) is train_bpe
    assert structure.rule(texts["character"]) is train_characters


def test_frequencies_fall_and_their_entropy_is_known():
    ids = np.repeat([5, 6, 7, 8], [4, 2, 1, 1])
    curve = frequencies.by_rank({"text": ids})
    assert curve["rank"].tolist() == [1, 2, 3, 4]
    assert curve.share_percent.tolist() == [50, 25, 12.5, 12.5]
    many = np.repeat(ids, 10_000)
    assert frequencies.bits(many) == pytest.approx(1.75, abs=1e-4)
    uniform = np.random.default_rng(0).integers(0, 64, 2000)
    plain = -sum(p * math.log2(p) for p in np.bincount(uniform) / 2000)
    assert abs(frequencies.bits(uniform) - 6) < 0.01 < 6 - plain  # what Miller's term mends


@given(st.lists(st.integers(0, 3), min_size=6, max_size=60), st.integers(1, 5))
def test_shared_passages_are_those_that_a_set_finds(ids, length):
    train, test = np.array(ids), np.array(ids[::-1])
    cut = [
        {tuple(part[i : i + length]) for i in range(len(ids) - length + 1)}
        for part in (train.tolist(), test.tolist())
    ]
    asked = [tuple(test[i : i + length].tolist()) for i in range(len(ids) - length + 1)]
    wanted = 100 * np.mean([passage in cut[0] for passage in asked])
    found = passages.shared(train, test, [length])
    assert found.in_training_percent[0] == pytest.approx(wanted)
    assert found.passages[0] == len(asked)


def test_a_test_split_that_stands_in_training_is_found():
    rng = np.random.default_rng(0)
    train, other = rng.integers(0, 1000, 3000), rng.integers(0, 1000, 500)
    assert passages.shared(train, train[700:1200]).in_training_percent.tolist() == [100.0] * 6
    assert passages.shared(train, other).in_training_percent.iloc[-1] == 0
    half = np.concatenate([other[:250], train[:250]])
    assert passages.shared(train, half, [64]).in_training_percent[0] == pytest.approx(
        100 * 187 / 437
    )


def test_rungs_fall_to_the_floor_and_wider_windows_see_more(language):
    table = predictors.ideal(language).set_index("predictor")
    assert table.bits.is_monotonic_decreasing
    closed = table[table.low.isna()].bits
    assert closed.min() > language.language.entropy_bits - 1e-12
    narrow, wide = (closed[f"everything, 1 to {w} words seen"] for w in predictors.WINDOWS)
    assert narrow > wide > language.language.entropy_bits
    assert wide == window_bits(language.language, 256)
    oracle = table.loc["the oracle, on the test split"]
    assert oracle.low < oracle.perplexity < oracle.high
    assert table.perplexity["uniform guess"] == pytest.approx(SMALL.vocab_size)
    known = predictors.summary(language)
    assert known["floor"] == pytest.approx(2**language.language.entropy_bits)
    assert known["frequencies"] == table.perplexity["word frequencies"]  # as the ladder has it
    assert (known["unit"], known["tokens"], known["types"]) == ("word", 7400, language.types)
    assert predictors.limits(language) == [(known["floor"], "floor")]


def test_of_a_text_counts_stand_on_the_rungs_and_no_floor_is_known(texts):
    table = predictors.ideal(texts["character"]).set_index("predictor")
    assert table.bits["uniform guess"] == math.log2(texts["character"].types)
    assert table.bits["the two previous tokens, counted"] < table.bits["frequencies"]
    known = predictors.summary(texts["character"])
    assert math.isnan(known["floor"]) and known["uniform"] == texts["character"].types
    assert predictors.limits(texts["character"]) == []
    assert known["frequencies"] == pytest.approx(2 ** known["frequency_bits"])


def test_the_oracle_fits_the_closed_form_and_a_wrong_one_is_seen(language):
    off = predictors.off_closed_form(language).set_index("mechanism")
    assert list(off.index) == ["all", *MECHANISMS] and (off.standard_errors < 4).all()
    name, most = predictors.farthest(off.reset_index())
    assert name != "all" and most == off.standard_errors[[*MECHANISMS]].max()
    oracle = {**language.oracle, "test": language.oracle["test"] * 1.1}
    wrong = predictors.off_closed_form(replace(language, oracle=oracle)).set_index("mechanism")
    assert wrong.standard_errors["all"] > 4
    swapped = np.where(language.mechanism["test"] == 4, 0, language.mechanism["test"])
    mixed = replace(language, mechanism={**language.mechanism, "test": swapped})
    off = predictors.off_closed_form(mixed).set_index("mechanism").standard_errors
    assert off["free"] > 4 > off["all"]


def test_tokenizers_are_compared_per_byte_and_must_give_the_text_back(texts, monkeypatch):
    data = texts["character"]
    made = tokenizers.trained(data)
    table = tokenizers.compared(data, made).set_index("tokenizer")
    assert table.text_comes_back.to_dict() == {"word": False, "character": True, "bpe": True}
    accents = len(data.text("test").encode()) / len(data.text("test"))
    assert table.bytes_per_token["character"] == pytest.approx(accents)
    assert table.bytes_per_token["bpe"] > 2
    assert (table.frequencies_bits_per_byte < table.uniform_bits_per_byte).all()
    assert tokenizers.lossless(data, made) == (4, 4)
    monkeypatch.setattr(tokenizers, "decode", lambda tokenizer, ids: "lost")
    assert tokenizers.lossless(data, made) == (0, 4)


def test_no_word_is_cut_in_two_and_of_the_language_none_is_lost():
    spoken = language_corpus(7, SALT, SMALL, 20_000, 10, 1_000)
    made = tokenizers.trained(spoken)
    for characters in (1_000, 1_001, 1_002, 1_003):
        word = tokenizers.compared(spoken, made, characters).set_index("tokenizer").loc["word"]
        assert word.unknown_percent == 0 and word.text_comes_back
        begun = tokenizers.beginning(spoken, "test", characters)
        assert characters - 8 < len(begun) <= characters
        assert spoken.text("test")[len(begun)].isspace()


def test_a_text_without_white_space_begins_where_it_is_cut():
    class Data:
        def text(self, split):
            return {"train": "x" * 9, "test": "a b"}[split]

    assert tokenizers.beginning(Data(), "train", 4) == "xxxx"
    assert tokenizers.beginning(Data(), "test", 4) == "a b"


def test_independent_words_coincide_by_chance_and_a_language_far_more():
    chance = uniform_corpus(7, SALT).splits["train"]
    found = control.coincidences(chance)
    assert abs(found["pairs"] - found["expected"]) < 4 * math.sqrt(found["expected"])
    ratios = []
    for seed in range(8):  # a text's own frequencies squared would expect some 5 % more
        ids = np.random.default_rng(seed).integers(0, 1000, 20_000)
        ratios.append(control.coincidences(ids)["ratio"])
    assert abs(np.mean(ratios) - 1) < 0.03
    assert control.beside(5.0, (4.0, 6.0)) == "inside it"
    assert control.beside(5.0, (5 * math.e, 20.0)) == "1.00 nats below it"
    assert control.beside(5.0, (1.0, 5 / math.e)) == "1.00 nats above it"
    loop = np.tile(np.arange(10), 100)
    assert control.coincidences(loop)["ratio"] == pytest.approx(10, rel=0.02)
    spoken = language_corpus(7, SALT, LARGE, 20_000, 10, 10).splits["train"]
    table = control.against_chance({"chance": chance, "language": spoken}, 20_000)
    assert table.ratio[1] > 5 * table.ratio[0] and table.pairs.dtype.kind == "i"


def test_what_the_report_says_of_its_corpus_is_read_off_the_control():
    chance = uniform_corpus(7, SALT)
    assert control.settings(chance) == {
        "tokens": 50_000, "test tokens": 10_000, "split": "80 / 20",
        "seed and salt": f"SEED 7, SALT {SALT}", "SHA-256": chance.sha256,
    }  # fmt: skip
    held = control.held_against(chance, 1004 * math.e)
    assert held["above"] == pytest.approx(1) and (held["words"], held["floor"]) == (1004, 1000)
    assert control.fall(8.0, 6.0) == {"nats": 2.0, "percent": 25.0}


def test_runs_of_the_recipe_are_set_against_a_uniform_guess():
    kept = pd.DataFrame(
        {"seed": [0], "first_nats": [7.0], "test_nats": [6.95], "test_perplexity": [1043.0]}
    )
    row = control.recipe_runs(kept, 1004).iloc[0]
    assert row.first_above_uniform_nats == pytest.approx(7.0 - math.log(1004))
    assert row.test_above_uniform_nats == pytest.approx(6.95 - math.log(1004))
