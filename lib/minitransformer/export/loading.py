"""Models of Hugging Face folders as ours: safetensors only, nothing is executed, about one copy of
the weights in memory.

Read: llama (SmolLM, Llama 2 and 3, TinyLlama …), qwen2, qwen3, arcee, starcoder2 and stablelm, with
grouped queries, a head dim of its own, tied heads, RoPE plain, `linear` or `llama3`, in one file or
in shards. What they do and we do not is refused by name."""

import re
from contextlib import contextmanager
from os.path import realpath  # which takes links in a circle, as resolve() does not
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from .. import files
from ..checkpoint.tensors import DTYPES
from ..fields import choice, near, whole
from ..model import ModelConfig, Transformer, position_table
from .huggingface import NAMES, OUTER
from .weights import check_tokenizer, refuse

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
LONGEST = 2**22  # tokens; the position table of a longer context takes gigabytes
TIED = {"starcoder2": True}  # what a config that says nothing of a tied head means
BLOCKS = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")
FLOATS = ("F64", "F32", "F16", "BF16")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
IGNORED = re.compile(r".*\.rotary_emb\.inv_freq")  # what old versions saved, and nobody reads


def from_huggingface(
    directory: str | Path, dtype: torch.dtype = torch.float32, context: int | None = None
) -> tuple[Transformer, Tokenizer | None]:
    """The model of a folder, in eval mode and in `dtype`, and its tokenizer or None.

    `context` shortens the longest sequence, whose position table is held in memory. ValueError
    names what we do not compute, or what is missing, unexpected or misshaped; FileNotFoundError
    what is not there."""
    directory, dtype = Path(directory), choice("dtype", dtype, DTYPES.values())
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
    model.table = position_table(cfg).to(dtype)
    tokenizer = read_tokenizer(directory)
    check_tokenizer(tokenizer, cfg.vocab_size)
    return model.eval().requires_grad_(False), tokenizer


def check_huggingface(directory: str | Path, context: int | None = None) -> ModelConfig:
    """The configuration of the model that `from_huggingface` would read, with its errors, from the
    names and shapes alone: no weight is read."""
    return _planned(Path(directory), context)[0].cfg


def _planned(directory: Path, context) -> tuple[Transformer, dict[Path, dict[str, str]]]:
    """The model without weights, and for each file which of its tensors are which of ours; what is
    not in it is a tied head, or zero."""
    about = read_json(_within(directory, "config.json"))
    cfg = configuration(about, context)
    held = {path: _held(path) for path in _files(directory)}
    if cfg.n_layers > sum(map(len, held.values())):  # before so many are built
        raise ValueError(
            f"config.json says {cfg.n_layers} layers, more than the files have tensors: give the "
            "config.json that belongs to them"
        )
    with torch.device("meta"):
        model = Transformer(cfg)
    wanted = model.state_dict()
    places = {
        path: _names(path, own, about["model_type"], wanted, cfg.tied) for path, own in held.items()
    }
    listed = [name for names in places.values() for name in names.values()]
    if len(found := set(listed)) < len(listed):
        twice = next(name for name in listed if listed.count(name) > 1)
        raise ValueError(f"{directory} holds {twice} in two files: download the folder again")
    for name in sorted(wanted.keys() - found):
        tied = name == "head.weight" and cfg.tied
        theirs_has = not name.endswith(".bias") or name.removesuffix(".bias") in _biased(about, cfg)
        if theirs_has and not tied:
            raise ValueError(f"{directory} lacks {name}: download the folder again")
    return model, places


def configuration(about: dict, context: int | None = None) -> ModelConfig:
    """The configuration of a config.json; ValueError names what we do not compute."""
    try:
        return _configuration(about, context)
    except (AttributeError, KeyError, TypeError) as error:  # a list where a number should stand
        raise ValueError(
            f"config.json is not as transformers writes it ({error!r}): download it again"
        ) from error


def _configuration(about: dict, context) -> ModelConfig:
    kind = about.get("model_type")
    if not isinstance(kind, str) or kind not in READ:
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
        shape["context"] = min(whole("context", context), shape["context"])
    if shape["context"] > LONGEST:
        refuse(
            f"max_position_embeddings {shape['context']} needs a table of positions beyond memory",
            f"pass a context, or lower it in config.json to {LONGEST} or less",
        )
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
        names = _listed(read_json(_within(directory, index.name)), index)
    elif not single.is_file() and any(p for end in PICKLED for p in directory.glob(end)):
        refuse(f"{directory} holds pickled weights only", "convert them to safetensors")
    for name in names:
        if Path(name).name != name or not (name.endswith(".safetensors") and name.isprintable()):
            raise ValueError(
                f"{index} names {name!r}, which is no file beside it: check the source"
            )
        if not (directory / name).is_file():
            raise FileNotFoundError(f"{directory} holds no {name}: download the folder again")
    return [_within(directory, name) for name in names]


def _listed(about: dict, index: Path) -> list[str]:
    """The files that an index names."""
    listed = about.get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(x, str) for x in listed.values()):
        raise ValueError(f"{index} holds no weight_map of files: download it again")
    return sorted(set(listed.values()))


def _within(directory: Path, name: str) -> Path:
    """A file of the folder. ValueError for a link that leads out of it, but into the place where
    Hugging Face's cache keeps the files of a snapshot."""
    path, home = directory / name, Path(realpath(directory))
    cached = home.parent.name == "snapshots"
    homes = [home, home.parents[1] / "blobs"] if cached else [home]
    if not any(Path(realpath(path)).is_relative_to(one) for one in homes):
        raise ValueError(f"{path} is a link that leaves the folder: copy the file")
    return path


@contextmanager
def _opened(path: Path):
    """A safetensors file; ValueError for a damaged one, and for one that memory does not hold."""
    try:
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or damaged ({error}): download it again") from error
    except (RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200] or "memory is full"
        raise ValueError(
            f"{path} cannot be read ({reason}): free some memory, or give a smaller model"
        ) from error


def _held(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of every tensor of a file."""
    with _opened(path) as file:
        parts = {name: file.get_slice(name) for name in file.keys()}
        return {n: (tuple(part.get_shape()), part.get_dtype()) for n, part in parts.items()}


def _names(path, held, kind, wanted, tied) -> dict[str, str]:
    """Their names of the tensors of one file, with ours; every shape is the one wanted, and every
    number a float."""
    table = {theirs: ours for ours, theirs in NAMES[kind.replace("qwen2", "llama")][1].items()}
    outer = {theirs: ours for ours, theirs in OUTER.items()}
    found = {}
    for theirs, (shape, dtype) in held.items():
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
        if shape != tuple(wanted[name].shape):
            raise ValueError(
                f"{path}: {theirs} is {shape} and the configuration says "
                f"{tuple(wanted[name].shape)}: give the config.json that belongs to it"
            )
        if dtype not in FLOATS:
            refuse(f"{path}: {theirs} is of type {dtype}", "give a model that is not quantized")
        found[theirs] = name
    return found


def read_tokenizer(directory: Path) -> Tokenizer | None:
    """The tokenizer of a folder, or None where it has none; ValueError for a broken one."""
    path = _within(directory, "tokenizer.json")
    return files.read_tokenizer(path, "download it again") if path.is_file() else None


def read_json(path: Path, wanted: str = "a Hugging Face folder") -> dict:
    """The object in a file of a model's folder; the remedy names what folder is `wanted`."""
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} holds no {path.name}: give {wanted}")
    try:
        found = files.read_json(path)
    except files.NotJSON as error:
        raise ValueError(f"{path} is not JSON ({error}): download it again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no object: download it again")
    return found
