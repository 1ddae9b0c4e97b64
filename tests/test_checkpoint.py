"""A saved model comes back whole: the same logits bit for bit, or an error that names what is
wrong."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from minitransformer.checkpoint import load, save
from minitransformer.model import ModelConfig, Transformer
from minitransformer.quant import QuantScheme, accelerate, codebook, matrices, quantize

CFG = ModelConfig(vocab_size=40, d_model=32, n_heads=2, n_layers=2, context=16)
IDS = torch.arange(12)[None] % 40


def model(**changes):
    torch.manual_seed(0)
    return Transformer(ModelConfig(**{**vars(CFG), **changes})).eval()


def words(n=40):
    return Tokenizer(WordLevel({f"w{i}": i for i in range(n)}, unk_token="w0"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tied": True},
        {"smeared_keys": True},
        {"position": "sinusoidal", "norm": "rmsnorm", "ffn": "swiglu", "bias": False},
    ],
)
def test_the_loaded_model_gives_the_same_logits_bit_for_bit(tmp_path, changes):
    net = model(**changes)
    assert save(net, tmp_path / "m", words()) == tmp_path / "m"
    again, tokenizer = load(tmp_path / "m")
    assert torch.equal(again(IDS), net(IDS)) and again.cfg == net.cfg and not again.training
    assert tokenizer.to_str() == words().to_str()
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert not changes.get("tied") or again.head.weight is again.embedding.weight


def test_loading_draws_no_numbers(tmp_path):
    save(model(), tmp_path / "m")
    before = torch.get_rng_state()
    load(tmp_path / "m")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "scheme", [QuantScheme(bits=8), QuantScheme(bits=4, granularity="group", group_size=32)]
)
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


@pytest.mark.parametrize(
    "content",
    [b"{}", b"not json", b"[1]", b"\xff\xfe", b'{"model": {"layers": 3}, "quantization": null}'],
)
def test_another_programs_configuration_is_refused(tmp_path, content):
    (save(model(), tmp_path / "m") / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match="config.json is not a configuration of ours"):
        load(tmp_path / "m")


GROUP = QuantScheme(bits=4, granularity="group", group_size=32)
MIXED = dict.fromkeys(matrices(CFG)) | {
    "head": GROUP,
    "embedding": QuantScheme(),
    "blocks.1.ffn.up": QuantScheme(bits=2),
}


def test_columns_kept_apart_come_back(tmp_path):
    scheme = QuantScheme(activation_bits=8)
    small = quantize(model(), scheme, "llm.int8", torch.arange(32).view(2, 16) % 40, threshold=1.5)
    save(small, tmp_path / "q")
    again, _ = load(tmp_path / "q")
    assert torch.equal(again(IDS), small(IDS)) and again.scheme == small.scheme
    assert any(own.outliers for own in small.scheme.values())


def test_a_mixed_scheme_comes_back_layer_by_layer(tmp_path):
    small = quantize(model(), MIXED)
    save(small, tmp_path / "q")
    again, _ = load(tmp_path / "q")
    assert torch.equal(again(IDS), small(IDS)) and again.scheme == MIXED
    assert (
        json.loads((tmp_path / "q" / "config.json").read_text())["quantization"]["layers"][
            "blocks.0.attention.q"
        ]
        is None
    )


def test_saving_and_loading_do_not_import_torchs_compiler(tmp_path):
    """Which takes two seconds of every process that loads a model."""
    code = (
        "import sys; from minitransformer import load, quantize, save, QuantScheme; "
        "save(quantize(load(sys.argv[1])[0], QuantScheme(4, 'group', 32)), sys.argv[2]); "
        "load(sys.argv[2]); print('torch._dynamo' in sys.modules)"
    )
    save(Transformer(replace(ModelConfig(), n_layers=2)), tmp_path / "whole")
    command = [sys.executable, "-c", code, tmp_path / "whole", tmp_path / "small"]
    assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == "False"


def test_a_fresh_process_gives_the_same_logits_bit_for_bit(tmp_path):
    models = {"fp32": model(), "int4": quantize(model(), GROUP), "mixed": quantize(model(), MIXED)}
    for name, m in models.items():
        save(m, tmp_path / name)
    code = (
        "import sys, torch; from minitransformer.checkpoint import load; "
        "torch.set_num_threads(int(sys.argv[1]))\n"
        "for folder in sys.argv[2:]:\n"
        "    y = load(folder)[0](torch.arange(12)[None] % 40); "
        "sys.stdout.buffer.write(y.detach().numpy().tobytes())"
    )
    command = [
        sys.executable,
        "-c",
        code,
        str(torch.get_num_threads()),
        *(str(tmp_path / name) for name in models),
    ]
    out = subprocess.run(command, capture_output=True, check=True)
    assert out.stdout == b"".join(m(IDS).detach().numpy().tobytes() for m in models.values())


@pytest.mark.parametrize(
    "scheme",
    [
        QuantScheme(bits=3, granularity="group", group_size=12, symmetric=False),
        GROUP,
        QuantScheme(bits=2),
        QuantScheme(granularity="tensor", symmetric=False, scale_dtype="bfloat16"),
        QuantScheme(bits=4, codebook="nf4"),
        QuantScheme(bits=3, granularity="group", group_size=32, full_range=True),
    ],
    ids=str,
)
def test_another_runtime_can_read_the_file_from_its_description_alone(tmp_path, scheme):
    small = quantize(model(), scheme)
    save(small, tmp_path / "q")
    stored, name, rows, columns = (
        load_file(tmp_path / "q" / "model.safetensors"),
        "blocks.0.ffn.down.weight",
        32,
        128,
    )
    size = scheme.group_size or columns

    def bits(data, count):
        row = int.from_bytes(bytes(data.tolist()), "little")
        return [row >> (i * scheme.bits) & (2**scheme.bits - 1) for i in range(count)]

    for n in range(rows):
        own = 0 if scheme.granularity == "tensor" else n
        scale, codes = (
            stored[f"{name}.scale"][own].float(),
            bits(stored[f"{name}.codes"][n], columns),
        )
        middle = [2 ** (scheme.bits - 1)] * len(scale)
        zero = middle if scheme.symmetric else bits(stored[f"{name}.zero"][own], len(scale))
        level = codebook().tolist() if scheme.codebook else None
        row = torch.tensor(
            [
                float((level[u] if level else u - zero[k // size]) * scale[k // size])
                for k, u in enumerate(codes)
            ]
        )
        assert torch.equal(row, small.get_submodule(name)()[n])


def test_truncated_or_tampered_weights_are_refused_by_their_hash(tmp_path):
    path = save(quantize(model(), GROUP), tmp_path / "m") / "model.safetensors"
    whole = path.read_bytes()
    assert (
        json.loads((tmp_path / "m" / "config.json").read_text())["sha256"]
        == hashlib.sha256(whole).hexdigest()
    )
    for broken in (whole[:-100], whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(broken)
        with pytest.raises(
            ValueError,
            match=f"truncated or changed .sha256 {hashlib.sha256(broken).hexdigest()}, config",
        ):
            load(tmp_path / "m")


def edit(directory, change):
    path = directory / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def test_a_folder_from_before_there_was_a_hash_loads_and_a_truncated_one_still_does_not(tmp_path):
    small = quantize(model(), GROUP)
    path = save(small, tmp_path / "m") / "model.safetensors"
    edit(tmp_path / "m", lambda config: (config.pop("sha256"), config["model"].pop("smeared_keys")))
    assert torch.equal(load(tmp_path / "m")[0](IDS), small(IDS))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="model.safetensors is truncated or of another model"):
        load(tmp_path / "m")


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"bits": 8},
            r"\w+.weight.codes is \(\d+, \d+\) uint8 in the file and "
            r"\(\d+, \d+\) uint8 in the model",
        ),
        ({"scale_dtype": "float32"}, "scale is .* float16 in the file and .* float32 in the model"),
        ({"symmetric": False}, r"of another model \(.*[Mm]issing key"),
        ({"bits": 11}, "bits 11 is not supported"),
        ({"group": 32}, "a scheme has no field 'group' .did you mean 'group_size'"),
    ],
    ids=str,
)
def test_a_scheme_that_is_not_the_files_is_refused(tmp_path, change, message):
    save(quantize(model(), GROUP), tmp_path / "m")
    edit(tmp_path / "m", lambda config: config["quantization"].update(change))
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "m")


def test_a_model_on_a_kernels_own_copy_is_not_saved(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"blocks.0.attention.k.full is not as the scheme stores it: .* before accelerate",
    ):
        save(accelerate(quantize(model(), GROUP), "dequantized"), tmp_path / "m")
    assert not (tmp_path / "m").exists()


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
    with pytest.raises(ValueError, match="tokenizer.json was not saved with this model: delete it"):
        load(tmp_path / "m")
    edit(tmp_path / "m", lambda config: config.pop("tokenizer"))  # a folder from before that note
    with pytest.raises(ValueError, match="the tokenizer has 39 tokens"):
        load(tmp_path / "m")
