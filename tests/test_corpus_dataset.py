"""Corpora whole: built, described, saved, loaded, found by name, downloaded from a server of our
own."""

import functools
import hashlib
import http.server
import json
import math
import os
import threading

import numpy as np
import pytest

from minitransformer.corpus import (
    SMALL,
    SPLITS,
    Corpus,
    catalogue,
    decode,
    encode,
    language_corpus,
    text_corpus,
    uniform_corpus,
)
from minitransformer.corpus.registry import derived, find, obtain

SEED, SALT = 42, "1a2b3c4d5e6f7890abcdef1234567890"
TEXT = (
    "En un lugar de la Mancha, de cuyo nombre no quiero acordarme…\n«¿Señor?», dijo él: “¡ay!”\n"
    * 20
)
SHA = hashlib.sha256(TEXT.encode()).hexdigest()


@pytest.fixture(scope="module")
def language():
    return language_corpus(SEED, SALT, SMALL, 3000, 1000, 1500)


def equal(a: Corpus, b: Corpus) -> bool:
    same = (a.name, a.kind, a.texts, a.floor_nats, a.meta, a.sha256) == (
        b.name,
        b.kind,
        b.texts,
        b.floor_nats,
        b.meta,
        b.sha256,
    )
    arrays = [
        (a.splits, b.splits),
        (a.oracle or {}, b.oracle or {}),
        (a.mechanism or {}, b.mechanism or {}),
    ]
    exact = all(
        x[s].dtype == y[s].dtype and np.array_equal(x[s], y[s]) for x, y in arrays for s in x
    )
    return (
        same
        and exact
        and a.tokenizer.to_str() == b.tokenizer.to_str()
        and (a.oracle is None) == (b.oracle is None)
    )


def test_the_language_has_its_oracle_and_its_text_is_its_tokens(language):
    assert {s: len(x) for s, x in language.splits.items()} == dict(
        train=3000, valid=1000, test=1500
    )
    assert language.vocab_size == 254 and language.floor_nats == language.language.entropy_nats
    for s in SPLITS:
        assert encode(language.tokenizer, language.text(s)).tolist() == language.splits[s].tolist()
        assert language.text(s) == decode(language.tokenizer, language.splits[s]) + "\n"
        sample = language.language.generate(s, len(language.splits[s]))
        assert np.array_equal(language.oracle[s], sample.log2p * math.log(2))
        assert np.array_equal(language.mechanism[s], sample.mechanism)
    assert (
        language.n_bytes["train"] == len(language.text("train").encode()) and language.types <= 250
    )


def test_the_hash_is_that_of_the_text(language):
    assert language.sha256 == hashlib.sha256("".join(language.texts.values()).encode()).hexdigest()
    assert language.sha256 == language_corpus("42", SALT.upper(), SMALL, 3000, 1000, 1500).sha256
    assert language.sha256 != language_corpus(43, SALT, SMALL, 3000, 1000, 1500).sha256


def test_the_control_is_uniform_and_has_no_oracle():
    control = uniform_corpus(SEED, SALT)
    assert [len(control.splits[s]) for s in SPLITS] == [
        40_000,
        0,
        10_000,
    ] and control.oracle is None
    assert (
        control.floor_nats == math.log(1000)
        and control.vocab_size == 1004
        and control.types == 1000
    )
    assert (
        encode(control.tokenizer, control.text("test")).tolist() == control.splits["test"].tolist()
    )
    assert control.text("valid") == ""
    with pytest.raises(ValueError, match="corpus 'uniform' is uniform, not a language"):
        control.language  # noqa: B018


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "libro.txt"
    path.write_text(TEXT, encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize("tokenizer", ["", "word", "character", "bpe"])
def test_a_file_of_your_own(book, tokenizer):
    corpus = text_corpus(book, tokenizer)
    assert (corpus.name, corpus.kind, corpus.floor_nats) == (
        "libro",
        "text",
        None,
    ) and corpus.sha256 == SHA
    assert (
        corpus.meta["encoding"] == "utf-8"
        and corpus.meta["split"] == "80/10/10"
        and "not stated" in corpus.meta["licence"]
    )
    assert corpus.meta["tokenizer"] == (tokenizer or "character") and corpus.meta["files"] == {
        "libro.txt": SHA
    }
    assert "".join(corpus.texts.values()) == TEXT
    if tokenizer != "word":
        assert all(decode(corpus.tokenizer, corpus.splits[s]) == corpus.text(s) for s in SPLITS)


def test_the_tokenizer_sees_the_train_split_only(book):
    book.write_text(TEXT + "Ω" * 5, encoding="utf-8")
    corpus = text_corpus(book)
    assert corpus.tokenizer.token_to_id("Ω") is None and decode(
        corpus.tokenizer, corpus.splits["test"]
    ).endswith("ΩΩΩΩΩ")


def test_latin_1_is_said_and_survives(book):
    text = TEXT.translate(str.maketrans("…“”", '.""'))
    book.write_bytes(text.encode("latin-1"))
    corpus = text_corpus(book)
    assert corpus.meta["encoding"] == "latin-1" and "".join(corpus.texts.values()) == text
    assert "«¿Señor?»" in corpus.text("train")


@pytest.mark.parametrize("kind", ["language", "uniform", "text", "word", "nanogpt"])
def test_what_is_saved_is_what_is_loaded(language, book, tmp_path, kind):
    corpus = dict(
        language=lambda: language,
        uniform=lambda: uniform_corpus(SEED, SALT, 3000, 0, 500),
        text=lambda: text_corpus(book, "bpe", 280),
        word=lambda: text_corpus(book, "word"),
        nanogpt=lambda: text_corpus(book, split="nanogpt"),
    )[kind]()
    out = tmp_path / "out"
    corpus.save(out)
    assert equal(Corpus.load(out), corpus)
    names = {"corpus.txt", "tokens.jsonl", "vocab.txt", "corpus.json", "tokenizer.json"}
    assert {p.name for p in out.iterdir()} == names | (
        {"oracle.npz"} if kind == "language" else set()
    )
    about = json.loads((out / "corpus.json").read_text(encoding="utf-8"))
    assert (
        about["sha256"]
        == hashlib.sha256((out / "corpus.txt").read_bytes()).hexdigest()
        == corpus.sha256
    )
    assert len((out / "vocab.txt").read_text(encoding="utf-8").splitlines()) == corpus.vocab_size
    assert about["splits"]["train"]["tokens"] == len(corpus.splits["train"])
    rows = [json.loads(line) for line in (out / "tokens.jsonl").read_text().splitlines()]
    assert all(
        corpus.splits[r["split"]][r["start"] : r["start"] + len(r["ids"])].tolist() == r["ids"]
        for r in rows
    )


def test_nanogpts_split_keeps_the_text_once(book):
    corpus = text_corpus(book, split="nanogpt")
    assert (
        corpus.meta["split"] == "90/10"
        and corpus.text("test") == corpus.text("valid")
        and corpus.sha256 == SHA
    )
    sizes = corpus.describe()["splits"]
    assert (
        sizes["test"]["characters"]
        == sizes["valid"]["characters"]
        == [int(len(TEXT) * 0.9), len(TEXT)]
    )


def test_saving_twice_gives_the_same_bytes_and_drops_a_stale_oracle(language, book, tmp_path):
    language.save(tmp_path / "a")
    language.save(tmp_path / "b")
    assert all(
        (tmp_path / "b" / p.name).read_bytes() == p.read_bytes() for p in (tmp_path / "a").iterdir()
    )
    text_corpus(book).save(tmp_path / "a")
    assert (
        not (tmp_path / "a" / "oracle.npz").exists() and Corpus.load(tmp_path / "a").oracle is None
    )


@pytest.mark.parametrize(
    "file, old, new", [("corpus.txt", "M", "m"), ("tokens.jsonl", '"ids": [', '"ids": [1, ')]
)
def test_a_changed_corpus_is_refused(book, tmp_path, file, old, new):
    text_corpus(book).save(tmp_path / "out")
    path = tmp_path / "out" / file
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=f"{file} has changed"):
        Corpus.load(tmp_path / "out")


def test_no_corpus_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="corpus.json is missing"):
        Corpus.load(tmp_path)


def test_a_failed_write_leaves_what_was_there(book, tmp_path, monkeypatch):
    corpus = text_corpus(book)
    corpus.save(tmp_path / "out")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        corpus.save(tmp_path / "out")
    assert equal(Corpus.load(tmp_path / "out"), corpus) and not list(
        (tmp_path / "out").glob("*.part")
    )


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (dict(name_or_path="tinyshakspeare"), ValueError, "did you mean 'tinyshakespeare'"),
        (dict(name_or_path="zzz"), ValueError, "known are tinyshakespeare, wikitext-2"),
        (dict(name_or_path="no/such.txt"), FileNotFoundError, "no/such.txt does not exist"),
        (
            dict(name_or_path="quijote", tokenizer="words"),
            ValueError,
            "tokenizer 'words' is unknown",
        ),
        (dict(name_or_path="quijote", split="half"), ValueError, "split 'half' is unknown"),
    ],
)
def test_a_wrong_request_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        text_corpus(**arguments)


# --- names, folders, downloads


def test_the_committed_registry_is_complete():
    entries = catalogue()
    assert list(entries) == ["tinyshakespeare", "wikitext-2", "tinystories", "quijote"]
    for entry in entries.values():
        assert {"title", "source", "licence", "files"} <= set(entry)
        assert [f["split"] for f in entry["files"]] in (["all"], list(SPLITS))
        for file in entry["files"]:
            assert (
                len(file["sha256"]) == 64
                and file["url"].startswith("https://")
                and file["bytes"] > 10**6
            )
    assert find("quijote", entries)["files"][0]["path"] == "quijote-es/quijote.txt"


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path.startswith("/truncated"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(TEXT.encode())))
            self.end_headers()
            self.wfile.write(TEXT.encode()[:100])
        else:
            super().do_GET()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("www")
    (root / "book.txt").write_text(TEXT, encoding="utf-8", newline="")
    (root / "latin.txt").write_bytes(LATIN)
    httpd = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=root)
    )
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    httpd.server_close()


BODY = "El ingenioso\r\nhidalgo: ñ «é»\r\n" * 60
LATIN = f"licence\r\n\r\nSTART\r\n{BODY}\r\n\r\nEND of it\r\n".encode("latin-1")


def entry(server, page="book.txt", sha=SHA, **more):
    file = dict(split="all", path="sub/book.txt", url=f"{server}/{page}", sha256=sha, **more)
    return {"book": dict(title="A Book", source="a server", licence="public domain", files=[file])}


def test_a_name_is_downloaded_once_with_progress_then_read_from_disk(server, tmp_path):
    seen = []
    corpus = text_corpus(
        "book", download_dir=tmp_path, entries=entry(server), progress=lambda *x: seen.append(x)
    )
    size = len(TEXT.encode())
    assert (
        corpus.name == "book" and corpus.sha256 == SHA and corpus.meta["licence"] == "public domain"
    )
    assert seen[-1] == ("sub/book.txt", size, size) and [
        p.name for p in (tmp_path / "sub").iterdir()
    ] == ["book.txt"]
    again = text_corpus("book", download_dir=tmp_path, entries=entry("http://127.0.0.1:9"))
    assert again.sha256 == SHA
    elsewhere = text_corpus(
        "book",
        corpora_dir=tmp_path,
        download_dir=tmp_path / "none",
        entries=entry("http://127.0.0.1:9"),
    )
    assert elsewhere.sha256 == SHA and not (tmp_path / "none").exists()


def test_a_path_with_the_bytes_of_a_registered_text_takes_its_licence(server, book):
    assert text_corpus(book, entries=entry(server)).meta["licence"] == "public domain"
    assert text_corpus(book, entries=entry(server)).name == "book"


def test_official_splits_and_their_tokenizer_are_taken(tmp_path):
    files = []
    for s, text in zip(SPLITS, ("a b c \n" * 200, "a c \n" * 300, "b \n" * 400), strict=False):
        (tmp_path / s).write_text(text)
        files.append(
            dict(split=s, path=s, url="-", sha256=hashlib.sha256(text.encode()).hexdigest())
        )
    entries = {"wiki": dict(files=files, tokenizer="word", eos_per_line=True)}
    corpus = text_corpus("wiki", corpora_dir=tmp_path, entries=entries)
    assert (
        corpus.meta["split"] == "official"
        and corpus.meta["tokenizer"] == "word"
        and corpus.vocab_size == 7
    )
    assert [len(corpus.splits[s]) for s in SPLITS] == [800, 900, 800] and corpus.types == 4


def test_a_derived_text_is_made_from_its_download_and_verified(server, tmp_path):
    ours = BODY.replace("\r\n", "\n").strip("\n") + "\n"
    step = dict(
        encoding="latin-1",
        start="El ingenioso",
        end="END of it",
        sha256=hashlib.sha256(LATIN).hexdigest(),
    )
    assert derived(LATIN, step).decode() == ours
    named = entry(server, "latin.txt", hashlib.sha256(ours.encode()).hexdigest(), derive=step)
    assert (
        (obtain("book", named["book"], None, tmp_path)["all"]).read_text(encoding="utf-8") == ours
    )


@pytest.mark.parametrize(
    "page, sha, error, message",
    [
        ("book.txt", "0" * 64, ValueError, "expected 000"),
        ("truncated.txt", SHA, FileNotFoundError, r"ended after 100 of [\d,]+ bytes"),
        ("missing.txt", SHA, FileNotFoundError, "HTTP Error 404"),
    ],
)
def test_a_wrong_reply_is_named_and_leaves_nothing(server, tmp_path, page, sha, error, message):
    with pytest.raises(error, match=message) as raised:
        text_corpus("book", download_dir=tmp_path, entries=entry(server, page, sha))
    assert f"{server}/{page}" in str(raised.value) and "CORPORA_DIR" in str(raised.value)
    assert not list(tmp_path.rglob("*.*"))


def test_a_dead_server_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="could not be downloaded"):
        text_corpus("book", download_dir=tmp_path, entries=entry("http://127.0.0.1:9"))


def test_a_file_on_disk_with_another_hash_is_refused_and_kept(server, tmp_path):
    path = tmp_path / "sub" / "book.txt"
    os.makedirs(path.parent)
    path.write_text("something else")
    with pytest.raises(ValueError, match=f"book.txt has sha256 .* expected {SHA}: delete it"):
        text_corpus("book", corpora_dir=tmp_path, download_dir=tmp_path, entries=entry(server))
    assert path.read_text() == "something else"


FILES = ("corpus.json", "corpus.txt", "tokens.jsonl", "tokenizer.json", "oracle.npz")


@pytest.mark.parametrize("file", FILES)
def test_a_corpus_that_is_damaged_is_told_in_one_line(language, tmp_path, file):
    language.save(tmp_path)
    path, data = tmp_path / file, (tmp_path / file).read_bytes()
    for damaged in (data[: len(data) // 2], b"", b"{}", b"[1]", b"\0" * 99, None):
        path.unlink() if damaged is None else path.write_bytes(damaged)
        if damaged is None and file in ("corpus.json", "oracle.npz"):
            continue  # which is told otherwise, and which not every corpus has
        with pytest.raises(ValueError, match="holds no whole corpus .*: make it again") as error:
            Corpus.load(tmp_path)
        assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
    path.write_bytes(data)
    assert equal(Corpus.load(tmp_path), language)
