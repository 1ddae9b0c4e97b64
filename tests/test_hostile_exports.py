"""What a hostile or unlucky hand gives to the exporters and to what reads another library's folder:
each ends in one line, nothing is executed, and nothing is half-written."""

import json
import math
import os
import pickle
import re
import shutil
import struct
from collections import namedtuple
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from minitransformer import ModelConfig, Transformer, files, load, quantize, save
from minitransformer.corpus import train_bpe, train_words
from minitransformer.export import (
    check_huggingface,
    from_huggingface,
    onnx,
    to_gguf,
    to_huggingface,
    to_onnx,
)
from minitransformer.export.__main__ import main
from minitransformer.export.web import REACH, check_reach
from training import little_room

TEXT = "the cat sat on the mat; the dog sat by the door. " * 8
BPE = train_bpe(TEXT)
SIZE = BPE.get_vocab_size()


def model(seed=0, **fields):
    torch.manual_seed(seed)
    shape = dict(vocab_size=SIZE, d_model=32, n_layers=2, n_heads=2, context=32, bias=False)
    return Transformer(
        ModelConfig(**{**shape, "norm": "rmsnorm", "ffn": "swiglu", **fields})
    ).eval()


def beside(net, place, tokenizer):
    """An ONNX graph with its weights in a file of their own."""
    limit, onnx.LARGEST = onnx.LARGEST, 10_000
    try:
        return to_onnx(net, place, tokenizer)
    finally:
        onnx.LARGEST = limit


WRITERS = {
    "hf": to_huggingface,
    "onnx": to_onnx,
    "onnx, weights beside": beside,
    "gguf": to_gguf,
    "gguf q8_0": partial(to_gguf, kind="q8_0"),
    "save": save,
    "save int4": lambda net, place, words: save(quantize(net, 4), place, words),
}


def told(call, *kinds):
    """The one line that a call dies with."""
    with pytest.raises(kinds or (ValueError, OSError)) as caught:
        call()
    message = str(caught.value)
    assert message and "\n" not in message and ": " in message and len(message) < 700, message
    return message


def contents(place: Path) -> dict:
    """Every file below a folder."""
    return {p.relative_to(place): p.read_bytes() for p in place.rglob("*") if p.is_file()}


# --- writing


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9, 0.999])
def test_a_full_disk_is_one_line_and_what_was_there_is_whole(name, share, tmp_path):
    """At any place of the largest file, with and without an earlier export."""
    write, place = WRITERS[name], tmp_path / "out"
    write(model(), place, BPE)
    before = contents(tmp_path)
    largest = max(map(len, before.values()))
    with little_room(int(share * largest)):
        message = told(lambda: write(model(1), place, BPE), OSError)
        fresh = told(lambda: write(model(1), tmp_path / "new", BPE), OSError)
    assert message.startswith(f"cannot write {place} (") and "what was there is whole" in message
    assert fresh.startswith(f"cannot write {tmp_path / 'new'} (")
    assert contents(tmp_path) == before and [p.name for p in tmp_path.iterdir()] == ["out"]
    write(model(1), place, BPE)
    assert contents(tmp_path).keys() == before.keys() and contents(tmp_path) != before


@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_is_too_small_is_told_before_anything_is_written(name, tmp_path, monkeypatch):
    """What was there keeps its place, so that old and new must both fit."""
    write, place = WRITERS[name], tmp_path / "out"
    write(model(), place, BPE)
    before = contents(tmp_path)
    largest, room = max(map(len, before.values())), namedtuple("usage", "free")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: room(largest // 2))
    with little_room(0):  # a byte written would be told by another line
        for there in (place, tmp_path / "new" / "out"):
            message = told(lambda there=there: write(model(1), there, BPE), OSError)
            assert re.search(rf"cannot write {there} \(it takes [\d.]+ GiB and 0.0 are", message)
    assert contents(tmp_path) == before and [p.name for p in tmp_path.iterdir()] == ["out"]
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: room(largest))
    write(model(1), place, BPE)


def test_twenty_gigabytes_are_refused_in_a_moment(tmp_path, capsys, monkeypatch):
    """A checkpoint that takes no disk, its numbers a hole in the file."""
    folder = to_huggingface(model(d_model=64, tied=True), tmp_path / "hf")
    about = json.loads((folder / "config.json").read_text())
    shapes = {n: [*t.shape] for n, t in load_file(folder / "model.safetensors").items()}
    rows = 20 * 2**30 // (4 * 64)
    change(folder / "config.json", vocab_size=rows)
    wide = {n: [rows, *s[1:]] if s[0] == about["vocab_size"] else s for n, s in shapes.items()}
    sparse(folder / "model.safetensors", wide)
    assert (folder / "model.safetensors").stat().st_size > 20 * 2**30
    room = namedtuple("usage", "free")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: room(2**33))
    for format in ("hf", "gguf", "onnx"):
        args = [str(folder), "--format", format, "--out", str(tmp_path / "out")]
        assert main(args) == 2 and not (tmp_path / "out").exists()
        (line,) = capsys.readouterr().err.splitlines()
        assert "GiB and 8.0 are free): free some space" in line or "free some memory" in line


def sparse(path, shapes):
    """A safetensors file of zeros in FP32 that lie nowhere."""
    at, found = 0, {}
    for name, shape in sorted(shapes.items()):
        end = at + 4 * math.prod(shape)
        found[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, end]}
        at = end
    head = json.dumps(found).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head)
    os.truncate(path, 8 + len(head) + at)


FOLDERS = [name for name in WRITERS if "gguf" not in name]


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("stray", ["README.md", ".git/HEAD", "onnx/mine.onnx", "a/b/c"])
def test_an_export_takes_nothing_away_that_no_export_wrote(name, stray, tmp_path):
    write, place = WRITERS[name], tmp_path / "out"
    write(model(), place, BPE)
    (place / stray).parent.mkdir(parents=True, exist_ok=True)
    (place / stray).write_text("mine")
    before = contents(tmp_path)
    assert "wrote: move it, or give a folder" in told(lambda: write(model(1), place, BPE))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", FOLDERS)
def test_neither_the_working_folder_nor_a_file_is_replaced(name, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "mine").write_text("mine")
    monkeypatch.chdir(tmp_path / "in")
    for place in (".", "..", "mine", tmp_path / "in" / "mine" / "below"):
        told(lambda place=place: WRITERS[name](model(), Path(place), BPE))
    assert contents(tmp_path) == {Path("in/mine"): b"mine"}


@pytest.mark.parametrize("name", WRITERS)
def test_a_place_that_may_not_be_written_is_named(name, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.os, "rename" if name in FOLDERS else "replace", refuse)
    message = told(lambda: WRITERS[name](model(), tmp_path / "out", BPE), PermissionError)
    assert message == (
        f"cannot write {tmp_path / 'out'} (Permission denied): give a place that you may write to; "
        "what was there is whole"
    )
    assert not list(tmp_path.iterdir())


def test_a_folder_in_the_place_of_a_gguf_file_stays(tmp_path):
    (tmp_path / "m.gguf").mkdir()
    assert "cannot write" in told(lambda: to_gguf(model(), tmp_path / "m.gguf"), OSError)
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


@pytest.mark.parametrize("name", WRITERS)
def test_a_number_that_is_not_finite_is_not_exported(name, tmp_path):
    for value in (float("nan"), float("inf")):
        net = model()
        net.blocks[1].ffn.up.weight.data[3, 5] = value
        assert "finite" in told(lambda net=net: WRITERS[name](net, tmp_path / "out", BPE))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", WRITERS)
def test_a_tokenizer_of_another_model_is_not_exported(name, tmp_path):
    small = model(vocab_size=SIZE - 1)
    message = told(lambda: WRITERS[name](small, tmp_path / "out", BPE), ValueError)
    assert "the tokenizer" in message and not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["f16", "q8_0", "q4_0"])
def test_a_weight_beyond_a_type_of_gguf_is_refused(kind, tmp_path):
    net = model()
    net.blocks[0].ffn.up.weight.data[0, 0] = 1e9
    message = told(lambda: to_gguf(net, tmp_path / "m.gguf", kind=kind))
    assert f"blk.0.ffn_up.weight holds 1e+09, beyond what {kind} does: give kind 'bf16'" in message
    assert not list(tmp_path.iterdir())


def test_what_webassembly_does_not_reach_is_refused_by_arithmetic():
    check_reach(REACH)
    message = told(lambda: check_reach(5 * 2**30))
    assert "take 5.0 GiB, and WebAssembly reaches 3.9: give a smaller context" in message


# --- reading


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return to_huggingface(model(), tmp_path_factory.mktemp("kept") / "hf", BPE)


@pytest.fixture
def folder(kept, tmp_path):
    return Path(shutil.copytree(kept, tmp_path / "hf"))


@pytest.fixture(autouse=True)
def nothing_is_executed(monkeypatch):
    def never(*_, **__):
        raise AssertionError("a pickle was opened")

    for module, name in ((pickle, "load"), (pickle, "loads"), (torch, "load")):
        monkeypatch.setattr(module, name, never)


def refused(folder, capsys):
    """The one line of the command on a folder, with no file written."""
    out = folder.parent / "out"
    assert main([str(folder), "--out", str(out)]) == 2
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert said.out == "" and len(lines) == 1 and lines[0].startswith("error: "), said.err
    assert ": " in lines[0][7:] and len(lines[0]) < 700, lines[0]
    assert not out.exists()
    return lines[0]


def change(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


VALUES = (None, True, -1, 0, 1, 7, 0.5, 1e308, 2**31 - 1, 2**70, "64", "", [], [64], {}, {"a": 1})


def test_any_value_of_any_field_of_a_configuration_is_taken_or_one_line(kept, folder):
    plain, refusals = json.loads((kept / "config.json").read_text()), 0
    inner = plain["rope_parameters"]
    cases = [{key: value} for key in plain for value in VALUES]
    cases += [{"rope_parameters": inner | {k: v}} for k in (*inner, "factor") for v in VALUES]
    kinds = ("linear", "llama3", "yarn")
    cases += [{"rope_parameters": {"rope_type": k, "factor": v}} for k in kinds for v in VALUES]
    for case in cases:
        (folder / "config.json").write_text(json.dumps(plain | case))
        try:
            check_huggingface(folder)
        except (ValueError, OSError) as error:
            refusals += 1
            assert "\n" not in str(error) and len(str(error)) < 700, (case, error)
        except Exception as error:
            raise AssertionError(f"{case}: {error!r}") from error
    assert len(cases) / 3 < refusals < len(cases)


JSON = {
    "a name twice": b'{"model_type": "llama", "model_type": "gpt2"}',
    "a name twice, deep": b'{"model_type": "llama", "a": [{"b": 1, "b": 1}]}',
    "not a number": b'{"model_type": "llama", "rms_norm_eps": NaN}',
    "infinity": b'{"model_type": "llama", "rope_theta": -Infinity}',
    "a list": b"[]",
    "a word": b'"llama"',
    "nothing": b"",
    "half of it": b'{"model_type": "lla',
    "nested": b"[" * 200_000,
    "another encoding": '{"model_type": "é"}'.encode("latin-1"),
    "a pickle": pickle.dumps({"model_type": "llama"}),
    "zeros": bytes(64),
}


@pytest.mark.parametrize("name", JSON)
@pytest.mark.parametrize("place", ["config.json", "model.safetensors.index.json"])
def test_what_is_not_json_as_the_standard_has_it_is_refused(name, place, folder, capsys):
    (folder / place).write_bytes(JSON[name])
    assert place in refused(folder, capsys)


@pytest.mark.parametrize("name", JSON)
def test_our_own_configuration_is_as_strict(name, tmp_path, capsys):
    folder = save(model(), tmp_path / "m", BPE)
    (folder / "config.json").write_bytes(JSON[name])
    told(lambda: load(folder), ValueError)
    assert "config.json" in refused(folder, capsys)


MAPS = [None, [], 5, "x", {"lm_head.weight": 5}, {"lm_head.weight": None}, {"a": ["x"]}, {"a": ""}]
MAPS += [
    {"a": name} for name in ("..", ".", "../x.safetensors", "/x.safetensors", "a/b.safetensors")
]
MAPS += [{"a": name} for name in ("a\0.safetensors", "config.json", "x.bin", "model.safetensors\n")]


@pytest.mark.parametrize("found", MAPS, ids=repr)
def test_an_index_names_files_of_its_folder_only(found, folder, capsys):
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": found}))
    assert "index.json" in refused(folder, capsys)


def test_a_tensor_in_two_shards_is_refused(folder, capsys):
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    names = {"a": "model.safetensors", "b": "other.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert "in two files: download the folder again" in refused(folder, capsys)


def header(text: str, size: int | None = None) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data) if size is None else size) + data


def tensor(shape="[2]", offsets="[0, 8]", dtype="F32") -> str:
    return f'{{"dtype": "{dtype}", "shape": {shape}, "data_offsets": {offsets}}}'


HEADERS = {
    "nothing": b"",
    "seven bytes": b"\0" * 7,
    "2^63 bytes of header": header("{}", 2**63),
    "a terabyte of header": header("{}", 2**40),
    "a gigabyte of header": header("{}", 2**30),
    "a header that is no object": header("null"),
    "a terabyte of numbers": header(f'{{"a": {tensor(f"[{2**38}]", f"[0, {2**40}]")}}}'),
    "more elements than 2^64": header(f'{{"a": {tensor(f"[{2**40}, {2**40}]")}}}') + bytes(8),
    "negative": header(f'{{"a": {tensor("[-2]")}}}') + bytes(8),
    "from the end": header(f'{{"a": {tensor(offsets="[8, 0]")}}}') + bytes(8),
    "a type of no name": header(f'{{"a": {tensor(dtype="OBJ")}}}') + bytes(8),
    "overlapping": header(f'{{"a": {tensor()}, "b": {tensor()}}}') + bytes(8),
    "an archive": b"PK\x03\x04" + bytes(60),
    "a pickle": pickle.dumps([1]),
    "a pointer of git": b"version https://git-lfs.github.com/spec/v1\n",
}


@pytest.mark.parametrize("name", HEADERS)
def test_what_is_no_safetensors_file_is_refused(name, folder, capsys):
    (folder / "model.safetensors").write_bytes(HEADERS[name])
    message = refused(folder, capsys)
    assert "model.safetensors is truncated or damaged (" in message


@given(st.floats(0, 0.9999))
def test_a_file_cut_anywhere_is_refused(kept, tmp_path_factory, share):
    folder = tmp_path_factory.mktemp("cut")
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    whole = (kept / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: int(share * len(whole))])
    assert "is truncated or damaged (" in told(lambda: from_huggingface(folder), ValueError)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool], ids=str)
def test_integers_are_not_taken_for_weights(dtype, folder, capsys):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.0.mlp.up_proj.weight"] = tensors["lm_head.weight"].to(dtype)[:1].expand(
        *tensors["model.layers.0.mlp.up_proj.weight"].shape
    ).contiguous()  # fmt: skip
    save_file(tensors, path, metadata={"format": "pt"})
    assert "give a model that is not quantized" in refused(folder, capsys)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "a.pth", "b.ckpt"])
def test_pickled_weights_are_named_and_not_opened(name, folder, capsys):
    (folder / "model.safetensors").rename(folder / name)
    assert "pickled weights only: convert them to safetensors" in refused(folder, capsys)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "model.safetensors", "model.safetensors.index.json"]
)
@pytest.mark.parametrize("circle", [False, True])
def test_a_link_that_leaves_the_folder_is_not_followed(name, circle, folder, tmp_path, capsys):
    path, away = folder / name, tmp_path / "away"
    weights = {"weight_map": {"lm_head.weight": "model.safetensors"}}
    away.write_bytes(path.read_bytes() if path.is_file() else json.dumps(weights).encode())
    path.unlink(missing_ok=True)
    path.symlink_to(path if circle else away)
    if not circle:
        assert f"{name} is a link that leaves the folder: copy the file" in refused(folder, capsys)
    elif "index" not in name and "tokenizer" not in name:  # which need not be there
        assert f"holds no {name}" in refused(folder, capsys)


def test_a_tokenizer_that_is_none_or_of_another_model_is_refused(folder, capsys):
    for content in (
        b"{}",
        b"",
        bytes(9),
        b'{"model": {"type": "BPE"}}',
        pickle.dumps(BPE.to_str()),
    ):
        (folder / "tokenizer.json").write_bytes(content)
        assert "tokenizer.json is no tokenizer (" in refused(folder, capsys)
    other = train_words(" ".join(f"w{i} w{i}" for i in range(SIZE)))
    other.save(str(folder / "tokenizer.json"))
    message = refused(folder, capsys)
    assert f"and the model has {SIZE} tokens: give the tokenizer that it was trained" in message


def test_a_folder_that_may_not_be_read_is_named(folder, capsys, monkeypatch):
    if os.name == "nt" or os.geteuid() == 0:  # for whom nothing is forbidden

        def refuse(path, *_, **__):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Path, "is_file", refuse)
        assert "Permission denied): see to its rights, or give another" in refused(folder, capsys)
        return
    folder.chmod(0)
    try:
        assert "Permission denied): see to its rights, or give another" in refused(folder, capsys)
    finally:
        folder.chmod(0o755)
