"""A saved model comes back whole: the same logits bit for bit, or an error that names what is wrong."""

import json

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from minitransformer.checkpoint import load, save
from minitransformer.model import ModelConfig, Transformer
from minitransformer.quant import QuantScheme, quantize

CFG = ModelConfig(vocab_size=40, d_model=32, n_heads=2, n_layers=2, context=16)
IDS = torch.arange(12)[None] % 40


def model(**changes):
    torch.manual_seed(0)
    return Transformer(ModelConfig(**{**vars(CFG), **changes})).eval()


def words(n=40):
    return Tokenizer(WordLevel({f"w{i}": i for i in range(n)}, unk_token="w0"))


@pytest.mark.parametrize("changes", [{}, {"tied": True}, {"position": "sinusoidal", "norm": "rmsnorm", "ffn": "swiglu", "bias": False}])
def test_the_loaded_model_gives_the_same_logits_bit_for_bit(tmp_path, changes):
    net = model(**changes)
    assert save(net, tmp_path / "m", words()) == tmp_path / "m"
    again, tokenizer = load(tmp_path / "m")
    assert torch.equal(again(IDS), net(IDS)) and again.cfg == net.cfg and not again.training
    assert tokenizer.to_str() == words().to_str()
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert not changes.get("tied") or again.head.weight is again.embedding.weight


@pytest.mark.parametrize("scheme", [QuantScheme(bits=8), QuantScheme(bits=4, granularity="group", group_size=32)])
def test_a_quantized_model_comes_back_with_its_scheme_and_packed_codes(tmp_path, scheme):
    small = quantize(model(), scheme)
    save(small, tmp_path / "q")
    save(model(), tmp_path / "full")
    again, tokenizer = load(tmp_path / "q")
    assert torch.equal(again(IDS), small(IDS)) and again.scheme == scheme and tokenizer is None
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("q", "full")]
    assert sizes[0] < sizes[1] / 2


def test_saving_again_replaces_what_was_there(tmp_path):
    save(model(), tmp_path / "m")
    other = model(n_layers=1)
    save(other, tmp_path / "m")
    assert torch.equal(load(tmp_path / "m")[0](IDS), other(IDS))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path, name):
    (save(model(), tmp_path / "m") / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"holds no {name}: give a folder written by save"):
        load(tmp_path / "m")


@pytest.mark.parametrize("content", [b"{}", b"not json", b"[1]", b"\xff\xfe", b'{"model": {"layers": 3}, "quantization": null}'])
def test_another_programs_configuration_is_refused(tmp_path, content):
    (save(model(), tmp_path / "m") / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match="config.json is not a configuration of ours"):
        load(tmp_path / "m")


def test_truncated_weights_are_refused(tmp_path):
    path = save(model(), tmp_path / "m") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="model.safetensors is truncated or of another model"):
        load(tmp_path / "m")


def test_weights_of_another_model_are_refused(tmp_path):
    path = save(model(), tmp_path / "m") / "config.json"
    config = json.loads(path.read_text())
    config["model"]["n_layers"] = 3
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="truncated or of another model"):
        load(tmp_path / "m")


def test_a_tokenizer_of_another_size_is_refused_before_anything_is_written_and_when_read(tmp_path):
    with pytest.raises(ValueError, match="the tokenizer has 41 tokens and the model of .* 40"):
        save(model(), tmp_path / "m", words(41))
    assert not (tmp_path / "m").exists()
    save(model(), tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").write_text(words(39).to_str())
    with pytest.raises(ValueError, match="the tokenizer has 39 tokens"):
        load(tmp_path / "m")
