"""Hugging Face folders that `AutoModelForCausalLM` and `AutoTokenizer` load, without code of ours.

Which of their architectures computes what ours does, exactly:

    norm       FFN                  Hugging Face
    rmsnorm    swiglu               Llama; Qwen3 where queries and keys are normalized
    rmsnorm    relu, gelu, relu2    Arcee
    layernorm  swiglu               StableLm, without biases
    layernorm  relu, gelu, relu2    Starcoder2; Phi where the head has a bias

Phi is the only one whose head has a bias, and its blocks run attention and FFN side by side after
one norm. Two of them make one of ours: the first with an FFN of zeros, the second with an attention
of zeros. So the model of the original report needs no code of ours either, at the price of the
zeros. All use half-split RoPE, as we do: no weight is permuted."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from ..files import check_replaceable, check_room, replacing_folder
from .weights import WRITTEN, epsilon, floats, numbers, refuse, write_json, write_tokenizer

OUTER = {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
ATTENTION = {
    **{f"attention.{x}": f"self_attn.{x}_proj" for x in "qkv"},
    "attention.out": "self_attn.o_proj",
}
BLOCK = ATTENTION | {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
GATED = {f"ffn.{x}": f"mlp.{x}_proj" for x in ("gate", "up", "down")}
# model type -> (class, our names in a block -> theirs)
NAMES = {
    "llama": ("LlamaForCausalLM", BLOCK | GATED),
    "qwen3": (
        "Qwen3ForCausalLM",
        BLOCK | GATED | {f"attention.{x}_norm": f"self_attn.{x}_norm" for x in "qk"},
    ),
    "arcee": ("ArceeForCausalLM", BLOCK | GATED),
    "stablelm": ("StableLmForCausalLM", BLOCK | GATED),
    "starcoder2": (
        "Starcoder2ForCausalLM",
        BLOCK | {"ffn.up": "mlp.c_fc", "ffn.down": "mlp.c_proj"},
    ),
    "phi": (
        "PhiForCausalLM",
        ATTENTION
        | {"attention.out": "self_attn.dense", "ffn.up": "mlp.fc1", "ffn.down": "mlp.fc2"},
    ),
}


def to_huggingface(model, directory: str | Path, tokenizer=None) -> Path:
    """Write config.json, generation_config.json, model.safetensors (FP32) and, with a tokenizer,
    tokenizer.json and tokenizer_config.json into `directory`, which is replaced as a whole.

    A quantized model is written as the floats that its codes stand for. ValueError names what no
    architecture of theirs computes, and what the folder holds that no export wrote."""
    directory, cfg = Path(directory), model.cfg
    check_replaceable(directory, WRITTEN, "export")
    check_room(directory, 4 * numbers(model))
    kind, tensors = architecture(model), floats(model)
    named = phi(cfg, tensors) if kind == "phi" else renamed(kind, cfg, tensors)
    with replacing_folder(directory) as part:
        save_file(named, part / "model.safetensors", metadata={"format": "pt"})
        write_json(part / "config.json", config(kind, model))
        write_json(part / "generation_config.json", {"do_sample": False})
        write_tokenizer(part, tokenizer, cfg)
    return directory


def architecture(model) -> str:
    """The model type that computes what `model` does; ValueError where none does."""
    cfg, bias = model.cfg, model.head.bias
    biased = bias is not None and bool(bias.detach().abs().max() > 0)
    if cfg.smeared_keys:
        refuse("smeared keys have no Hugging Face architecture", "train with smeared_keys=False")
    if cfg.position != "rope":
        refuse(f"position {cfg.position!r} has no Hugging Face architecture", "train with 'rope'")
    if cfg.qk_norm and (cfg.norm, cfg.ffn) != ("rmsnorm", "swiglu"):
        refuse(
            f"qk_norm with {cfg.norm} and {cfg.ffn} has no Hugging Face architecture",
            "train with rmsnorm and swiglu, or without qk_norm",
        )
    kind = family(cfg)
    kind = "phi" if biased and kind == "starcoder2" else kind
    if kind != "phi" and biased:
        refuse(f"{NAMES[kind][0]} has no bias in its head", "train with bias=False")
    if kind in ("stablelm", "qwen3") and cfg.bias:
        refuse(f"{NAMES[kind][0]} has no biases in its FFN", "train with bias=False")
    return kind


def family(cfg) -> str:
    """The model type with this norm and FFN, whether or not its head has a bias."""
    if cfg.norm == "rmsnorm":
        return "arcee" if cfg.ffn != "swiglu" else "qwen3" if cfg.qk_norm else "llama"
    return "stablelm" if cfg.ffn == "swiglu" else "starcoder2"


def renamed(kind: str, cfg, tensors) -> dict:
    """The tensors under the names of `kind`, block by block; a head's bias of zeros is left out."""
    block, found = NAMES[kind][1], {}
    for name, tensor in tensors.items():
        path, _, end = name.rpartition(".")
        if path.startswith("blocks."):
            _, place, inner = path.split(".", 2)
            found[f"model.layers.{place}.{block[inner]}.{end}"] = tensor
        elif name != "head.bias":
            found[f"{OUTER[path]}.{end}"] = tensor
    return found


def phi(cfg, tensors) -> dict:
    """The tensors of two Phi blocks for each of ours: attention beside an FFN of zeros, then an
    FFN beside an attention of zeros."""
    own, found = NAMES["phi"][1], {}
    outer = OUTER | {"norm": "model.final_layernorm"}
    for place in range(2 * cfg.n_layers):
        layer, live = f"model.layers.{place}", "ffn" if place % 2 else "attention"
        for end in ("weight", "bias"):
            source = f"blocks.{place // 2}.{live}_norm.{end}"
            found[f"{layer}.input_layernorm.{end}"] = tensors[source]
            for inner, theirs in own.items():
                tensor = tensors.get(f"blocks.{place // 2}.{inner}.{end}")
                if tensor is None or not inner.startswith(live):  # no biases, or the silent half
                    weight = tensors[f"blocks.{place // 2}.{inner}.weight"]
                    tensor = torch.zeros(weight.shape if end == "weight" else len(weight))
                found[f"{layer}.{theirs}.{end}"] = tensor
    for name, tensor in tensors.items():
        if not name.startswith("blocks."):
            path, _, end = name.rpartition(".")
            found[f"{outer[path]}.{end}"] = tensor
    return {name: tensor.contiguous() for name, tensor in found.items()}


def config(kind: str, model) -> dict:
    """config.json as versions 4 and 5 of transformers read it."""
    cfg, eps, theta = model.cfg, epsilon(model.norm), model.cfg.rope_theta
    scaling = _scaling(cfg.rope_scaling)
    partial = {"partial_rotary_factor": 1.0} if kind in ("phi", "stablelm") else {}
    biases = {
        "starcoder2": {"use_bias": cfg.bias, "sliding_window": None},
        "stablelm": {"use_qkv_bias": False},
        "phi": {},
    }.get(kind, {"attention_bias": cfg.bias, "mlp_bias": cfg.bias})
    norm = {"starcoder2": "norm_epsilon", "stablelm": "layer_norm_eps", "phi": "layer_norm_eps"}
    return {
        "model_type": kind,
        "architectures": [NAMES[kind][0]],
        "vocab_size": cfg.vocab_size,
        "hidden_size": cfg.d_model,
        "intermediate_size": cfg.ffn_dim,
        "num_hidden_layers": cfg.n_layers * (2 if kind == "phi" else 1),
        "num_attention_heads": cfg.n_heads,
        "num_key_value_heads": cfg.kv_heads,
        "head_dim": cfg.head_dim,
        "max_position_embeddings": cfg.context,
        "hidden_act": "silu" if cfg.ffn == "swiglu" else cfg.ffn,
        norm.get(kind, "rms_norm_eps"): eps,
        "rope_theta": theta,
        "rope_scaling": scaling,
        "rope_parameters": {
            **(scaling or {"rope_type": "default"}),
            "rope_theta": theta,
            **partial,
        },
        **partial,
        **biases,
        "tie_word_embeddings": cfg.tied,
        **{f"{token}_token_id": None for token in ("bos", "eos", "pad")},
        "dtype": "float32",
        "torch_dtype": "float32",
    }


def _scaling(told: tuple | None) -> dict | None:
    if told is None:
        return None
    names = ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    values = {"rope_type": told[0], "factor": told[1], **dict(zip(names, told[2:], strict=False))}
    return {name: int(x) if name == names[2] else x for name, x in values.items()}
