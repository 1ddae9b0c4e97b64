"""A saved folder is exactly what was saved, as a whole or not at all, in the model's own type; and
what does not fit is refused by name."""

import json
import os
import pickle
import struct
from dataclasses import asdict, replace

import pytest
import torch
import torch.nn as nn
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from minitransformer import checkpoint, files
from minitransformer.checkpoint import load, save
from minitransformer.model import ModelConfig, Transformer
from minitransformer.quant import QuantScheme, quantize

CFG = ModelConfig(vocab_size=12, d_model=8, n_heads=2, n_layers=2, context=8)
IDS = torch.arange(8)[None]
OWN = ["config.json", "model.safetensors"]


def model(seed=0, **changes):
    torch.manual_seed(seed)
    return Transformer(replace(CFG, **changes)).eval()


def words(n=12, letter="w"):
    return Tokenizer(WordLevel({f"{letter}{i}": i for i in range(n)}, unk_token=f"{letter}0"))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def same(folder, net):
    return torch.equal(load(folder)[0](IDS), net(IDS))


def test_nothing_of_an_earlier_save_is_left(tmp_path):
    folder = tmp_path / "m"
    save(model(), folder, words())
    for stray in ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "x.part"):
        (folder / stray).write_text("{}")
    other = model(1)
    save(other, folder)
    assert names(folder) == OWN and same(folder, other) and load(folder)[1] is None
    assert names(tmp_path) == ["m"]


@pytest.mark.parametrize("stray", ["notes.txt", "pytorch_model.bin", "sub/"])
def test_a_folder_with_files_that_no_save_wrote_is_left_alone(tmp_path, stray):
    (tmp_path / "m" / stray).mkdir(parents=True) if stray.endswith("/") else (
        (tmp_path / "m").mkdir(),
        (tmp_path / "m" / stray).write_text("mine"),
    )
    with pytest.raises(ValueError, match=f"holds {stray.strip('/')}, which no save wrote: move it"):
        save(model(), tmp_path / "m")
    assert names(tmp_path / "m") == [stray.strip("/")]


def test_the_working_folder_and_files_are_no_place_for_a_model(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    for place in (".", "..", tmp_path):
        with pytest.raises(
            ValueError, match="holds the working folder: give a folder for the model"
        ):
            save(model(), place)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file is a file: give a folder's name"):
        save(model(), tmp_path / "file")


class Stop(BaseException):
    pass


FULL = "No space left on device"


@pytest.mark.parametrize("error", [OSError(28, FULL), SafetensorError(FULL), Stop()], ids=repr)
@pytest.mark.parametrize(
    "where",
    [
        (checkpoint, "save_file"),
        (checkpoint.json, "dumps"),
        (checkpoint, "sha256_of"),
        (files.os, "rename"),
    ],
    ids=lambda where: where[1],
)
@pytest.mark.parametrize("call", [1, 2])
def test_a_save_that_fails_anywhere_leaves_the_older_folder_whole(
    tmp_path, monkeypatch, where, call, error
):
    old, folder, calls = model(), tmp_path / "m", 0
    save(old, folder, words())
    whole = getattr(*where)

    def fail(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == call:
            raise error
        return whole(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(*where, fail)
        try:
            save(model(1), folder, words(letter="v"))
            assert calls < call  # it is called only once, and so nothing failed
        except (OSError, Stop) as caught:
            assert isinstance(caught, Stop) or str(caught).startswith(f"cannot write {folder} (")
            assert same(folder, old) and names(folder) == [*OWN, "tokenizer.json"]
    assert names(tmp_path) == ["m"]


def test_what_a_killed_process_left_is_taken_up_by_the_next_save(tmp_path):
    """Killed between the two renames: the older folder still has its other name."""
    save(model(), tmp_path / "m")
    os.rename(tmp_path / "m", tmp_path / ".m.old")
    (tmp_path / f".m.{2**22 + 1}.part").mkdir()  # no process has such a number
    save(model(1), tmp_path / "m")
    assert same(tmp_path / "m", model(1)) and names(tmp_path) == ["m"]


def test_two_processes_that_save_to_one_place_do_not_mix(tmp_path, monkeypatch):
    """Each writes what it has to write; the last one is there, whole."""
    for write, target in ((files.replacing_folder, "m"), (files.replacing, "m.json")):
        place = tmp_path / target
        with write(place) as one, monkeypatch.context() as patch:
            put(one, "half of one")
            patch.setattr(os, "getpid", lambda: 1)  # another process, which lives
            with write(place) as two:
                assert one.exists() and two != one
                put(two, "two")
            assert content(place) == "two"
            patch.undo()
            assert content(one) == "half of one"
            put(one, "one")
        assert content(place) == "one"
    assert names(tmp_path) == ["m", "m.json"]


def put(path, text):
    (path / "x" if path.is_dir() else path).write_text(text)


def content(path):
    return (path / "x" if path.is_dir() else path).read_text()


def test_a_place_below_a_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    for write in (files.replacing, files.replacing_folder):
        with pytest.raises(OSError, match=r"^cannot write .*file.x .*what was there is whole$"):
            with write(tmp_path / "file" / "x"):
                pass
    assert names(tmp_path) == ["file"]


def test_links_stay_links_and_are_read_through(tmp_path):
    save(model(), tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    save(model(1), tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and same(tmp_path / "real", model(1))
    (tmp_path / "hub").mkdir()
    for name in OWN:
        (tmp_path / "hub" / name).symlink_to(tmp_path / "real" / name)
    assert same(tmp_path / "hub", model(1))


def test_a_tokenizer_of_another_model_is_not_picked_up(tmp_path):
    folder = tmp_path / "m"
    save(model(), folder)
    words().save(str(folder / "tokenizer.json"))
    with pytest.raises(ValueError, match="tokenizer.json was not saved with this model: delete it"):
        load(folder)
    save(model(), folder, words())
    words(letter="v").save(str(folder / "tokenizer.json"))
    with pytest.raises(ValueError, match="tokenizer.json is truncated or changed"):
        load(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="tokenizer.json is missing, or save the model again"):
        load(folder)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "scheme",
    [
        None,
        QuantScheme(8),
        QuantScheme(4, "group", 4, False, "float32"),
        QuantScheme(4, codebook="nf4"),
    ],
    ids=str,
)
@pytest.mark.parametrize("tied", [False, True])
def test_a_model_comes_back_in_its_own_type(tmp_path, dtype, scheme, tied):
    plain = model(tied=tied)
    first = (plain if scheme is None else quantize(plain, scheme)).to(dtype)
    save(first, tmp_path / "m")
    again = load(tmp_path / "m")[0]
    assert torch.equal(again(IDS), first(IDS)) and again(IDS).dtype == dtype
    assert {p.dtype for p in again.parameters()} == {dtype}
    assert json.loads((tmp_path / "m" / "config.json").read_text())["dtype"] in str(dtype)


def test_shared_and_viewed_tensors_are_written_as_they_read(tmp_path):
    net = model()
    first, second = net.blocks
    second.ffn.up.weight = first.ffn.up.weight  # shared, though the configuration ties nothing
    both = torch.randn(16, 8)
    first.attention.q.weight, first.attention.k.weight = (
        nn.Parameter(both[:8]),
        nn.Parameter(both[8:]),
    )
    second.attention.q.weight = nn.Parameter(torch.randn(8, 8).T)
    second.attention.k.weight = nn.Parameter(torch.randn(8, 1).expand(8, 8))
    save(net, tmp_path / "m")
    again = load(tmp_path / "m")[0].state_dict()
    assert all(torch.equal(again[name], own) for name, own in net.state_dict().items())


def test_a_model_that_left_its_configuration_is_not_saved(tmp_path):
    def untie(net):
        net.head.weight = nn.Parameter(torch.ones(12, 8))

    def widen(net):
        net.head = nn.Linear(8, 13)

    def grow(net):
        net.adapter = nn.Linear(2, 2)

    def spoil(net):
        net.norm.bias.data[0] = float("nan")

    def mix(net):
        net.head.half()

    for change, message, tied in (
        (untie, "head.weight is not embedding.weight, to which the configuration ties it", True),
        (widen, r"head.weight is \(13, 8\) and the configuration says \(12, 8\)", False),
        (grow, "adapter.bias is not as the scheme stores it", False),
        (spoil, "norm.bias is not finite", False),
        (mix, "the model mixes or has types torch.float16, torch.float32: convert it", False),
    ):
        net = model(tied=tied)
        change(net)
        with pytest.raises(ValueError, match=message):
            save(net, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def rewritten(folder, change):
    """The folder with other tensors, and without the hash that would tell."""
    path, config = folder / "model.safetensors", json.loads((folder / "config.json").read_text())
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    del config["sha256"]
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("norm.bias"), r"of another model \(Missing key norm.bias\)"),
        (lambda t: t.update(extra=torch.ones(1)), r"of another model \(Unexpected key extra\)"),
        (
            lambda t: t.update({"norm.bias": torch.ones(9)}),
            r"norm.bias is \(9,\) float32 in the file and \(8,\)",
        ),
        (
            lambda t: t.update({"norm.bias": torch.ones(8).half()}),
            r"norm.bias is \(8,\) float16 in the file",
        ),
        (
            lambda t: t.update({"norm.bias": torch.ones(8).long()}),
            r"norm.bias is \(8,\) int64 in the file",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, change, message):
    save(model(), tmp_path / "m")
    rewritten(tmp_path / "m", change)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "m")


HEADER = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 800]}}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"\xff" * 8,
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 4) + b"null",
        struct.pack("<Q", len(HEADER)) + HEADER,
        pickle.dumps({"a": 1}),
        b"PK\x03\x04" + b"\0" * 40,
        b"version https://git-lfs.github.com/spec/v1\n",
    ],
)
def test_what_is_no_safetensors_file_is_refused(tmp_path, content):
    save(model(), tmp_path / "m")
    rewritten(tmp_path / "m", lambda tensors: None)
    (tmp_path / "m" / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="model.safetensors is truncated or of another model"):
        load(tmp_path / "m")


def test_a_pickle_is_not_even_opened(tmp_path):
    save(model(), tmp_path / "m")
    os.rename(tmp_path / "m" / "model.safetensors", tmp_path / "m" / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="holds no model.safetensors"):
        load(tmp_path / "m")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "is not a configuration of ours"),
        ({"dtype": "int8"}, "is not a configuration of ours"),
        ({"dtype": ["float32"]}, "is not a configuration of ours"),
        ({"dtype": "bfloat16"}, "float32 in the file and .* bfloat16 in the model"),
        ({"model": None}, "is not a configuration of ours"),
        ({"model": []}, "is not a configuration of ours"),
        ({"model": asdict(CFG) | {"colour": 1}}, "is not a configuration of ours .*colour"),
        ({"model": {"d_model": 8}}, "is not a configuration of ours .model leaves fields out"),
        ({"model": asdict(CFG) | {"d_model": "8"}}, "d_model '8' is not a whole number"),
        ({"model": asdict(CFG) | {"n_layers": 10**9}}, "for 1000000000 blocks"),
        (
            {"model": asdict(CFG) | {"d_model": 2**20}},
            r"blocks.0.attention.k.bias is \(8,\) float32 in the file and \(1048576,\)",
        ),
        (
            {"quantization": {"bits": 4}},
            "is not a configuration of ours .quantization leaves fields out",
        ),
        ({"quantization": {"layers": {"head": None}}}, "the scheme says nothing of"),
        ({"quantization": 8}, "8 is no scheme"),
        ({"sha256": 5}, "truncated or changed"),
        ({"tokenizer": "0" * 64}, "tokenizer.json is missing"),
    ],
    ids=str,
)
def test_a_configuration_that_does_not_fit_is_refused(tmp_path, change, message):
    save(model(), tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "m")


def test_a_configuration_nested_too_deep_is_refused(tmp_path):
    save(model(), tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is not a configuration of ours"):
        load(tmp_path / "m")
