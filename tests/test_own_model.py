"""The report of a model of the user's: what it refuses, in one line, and the whole set on a tiny
checkpoint of each family."""

import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from minitransformer import ModelConfig, Transformer, save
from paper import __main__ as command
from paper.parameters import check, known_parameters, read_profile, resolve, saved_changes
from paper.project import Project
from paper.scrub import naming
from studies import own, own_bench, preflight

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks" / "own"
TEXT = "The quick brown fox jumps over the lazy dog, and nobody knows why it does so. " * 120
SIZE = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
SIZE |= dict(intermediate_size=96, vocab_size=320, max_position_embeddings=256)
LLAMA3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0)
LLAMA3 |= dict(high_freq_factor=4.0, original_max_position_embeddings=64)
FAMILIES = {
    "smollm": (LlamaForCausalLM, LlamaConfig(**SIZE, tie_word_embeddings=True)),
    "llama-3.2": (
        LlamaForCausalLM,
        LlamaConfig(**SIZE, tie_word_embeddings=True, head_dim=32, rope_parameters=LLAMA3),
    ),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SIZE)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SIZE, head_dim=32)),
}


def tokenizer():
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<end>"], initial_alphabet=letters, show_progress=False
    )
    found.train_from_iterator([TEXT], trainer)
    return found


def write(folder, family):
    torch.manual_seed(0)
    kind, cfg = FAMILIES[family]
    kind(cfg).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return write(tmp_path_factory.mktemp("hub") / "tiny", "smollm")


@pytest.fixture
def folder(kept, tmp_path):
    return Path(shutil.copytree(kept, tmp_path / "tiny"))


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def asked(folder, corpus, **given):
    given = {"window": 32, "new_tokens": 4, "model": str(folder), "corpus": str(corpus), **given}
    return resolve(FOLDER, "quick", given)


def refused(folder, corpus, tmp_path, **given):
    """The one line that the preflight says."""
    with pytest.raises((ValueError, OSError)) as error:
        preflight.check(asked(folder, corpus, **given), None, tmp_path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_read_timed_and_judged(family, tmp_path, corpus):
    p = asked(write(tmp_path / family, family), corpus)
    assert preflight.check(p, None, tmp_path) == []
    folder, new = Path(p["model"]), p["new_tokens"]
    texts, cfg = own.texts(folder, p), own.shape(folder)
    assert [len(part) for part in texts.values()] == [512, 512]
    limits = own_bench.bytes_of(cfg)
    samples = own_bench.measure(folder, texts["test"][:8], new, 1)["own_steps"]
    speeds = own_bench.speeds(samples.assign(process=0), new, limits)
    assert {"none", "static"} <= {*speeds.cache} and (speeds.per_second > 0).all()
    net = own.read(folder)
    costs = own_bench.formats(net, {name: ids[:96] for name, ids in texts.items()}, 32)
    assert list(costs.format) == ["FP32", "int8", *own_bench.METHODS]
    choice = own_bench.chosen(costs, pd.DataFrame({"cache": [], "high": []}), speeds)
    whole = own.tokenizer_of(folder)
    for method in {"FP32", choice["method"], "int4 GPTQ"}:
        path = own_bench.shipped(net, method, texts, 32, tmp_path / method, whole)
        assert own.load(path)[0].cfg.vocab_size == net.cfg.vocab_size
    told = own_bench.advice(choice, cfg, path).set_index("question").answer
    assert "tokens a second" in told["speed"] and "tokenizer.json" in told["file to ship"]
    assert own_bench.caches(net, texts["test"][:96], 96).cache.tolist() == ["int8", "int4", "int2"]
    assert (own_bench.parts(cfg).parameters.sum()) == sum(
        t.numel() for t in {t.data_ptr(): t for t in net.parameters()}.values()
    )


def test_a_folder_that_save_wrote_is_read_too(tmp_path, corpus):
    words = tokenizer()
    cfg = ModelConfig(vocab_size=words.get_vocab_size(), d_model=32, n_heads=2, context=128)
    made = save(Transformer(cfg).eval(), tmp_path / "ours", words)
    assert preflight.check(asked(made, corpus), None, tmp_path) == []
    assert own.shape(made) == cfg == own.read(made).cfg
    (made / "model.safetensors").write_bytes(b"x" * 99)
    assert "model.safetensors" in refused(made, corpus, tmp_path)


def test_what_a_runtime_cannot_have_is_told_by_name(kept):
    ours = Transformer(ModelConfig(vocab_size=300, d_model=32, n_heads=2, context=64)).eval()
    told = own_bench.files(ours, tokenizer()).set_index("file")
    assert told.MB.notna().sum() + told.what.ne("written").sum() == len(told)
    assert (own_bench.files(own.read(kept), tokenizer()).what == "written").sum() >= 1


def without(name):
    return lambda folder: (folder / name).unlink()


def config(**changes):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def tensors(change):
    def rewrite(folder):
        path = folder / "model.safetensors"
        found = load_file(path)
        change(found)
        save_file(found, path, metadata={"format": "pt"})

    return rewrite


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def sharded(name):
    def index(folder):
        path = folder / "model.safetensors.index.json"
        path.write_text(json.dumps({"weight_map": {"model.norm.weight": name}}))

    return index


def leaving(folder):
    away = folder.parent / "elsewhere.safetensors"
    (folder / "model.safetensors").rename(away)
    (folder / "model.safetensors").symlink_to(away)


NORM = "model.norm.weight"
BAD = {
    "no config": (without("config.json"), "holds no config.json"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "is not JSON"),
    "architecture": (config(model_type="mamba"), "'mamba'"),
    "activation": (config(hidden_act="relu"), "hidden_act 'relu'"),
    "rope": (config(rope_parameters={"rope_type": "yarn", "factor": 2.0}), "rope_type 'yarn'"),
    "pickled": (pickled, "pickled weights only"),
    "no weights": (without("model.safetensors"), "holds no model.safetensors"),
    "missing tensor": (tensors(lambda t: t.pop(NORM)), "lacks norm.weight"),
    "unexpected": (tensors(lambda t: t.update(more=torch.ones(2))), "holds more"),
    "misshaped": (tensors(lambda t: t.update({NORM: torch.ones(3)})), "is (3,)"),
    "damaged": (lambda f: (f / "model.safetensors").write_bytes(b"0" * 40), "truncated or damaged"),
    "shard above": (sharded("../away.safetensors"), "'../away.safetensors'"),
    "absolute shard": (sharded("/etc/away.safetensors"), "'/etc/away.safetensors'"),
    "link": (leaving, "is a link that leaves the folder"),
    "no tokenizer": (without("tokenizer.json"), "holds no tokenizer.json"),
    "bad tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "is no tokenizer"),
    "other tokenizer": (
        lambda f: (config(vocab_size=8)(f), tensors(shrunk)(f)),
        "give the tokenizer that it was trained with",
    ),
}


def shrunk(found):
    found["model.embed_tokens.weight"] = found["model.embed_tokens.weight"][:8].clone()


@pytest.mark.parametrize("case", BAD)
def test_a_bad_folder_is_named_before_anything_runs(case, folder, corpus, tmp_path):
    spoil, told = BAD[case]
    spoil(folder)
    assert told in refused(folder, corpus, tmp_path)


def test_links_into_the_cache_of_hugging_face_are_no_fault(folder, corpus, tmp_path):
    blobs, snapshot = tmp_path / "m" / "blobs", tmp_path / "m" / "snapshots" / "abc"
    shutil.copytree(folder, blobs)
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)
    assert preflight.check(asked(snapshot, corpus), None, tmp_path) == []


def test_a_text_is_needed_and_long_enough(folder, corpus, tmp_path):
    assert "give CORPUS=" in refused(folder, "", tmp_path)
    assert "give MODEL=" in refused("", corpus, tmp_path)
    assert "are needed: give more text" in refused(
        folder, corpus, tmp_path, test_tokens=130, window=200
    )
    assert "pass context 256" in refused(folder, corpus, tmp_path, window=257)


def test_too_little_memory_or_disk_is_foretold(folder, corpus, tmp_path, monkeypatch):
    free = namedtuple("free", "available")(10_000)
    monkeypatch.setattr(own.psutil, "virtual_memory", lambda: free)
    assert "GiB of memory are free" in refused(folder, corpus, tmp_path)
    monkeypatch.undo()
    disk = namedtuple("usage", "free")(10_000)
    monkeypatch.setattr(own.shutil, "disk_usage", lambda folder: disk)
    assert "GiB of disk are free" in refused(folder, corpus, tmp_path)


def tables(added, high, eight=0.1):
    formats = pd.DataFrame(
        {
            "format": ["FP32", "int8", "int4 rounded", "int4 GPTQ"],
            "added_percent": [0.0, 0.1, 3.0, added],
            "low": [0.0, 0.0, 2.0, 0.0],
            "high": [0.0, 0.2, 4.0, high],
        }
    )
    caches = pd.DataFrame({"cache": ["int8"], "added_percent": [0.1], "high": [eight]})
    ways = [("FP32", "static", 1), ("int8", "static", 3), ("int8", "int8", 4), ("int4", "int8", 9)]
    speeds = pd.DataFrame(ways, columns=["format", "cache", "per_second"])
    return formats, caches, speeds


def test_the_advice_is_the_fastest_way_that_is_surely_free():
    best = own_bench.chosen(*tables(0.5, 0.9))
    assert (best["format"], best["method"], best["cache"]) == ("int4", "int4 GPTQ", "int8")
    assert own_bench.chosen(*tables(0.5, 1.1))["per_second"] == 4  # int4 might cost more
    other = own_bench.chosen(*tables(0.5, 1.1, eight=1.1))
    assert (other["format"], other["cache"]) == ("int8", "static")


def test_the_defaults_are_those_of_the_cells_and_the_profiles_fit():
    known = known_parameters(FOLDER)
    assert saved_changes(FOLDER) == {}
    assert {*read_profile(FOLDER / "profiles" / "quick.yaml")} == {*known} - {"profile", "run_dir"}
    assert check(read_profile(FOLDER / "profiles" / "paper.yaml"), known)


def test_the_set_is_chosen_by_the_model_alone():
    assert "02-train" in Project.find(ROOT).stages
    assert Project.find(FOLDER).stages == ("01-model", "02-decode", "03-formats", "report")


@pytest.mark.parametrize("target", ["train", "publish", "sweep"])
def test_no_other_target_takes_a_model(target, kept, capsys):
    assert command.main([target, "--set", f"model={kept}"]) == 2
    assert f"MODEL has no target '{target}'" in capsys.readouterr().err


def test_a_model_that_is_no_folder_is_named(capsys, tmp_path):
    words = ["report", "--caller", str(tmp_path), "--set", "model=nowhere"]
    assert command.main(words) == 2
    assert "MODEL = 'nowhere' is no folder" in capsys.readouterr().err


@pytest.mark.pipeline
def test_the_whole_report_of_a_tiny_model(folder, corpus, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    words = ["report", "--profile", "quick", "--caller", str(folder.parent)]
    given = ["model=tiny", "corpus=text.txt", "window=32", "new_tokens=4", "test_tokens=130"]
    words += [word for each in given for word in ("--set", each)]
    project = Project(ROOT, "own")
    assert command.main(words) == 0
    run_dir = ROOT / capsys.readouterr().out.split()[-1]
    run_dir = run_dir.parent
    try:
        page = (run_dir / "index.html").read_text("utf-8")
        assert "tiny on this machine" in page and "Original report" not in page
        assert 'id="findings"' in page and 'id="audit"' not in page
        for stage in project.stages:
            book = nbformat.read(run_dir / f"{stage}.ipynb", as_version=4)
            outputs = [o for c in book.cells if c.cell_type == "code" for o in c.outputs]
            assert not [o for o in outputs if o.get("name") == "stderr"], stage
        assert naming(run_dir, ROOT, str(folder.parent)) == []
        ids = np.zeros((1, 4), dtype=np.int64)
        net = own.load(run_dir / "ship")[0]
        assert torch.isfinite(net(torch.from_numpy(ids))).all()
        before = (run_dir / "HASHES.txt").read_bytes()
        assert command.main(words) == 0 and (run_dir / "HASHES.txt").read_bytes() == before
    finally:
        shutil.rmtree(run_dir)
        os.chdir(ROOT)
