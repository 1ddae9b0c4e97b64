"""Text files: encodings, refusals, splits; tokenizers and their round trips; batches."""

import json
import random
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from minitransformer.corpus import (
    Batches,
    decode,
    encode,
    read_text,
    split_text,
    train_bpe,
    train_characters,
    train_words,
    vocabulary,
    words_tokenizer,
)
from minitransformer.corpus import tokenizers as module
from minitransformer.corpus.dataset import _visible
from vocabularies import vocabulary_of

TEXT = (
    "En un lugar de la Mancha, de cuyo nombre no quiero acordarme…\n«¿Señor?», dijo él: “¡ay!”\n"
    * 20
)
QUOTES = "En un lugar de la Mancha, el señor dijo “¡ay!” y – quizás – rio.\n" * 20


def write(tmp_path, data: bytes):
    path = tmp_path / "text.txt"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "data, encoding, text",
    [
        (TEXT.encode(), "utf-8", TEXT),
        (b"\xef\xbb\xbf" + TEXT.encode(), "utf-8 with byte-order mark", TEXT),
        (
            QUOTES.replace("“", '"').replace("”", '"').replace("–", "-").encode("latin-1"),
            "latin-1",
            None,
        ),
        (QUOTES.encode("cp1252"), "windows-1252", QUOTES),
        (b"plain ascii\r\nlines " * 60, "utf-8", "plain ascii\r\nlines " * 60),
    ],
)
def test_text_is_read_to_the_character_and_its_encoding_said(tmp_path, data, encoding, text):
    read, said = read_text(write(tmp_path, data))
    assert said == encoding and ("ñ" in read or "plain" in read)
    assert text is None or read == text


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "is empty"),
        (b" \n" * 900, "is empty"),
        (b"short", r"is too short \(5 characters\): give at least 1,000"),
        (b"a" * 2000 + b"\0", r"is binary \(byte 0x00 at 2,000\)"),
        (bytes(range(1, 32)) * 100, r"is binary \(byte 0x01 at 0\)"),
        (TEXT.encode("utf-16"), "is UTF-16: convert"),
    ],
)
def test_what_is_no_text_is_refused_by_name(tmp_path, data, message):
    path = write(tmp_path, data)
    with pytest.raises(ValueError, match=message) as error:
        read_text(path)
    assert str(path) in str(error.value)


def test_a_stray_control_character_is_no_binary(tmp_path):
    assert read_text(write(tmp_path, TEXT.encode() + b"\x02"))[0] == TEXT + "\x02"


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.txt does not exist"):
        read_text(tmp_path / "nothing.txt")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        read_text(tmp_path)


@settings(deadline=None)  # a busy machine is no failure
@given(st.text(alphabet="ab é\n", min_size=60, max_size=3000))
def test_splits_are_the_text_and_cut_behind_white_space(text):
    parts = split_text(text)
    assert "".join(parts.values()) == text and list(parts) == ["train", "valid", "test"]
    assert all(parts.values())
    cut, reach = len(parts["train"]), min(1000, len(text) // 50)
    assert round(0.8 * len(text)) <= cut
    moved = text[round(0.8 * len(text)) : round(0.8 * len(text)) + reach]
    assert parts["train"][-1].isspace() or not any(map(str.isspace, moved))


@pytest.mark.parametrize("n", [100, 1000, 9_999, 10_000, 60_000])
@pytest.mark.parametrize("end", ["", "\n", " \n"])
def test_a_text_without_white_space_is_cut_at_the_character(n, end):
    """A last line feed within reach of a cut took the whole rest into training."""
    sizes = [len(x) for x in split_text("ACGT" * (n // 4) + end).values()]
    total = n // 4 * 4 + len(end)
    assert sum(sizes) == total and min(sizes[1:]) >= total // 20


def test_nanogpts_split_is_exact():
    parts = split_text("word " * 201, (0.9, 0.1))
    assert (
        len(parts["train"]) == int(1005 * 0.9)
        and parts["valid"] == parts["test"]
        and len(parts["test"]) == 101
    )


# --- tokenizers

CHARACTERS, BPE = train_characters(TEXT), train_bpe(TEXT, 300)
UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@settings(deadline=None)  # a busy machine is no failure
@given(UNICODE)
def test_characters_and_bytes_round_trip_on_any_unicode(text):
    for tokenizer in (CHARACTERS, BPE):
        assert decode(tokenizer, encode(tokenizer, text)) == text


@pytest.mark.parametrize(
    "text", ["<unk><pad>", "<0x41>", "\x00\r\n\t", "e\u0301 é 🏳️‍🌈 漢字", " a", "a  ", "\ufeff"]
)
def test_round_trips_that_are_easy_to_get_wrong(text):
    for tokenizer in (CHARACTERS, BPE):
        assert decode(tokenizer, encode(tokenizer, text)) == text


def test_characters_of_the_training_text_are_one_token_each_in_order():
    tokens, seen = vocabulary(CHARACTERS), sorted(set(TEXT))
    assert tokens[: len(seen)] == seen and encode(CHARACTERS, TEXT).tolist() == [
        seen.index(c) for c in TEXT
    ]
    assert (
        all(t.startswith("<0x") for t in tokens[len(seen) :])
        and "<0xC0>" not in tokens
        and "<0x61>" not in tokens
    )


def test_bpe_has_the_size_asked_for_and_every_byte():
    assert BPE.get_vocab_size() == 300 and encode(BPE, TEXT).size < len(TEXT.encode()) / 2
    with pytest.raises(ValueError, match="vocab_size 100 is too small"):
        train_bpe(TEXT, 100)


def test_words_have_specials_first_and_rare_ones_are_unknown():
    tokenizer = train_words("b b a a c, d c, once\n")
    assert vocabulary(tokenizer) == ["<pad>", "<unk>", "<bos>", "<eos>", ",", "a", "b", "c"]
    assert (
        encode(tokenizer, "a,b once").tolist() == [5, 4, 6, 1]
        and decode(tokenizer, [5, 6]) == "a b"
    )
    assert train_words("b b a a c c", 6).get_vocab_size() == 6


def test_lines_end_in_eos_and_keep_every_word():
    tokenizer = train_words(" = Title = \n a <unk> once \n", lines=True)
    assert set(vocabulary(tokenizer)) == {
        "<pad>",
        "<unk>",
        "<bos>",
        "<eos>",
        "=",
        "Title",
        "a",
        "once",
    }
    ids = encode(tokenizer, " = Title = \n a <unk> new \n")
    assert [vocabulary(tokenizer)[i] for i in ids] == [
        "=",
        "Title",
        "=",
        "<eos>",
        "a",
        "<unk>",
        "<unk>",
        "<eos>",
    ]


def test_a_long_text_is_encoded_in_pieces_and_stays_whole(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 50)
    parts = list(module.pieces(CHARACTERS, TEXT))
    assert "".join(parts) == TEXT and max(map(len, parts)) <= 50
    assert encode(CHARACTERS, TEXT).tolist() == [sorted(set(TEXT)).index(c) for c in TEXT]
    words = words_tokenizer(["<pad>", "<unk>", "<bos>", "<eos>", "ab"])
    assert encode(words, "ab " * 100).tolist() == [4] * 100


def test_a_tokenizer_survives_its_file(tmp_path):
    for tokenizer in (CHARACTERS, BPE, train_words(TEXT), train_words(TEXT, lines=True)):
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        again = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
        assert encode(again, TEXT + "ž").tolist() == encode(tokenizer, TEXT + "ž").tolist()
        assert json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))


MIXED = [
    "a", "b", "é", "e\u0301", " ", "  ", "\n", "\r\n", "\t", "\u3000", "\xa0", "'", "'re", "'s",
    "..", "_", "1", "漢", "字", "。", "नम", "ไม่", "🇫🇷", "🇩", "👩‍👩‍👧", "\u200d", "\u0301",
    "<unk>", "\x1c", "\x85",
]  # fmt: skip
SOUP = st.lists(st.sampled_from(MIXED), max_size=120).map("".join)
LONG_SOUP = "".join(random.Random(1).choices(MIXED + [" ", " a", "re"] * 3, k=6000))
TOKENIZERS = dict(
    word=train_words(LONG_SOUP),
    lines=train_words(LONG_SOUP, lines=True),
    character=train_characters(LONG_SOUP),
    bpe=train_bpe(LONG_SOUP, 600),  # merges enough that a wrong border shows
)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(deadline=None)
@given(text=SOUP, size=st.integers(1, 40))
def test_the_ids_of_pieces_are_the_ids_of_the_whole(name, text, size):
    tokenizer, old = TOKENIZERS[name], module.CHUNK
    try:
        module.CHUNK = size
        parts = list(module.pieces(tokenizer, text))
        ids = encode(tokenizer, text).tolist()
    finally:
        module.CHUNK = old
    assert "".join(parts) == text and ids == tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("size", [3, 5, 17, 60])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_ids_of_the_pieces_of_a_long_text_too(monkeypatch, name, size):
    monkeypatch.setattr(module, "CHUNK", size)
    whole = TOKENIZERS[name].encode(LONG_SOUP, add_special_tokens=False).ids
    assert encode(TOKENIZERS[name], LONG_SOUP).tolist() == whole


def test_a_long_text_is_cut_at_all():
    for name, text in (
        ("word", "ab, " * 50_000),
        ("bpe", "漢字。" * 60_000),
        ("bpe", "a b" * 60_000),
    ):
        parts = list(module.pieces(TOKENIZERS[name], text))
        assert len(parts) > 1 and max(map(len, parts)) <= 2 * module.CHUNK


def test_a_tokenizer_of_others_gets_the_text_whole(monkeypatch):
    """One that puts a mark before what it is given would put one before each piece."""
    monkeypatch.setattr(module, "CHUNK", 10)
    other = Tokenizer(models.BPE({"▁": 0, "a": 1, "▁a": 2}, [("▁", "a")]))
    other.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    assert list(module.pieces(other, "a " * 50)) == ["a " * 50]
    other.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert list(module.pieces(other, "a " * 50)) == ["a " * 50]
    sentencepiece = Tokenizer(models.BPE({"▁": 0, "a": 1}, [], byte_fallback=True))
    sentencepiece.normalizer = normalizers.Prepend("▁")
    assert list(module.pieces(sentencepiece, "a " * 50)) == ["a " * 50]


@pytest.mark.parametrize("text", ["漢" * 5000, "=" * 5000, " " * 5000, "ab " * 900 + "x" * 3000])
def test_bpe_counts_no_run_longer_than_its_bound(text):
    """The trainer is quadratic in the length of a run."""
    runs = list(module._short_runs(text))
    assert "".join(runs) == text
    assert max(len(r) for run in runs for r in re.findall(r"\S+|\s+", run)) <= module.LONGEST


WORDS_TEXT = st.lists(UNICODE.filter(str.strip), min_size=1, max_size=12).map(" ".join)


@settings(deadline=None, max_examples=60)
@given(WORDS_TEXT)
def test_a_text_of_frequent_words_has_no_unknown_one(text):
    """Whatever Unicode is in it: what is counted is what is encoded."""
    tokenizer = train_words((text + "\n") * 3)
    assert 1 not in encode(tokenizer, text)
    spelt = "".join(vocabulary(tokenizer)[i] for i in encode(tokenizer, text))
    assert spelt == re.sub(
        "[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]", "", text
    )


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=30))
def test_a_vocabulary_file_is_read_back_exactly(tmp_path_factory, tokens):
    path = tmp_path_factory.getbasetemp() / "vocab.txt"
    extra = ["\n", "\u2028", "\x85", "\\n", "\\", "\ud800", "a\rb", "é\\", "\x00", " ", "⟦x 1⟧"]
    tokens = list(dict.fromkeys([*tokens, *extra]))
    path.write_text("".join(_visible(t) + "\n" for t in tokens), encoding="utf-8", newline="")
    assert vocabulary_of(path) == tokens
    assert len(path.read_text(encoding="utf-8").splitlines()) == len(tokens)


@pytest.mark.parametrize(
    "ids, message",
    [
        ([0, 300], "ids span 0 to 300 and the tokenizer has 300 tokens: give"),
        ([-1], "ids span -1 to -1"),
        ([[1, 2]], r"shape \(1, 2\) .* give one row, such as ids\[0\]"),
        ([0.5], "no row of integers"),
    ],
)
def test_ids_that_spell_nothing_are_refused(ids, message):
    with pytest.raises(ValueError, match=message):
        decode(BPE, ids)
    with pytest.raises(ValueError, match=message):
        decode(BPE, torch.tensor(ids))


def test_encode_says_what_it_takes():
    for wrong in ((TEXT, BPE), (BPE, b"bytes"), (BPE, ["a"])):
        with pytest.raises(TypeError, match=r"encode takes \(tokenizer, text\), not \("):
            encode(*wrong)
    assert decode(BPE, []) == "" and decode(BPE, torch.tensor([65], dtype=torch.int16))


def test_no_text_has_no_ids():
    assert encode(CHARACTERS, "").tolist() == [] and encode(CHARACTERS, "").dtype == np.int32


# --- batches


def test_batches_are_windows_of_the_text_and_functions_of_seed_and_step():
    ids = np.arange(1000, dtype=np.int32)
    batch = Batches(ids, 4, 16, seed=3).batch(7)
    assert batch.shape == (4, 17) and batch.dtype == torch.int64 and (batch.diff() == 1).all()
    assert torch.equal(batch, Batches(ids, 4, 16, seed=3).batch(7))
    assert not torch.equal(batch, Batches(ids, 4, 16, seed=4).batch(7))
    assert not torch.equal(batch, Batches(ids, 4, 16, seed=3).batch(8))
    assert Batches(ids, 3, 5, seed=42).batch(0)[:, 0].tolist() == [278, 426, 862]


def test_batches_reach_the_first_and_the_last_token():
    batches = Batches(np.arange(9), 8, 6, seed=0)
    starts = torch.cat([batches.batch(step) for step in range(20)])
    assert (starts.min(), starts.max()) == (0, 8) and len(starts[:, 0].unique()) == 3


def test_short_windows_first_hold_the_same_tokens():
    batches = Batches(np.arange(500), 4, 64, seed=1, short_window=16, short_steps=2)
    assert [tuple(batches.batch(step).shape) for step in (0, 1, 2)] == [(16, 17), (16, 17), (4, 65)]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(batch_size=1, window=10), r"window 10 is longer than the split \(10 tokens\)"),
        (dict(batch_size=0, window=2), "batch_size 0"),
        (dict(batch_size=1, window="4"), "window '4' is not a whole number"),
        (
            dict(batch_size=1, window=4, short_window=5, short_steps=1),
            "short_window 5 does not fit window 4",
        ),
    ],
)
def test_batches_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Batches(np.arange(10), seed=0, **arguments)
