"""Saving and loading a whole model: configuration, weights, quantization scheme and tokenizer, in one folder."""

import dataclasses
import json
import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from tokenizers import Tokenizer

from .model import ModelConfig, Transformer
from .quant import QuantScheme, quantize_structure


def save(model, directory: str | Path, tokenizer: Tokenizer | None = None) -> Path:
    """Write config.json, model.safetensors and, when given, tokenizer.json; each under a temporary name, then renamed.

    A tied or shared tensor is stored once; quantized codes are stored as packed. ValueError when tokenizer and model
    do not fit together.
    """
    directory = Path(directory)
    _fits(model.cfg, tokenizer, directory)
    directory.mkdir(parents=True, exist_ok=True)
    scheme = getattr(model, "scheme", None)
    config = {"format": 1, "model": dataclasses.asdict(model.cfg), "quantization": scheme and dataclasses.asdict(scheme)}
    part = directory / "model.safetensors.part"
    save_model(model, str(part))
    os.replace(part, directory / "model.safetensors")
    if tokenizer is not None:
        _write(directory / "tokenizer.json", tokenizer.to_str(pretty=True))
    _write(directory / "config.json", json.dumps(config, indent=2) + "\n")
    return directory


def load(directory: str | Path) -> tuple[Transformer, Tokenizer | None]:
    """The model, in eval mode, and its tokenizer or None. ValueError names what is missing, broken, or does not fit."""
    directory = Path(directory)
    for name in ("config.json", "model.safetensors"):
        if not (directory / name).is_file():
            raise FileNotFoundError(f"{directory} holds no {name}: give a folder written by save(), or train a model first")
    try:
        config = json.loads((directory / "config.json").read_text("utf-8"))
        cfg = ModelConfig(**config["model"])
        scheme = QuantScheme(**config["quantization"]) if config["quantization"] else None
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        message = f"{directory / 'config.json'} is not a configuration of ours ({error!r}): it may be another library's"
        raise ValueError(message) from error
    model = Transformer(cfg)
    model = model if scheme is None else quantize_structure(model, scheme)
    try:
        load_model(model, str(directory / "model.safetensors"), strict=True)
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        message = f"{directory / 'model.safetensors'} is truncated or of another model ({reason}): save or train it again"
        raise ValueError(message) from error
    path = directory / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path)) if path.is_file() else None
    _fits(cfg, tokenizer, directory)
    return model.eval(), tokenizer


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
