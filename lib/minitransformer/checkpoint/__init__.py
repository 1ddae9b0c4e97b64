"""Saving and loading a whole model: configuration, weights, quantization scheme and tokenizer, in
one folder.

config.json has `format` (1), `model` (the fields of `ModelConfig`), `quantization` (null, the
fields of a `QuantScheme`, or {"layers": {name: fields or null}}), `dtype` (what the model computes
in), `sha256`, the hash of model.safetensors, and `tokenizer`, that of tokenizer.json or null. What
is not quantized is stored in `dtype` under its own name. A quantized matrix W of N rows and K
columns is stored as plain integers, for any machine and any kernel to repack:

    <layer>.weight.codes   uint8 (N, ceil(K·bits / 8)): a row is a little-endian string of bits, low
                           bits first. Code k takes the bits k·bits … k·bits + bits - 1, and bit j
                           is bit j % 8 of byte j // 8; the rest of a row is zero.
    <layer>.weight.scale   (N, G), in the scheme's `scale_dtype`: one a group of `group_size`
                           columns, the last group perhaps shorter; G = 1 per channel; (1, 1) per
                           tensor. Negative ones occur where `full_range` is true.
    <layer>.weight.zero    asymmetric schemes only: uint8 (N, ceil(G·bits / 8)), G codes packed as
                           above; (1, 1) per tensor.

    W[n, k] = (code[n, k] - zero[n, k // group_size]) · scale[n, k // group_size], where a symmetric
    zero is 2^(bits - 1), and levels[code[n, k]] · scale[n, k // group_size] for a codebook, whose
    levels `quant.codebook` computes.

    <layer>.weight.index   schemes with `outliers` only: int32 (outliers,), columns kept in FP32;
                           the codes are of the others, in order, and K above is their number.
    <layer>.weight.apart   FP32 (N, outliers), the columns of index.

Tensors shared by two layers (a tied head) are stored once, under the name that comes first in the
alphabet."""

import json
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer

from ..files import (
    NotJSON,
    check_replaceable,
    check_room,
    read_json,
    read_tokenizer,
    replacing_folder,
    sha256_of,
)
from ..model import ModelConfig, Transformer
from ..quant import scheme_from_json, scheme_to_json
from .tensors import DTYPES, compare, read, stored

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
# Fields of the model that came after folders had been written, and what they mean there.
LATER = dict.fromkeys(("rope_scaling", "d_head", "norm_eps")) | {"smeared_keys": False}
# What an earlier save, or another library's, may have left: all that a folder may lose.
SAVED = (CONFIG, TOKENIZER, "*.safetensors", "*.safetensors.index.json", "*.part")


def save(model, directory: str | Path, tokenizer: Tokenizer | None = None) -> Path:
    """Write config.json, model.safetensors and, when given, tokenizer.json, and nothing else: the
    folder is written beside its place and takes it as a whole, so what an earlier save left there
    is gone, and a save that fails leaves it as it was.

    A tied tensor is stored once, any other that shares memory as a copy; quantized codes are stored
    as packed. ValueError when tokenizer and model do not fit together, when the model's tensors are
    not those of its configuration and scheme (it is prepared for training, or on a kernel's own
    copy) or not finite, or when the folder holds files that no save wrote; OSError when it cannot
    be written."""
    directory, scheme = Path(directory), getattr(model, "scheme", None)
    _fits(model.cfg, tokenizer, directory)
    tensors, dtype = stored(model, scheme)
    check_replaceable(directory, SAVED, "save")
    check_room(directory, sum(tensor.nbytes for tensor in tensors.values()))
    with replacing_folder(directory) as part:
        save_file(tensors, part / WEIGHTS, metadata={"format": "pt"})
        if tokenizer is not None:
            (part / TOKENIZER).write_text(tokenizer.to_str(pretty=True), "utf-8")
        config = {
            "format": 1,
            "model": asdict(model.cfg),
            "quantization": scheme_to_json(scheme),
            "dtype": dtype,
            "sha256": sha256_of(part / WEIGHTS),
            "tokenizer": tokenizer and sha256_of(part / TOKENIZER),
        }
        (part / CONFIG).write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    return directory


def load(directory: str | Path) -> tuple[Transformer, Tokenizer | None]:
    """The model, in eval mode and in the type it was saved in, and its tokenizer or None.

    The weights and the tokenizer must have the SHA-256 in config.json (folders written before there
    was one are taken as they are), and the file exactly the tensors, with shapes and types, that
    configuration and scheme give. Nothing but JSON and safetensors is read.
    FileNotFoundError names what is missing, ValueError what is broken or does not fit."""
    directory = Path(directory)
    for name in (CONFIG, WEIGHTS):
        if not (directory / name).is_file():
            raise FileNotFoundError(
                f"{directory} holds no {name}: give a folder written by save(), or train a "
                "model first"
            )
    path, config = directory / WEIGHTS, _read_config(directory / CONFIG)
    _intact(path, config.get("sha256"))
    cfg, scheme = ModelConfig(**config["model"]), scheme_from_json(config["quantization"])
    dtype = DTYPES[config.get("dtype", "float32")]
    try:
        with safe_open(path, "pt") as file:
            names = compare(path, file, cfg, scheme, dtype)
            model = read(names, file, cfg, scheme, dtype)
    except (SafetensorError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path} is truncated or of another model ({reason}): save or train it again"
        ) from error
    return model.eval(), _read_tokenizer(directory / TOKENIZER, config, cfg)


def _read_config(path) -> dict:
    """The configuration, every field of it there and known; ValueError otherwise."""
    try:
        config = read_json(path)
        scheme, cfg = scheme_from_json(config["quantization"]), ModelConfig(**config["model"])
        if config.get("format", 1) != 1 or config.get("dtype", "float32") not in DTYPES:
            raise KeyError("format and dtype")
    except (AttributeError, KeyError, TypeError, NotJSON) as error:
        raise ValueError(
            f"{path} is not a configuration of ours ({error!r}): it may be another library's"
        ) from error
    for name, stated, full in (
        ("model", LATER | config["model"], asdict(cfg)),
        ("quantization", config["quantization"], scheme_to_json(scheme)),
    ):
        if stated != json.loads(json.dumps(full)):
            raise ValueError(
                f"{path} is not a configuration of ours ({name} leaves fields out): save it again"
            )
    return config


def _intact(path, sha256):
    if sha256 not in (None, found := sha256_of(path)):
        raise ValueError(
            f"{path} is truncated or changed (sha256 {found}, config.json says {sha256}): "
            "save or train it again"
        )


def _read_tokenizer(path, config, cfg):
    """The tokenizer that was saved with the model; ValueError for another one's."""
    known = "tokenizer" in config  # folders from before it was noted
    if known and (config["tokenizer"] is not None) != path.is_file():
        raise ValueError(
            f"{path} "
            f"{'was not saved with this model: delete it' if path.is_file() else 'is missing'}"
            ", or save the model again with its tokenizer"
        )
    if not path.is_file():
        return None
    _intact(path, config.get("tokenizer"))
    tokenizer = read_tokenizer(path, "save it again")
    _fits(cfg, tokenizer, path.parent)
    return tokenizer


def _fits(cfg, tokenizer, directory):
    if tokenizer is not None and tokenizer.get_vocab_size() != cfg.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.get_vocab_size()} tokens and the model of {directory} "
            f"{cfg.vocab_size}: use the tokenizer it was trained with"
        )
