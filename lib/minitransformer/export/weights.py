"""What every exporter starts from: the floats of a model, by name, and what its formats share."""

import json
from pathlib import Path

import torch

from ..quant.layers import QuantWeight

# What a folder of an export may hold, and so may lose to the next one.
WRITTEN = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "*.safetensors", "*.safetensors.index.json", "*.part",
    "onnx", "onnx/model.onnx", "onnx/model.onnx_data",
)  # fmt: skip
SPECIAL = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}


def floats(model) -> dict[str, torch.Tensor]:
    """Name -> FP32 tensor of everything that `model` holds, quantized matrices as the floats that
    they read as; a tied head is left out. ValueError for a number that is not finite."""
    found = {
        name: module().detach().float().cpu()
        for name, module in model.named_modules()
        if isinstance(module, QuantWeight)
    }
    found |= {name: p.detach().float().cpu() for name, p in model.named_parameters()}
    if model.cfg.tied:
        found.pop("head.weight", None)
    for name, tensor in sorted(found.items()):
        if not tensor.isfinite().all():
            refuse(f"{name} is not finite", "train again, or load the last good checkpoint")
    return {name: tensor.contiguous() for name, tensor in sorted(found.items())}


def quantized(model) -> dict[str, QuantWeight]:
    """Name -> packed matrix, as `blocks.0.ffn.up.weight`; {} for a model in floats."""
    return {n: m for n, m in model.named_modules() if isinstance(m, QuantWeight)}


def numbers(model) -> int:
    """How many numbers the tensors of a model hold, each once."""
    packed = sum(m.rows * m.columns for m in model.modules() if isinstance(m, QuantWeight))
    return packed + sum(p.numel() for p in model.parameters())


def nbytes(model) -> int:
    """Bytes of the tensors of a model as they lie in memory, each once."""
    found = {tensor.data_ptr(): tensor.nbytes for tensor in model.state_dict().values()}
    return sum(found.values())


def epsilon(norm) -> float:
    """What a norm adds to the variance, or to the mean square."""
    eps = norm.eps
    return torch.finfo(torch.float32).eps if eps is None else eps


def check_tokenizer(tokenizer, vocab_size: int) -> None:
    """ValueError where a tokenizer has an id that the model has no row for; it may have fewer,
    as where an embedding was rounded up."""
    if tokenizer is None:
        return
    token, last = max(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    if last >= vocab_size:
        refuse(
            f"the tokenizer gives {token!r} the id {last} and the model has {vocab_size} tokens",
            "give the tokenizer that it was trained with",
        )


def write_tokenizer(folder: Path, tokenizer, cfg) -> None:
    """tokenizer.json, and the tokenizer_config.json that `transformers` reads beside it."""
    if tokenizer is None:
        return
    check_tokenizer(tokenizer, cfg.vocab_size)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), "utf-8")
    known = tokenizer.get_vocab()
    about = {
        # the name that versions 4 and 5 of transformers both know
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": cfg.context,
        "clean_up_tokenization_spaces": False,
        **{role: token for role, token in SPECIAL.items() if token in known},
    }
    write_json(folder / "tokenizer_config.json", about)


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")


def refuse(what: str, remedy: str):
    """The one line of a format that cannot express a model."""
    raise ValueError(f"{what}: {remedy}")
