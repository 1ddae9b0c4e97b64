"""Exports: each file, read by the runtime it is for, gives the model's own logits."""

import json
import os
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import (
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from minitransformer import ModelConfig, QuantScheme, Transformer, generate, quantize, save
from minitransformer.corpus import encode
from minitransformer.corpus.tokenizers import train_bpe, train_characters, train_words
from minitransformer.export import export, from_huggingface, to_gguf, to_huggingface, to_onnx
from minitransformer.export.__main__ import main
from minitransformer.export.gguf import SPLITS, renamed
from minitransformer.export.huggingface import architecture
from minitransformer.export.rewrite import as_llama
from minitransformer.export.weights import epsilon, floats
from studies.llama import Llama

os.environ.setdefault("HF_HUB_OFFLINE", "1")
TEXT = "the cat sat on the mat; the dog sat by the door. " * 8


def make(seed=0, head_bias=True, **fields):
    """A model of random weights with a spread at which greedy text does not repeat one token."""
    torch.manual_seed(seed)
    shape = dict(vocab_size=97, d_model=64, n_layers=2, n_heads=4, n_kv_heads=2, context=96)
    model = Transformer(ModelConfig(**{**shape, **fields})).eval()
    for p in model.parameters():
        p.data = torch.randn_like(p) * 0.12 + (p.data.mean() if p.ndim == 1 else 0)
    if not head_bias and model.head.bias is not None:
        model.head.bias.data.zero_()
    return model


def ids_of(model, shape=(2, 40), seed=3):
    return torch.randint(0, model.cfg.vocab_size, shape, generator=torch.manual_seed(seed))


@torch.no_grad()
def distance(a, b):
    return float((torch.as_tensor(a) - torch.as_tensor(b)).abs().max())


# --- Hugging Face

HOMES = [
    ("llama", dict(norm="rmsnorm", ffn="swiglu", bias=False, tied=True)),
    ("llama", dict(norm="rmsnorm", ffn="swiglu", head_bias=False, d_head=24, n_kv_heads=None)),
    ("qwen3", dict(norm="rmsnorm", ffn="swiglu", bias=False, qk_norm=True, norm_eps=1e-3)),
    ("arcee", dict(norm="rmsnorm", ffn="relu2", bias=False, n_kv_heads=1)),
    ("stablelm", dict(norm="layernorm", ffn="swiglu", bias=False)),
    ("starcoder2", dict(ffn="relu", head_bias=False)),
    ("starcoder2", dict(ffn="gelu", bias=False, tied=True)),
    ("phi", dict(ffn="relu")),
    ("phi", dict(ffn="gelu", tied=True, rope_theta=500.0)),
]


@pytest.mark.parametrize(("kind", "fields"), HOMES)
def test_transformers_loads_it_and_gives_the_same_logits(kind, fields, tmp_path):
    from transformers import AutoModelForCausalLM

    model = make(**fields)
    assert architecture(model) == kind
    to_huggingface(model, tmp_path / "hf")
    theirs, report = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(report.values())
    ids = ids_of(model)
    with torch.no_grad():
        assert distance(theirs(ids).logits, model(ids)) < 1e-5


def test_transformers_generates_the_same_tokens(tmp_path):
    from transformers import AutoModelForCausalLM

    model = make()
    theirs = AutoModelForCausalLM.from_pretrained(to_huggingface(model, tmp_path / "hf"))
    prompt = ids_of(model, (1, 8))
    own = generate(model, prompt, 40)
    given = theirs.generate(prompt, max_new_tokens=40, do_sample=False)
    assert given.tolist() == own.tolist()
    assert len(set(own[0].tolist())) > 10  # equality on a loop would prove little


def test_a_quantized_model_is_written_as_what_its_codes_stand_for(tmp_path):
    model = quantize(make(), QuantScheme(4, "group", 32))
    back = load_file(to_huggingface(model, tmp_path / "hf") / "model.safetensors")
    assert torch.equal(back["lm_head.weight"], model.head.weight())


@pytest.mark.parametrize("train", [train_words, train_characters, train_bpe])
def test_autotokenizer_gives_equal_ids(train, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = train(TEXT)
    model = make(vocab_size=tokenizer.get_vocab_size())
    theirs = AutoTokenizer.from_pretrained(to_huggingface(model, tmp_path / "hf", tokenizer))
    given = theirs(TEXT + " ñandú", add_special_tokens=False)["input_ids"]
    assert given == encode(tokenizer, TEXT + " ñandú").tolist()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(position="none"), "position 'none' has no Hugging Face architecture: train with"),
        (dict(position="sinusoidal"), "position 'sinusoidal' has no Hugging Face"),
        (dict(norm="rmsnorm", ffn="swiglu"), "LlamaForCausalLM has no bias in its head: train"),
        (dict(norm="layernorm", ffn="swiglu", head_bias=False), "has no biases in its FFN"),
        (dict(smeared_keys=True), "smeared keys have no Hugging Face"),
        (dict(qk_norm=True), "qk_norm with layernorm and relu has no Hugging Face"),
    ],
)
def test_what_transformers_does_not_compute_is_refused(fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        to_huggingface(make(**fields), tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


# --- from Hugging Face


def theirs_of(kind, folder, **more):
    import transformers as hf

    torch.manual_seed(1)
    shape = dict(vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=2)
    shape |= dict(num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256)
    shape |= dict(bos_token_id=None, eos_token_id=None)
    model = getattr(hf, f"{kind}ForCausalLM")(getattr(hf, f"{kind}Config")(**shape, **more)).eval()
    for p in model.parameters():
        p.data = torch.randn_like(p) * 0.12 + (p.data.mean() if p.ndim == 1 else 0)
    model.save_pretrained(folder, max_shard_size="60KB")
    return model


LLAMA3 = dict(rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0)
LLAMA3 |= dict(high_freq_factor=4.0, original_max_position_embeddings=64)
THEIRS = [
    ("Llama", dict(tie_word_embeddings=True, rms_norm_eps=1e-5)),
    ("Llama", dict(head_dim=24, attention_bias=True, rope_parameters=LLAMA3)),
    ("Llama", dict(rope_parameters=dict(rope_type="linear", rope_theta=1e4, factor=4.0))),
    ("Qwen2", {}),
    ("Qwen3", dict(head_dim=32)),
    ("Arcee", dict(hidden_act="relu2")),
    ("Starcoder2", dict(sliding_window=None, hidden_act="relu")),
]


@pytest.mark.parametrize(("kind", "more"), THEIRS)
def test_a_sharded_checkpoint_is_loaded_and_goes_back(kind, more, tmp_path):
    from transformers import AutoModelForCausalLM

    theirs = theirs_of(kind, tmp_path / "theirs", **more)
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    model, tokenizer = from_huggingface(tmp_path / "theirs")
    ids = ids_of(model, (2, 200))
    with torch.no_grad():
        want = theirs(ids).logits
        assert tokenizer is None and distance(model(ids), want) < 2e-5
    to_huggingface(model, tmp_path / "back")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "back")
    with torch.no_grad():
        assert distance(again(ids).logits, want) < 2e-5
    save(model, tmp_path / "ours")  # and it is a model like any other


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def spoil_tensor(folder, change):
    tensors = {}
    for path in folder.glob("*.safetensors"):
        tensors |= load_file(path)
        path.unlink()
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    save_file(change(tensors), folder / "model.safetensors")


UP = "model.layers.1.mlp.up_proj.weight"
BAD = [
    (lambda d: edit(d, model_type="gpt2"), "model_type 'gpt2' is not one that we compute: give"),
    (lambda d: edit(d, hidden_size=None), "config.json lacks hidden_size"),
    (lambda d: edit(d, hidden_act="gelu"), "hidden_act 'gelu' is not computed here"),
    (lambda d: edit(d, quantization_config={"bits": 4}), "quantization_config"),
    (
        lambda d: edit(d, rope_parameters={"rope_type": "yarn", "factor": 2.0}),
        "rope_type 'yarn' is not computed here: give default, linear or llama3",
    ),
    (lambda d: edit(d, vocab_size=98), "embed_tokens.weight is .97, 64. and the configuration"),
    (lambda d: (d / "config.json").unlink(), "holds no config.json"),
    (lambda d: (d / "config.json").write_text("{"), "is not JSON"),
    (
        lambda d: spoil_tensor(d, lambda t: {n: x for n, x in t.items() if n != UP}),
        "lacks blocks.1.ffn.up.weight",
    ),
    (
        lambda d: spoil_tensor(d, lambda t: t | {"model.extra.weight": torch.zeros(2)}),
        "holds model.extra.weight, which the configuration has no place for",
    ),
    (lambda d: edit(d, attention_bias=True), "lacks blocks.0.attention.k.bias"),
    (lambda d: next(d.glob("*.safetensors")).write_bytes(b"\x08"), "is truncated or damaged"),
    (lambda d: next(d.glob("*.safetensors")).unlink(), "holds no model-0"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD)
def test_a_broken_folder_is_told_in_one_line(spoil, message, tmp_path):
    theirs_of("Llama", tmp_path)
    spoil(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        from_huggingface(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": "x"}, "^context 'x' is not a whole number: give at least 1"),
        ({"context": 0}, "^context 0 is not positive"),
        ({"dtype": "float16"}, "^dtype 'float16' is unknown: choose one of torch.float32, "),
        ({"dtype": torch.int8}, "^dtype torch.int8 is unknown: choose one of torch.float32, "),
    ],
)
def test_what_a_model_cannot_be_read_as_is_told_of_itself(options, message, tmp_path):
    theirs_of("Llama", tmp_path)
    with pytest.raises(ValueError, match=message):
        from_huggingface(tmp_path, **options)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "model.bin"])
def test_an_index_names_no_file_outside_its_folder(name, tmp_path):
    theirs_of("Llama", tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
    with pytest.raises(ValueError, match="which is no file beside it"):
        from_huggingface(tmp_path)


def test_pickled_weights_are_not_opened(tmp_path):
    theirs_of("Llama", tmp_path)
    for path in tmp_path.glob("*.safetensors*"):
        path.unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    with pytest.raises(ValueError, match="pickled weights only: convert them to safetensors"):
        from_huggingface(tmp_path)


# --- ONNX

GRAPHS = [
    dict(n_kv_heads=None),
    dict(norm="rmsnorm", ffn="swiglu", bias=False, qk_norm=True, tied=True, norm_eps=1e-3),
    dict(ffn="gelu", position="sinusoidal", tied=True),
    dict(norm="rmsnorm", ffn="relu2", position="none", n_kv_heads=1, bias=False),
    dict(smeared_keys=True),
]
SCHEMES = [
    None,
    QuantScheme(8),
    QuantScheme(4, "group", 32),
    QuantScheme(4, "group", 32, symmetric=False),
    QuantScheme(2, "group", 16),
]


class Session:
    """A graph in ONNX Runtime, fed with numpy."""

    def __init__(self, folder, cfg):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        path = str(folder / "onnx" / "model.onnx")
        self.session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        self.inputs = [i.name for i in self.session.get_inputs()]
        self.cfg = cfg

    def __call__(self, ids, past=None, mask=None, positions=None):
        B, T = ids.shape
        empty = np.zeros((B, self.cfg.kv_heads, 0, self.cfg.head_dim), np.float32)
        past = [empty] * 2 * self.cfg.n_layers if past is None else past
        P = past[0].shape[2]
        mask = np.ones((B, P + T), np.int64) if mask is None else mask
        positions = np.tile(np.arange(P, P + T), (B, 1)) if positions is None else positions
        feed = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        for i in range(self.cfg.n_layers):
            feed[f"past_key_values.{i}.key"] = past[2 * i]
            feed[f"past_key_values.{i}.value"] = past[2 * i + 1]
        logits, *present = self.session.run(None, {n: feed[n] for n in self.inputs})
        return logits, present


@pytest.mark.parametrize("fields", GRAPHS)
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_the_graph_computes_prefill_and_steps(fields, scheme, tmp_path):
    model = make(**fields)
    model = model if scheme is None else quantize(model, scheme)
    run = Session(to_onnx(model, tmp_path / "onnx"), model.cfg)
    ids = ids_of(model, (3, 40)).numpy()
    got, past, cuts = [], None, [0, 25, 26, 27, 40]
    for start, end in pairwise(cuts):
        logits, past = run(ids[:, start:end], past)
        got.append(logits)
    with torch.no_grad():
        want = model(torch.as_tensor(ids))
    assert distance(np.concatenate(got, 1), want) < 1e-4


def test_greedy_choices_are_equal_from_an_empty_past_to_the_full_context(tmp_path):
    """Step by step over given text, which unlike greedy text of a random model does not loop."""
    model = make()
    run, past, made = Session(to_onnx(model, tmp_path / "onnx"), model.cfg), None, []
    ids = ids_of(model, (1, model.cfg.context)).numpy()
    for i in range(model.cfg.context):
        logits, past = run(ids[:, i : i + 1], past)
        made.append(int(logits[0, -1].argmax()))
    with torch.no_grad():
        own = model(torch.as_tensor(ids)).argmax(-1)[0].tolist()
    assert made == own and len(set(made)) > 12


@pytest.mark.parametrize("smeared", [False, True])
def test_padding_on_the_left_changes_nothing(smeared, tmp_path):
    model = make(smeared_keys=smeared)
    run = Session(to_onnx(model, tmp_path / "onnx"), model.cfg)
    ids = ids_of(model, (1, 10)).numpy()
    padded = np.concatenate((np.zeros((1, 5), np.int64), ids), 1)
    mask = np.concatenate((np.zeros((1, 5), np.int64), np.ones_like(ids)), 1)
    positions = np.concatenate((np.zeros((1, 5), np.int64), np.arange(10)[None]), 1)
    assert distance(run(padded, None, mask, positions)[0][:, 5:], run(ids)[0]) < 1e-5


def test_the_names_and_dimensions_are_those_that_transformers_js_reads(tmp_path):
    model = make()
    session = Session(to_onnx(model, tmp_path / "onnx"), model.cfg).session
    shapes = {i.name: i.shape for i in session.get_inputs()}
    assert shapes["past_key_values.1.value"] == ["batch_size", 2, "past_sequence_length", 16]
    assert [o.name for o in session.get_outputs()] == [
        "logits", "present.0.key", "present.0.value", "present.1.key", "present.1.value",
    ]  # fmt: skip
    assert json.loads((tmp_path / "onnx" / "config.json").read_text())["num_hidden_layers"] == 2


@pytest.mark.parametrize("scheme", SCHEMES[:3], ids=str)
def test_weights_beyond_one_message_lie_beside_the_graph(scheme, tmp_path, monkeypatch):
    from minitransformer.export import onnx

    model = make(norm="rmsnorm", ffn="swiglu", bias=False, tied=True)
    model = model if scheme is None else quantize(model, scheme)
    whole = to_onnx(model, tmp_path / "whole") / "onnx" / "model.onnx"
    monkeypatch.setattr(onnx, "LARGEST", 20_000)
    folder = to_onnx(model, tmp_path / "onnx")
    sizes = {path.name: path.stat().st_size for path in (folder / "onnx").iterdir()}
    assert sizes.keys() == {"model.onnx", "model.onnx_data"}
    assert sizes["model.onnx"] < whole.stat().st_size / 2 < sizes["model.onnx_data"]
    about = json.loads((folder / "config.json").read_text())["transformers.js_config"]
    assert about == {"dtype": "fp32", "use_external_data_format": True}
    ids = ids_of(model, (2, 20)).numpy()
    assert np.array_equal(
        Session(folder, model.cfg)(ids)[0], Session(whole.parent.parent, model.cfg)(ids)[0]
    )
    monkeypatch.undo()
    to_onnx(model, folder)  # in the same place: nothing of the larger one is left
    assert [p.name for p in (folder / "onnx").iterdir()] == ["model.onnx"]


def test_what_one_message_holds_is_known_before_anything_is_written():
    from minitransformer.export import onnx

    graph = onnx.Graph(make())
    graph.forward()
    assert graph.nbytes() == sum(array.nbytes for array in graph.used().values()) < 2**20
    numbers = np.broadcast_to(np.float32(0), (2**20, 2**9))  # which take no memory
    graph.tensors["large"] = torch.zeros(1)
    graph.op("Identity", graph.weight("large", numbers))
    assert 2**31 < graph.nbytes() and onnx.LARGEST < 2**31


def test_what_matmulnbits_does_not_take_is_refused(tmp_path):
    for scheme in (QuantScheme(3, "group", 32), QuantScheme(8, activation_bits=8)):
        with pytest.raises(ValueError, match="which MatMulNBits does not take: quantize weights"):
            to_onnx(quantize(make(), scheme), tmp_path / "onnx")


# --- GGUF

PLACES = [
    ("llama", dict(norm="rmsnorm", ffn="swiglu", bias=False)),
    ("llama", dict(norm="rmsnorm", ffn="swiglu", bias=False, tied=True)),
    ("qwen3", dict(norm="rmsnorm", ffn="swiglu", bias=False, qk_norm=True)),
    ("arcee", dict(norm="rmsnorm", ffn="relu2", bias=False)),
    ("nemotron", dict(ffn="relu2", head_bias=False)),
    ("stablelm", dict(ffn="swiglu", bias=False)),
]


def read_gguf(path):
    import gguf

    reader = gguf.GGUFReader(path)
    dequantize = gguf.quants.dequantize
    tensors = {t.name: dequantize(t.data, t.tensor_type) for t in reader.tensors}
    return reader, tensors


@pytest.mark.parametrize(("kind", "fields"), PLACES)
def test_a_gguf_file_is_read_back_bit_for_bit(kind, fields, tmp_path):
    model = make(**fields)
    reader, tensors = read_gguf(to_gguf(model, tmp_path / "m.gguf"))
    assert reader.get_field("general.architecture").contents() == kind
    assert np.array_equal(tensors["token_embd.weight"], model.embedding.weight.detach())
    assert np.array_equal(
        tensors["blk.1.ffn_down.weight"], model.blocks[1].ffn.down.weight.detach()
    )
    assert ("output.weight" in tensors) != model.cfg.tied
    q, D = model.blocks[0].attention.q.weight.detach().numpy(), model.cfg.head_dim
    if kind in ("llama", "arcee"):  # rows 0, D/2, 1, D/2 + 1, … of each head
        q = q[[h * D + i // 2 + i % 2 * (D // 2) for h in range(4) for i in range(D)]]
    assert np.array_equal(tensors["blk.0.attn_q.weight"], q)


@pytest.mark.parametrize("bits", [8, 4])
def test_codes_go_in_as_they_are(bits, tmp_path):
    model = quantize(make(norm="rmsnorm", ffn="swiglu", bias=False), QuantScheme(bits, "group", 32))
    reader, tensors = read_gguf(to_gguf(model, tmp_path / "m.gguf"))
    kinds = {t.name: t.tensor_type.name for t in reader.tensors}
    assert kinds["output.weight"] == kinds["token_embd.weight"] == f"Q{bits}_0"
    for ours, theirs in (("head", "output"), ("blocks.1.ffn.down", "blk.1.ffn_down")):
        want = floats(model)[f"{ours}.weight"].numpy()
        assert np.array_equal(tensors[f"{theirs}.weight"], want)


@pytest.mark.parametrize(("kind", "error"), [("f16", 1e-3), ("bf16", 1e-2), ("q8_0", 1e-2)])
def test_other_types_round_as_their_format_says(kind, error, tmp_path):
    model = make(norm="rmsnorm", ffn="swiglu", bias=False)
    _, tensors = read_gguf(to_gguf(model, tmp_path / "m.gguf", kind=kind))
    want = model.head.weight.detach().numpy()
    assert 0 < np.abs(tensors["output.weight"] - want).max() < error * np.abs(want).max()


@pytest.mark.parametrize("fields", [{}, dict(tied=True), dict(bias=False), dict(d_ff=64)])
def test_the_rewrite_computes_the_same_function(fields):
    """Shifts in every norm, the last among them, and a bias in the head where there are biases."""
    model = make(**fields)
    assert model.norm.bias.abs().max() > 0.1
    cfg, tensors = as_llama(model.cfg, floats(model))
    assert cfg.n_layers == 3 and "head.bias" not in tensors
    other = Transformer(replace(cfg, bias=True, norm_eps=1e-5)).eval()
    found = other.load_state_dict(tensors, strict=False)
    assert not found.unexpected_keys and all(name.endswith("bias") for name in found.missing_keys)
    for name in found.missing_keys:
        other.get_parameter(name).data.zero_()
    ids = ids_of(model)
    assert distance(other(ids).detach(), model(ids).detach()) < 1e-4


def test_without_a_constant_the_rewrite_adds_no_block():
    model = make(head_bias=False)
    model.norm.bias.data.zero_()
    cfg, tensors = as_llama(model.cfg, floats(model))
    assert cfg.n_layers == 2 and not [name for name in tensors if name.startswith("blocks.2")]


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        ({}, {}, "layernorm with relu has no llama.cpp architecture: give rewrite=True"),
        (dict(d_ff=32), {"rewrite": True}, "an FFN of 32 is narrower than the stream of 64, and"),
        (dict(position="none"), {}, "position 'none' has no llama.cpp architecture"),
        (dict(smeared_keys=True), {}, "smeared keys have no llama.cpp architecture"),
        (dict(norm="rmsnorm", ffn="swiglu"), {}, "the architecture llama has no bias in its head"),
        (dict(norm="rmsnorm", ffn="swiglu"), {"rewrite": True}, "rmsnorm with swiglu and rope has"),
        (dict(norm="rmsnorm", ffn="gelu", bias=False), {}, "rmsnorm with gelu has no llama.cpp"),
        (dict(norm="rmsnorm", ffn="swiglu", bias=False), {"kind": "q4"}, "kind 'q4' is unknown"),
    ],
)
def test_what_llama_cpp_does_not_compute_is_refused(fields, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        to_gguf(make(**fields), tmp_path / "m.gguf", **options)
    assert not list(tmp_path.iterdir())


def test_schemes_that_are_no_gguf_type_are_refused(tmp_path):
    model = make(norm="rmsnorm", ffn="swiglu", bias=False)
    for scheme in (QuantScheme(8), QuantScheme(4, "group", 32, symmetric=False)):
        with pytest.raises(ValueError, match="which is neither Q8_0 nor Q4_0: quantize to 8 or 4"):
            to_gguf(quantize(model, scheme), tmp_path / "m.gguf")


def served(path):
    """llama.cpp, where the package xllamacpp is: ask(way, what) -> answer."""
    pytest.importorskip("xllamacpp")
    return Llama(path).ask


def in_llama_cpp(path, prompt, new):
    """The tokens that it writes, and of each step the log-probabilities of the whole vocabulary,
    (new, V)."""
    asked = dict(prompt=prompt[0].tolist(), n_predict=new, temperature=0, return_tokens=True)
    asked |= dict(ignore_eos=False, samplers=["temperature"], n_probs=97)
    found = served(path)("completion", asked)
    steps = [step["top_logprobs"] for step in found["completion_probabilities"]]
    rows = [{one["id"]: one["logprob"] for one in step} for step in steps]
    return found["tokens"], torch.tensor([[row[i] for i in range(97)] for row in rows])


@torch.no_grad()
def divergence(model, prompt, tokens, said):
    """KL from the model's distributions to those that were said, (new,), over the same text."""
    text = torch.cat((prompt, torch.tensor([tokens[:-1]])), 1)
    own = model(text)[0, prompt.shape[1] - 1 :].log_softmax(-1)
    return (own.exp() * (own - said)).sum(-1)


def spoken(**fields):
    """A model that says none of the special tokens, so that it does not end, and does not repeat
    one word, with the words that llama.cpp wants, and a prompt."""
    words = train_words(" ".join(f"w{i:03d} w{i:03d}" for i in range(93)))
    for seed in range(60):
        model = make(seed, **{**fields, "vocab_size": words.get_vocab_size(), "context": 256})
        model.head.weight.data[:4] = 0
        if model.head.bias is not None:
            model.head.bias.data[:4] = 0
        prompt = ids_of(model, (1, 12))
        if len(set(generate(model, prompt, 32)[0, 12:].tolist())) > 8:
            return model, words, prompt
    raise AssertionError("every one of these models repeats itself")


PLAIN = dict(norm="rmsnorm", ffn="swiglu", bias=False)
SAYS = [(fields, {}) for _, fields in PLACES]
SAYS += [(PLAIN, {"kind": "f16"}), (PLAIN, {"kind": "bf16"}), ({}, {"rewrite": True})]
SAYS += [(dict(tied=True), {"rewrite": True}), ({}, {"rewrite": True, "kind": "f16"})]
SAYS += [
    (PLAIN | dict(bias=True, head_bias=False), {}),
    (PLAIN | dict(d_head=24, rope_theta=500.0), {}),
    (PLAIN | dict(rope_scaling=("linear", 4.0)), {}),
    (PLAIN | dict(rope_scaling=("llama3", 8.0, 1.0, 4.0, 64)), {}),
]


@pytest.mark.parametrize(("fields", "options"), SAYS)
def test_llama_cpp_continues_with_the_same_tokens(fields, options, tmp_path):
    """Of the weights that the file holds; the rewritten model is LayerNorm with ReLU."""
    model, words, prompt = spoken(**fields)
    kind = {"f16": torch.float16, "bf16": torch.bfloat16}.get(options.get("kind"), torch.float32)
    path = to_gguf(model, tmp_path / "m.gguf", words, **options)
    for weight in model.parameters():
        weight.data = weight.data.to(kind).float() if weight.ndim > 1 else weight.data
    own = generate(model, prompt, 32)[0, 12:].tolist()
    tokens, _ = in_llama_cpp(path, prompt, 32)
    assert tokens == own and len(set(own)) > 6  # fewer where f16 or bf16 rounds it into a loop


@pytest.mark.parametrize("bits", [8, 4])
def test_llama_cpp_computes_with_our_codes(bits, tmp_path):
    """It rounds activations to 8 bits, so that its distribution is near, not equal."""
    model, words, prompt = spoken(**PLAIN)
    model = quantize(model, QuantScheme(bits, "group", 32))
    path = to_gguf(model, tmp_path / "m.gguf", words)
    kl = divergence(model, prompt, *in_llama_cpp(path, prompt, 32))
    assert len(kl) == 32 and (kl > -1e-6).all() and kl.max() < 5e-3


def held_in(path, cfg, tensors, eps):
    """The model of the numbers that a GGUF file holds."""
    found = read_gguf(path)[1]
    for name in tensors:
        heads = {"q": cfg.n_heads, "k": cfg.kv_heads}.get(name.rpartition(".")[0][-1])
        array = found[renamed(name)]
        if heads and "attention" in name:  # from pairs to halves
            halves = array.reshape(heads, cfg.head_dim // 2, 2, -1).swapaxes(1, 2)
            array = halves.reshape(array.shape)
        tensors[name] = torch.tensor(array)
    model = Transformer(replace(cfg, norm_eps=eps)).eval()
    for name, own in model.named_parameters():
        own.data = tensors.get(name, torch.zeros_like(own))
    return model


@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
@pytest.mark.parametrize("fields", [PLAIN, {}, dict(tied=True)], ids=["plain", "rewritten", "tied"])
def test_llama_cpp_is_near_the_dequantized_weights_of_the_same_file(fields, kind, tmp_path):
    """Of LayerNorm and ReLU rewritten, with its added block, too."""
    model, words, prompt = spoken(**fields)
    cfg, tensors = model.cfg, floats(model)
    if rewrite := fields is not PLAIN:
        cfg, tensors = as_llama(cfg, tensors)
        assert cfg.n_layers == 3
    path = to_gguf(model, tmp_path / "m.gguf", words, kind=kind, rewrite=rewrite)
    same = held_in(path, cfg, tensors, epsilon(model.norm))
    kl = divergence(same, prompt, *in_llama_cpp(path, prompt, 32))
    assert len(kl) == 32 and (kl > -1e-6).all() and kl.max() < 5e-3


SPLITTERS = {
    "gpt-2": [pre_tokenizers.ByteLevel(add_prefix_space=False)],
    "smollm": [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ],
    **{
        name: [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
        for pattern, name in SPLITS.items()
    },
}
ODD = (
    "It's  100 or 12345 cats,\n\n  isn't it?!  ñandú… 3,14 \t日本語 <end>x THEY'LL 2026-11\r\n ok "
)


def bpe_like(name):
    """A byte-level BPE that splits as the named models' do, and has an end of its own."""
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.Sequence(SPLITTERS[name])
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<|begin|>", "<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    found.train_from_iterator([TEXT + ODD * 3], trainer)
    found.add_tokens(["<end>"])
    return found


@pytest.mark.parametrize("name", SPLITTERS)
def test_llama_cpp_splits_text_as_the_tokenizer_does(name, tmp_path):
    """Where the vocabulary is smaller than the embedding, as many models', and nothing is <eos>."""
    tokenizer = bpe_like(name)
    size = tokenizer.get_vocab_size() + 11
    path = to_gguf(make(**PLAIN, vocab_size=size), tmp_path / "m.gguf", tokenizer)
    reader = read_gguf(path)[0]
    field = {n: reader.get_field(f"tokenizer.ggml.{n}").contents() for n in ("pre", "eos_token_id")}
    assert field == {"pre": name, "eos_token_id": tokenizer.token_to_id("<|endoftext|>")}
    said = served(path)("tokenize", {"content": ODD, "add_special": True})["tokens"]
    assert said == tokenizer.encode(ODD).ids and len(set(said)) > 25


def test_a_text_begins_with_what_the_tokenizer_begins_it(tmp_path):
    tokenizer = bpe_like("gpt-2")
    own = tokenizer.encode(ODD).ids
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", 0)]
    )
    size = tokenizer.get_vocab_size()
    path = to_gguf(make(**PLAIN, vocab_size=size), tmp_path / "m.gguf", tokenizer)
    said = served(path)("tokenize", {"content": ODD, "add_special": True})["tokens"]
    assert said == [0, *own] == tokenizer.encode(ODD).ids


def test_a_tokenizer_that_llama_cpp_lacks_leaves_ids_only(tmp_path):
    tokenizer = bpe_like("gpt-2")
    for change in (
        lambda t: setattr(t, "normalizer", normalizers.Lowercase()),
        lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
        lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Whitespace()),
        lambda t: setattr(
            t,
            "pre_tokenizer",
            pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Split(Regex(r"\p{L}+"), "isolated"),
                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
                ]
            ),
        ),
    ):
        other = Tokenizer.from_str(tokenizer.to_str())
        change(other)
        size = other.get_vocab_size()
        reader = read_gguf(to_gguf(make(**PLAIN, vocab_size=size), tmp_path / "m.gguf", other))[0]
        assert reader.get_field("tokenizer.ggml.model").contents() == "none"


# --- the command


def test_the_command_writes_every_format_or_says_why_not(tmp_path, capsys):
    tokenizer = train_bpe(TEXT)
    size = tokenizer.get_vocab_size()
    save(make(vocab_size=size), tmp_path / "model", tokenizer)
    assert main([str(tmp_path / "model"), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert "hf: " in said.out and "onnx: " in said.out and " MB" in said.out
    assert said.err == (
        "gguf: layernorm with relu has no llama.cpp architecture: give rewrite=True\n"
    )
    assert main([str(tmp_path / "out" / "hf"), "--out", str(tmp_path / "x")]) == 2
    assert "model_type 'phi' is not one that we compute" in capsys.readouterr().err
    llama = make(vocab_size=size, norm="rmsnorm", ffn="swiglu", bias=False)
    save(llama, tmp_path / "llama", tokenizer)
    assert main([str(tmp_path / "llama"), "--out", str(tmp_path / "all")]) == 0
    written = {p.name for p in (tmp_path / "all").iterdir()}
    assert written == {"hf", "model.gguf", "onnx"}
    args = [str(tmp_path / "all" / "hf"), "--format", "gguf", "--out", str(tmp_path / "again")]
    assert main(args) == 0
    again, first = (p.read_bytes() for p in tmp_path.glob("a*/model.gguf"))
    assert again == first


def test_the_command_names_a_folder_that_is_no_model(tmp_path, capsys):
    assert main([str(tmp_path / "nothing")]) == 2
    assert (
        "holds no config.json: give a model's folder, or run make train" in capsys.readouterr().err
    )


def test_export_knows_its_formats(tmp_path):
    with pytest.raises(ValueError, match="format 'ggml' is unknown: choose one of hf, gguf, onnx"):
        export(make(), tmp_path, "ggml")
