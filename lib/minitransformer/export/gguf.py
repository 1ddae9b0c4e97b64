"""GGUF files for llama.cpp.

    norm       FFN      llama.cpp
    rmsnorm    swiglu   llama; qwen3 where queries and keys are normalized
    rmsnorm    relu2    arcee
    layernorm  relu2    nemotron
    layernorm  swiglu   stablelm
    layernorm  relu     llama, after a rewrite (`rewrite=True`, see `rewrite`)

`llama` and `arcee` rotate neighbouring pairs where we rotate halves, so the rows of each head of
queries and keys are regrouped. Weights are written as F32, F16, BF16, Q8_0 or Q4_0; those of a
model quantized symmetrically to 8 or 4 bits in groups of 32 with float16 scales are Q8_0 or Q4_0
as they are, code for code.

Tokenizers: byte-level BPE is exact where it splits text as GPT-2, SmolLM, Llama 3 or Qwen 2 do.
Words become llama.cpp's `t5` type: exact for text whose words are known. For characters, and for a
BPE that splits otherwise, the file takes ids only (`none`). A vocabulary smaller than the
embedding is filled up with unused tokens."""

import errno
import json
import math
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..fields import choice
from ..files import check_room, replacing
from ..model import frequencies
from .rewrite import as_llama
from .weights import check_tokenizer, epsilon, floats, nbytes, numbers, quantized, refuse

KINDS = ("f32", "f16", "bf16", "q8_0", "q4_0")
NEEDS = "GGUF export needs the package gguf: pip install 'minitransformer[export]'"
BLOCK = 32  # weights that share a scale in Q8_0 and Q4_0
BITS = {"f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5, "q4_0": 4.5}  # of a weight
# The largest weight of a type: F16's own, which is that of a block's scale too.
LARGEST = {"f16": 65504.0, "q8_0": 127 * 65504.0, "q4_0": 8 * 65504.0}
CASES = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {  # the expression that a BPE splits text by -> llama.cpp's name
    CASES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + REST: "llama-bpe",
    CASES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + REST: "qwen2",
}
CONTROL = ("<pad>", "<bos>", "<eos>")
ENDS = ("<eos>", "</s>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|im_end|>")
OUTER = {"embedding": "token_embd", "norm": "output_norm", "head": "output"}
INNER = {
    "attention_norm": "attn_norm",
    "attention.out": "attn_output",
    "ffn_norm": "ffn_norm",
    **{f"attention.{x}": f"attn_{x}" for x in "qkv"},
    **{f"attention.{x}_norm": f"attn_{x}_norm" for x in "qk"},
    **{f"ffn.{x}": f"ffn_{x}" for x in ("gate", "up", "down")},
}
ARCHITECTURES = {  # norm, FFN, qk_norm -> architecture
    ("rmsnorm", "swiglu", False): "llama",
    ("rmsnorm", "swiglu", True): "qwen3",
    ("rmsnorm", "relu2", False): "arcee",
    ("layernorm", "relu2", False): "nemotron",
    ("layernorm", "swiglu", False): "stablelm",
}


def to_gguf(
    model, path: str | Path, tokenizer=None, kind: str | None = None, rewrite=False
) -> Path:
    """Write one GGUF file; `kind` None is f32, or the model's own codes where it is quantized.

    ValueError names what llama.cpp cannot express, ImportError the package that is missing."""
    try:
        import gguf
    except ImportError as error:
        raise ImportError(NEEDS) from error
    path, cfg = Path(path), model.cfg
    if kind is not None:
        kind = choice("kind", kind, KINDS)
    check_room(path, int(numbers(model) * BITS[kind] / 8) if kind else nbytes(model))
    tensors, packed = floats(model), quantized(model) if kind is None else {}
    if rewrite and packed:
        refuse(
            "the integers of a quantized model cannot be rewritten as RMSNorm and SwiGLU",
            "give kind 'f32', for the numbers that they stand for",
        )
    if rewrite:
        (cfg, tensors), architecture, own = as_llama(cfg, tensors), "llama", cfg.n_layers
    else:
        architecture, own = architecture_of(cfg, tensors), cfg.n_layers
    with replacing(path) as part:
        with closing(gguf.GGUFWriter(part, architecture)) as writer:
            describe(writer, architecture, cfg, epsilon(model.norm), kind or _name(packed))
            speak(writer, tokenizer, cfg.vocab_size)
            for name, tensor in tensors.items():
                if name == "head.bias":  # of zeros: `architecture_of` has seen to it
                    continue
                regroup = _regrouper(architecture, cfg, name)
                if name in packed:
                    blocks, quant = coded(name, packed[name], regroup)
                    writer.add_tensor(renamed(name), blocks, raw_dtype=quant)
                else:
                    added = name.startswith(f"blocks.{own}.")  # its constant passes what F16 holds
                    as_kind = "f32" if added else kind or "f32"
                    _add(writer, renamed(name), regroup(tensor.numpy()), as_kind)
            if cfg.rope_scaling and cfg.rope_scaling[0] == "llama3":
                plain = frequencies(replace(cfg, rope_scaling=None))
                stretch = (plain / frequencies(cfg)).float().numpy()
                writer.add_tensor("rope_freqs.weight", stretch)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            end = writer.fout[0].tell()
        if part.stat().st_size < end:  # numpy says nothing where the last bytes find no room
            raise OSError(errno.ENOSPC, "No space left on device")
    return path


def architecture_of(cfg, tensors) -> str:
    """The architecture of llama.cpp that computes what such a model does; ValueError where none
    does."""
    if cfg.smeared_keys:
        refuse("smeared keys have no llama.cpp architecture", "train with smeared_keys=False")
    if cfg.position != "rope":
        refuse(f"position {cfg.position!r} has no llama.cpp architecture", "train with 'rope'")
    found = ARCHITECTURES.get((cfg.norm, cfg.ffn, cfg.qk_norm))
    if found is None:
        hint = "give rewrite=True" if (cfg.norm, cfg.ffn) == ("layernorm", "relu") else ""
        refuse(
            f"{cfg.norm} with {cfg.ffn}{' and qk_norm' if cfg.qk_norm else ''} has no llama.cpp "
            "architecture",
            hint or "train with rmsnorm and swiglu",
        )
    if "head.bias" in tensors and tensors["head.bias"].abs().max() > 0:
        refuse(f"the architecture {found} has no bias in its head", "train with bias=False")
    if found in ("qwen3", "stablelm") and cfg.bias:
        refuse(f"the architecture {found} has no biases in its FFN", "train with bias=False")
    if found == "nemotron" and cfg.tied:
        refuse("the architecture nemotron has a head of its own", "train with tied=False")
    return found


def describe(writer, architecture, cfg, eps, kind) -> None:
    """The model's shape; a missing key would be taken for a default without a word."""
    import gguf

    writer.add_name("minitransformer")
    writer.add_context_length(cfg.context)
    writer.add_embedding_length(cfg.d_model)
    writer.add_block_count(cfg.n_layers)
    writer.add_feed_forward_length(cfg.ffn_dim)
    writer.add_head_count(cfg.n_heads)
    writer.add_head_count_kv(cfg.kv_heads)
    writer.add_key_length(cfg.head_dim)
    writer.add_value_length(cfg.head_dim)
    writer.add_rope_dimension_count(cfg.head_dim)
    writer.add_rope_freq_base(cfg.rope_theta)
    writer.add_vocab_size(cfg.vocab_size)
    if cfg.rope_scaling and cfg.rope_scaling[0] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(cfg.rope_scaling[1])
    if architecture in ("nemotron", "stablelm"):
        writer.add_layer_norm_eps(eps)
    else:
        writer.add_layer_norm_rms_eps(eps)
    if architecture == "stablelm":
        writer.add_parallel_residual(False)
    types = gguf.LlamaFileType
    named = {"f32": types.ALL_F32, "bf16": types.MOSTLY_BF16, "f16": types.MOSTLY_F16}
    named |= {"q8_0": types.MOSTLY_Q8_0, "q4_0": types.MOSTLY_Q4_0}
    writer.add_file_type(named[kind])


def speak(writer, tokenizer, vocab_size: int) -> None:
    """The tokenizer, as near as llama.cpp comes to it."""
    check_tokenizer(tokenizer, vocab_size)
    about = {} if tokenizer is None else json.loads(tokenizer.to_str())
    model, splits = about.get("model", {}), _splits(about)
    if splits is None and (model.get("type") != "WordLevel" or "<unk>" not in model["vocab"]):
        writer.add_tokenizer_model("none")
        return
    words = [tokenizer.id_to_token(i) for i in range(vocab_size)]
    added = {one["content"]: one["special"] for one in about["added_tokens"]}
    kinds = [_kind(word, added) for word in words]
    words = [f"[unused {i}]" if word is None else word for i, word in enumerate(words)]
    if splits:
        pairs = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(splits)
        writer.add_token_list(words)
        writer.add_token_merges(pairs)
    else:
        writer.add_tokenizer_model("t5")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([w if w.startswith("<") else f"\u2581{w}" for w in words])
        writer.add_token_scores([0.0] * len(words))
        writer.add_add_space_prefix(True)
        writer.add_unk_token_id(words.index("<unk>"))
    writer.add_token_types(kinds)
    before = tokenizer.encode("").tokens  # what it begins every text with
    unused = [word for word in words[-1:] if tokenizer.token_to_id(word) is None]
    for known, add in (
        ((*before, "<bos>"), writer.add_bos_token_id),
        ((*ENDS, *unused), writer.add_eos_token_id),  # without one llama.cpp would take token 11
    ):
        if found := [word for word in known if word in words]:
            add(words.index(found[0]))
    writer.add_add_bos_token(bool(before))
    writer.add_add_eos_token(False)


def _splits(about: dict) -> str | None:
    """llama.cpp's name of how a byte-level BPE splits text before it merges; None for another."""
    model, normalizer = about.get("model", {}), about.get("normalizer")
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        return None
    if normalizer not in (None, {"type": "NFC"}):
        return None
    steps = about.get("pre_tokenizer") or {}
    *first, last = steps.get("pretokenizers", [steps])
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space") or len(first) > 1:
        return None
    if not first:
        return "gpt-2" if last.get("use_regex", True) else None
    if first[0].get("type") == "Digits" and first[0].get("individual_digits"):
        return "smollm" if last.get("use_regex", True) else None
    plain = first[0].get("behavior") == "Isolated" and not first[0].get("invert")
    plain = plain and not last.get("use_regex", True)
    return SPLITS.get(first[0].get("pattern", {}).get("Regex")) if plain else None


def _kind(word: str | None, added: dict[str, bool]):
    """What llama.cpp takes a token for; `added` says of tokens beside the text's own whether they
    are special."""
    import gguf

    kinds = gguf.TokenType
    if word is None:
        return kinds.UNUSED
    if word == "<unk>":
        return kinds.UNKNOWN
    if word in CONTROL or added.get(word):
        return kinds.CONTROL
    return kinds.USER_DEFINED if word in added else kinds.NORMAL


def renamed(name: str) -> str:
    """Our name of a tensor as llama.cpp's."""
    path, _, end = name.rpartition(".")
    if not path.startswith("blocks."):
        return f"{OUTER[path]}.{end}"
    _, place, inner = path.split(".", 2)
    return f"blk.{place}.{INNER[inner]}.{end}"


def _regrouper(architecture, cfg, name):
    """How the rows of this tensor are reordered: from halves to pairs where it makes queries or
    keys and the architecture rotates pairs."""
    heads = {"attention.q": cfg.n_heads, "attention.k": cfg.kv_heads}
    count = heads.get(".".join(name.split(".")[2:4])) if architecture in ("llama", "arcee") else 0

    def regroup(x: np.ndarray) -> np.ndarray:
        if not count:
            return x
        shape = count, 2, cfg.head_dim // 2, -1
        return x.reshape(shape).swapaxes(1, 2).reshape(x.shape)

    return regroup


def _add(writer, name, array, kind) -> None:
    """A tensor in floats; vectors stay FP32."""
    import gguf

    types = gguf.GGMLQuantizationType
    if array.ndim == 1 or kind == "f32":
        writer.add_tensor(name, np.ascontiguousarray(array, np.float32))
        return
    if kind in ("q8_0", "q4_0") and array.shape[1] % BLOCK:
        refuse(
            f"{name} has {array.shape[1]} columns, and {kind} takes them by {BLOCK}",
            "give kind 'f16', or widths that 32 divides",
        )
    if (largest := float(np.abs(array).max())) > LARGEST.get(kind, math.inf):
        refuse(f"{name} holds {largest:g}, beyond what {kind} does", "give kind 'bf16' or 'f32'")
    quant = types[kind.upper()]
    writer.add_tensor(name, gguf.quants.quantize(array, quant), raw_dtype=quant)


def coded(name, weight, regroup):
    """The blocks of an integer matrix, (N, bytes) uint8, and their type: its own codes and scales
    in the order of Q8_0 or Q4_0."""
    import gguf

    s, K = weight.scheme, weight.columns
    like = (s.symmetric, s.scale_dtype, s.group_size, s.codebook, s.outliers, s.activation_bits)
    if s.bits not in (4, 8) or like != (True, "float16", BLOCK, None, 0, None) or K % BLOCK:
        refuse(
            f"{name} is {s}, which is neither Q8_0 nor Q4_0",
            "quantize to 8 or 4 bits, symmetric, in groups of 32 with float16 scales, or give kind",
        )
    N, groups = weight.rows, K // BLOCK
    codes = regroup(weight.integers().numpy()).reshape(N, groups, BLOCK)
    scale = regroup(weight.scale.numpy()).reshape(N, groups, 1).view(np.uint8)
    if s.bits == 8:
        body, quant = (codes.astype(np.int16) - 128).astype(np.int8).view(np.uint8), "Q8_0"
    else:
        body, quant = codes[..., : BLOCK // 2] | (codes[..., BLOCK // 2 :] << 4), "Q4_0"
    blocks = np.concatenate((scale, body), -1).reshape(N, -1)
    return np.ascontiguousarray(blocks), gguf.GGMLQuantizationType[quant]


def _name(packed) -> str:
    """The type that most of a quantized model's weights have."""
    bits = {weight.scheme.bits for weight in packed.values()}
    return "f32" if not bits else f"q{max(bits)}_0"
