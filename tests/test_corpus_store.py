"""Texts beyond memory: the ids of a store are those of the whole text, whatever the shards, and
what is gone or damaged is named."""

import gzip
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minitransformer import load, pretrain
from minitransformer.corpus import Batches, Store, __main__, build, encode, store, tokenizers
from minitransformer.corpus import train_tokenizer as trained
from minitransformer.corpus.store import zstd

TEXT = "One fish, two fish.\nRed fish — blue fish; néw fish 鱼🐟!\n" * 40
TOKENIZERS = {kind: trained(kind, TEXT, 300) for kind in tokenizers.KINDS}
BPE = TOKENIZERS["bpe"]


def write(path, text=TEXT):
    data = text.encode()
    packed = {".gz": gzip.compress, ".zst": zstd.compress}.get(path.suffix, bytes)
    path.write_bytes(packed(data))
    return path


def jsonl(texts, field="text"):
    return "".join(json.dumps({"n": i, field: text}) + "\n" for i, text in enumerate(texts))


@pytest.fixture
def shards(tmp_path):
    documents = [TEXT[:50], "", TEXT[50:200]]
    return [
        write(tmp_path / "a.txt"),
        write(tmp_path / "b.txt.gz", TEXT[::-1]),
        write(tmp_path / "c.jsonl", jsonl(documents)),
        write(tmp_path / "d.jsonl.zst", jsonl(documents[::-1]) + "\n\n"),
        write(tmp_path / "e.txt", ""),
    ]


def expected(tokenizer):
    documents = [TEXT[:50], "", TEXT[50:200]]
    texts = [TEXT, TEXT[::-1], *(d + "\n" for d in [*documents, *documents[::-1]])]
    return np.concatenate([encode(tokenizer, text) for text in texts])


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_ids_are_those_of_the_texts(shards, tmp_path, kind):
    made = build(shards, tmp_path / "store", TOKENIZERS[kind])
    ids = expected(TOKENIZERS[kind])
    assert len(made) == len(ids) and np.array_equal(made[:], ids)
    assert made.tokenizer.to_str() == TOKENIZERS[kind].to_str()
    for shard, path in zip(made.shards, shards, strict=True):
        assert shard["name"] == path.name
        assert shard["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    made.verify()
    assert not list((tmp_path / "store").glob("*.part"))


def test_any_slice_is_that_of_an_array_and_mapped_where_it_lies_in_one_shard(shards, tmp_path):
    made, ids = build(shards, tmp_path / "store", BPE), expected(BPE)
    points = [None, 0, 1, made.shards[0]["tokens"] - 1, made.shards[0]["tokens"], len(ids) - 1]
    points += [len(ids), len(ids) + 9, -3, -len(ids)]
    for a in points:
        for b in points:
            found = made[a:b]
            assert np.array_equal(found, ids[a:b]) and found.dtype == np.int32, (a, b)
    assert isinstance(made[3:9], np.memmap)
    with pytest.raises(ValueError, match="read in windows, not in steps of 2"):
        made[::2]


def test_batches_of_a_store_are_those_of_the_ids(shards, tmp_path):
    made, ids = build(shards, tmp_path / "store", BPE), expected(BPE)
    options = {"batch_size": 3, "window": 20, "seed": 5, "short_window": 7, "short_steps": 2}
    mapped, array = Batches(made, **options), Batches(ids, **options)
    for step in (0, 1, 2, 99):
        assert torch.equal(mapped.batch(step), array.batch(step))
        assert torch.equal(mapped.batch(step), Batches(made, **options).batch(step))
    assert mapped.batch(0).dtype == torch.long


@given(st.lists(st.text(max_size=30), max_size=12), st.sampled_from(sorted(TOKENIZERS)))
def test_a_text_in_parts_has_the_ids_of_the_whole(parts, kind):
    tokenizer = TOKENIZERS[kind]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizers, "CHUNK", 4)
        found = np.concatenate([*tokenizers.flowing(tokenizer, iter(parts), "x")])
    assert np.array_equal(found, encode(tokenizer, "".join(parts)))


def test_a_tokenizer_that_looks_across_borders_takes_documents_only(shards, tmp_path):
    other = tokenizers.Tokenizer.from_str(BPE.to_str())
    other.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    with pytest.raises(ValueError, match="a.txt is one text, and its tokenizer may look across"):
        build(shards[:1], tmp_path / "store", other)
    assert len(build(shards[2:3], tmp_path / "store", other))


def test_a_build_in_processes_is_the_same_and_goes_on_without_redoing(
    shards, tmp_path, monkeypatch
):
    alone, names = build(shards, tmp_path / "alone", BPE), []
    several = build(shards, tmp_path / "several", BPE, workers=2, done=names.append)
    assert sorted(names) == sorted(path.name for path in shards)
    assert several.about == alone.about and np.array_equal(several[:], alone[:])
    for path in (tmp_path / "alone").glob("00001.*"):  # as a build that was killed leaves it
        path.unlink()
    (tmp_path / "alone" / "00002.ids").write_bytes(b"half")
    (tmp_path / "alone" / "00003.json").write_text("{")
    write(shards[4], "changed")
    redone, plain = [], store._encoded

    def counted(path, *rest):
        redone.append(path.name)
        return plain(path, *rest)

    monkeypatch.setattr(store, "_encoded", counted)
    again = build(shards, tmp_path / "alone", BPE)
    assert redone == [path.name for path in shards[1:]]
    assert np.array_equal(again[: len(several)], several[:]) and len(again) > len(several)
    redone.clear()
    build(shards, tmp_path / "alone", BPE)
    assert redone == []
    build(shards, tmp_path / "alone", TOKENIZERS["character"])
    assert len(redone) == len(shards)  # other settings, other ids


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.jsonl", b'{"text": "a"}\n{"text": \n', r"x.jsonl, line 2, is not JSON \("),
        ("x.jsonl", b'{"body": "a"}\n', "x.jsonl, line 1, has no text under 'text'"),
        ("x.jsonl", b'\n["text"]\n', "x.jsonl, line 2, has no text under 'text'"),
        ("x.jsonl", b'{"text": 3}\n', "x.jsonl, line 1, has no text under 'text'"),
        ("x.jsonl", b'{"text": "half \\ud83d"}\n', "x.jsonl, line 1, is not JSON .* surrogates"),
        ("x.jsonl", b"[" * 99_999, r"x.jsonl, line 1, is not JSON \(maximum recursion depth"),
        ("x.jsonl", b'{"text": ' + b"1" * 5000 + b"}", "x.jsonl, line 1, is not JSON .Exceeds"),
        ("x.txt", b"good \xff bad", r"x.txt is not UTF-8 \(invalid start byte\): convert it"),
        ("x.txt.gz", gzip.compress(TEXT.encode())[:-9], r"x.txt.gz is damaged \(.*\): fetch it"),
        ("x.txt.gz", b"no gzip", r"x.txt.gz is damaged \(Not a gzipped file"),
        ("x.txt.zst", zstd.compress(TEXT.encode())[:-9], r"x.txt.zst is damaged \(.*\): fetch it"),
        ("x.txt.zst", b"no zstd", r"x.txt.zst is damaged \("),
        ("x.txt", None, "x.txt does not exist: give the path of a file"),
    ],
)
@pytest.mark.parametrize("workers", [1])
def test_a_shard_that_cannot_be_read_is_named(shards, tmp_path, name, data, message, workers):
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    with pytest.raises((ValueError, OSError), match=message) as caught:
        build([shards[0], path], tmp_path / "store", BPE, workers=workers)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store" / "store.json").exists()
    assert not list((tmp_path / "store").glob("00001*"))


def test_a_shard_that_no_package_here_can_read_is_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "zstd", None)
    with pytest.raises(ValueError, match="x.txt.zst needs the package backports.zstd: install it"):
        build([write(tmp_path / "x.txt.zst")], tmp_path / "store", BPE)


def test_ids_that_are_gone_or_changed_are_named(shards, tmp_path):
    made, ids = build(shards, tmp_path / "store", BPE), tmp_path / "store" / "00001.ids"
    data = ids.read_bytes()
    ids.write_bytes(data[:-4] + b"\1\0\0\0")
    with pytest.raises(ValueError, match=r"00001.ids, the ids of shard b.txt.gz, has changed: giv"):
        made.verify()
    ids.write_bytes(data[:-4])
    with pytest.raises(ValueError, match=r"shard b.txt.gz, is not [\d,]+ bytes long"):
        Store(tmp_path / "store")
    ids.unlink()
    with pytest.raises(FileNotFoundError, match="shard b.txt.gz, is gone"):
        Store(tmp_path / "store")
    with pytest.raises(FileNotFoundError, match="store.json is missing"):
        Store(tmp_path / "none")
    for damaged in ("", "{}", "[1]", '{"shards": [{}]}', '{"shards": 3}', "{", "NaN"):
        (tmp_path / "store" / "store.json").write_text(damaged)
        with pytest.raises(ValueError, match="store.json is no store's .* give it back as it w"):
            Store(tmp_path / "store")
    with pytest.raises(ValueError, match="no shards are given"):
        build([], tmp_path / "store", BPE)


PEAK = """
import resource, sys
from pathlib import Path
from minitransformer.corpus import Batches, build, train_tokenizer
shards, out = [Path(p) for p in sys.argv[2:]], Path(sys.argv[1])
made = build(shards, out, train_tokenizer("character", "fish "))
Batches(made, 8, 64, 0).batch(0)
print(len(made), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(folder, megabytes):
    """Tokens, and the most memory in KiB, of a process that tokenizes so much text."""
    pytest.importorskip("resource")  # not on Windows
    line = "fish " * 199 + "fish\n"
    shards = [folder / f"{megabytes}.txt.gz", folder / f"{megabytes}.jsonl"]
    with gzip.open(shards[0], "wt", 1) as file:
        for _ in range(megabytes * 500):
            file.write(line)
    with open(shards[1], "w") as file:
        for _ in range(megabytes * 500):
            file.write(json.dumps({"text": line}) + "\n")
    command = [sys.executable, "-c", PEAK, folder / f"{megabytes}.store", *shards]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


def test_the_memory_does_not_grow_with_the_text(tmp_path):
    (few, small), (many, large) = peak(tmp_path, 4), peak(tmp_path, 40)
    assert many == 10 * few and few > 4_000_000
    assert large - small < 8 * 1024  # KiB, where the ids alone have grown by 140 MiB


def test_the_command_builds_what_pretrain_reads(shards, tmp_path, capsys):
    words = [*map(str, shards), "--out", str(tmp_path / "store"), "--workers", "1"]
    assert __main__.main([*words, "--tokenizer", "bpe", "--vocab-size", "300"]) == 0
    assert capsys.readouterr().out.endswith(
        f"{len(Store(tmp_path / 'store')):,} tokens of 5 shards\n"
    )
    sizes = [f"--set={text}" for text in ("steps=2", "d_model=32", "window=16", "short_steps=0")]
    out = str(tmp_path / "model")
    assert pretrain.main([str(tmp_path / "store"), "--out", out, *sizes]) == 0
    assert load(out)[1].get_vocab_size() == Store(tmp_path / "store").tokenizer.get_vocab_size()
    assert __main__.main(words) == 0  # its own tokenizer goes on
    given = [str(shards[2]), "--out", str(tmp_path / "second"), "--workers=1", "--tokenizer"]
    assert __main__.main([*given, str(tmp_path / "store" / "tokenizer.json")]) == 0
    assert __main__.main([*given[:3], "--tokenizer", "none"]) == 2
    assert "tokenizer none is neither a file nor one of" in capsys.readouterr().err


def test_a_store_that_is_built_anew_is_none_until_it_is_whole(shards, tmp_path, monkeypatch):
    """Its ids would be those of two tokenizers."""
    build(shards, tmp_path / "store", TOKENIZERS["character"])
    plain = store._encoded

    def killed(path, *rest):
        if path == shards[2]:
            raise KeyboardInterrupt
        return plain(path, *rest)

    monkeypatch.setattr(store, "_encoded", killed)
    other = trained("character", "".join(sorted(set(TEXT)))[1:])
    with pytest.raises(KeyboardInterrupt):
        build(shards, tmp_path / "store", other)
    with pytest.raises(FileNotFoundError, match="store.json is missing; build it"):
        Store(tmp_path / "store")
    monkeypatch.undo()
    assert np.array_equal(build(shards, tmp_path / "store", other)[:], expected(other))


TEXT_GZ = gzip.compress(TEXT.encode())


@pytest.mark.parametrize(
    ("name", "data", "more", "message"),
    [
        ("x.txt.gz", TEXT_GZ[:-9], (), "shard {} is damaged (Compressed file ended"),
        ("x.jsonl.gz", b"no gzip", (), "shard {} is damaged (Not a gzipped file"),
        ("x.txt.zst", zstd.compress(TEXT.encode())[:-9], (), "shard {} is damaged ("),
        ("x.txt", b"good \xff bad", (), "shard {} is not UTF-8 (invalid start byte)"),
        ("x.jsonl", b"[" * 99_999, (), "shard {}, line 1, is not JSON ("),
        ("x.txt", None, (), "shard {} does not exist"),
        ("x.txt", b"a", ("--tokenizer={}",), "{} is no tokenizer ("),
        ("x.txt", b"a", ("--tokenizer=wordy",), "tokenizer wordy is neither a file nor one of"),
        ("x.txt", b"a", ("--vocab-size=-1",), "vocab_size -1 is not positive: give at least 1"),
        ("x.txt", b"a", ("--vocab-size=9999999999",), "vocab_size 9999999999 is not supported"),
        ("x.txt", b"a", ("--workers=0",), "--workers 0 is not positive: give at least 1"),
        ("x.txt", b"a", ("--out={}",), "cannot write {}/tokenizer.json ("),
    ],
)
def test_the_command_ends_in_one_line(tmp_path, capsys, name, data, more, message):
    path = tmp_path / "a folder" / name
    path.parent.mkdir()
    if data is not None:
        path.write_bytes(data)
    given = [str(path), "--out", str(tmp_path / "store"), *(word.format(path) for word in more)]
    assert __main__.main(given) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: " + message.format(path)) and told.count("\n") == 1
    assert path.exists() == (data is not None)


def test_an_interrupt_of_the_command_is_one_line(shards, tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "_encoded", interrupted)
    given = [str(shards[0]), "--out", str(tmp_path / "store"), "--workers", "1"]
    assert __main__.main(given) == 130
    assert capsys.readouterr().err == "interrupted: what was finished is kept\n"


def test_a_tokenizer_of_no_kind_or_size_is_refused():
    with pytest.raises(ValueError, match=r"tokenizer 'words' is unknown.*did you mean 'word'"):
        trained("words", TEXT)
    for kind in tokenizers.KINDS:
        with pytest.raises(ValueError, match="vocab_size 0 is not positive: give at least 1"):
            trained(kind, TEXT, 0)
    made = trained("bpe", TEXT[:99], 2**31 - 1)  # room for so many would end the process
    assert 256 < made.get_vocab_size() < 256 + 4 * 99
