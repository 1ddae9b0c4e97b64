"""Saving and loading a whole model: configuration, weights, quantization scheme and tokenizer, in
one folder.

config.json has `model` (the fields of `ModelConfig`), `quantization` (null, the fields of a
`QuantScheme`, or {"layers": {name: fields or null}}) and `sha256`, the hash of model.safetensors.
What is not quantized is stored in FP32 under its own name. A quantized matrix W of N rows and K
columns is stored as plain integers, for any machine and any kernel to repack:

    <layer>.weight.codes   uint8 (N, ceil(K·bits / 8)): a row is a little-endian string of bits, low
bits first. Code k takes the
                           bits k·bits … k·bits + bits - 1, and bit j is bit j % 8 of byte j // 8;
the rest of a row is zero.
    <layer>.weight.scale   (N, G), in the scheme's `scale_dtype`: one a group of `group_size`
columns, the last group perhaps
                           shorter; G = 1 per channel; (1, 1) per tensor. Negative ones occur where
`full_range` is true.
    <layer>.weight.zero    asymmetric schemes only: uint8 (N, ceil(G·bits / 8)), G codes packed as
above; (1, 1) per tensor.

    W[n, k] = (code[n, k] - zero[n, k // group_size]) · scale[n, k // group_size], where a symmetric
    zero is 2^(bits - 1), and levels[code[n, k]] · scale[n, k // group_size] for a codebook, whose
    levels `quant.codebook` computes.

    <layer>.weight.index   schemes with `outliers` only: int32 (outliers,), columns kept in FP32;
    the codes are of the others, in <layer>.weight.apart   order, and K above is their number. apart
    is FP32 (N, outliers), the columns of index.

Tensors shared by two layers (a tied head) are stored once, under the name that comes first in the
alphabet."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model
from tokenizers import Tokenizer

from .model import ModelConfig, Transformer
from .quant import quantize_structure, scheme_from_json, scheme_to_json


def save(model, directory: str | Path, tokenizer: Tokenizer | None = None) -> Path:
    """Write config.json, model.safetensors and, when given, tokenizer.json; each under a temporary
    name, then renamed.

    A tied or shared tensor is stored once; quantized codes are stored as packed. ValueError when
    tokenizer and model do not fit together, or when the model's tensors are not those of its scheme
    (it is prepared for training, or on a kernel's own copy)."""
    directory, scheme = Path(directory), getattr(model, "scheme", None)
    _fits(model.cfg, tokenizer, directory)
    if scheme is not None:
        _packed(model, scheme)
    directory.mkdir(parents=True, exist_ok=True)
    part = directory / "model.safetensors.part"
    save_model(model, str(part))
    config = {
        "format": 1,
        "model": asdict(model.cfg),
        "quantization": scheme_to_json(scheme),
        "sha256": _sha256(part),
    }
    os.replace(part, directory / "model.safetensors")
    if tokenizer is not None:
        _write(directory / "tokenizer.json", tokenizer.to_str(pretty=True))
    _write(directory / "config.json", json.dumps(config, indent=2) + "\n")
    return directory


def load(directory: str | Path) -> tuple[Transformer, Tokenizer | None]:
    """The model, in eval mode, and its tokenizer or None. ValueError names what is missing, broken,
    or does not fit.

    The weights must have the SHA-256 in config.json (folders written before there was one are taken
    as they are), and every tensor the shape and, where it is quantized, the type that the
    configuration and the scheme give it."""
    directory = Path(directory)
    for name in ("config.json", "model.safetensors"):
        if not (directory / name).is_file():
            raise FileNotFoundError(
                f"{directory} holds no {name}: give a folder written by save(), or train a model first"
            )
    try:
        config = json.loads((directory / "config.json").read_text("utf-8"))
        cfg = ModelConfig(**config["model"])
        scheme, sha256 = scheme_from_json(config["quantization"]), config.get("sha256")
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        message = f"{directory / 'config.json'} is not a configuration of ours ({error!r}): it may be another library's"
        raise ValueError(message) from error
    path = directory / "model.safetensors"
    if sha256 not in (None, found := _sha256(path)):
        raise ValueError(
            f"{path} is truncated or changed (sha256 {found}, config.json says {sha256}): save or train it again"
        )
    model = Transformer(cfg)
    model = model if scheme is None else quantize_structure(model, scheme)
    try:
        _compare(path, model)
        load_model(model, str(path), strict=True)
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path} is truncated or of another model ({reason}): save or train it again"
        ) from error
    path = directory / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path)) if path.is_file() else None
    _fits(cfg, tokenizer, directory)
    return model.eval(), tokenizer


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _packed(model, scheme):
    """ValueError when the tensors of a quantized model are not the ones that `load` will look
    for."""
    with torch.device("meta"):
        wanted = quantize_structure(Transformer(model.cfg), scheme).state_dict()
    if odd := sorted(model.state_dict().keys() ^ wanted.keys()):
        raise ValueError(
            f"{odd[0]} is not as the scheme stores it: convert() a trained model, save one before accelerate()"
        )


def _compare(path, model):
    """ValueError for the first tensor of the file whose shape, or type if a buffer, is not the one
    that the model has."""
    own, buffers = model.state_dict(), dict(model.named_buffers(remove_duplicate=False))
    with safe_open(path, "pt") as file:
        for name in sorted(file.keys() & own.keys()):
            stored, wanted = file.get_tensor(name), own[name]
            if stored.shape != wanted.shape or (name in buffers and stored.dtype != wanted.dtype):
                what = [
                    f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}"
                    for t in (stored, wanted)
                ]
                raise ValueError(
                    f"{path} does not fit config.json: {name} is {what[0]} in the file and {what[1]} in the model"
                )


def _fits(cfg, tokenizer, directory):
    if tokenizer is not None and tokenizer.get_vocab_size() != cfg.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.get_vocab_size()} tokens and the model of {directory} {cfg.vocab_size}: "
            "use the tokenizer it was trained with"
        )


def _write(path, text):
    part = path.with_name(path.name + ".part")
    part.write_text(text, "utf-8")
    os.replace(part, path)
