"""What the chapters need of their parameters, checked before anything runs."""

import shutil
from collections import UserDict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paper.parameters import known_parameters, resolve
from studies import needs, preflight
from studies.preflight import check

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
KNOWN = known_parameters(NOTEBOOKS)
OWN = known_parameters(NOTEBOOKS / "own")  # of the report of a model of one's own
NAN = float("nan")
NUMBERS = [n for n, v in KNOWN.items() if type(v) in (int, float)]
COUNTS = [n for n in NUMBERS if preflight.LEAST.get(n, 1) > 0 and n != "temperature"]
HOSTILE = [
    *({name: -1} for name in NUMBERS),
    *({name: 0} for name in COUNTS),
    *({name: 2**64} for name in NUMBERS),
    *({name: NAN} for name in NUMBERS if type(KNOWN[name]) is float),
    *({name: []} for name, value in KNOWN.items() if isinstance(value, list)),
    {"lr": float("inf")},
    {"temperature": 1e-9},
    {"top_p": 0.0},
    {"top_p": 1.1},
    {"qat_lr": 0.0},
    {"recipe": "great"},
    {"device": "gpu"},
    *([] if torch.cuda.is_available() else [{"device": "cuda"}]),
    {"recipe": ""},
    {"position": "alibi"},
    {"ablation_language": "huge"},
    {"tokenizer": "bpe"},
    {"tokenizer": "words", "corpus": "x.txt"},
    {"salt": "xyz"},
    {"salt": "1a2b"},
    {"bits": 5},
    {"bits": 2},
    {"method_bits": [4, 5]},
    {"method_bits": [4, 4]},
    {"lengths": [50, 10]},
    {"lengths": [10, 10]},
    {"lengths": [10, 100000]},
    {"lengths": [10, 505]},
    {"lengths": [10, -1]},
    {"layer_sizes": [512, 128]},
    {"n_heads": 3},
    {"d_model": 130, "n_heads": 2, "position": "rope"},
    {"draft_width": 48},
    {"large_width": 100},
    {"train_window": 513},
    {"train_window": 8},
    {"context": 64},
    {"context": 16, "train_window": 16},
    {"context": 40, "train_window": 30, "lengths": [10], "certificate_tokens": 5},
    {"short_window": 200},
    {"short_window": 0},
    {"prompt_tokens": 500},
    {"prompt_tokens": 2},
    {"certificate_tokens": 600},
    {"speculation_tokens": 600},
    {"beam_tokens": 505},
    {"beam_width": 1000},
    {"test_tokens": 200},
    {"stream_texts": 100},
    {"train_tokens": 600, "context": 1024, "train_window": 700},
    {"control_runs": 1},
    {"ablation_seeds": 1},
    {"ablation_window": 600},
    {"width_runs": 1},
    {"threads": 100000},
    {"context": 160, "corpus": "x.txt"},
]


@pytest.mark.parametrize("profile", ["quick", "paper", "seed", "full"])
def test_the_profiles_of_the_project_pass(profile):
    check(resolve(NOTEBOOKS, profile), folder=NOTEBOOKS)


@pytest.mark.parametrize("changes", HOSTILE, ids=lambda changes: str(changes)[:60])
def test_what_no_chapter_could_use_is_refused_in_one_line(changes):
    with pytest.raises(ValueError) as caught:
        check(KNOWN | changes)
    message = str(caught.value)
    assert "\n" not in message and ": " in message and any(name in message for name in changes)


def test_a_shape_that_no_model_has_is_refused():
    check({"d_model": 128, "n_heads": 4, "context": 512, "seed": 42})
    with pytest.raises(ValueError, match="n_heads 3 does not divide d_model 128"):
        check({"d_model": 128, "n_heads": 3})


def test_every_number_has_a_range_and_every_rule_speaks_of_parameters_that_exist():
    """A rule about an unknown name would be skipped in silence."""
    shapes = {"d_model", "n_heads", "temperature", "top_p"}  # what the library's dataclasses hold
    held = {*preflight.LEAST, *preflight.KNOWN, *preflight.ABOVE_ZERO, *shapes}
    assert {*NUMBERS} <= held
    tables = {*preflight.LEAST, *preflight.MOST, *preflight.KNOWN, *preflight.INCREASING}
    assert tables <= {*KNOWN, *OWN}
    asked = []

    class Asked(UserDict):
        def __getitem__(self, name):
            asked.append(name)
            return KNOWN[name]

    for rule in preflight.RULES:
        rule(Asked(KNOWN))
    needs.tokens(Asked(KNOWN))
    assert {*asked} <= {*KNOWN} and {"lengths", "draft_width", "stream_texts", "salt"} <= {*asked}


def test_a_chapter_asks_only_for_itself_and_those_before_it():
    """Training at a context too short for the benchmark is no mistake."""
    short = KNOWN | {"context": 64, "train_window": 64}
    check(short, ("01-data", "02-train"))
    with pytest.raises(ValueError, match="lengths 60 after prompt_tokens 8 passes context 64"):
        check(short | {"lengths": [60]}, ("01-data", "02-train", "04-kv-bench"))
    with pytest.raises(ValueError, match="certificate_prompt 60 and 12 more passes context 64"):
        check(short | {"certificate_prompt": 60, "certificate_tokens": 1, "speculation_tokens": 1})
    with pytest.raises(ValueError, match="bits 5 is unknown: choose of 32, 8, 4"):
        check(KNOWN | {"bits": 5}, ("01-data",))


def test_a_full_disk_is_refused_before_the_run(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=50 * 2**20))
    with pytest.raises(ValueError, match="50 MiB are free .* this run leaves about .* MiB: free"):
        check(KNOWN, folder=NOTEBOOKS)


def written(tmp_path, content):
    path = tmp_path / "mine.txt"
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "content, tokenizer, message",
    [
        ("some short words. " * 60, "", "tokens in its (test|valid) split with TOKENIZER=char"),
        ("ab cd " * 600, "word", "tokens in its (test|valid) split with TOKENIZER=word, and"),
        ("ACGTTGCA" * 200, "bpe", "tokens in its (train|test|valid) split with TOKENIZER=bpe, and"),
        ("a" * 20000, "", "has 1 different token in its train split"),
        ("a " * 20000, "word", "different tokens? in its train split"),
        (" ".join(f"w{i}" for i in range(20000)), "word", "give TOKENIZER=character or"),
        ("ACGT" * 20000, "word", "give TOKENIZER=character|different tokens? in its"),
        ("", "", "is empty"),
        ("short", "", "is too short"),
    ],
)
def test_a_text_that_is_too_small_or_says_nothing_is_refused(tmp_path, content, tokenizer, message):
    changes = {"corpus": str(written(tmp_path, content)), "tokenizer": tokenizer}
    with pytest.raises(ValueError, match=message) as caught:
        check(KNOWN | changes)
    assert "\n" not in str(caught.value)


def test_a_larger_profile_asks_more_of_a_text(tmp_path):
    prose = "It was a dark and stormy night; the rain fell in torrents. "
    path = written(tmp_path, prose * 300)
    check(KNOWN | {"corpus": str(path)})
    with pytest.raises(ValueError, match="tokens in its test split .* 2,049 are needed"):
        check(resolve(NOTEBOOKS, "paper", {"corpus": str(path)}))


def test_an_encoding_that_is_not_utf8_is_said(tmp_path):
    path = tmp_path / "mine.txt"
    prose = "Es war eine dunkle und stürmische Nacht; der Regen fiel in Strömen. "
    path.write_bytes((prose * 300).encode("cp1252"))
    (said,) = check(KNOWN | {"corpus": str(path)})
    assert said.startswith("corpus mine is read as ")
    path.write_text(prose * 300, encoding="utf-8")
    assert check(KNOWN | {"corpus": str(path)}) == []


@given(st.text(min_size=1000, max_size=3000), st.sampled_from(["", "word", "character", "bpe"]))
def test_any_text_ends_in_a_verdict(tmp_path_factory, content, tokenizer):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_text(content, encoding="utf-8", errors="replace")
    try:
        check(KNOWN | {"corpus": str(path), "tokenizer": tokenizer})
    except ValueError as error:
        assert "\n" not in str(error)
