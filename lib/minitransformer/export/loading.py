"""Models of Hugging Face folders as ours: safetensors only, nothing is executed, about one copy of
the weights in memory.

Read: llama (SmolLM, Llama 2 and 3, TinyLlama …), qwen2, qwen3, arcee, starcoder2 and stablelm, with
grouped queries, a head dim of its own, tied heads, RoPE plain, `linear` or `llama3`, in one file or
in shards. What they do and we do not is refused by name."""

import json
import re
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from ..fields import near
from ..model import ModelConfig, Transformer, position_table
from .huggingface import NAMES, OUTER
from .weights import refuse

SHAPE = {  # ours -> theirs
    "vocab_size": "vocab_size",
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "d_ff": "intermediate_size",
    "context": "max_position_embeddings",
}
READ = {  # model type -> (norm, gated FFN, name of the norm's epsilon, its default)
    "llama": ("rmsnorm", True, "rms_norm_eps", 1e-6),
    "qwen2": ("rmsnorm", True, "rms_norm_eps", 1e-6),
    "qwen3": ("rmsnorm", True, "rms_norm_eps", 1e-6),
    "arcee": ("rmsnorm", False, "rms_norm_eps", 1e-5),
    "starcoder2": ("layernorm", False, "norm_epsilon", 1e-5),
    "stablelm": ("layernorm", True, "layer_norm_eps", 1e-5),
}
TIED = {"starcoder2": True}  # what a config that says nothing of a tied head means
BLOCKS = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")
IGNORED = re.compile(r".*\.rotary_emb\.inv_freq")  # what old versions saved, and nobody reads


def from_huggingface(
    directory: str | Path, dtype: torch.dtype = torch.float32, context: int | None = None
) -> tuple[Transformer, Tokenizer | None]:
    """The model of a folder, in eval mode and in `dtype`, and its tokenizer or None.

    `context` shortens the longest sequence, whose position table is held in memory. ValueError
    names what we do not compute, or what is missing, unexpected or misshaped; FileNotFoundError
    what is not there."""
    directory = Path(directory)
    model, places = _planned(directory, context)
    cfg, wanted, found = model.cfg, model.state_dict(), {}
    for path, names in places.items():
        with _opened(path) as file:
            found |= {ours: file.get_tensor(theirs).to(dtype) for theirs, ours in names.items()}
    for name in wanted.keys() - found.keys():
        tied = name == "head.weight" and cfg.tied
        found[name] = (
            found["embedding.weight"] if tied else torch.zeros(wanted[name].shape, dtype=dtype)
        )
    model.load_state_dict(found, assign=True)
    if cfg.tied:
        model.head.weight = model.embedding.weight
    model.table = None if cfg.position == "none" else position_table(cfg).to(dtype)
    path = directory / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path)) if path.is_file() else None
    return model.eval().requires_grad_(False), tokenizer


def check_huggingface(directory: str | Path, context: int | None = None) -> ModelConfig:
    """The configuration of the model that `from_huggingface` would read, with its errors, from the
    names and shapes alone: no weight is read."""
    return _planned(Path(directory), context)[0].cfg


def _planned(directory: Path, context) -> tuple[Transformer, dict[Path, dict[str, str]]]:
    """The model without weights, and for each file which of its tensors are which of ours; what is
    not in it is a tied head, or zero."""
    about = read_json(directory / "config.json")
    cfg = configuration(about, context)
    with torch.device("meta"):
        model = Transformer(cfg)
    wanted = model.state_dict()
    places = {
        path: _names(path, about["model_type"], wanted, cfg.tied) for path in _files(directory)
    }
    found = {name for names in places.values() for name in names.values()}
    for name in sorted(wanted.keys() - found):
        tied = name == "head.weight" and cfg.tied
        theirs_has = not name.endswith(".bias") or name.removesuffix(".bias") in _biased(about, cfg)
        if theirs_has and not tied:
            raise ValueError(f"{directory} lacks {name}: download the folder again")
    return model, places


def configuration(about: dict, context: int | None = None) -> ModelConfig:
    """The configuration of a config.json; ValueError names what we do not compute."""
    kind = about.get("model_type")
    if kind not in READ:
        refuse(f"model_type {kind!r} is not one that we compute", f"give {', '.join(READ)}")
    if lacking := [theirs for theirs in SHAPE.values() if not isinstance(about.get(theirs), int)]:
        raise ValueError(f"config.json lacks {lacking[0]}: download it again")
    norm, gated, epsilon, default = READ[kind]
    act = (
        {"silu": "swiglu", "swish": "swiglu"}
        if gated
        else dict(relu="relu", gelu="gelu", relu2="relu2")
    )
    told = about.get("hidden_act", "silu" if gated else None)
    for name, value, plain in (
        ("hidden_act", told, told in act),
        ("quantization_config", "given", not about.get("quantization_config")),
        ("sliding_window", about.get("sliding_window"), not _slides(about)),
        ("partial_rotary_factor", _partial(about, kind), _partial(about, kind) == 1),
        ("use_parallel_residual", True, not about.get("use_parallel_residual")),
        ("qk_layernorm", True, not about.get("qk_layernorm")),
    ):
        if not plain:
            refuse(f"{name} {value!r} is not computed here", "give a model without it")
    shape = {ours: about[theirs] for ours, theirs in SHAPE.items()}
    heads = about.get("num_key_value_heads") or shape["n_heads"]
    theta, scaling = _rope(about)
    if context is not None:
        shape["context"] = min(context, shape["context"])
    return ModelConfig(
        **shape,
        n_kv_heads=None if heads == shape["n_heads"] else heads,
        d_head=about.get("head_dim"),
        norm=norm,
        ffn=act[told],
        bias=bool(_flags(about)),
        tied=about.get("tie_word_embeddings", TIED.get(kind, False)),
        qk_norm=kind == "qwen3",
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=about.get(epsilon, default),
    )


def _flags(about) -> set[str]:
    """The linear layers of a block that have a bias."""
    kind, attention = about["model_type"], ("q", "k", "v")
    if kind == "starcoder2" and about.get("use_bias", True):
        return {"attention.out", "ffn.up", "ffn.down", *(f"attention.{x}" for x in attention)}
    found = set()
    if kind == "qwen2" or (kind == "stablelm" and about.get("use_qkv_bias")):
        found |= {f"attention.{x}" for x in attention}
    if kind in ("llama", "qwen3", "arcee") and about.get("attention_bias"):
        found |= {"attention.out", *(f"attention.{x}" for x in attention)}
    if kind in ("llama", "arcee") and about.get("mlp_bias"):
        found |= {"ffn.gate", "ffn.up", "ffn.down"}
    return found


def _biased(about, cfg) -> set[str]:
    """Every module of ours that must find a bias in the files."""
    found = {f"blocks.{i}.{name}" for i in range(cfg.n_layers) for name in _flags(about)}
    if cfg.norm == "layernorm":
        found |= {"norm"} | {
            f"blocks.{i}.{x}_norm" for i in range(cfg.n_layers) for x in ("attention", "ffn")
        }
    return found


def _slides(about) -> bool:
    asked = about.get("use_sliding_window", about["model_type"] == "starcoder2")
    return bool(about.get("sliding_window")) and bool(asked)


def _partial(about, kind) -> float:
    told = about.get("rope_parameters") or {}
    usual = 0.25 if kind == "stablelm" else 1.0
    return told.get("partial_rotary_factor", about.get("partial_rotary_factor", usual))


def _rope(about) -> tuple[float, tuple | None]:
    """Base and scaling of RoPE, as version 5 of transformers writes them or as earlier ones do."""
    told = about.get("rope_parameters") or about.get("rope_scaling") or {}
    theta = told.get("rope_theta", about.get("rope_theta", 10000.0))
    kind = told.get("rope_type", told.get("type", "default"))
    if kind == "default":
        return theta, None
    if kind == "linear":
        return theta, ("linear", told["factor"])
    if kind != "llama3":
        refuse(f"rope_type {kind!r} is not computed here", "give default, linear or llama3")
    names = ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    return theta, ("llama3", told["factor"], *(told[name] for name in names))


def _files(directory: Path) -> list[Path]:
    """The safetensors files of the folder, each inside it."""
    index, single = (directory / f"model.safetensors{end}" for end in (".index.json", ""))
    names = [single.name]
    if index.is_file():
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
    elif not single.is_file() and any(directory.glob("*.bin")):
        refuse(f"{directory} holds pickled weights only", "convert them to safetensors")
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(
                f"{index} names {name!r}, which is no file beside it: check the source"
            )
        if not (directory / name).is_file():
            raise FileNotFoundError(f"{directory} holds no {name}: download the folder again")
        if not _inside((directory / name).resolve(), directory.resolve()):
            raise ValueError(f"{directory / name} is a link that leaves the folder: copy the file")
    return [directory / name for name in names]


def _inside(path: Path, directory: Path) -> bool:
    """Whether a file is in the folder, or where Hugging Face's cache keeps those of a snapshot."""
    cached = directory.parent.name == "snapshots"
    kept = directory.parents[1] / "blobs" if cached else directory
    return path.is_relative_to(directory) or path.is_relative_to(kept)


@contextmanager
def _opened(path: Path):
    """A safetensors file; ValueError for a damaged one."""
    try:
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or damaged ({error}): download it again") from error


def _names(path, kind, wanted, tied) -> dict[str, str]:
    """Their names of the tensors of one file, with ours; every shape is the one wanted."""
    table = {theirs: ours for ours, theirs in NAMES[kind.replace("qwen2", "llama")][1].items()}
    outer = {theirs: ours for ours, theirs in OUTER.items()}
    found = {}
    with _opened(path) as file:
        for theirs in file.keys():
            match, stem = BLOCKS.fullmatch(theirs), theirs.rpartition(".")
            if match and match[2] in table:
                name = f"blocks.{match[1]}.{table[match[2]]}.{match[3]}"
            else:
                name = f"{outer.get(stem[0], '?')}.{stem[2]}"
            if IGNORED.fullmatch(theirs) or (name == "head.weight" and tied):
                continue
            if name not in wanted:
                raise ValueError(
                    f"{path} holds {theirs}, which the configuration has no place for"
                    f"{near(name, wanted)}: give the config.json that belongs to it"
                )
            shape = tuple(file.get_slice(theirs).get_shape())
            if shape != tuple(wanted[name].shape):
                raise ValueError(
                    f"{path}: {theirs} is {shape} and the configuration says "
                    f"{tuple(wanted[name].shape)}: give the config.json that belongs to it"
                )
            found[theirs] = name
    return found


def read_json(path: Path, wanted: str = "a Hugging Face folder") -> dict:
    """The object in a file of a model's folder; the remedy names what folder is `wanted`."""
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} holds no {path.name}: give {wanted}")
    try:
        found = json.loads(path.read_text("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}): download it again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no object: download it again")
    return found
