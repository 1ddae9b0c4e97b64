"""LayerNorm and ReLU as RMSNorm and SwiGLU: the same function on other weights, for a runtime that
knows only the latter.

LayerNorm: where every writer to the residual stream (embedding, attention, FFN) has its mean over
the width taken out, the stream's mean is zero and LayerNorm is RMSNorm; its shift goes into the
biases of the linear layers that read it. ReLU: silu(K·u) / K -> relu(u) as K grows; with K = 10⁴
the difference is below 1e-5 at activations of order one. One FFN matrix is the price."""

import torch

from .weights import refuse

STEEP = 1e4


def as_llama(cfg, tensors: dict) -> dict:
    """The tensors of a LayerNorm, ReLU model as those of an RMSNorm, SwiGLU model with biases.

    ValueError where it has another FFN, or a shift in its last norm or a bias in its head that no
    bias can take up."""
    if (cfg.norm, cfg.ffn, cfg.position) != ("layernorm", "relu", "rope"):
        refuse(
            f"{cfg.norm} with {cfg.ffn} and {cfg.position} has no rewrite",
            "train with layernorm, relu and rope",
        )
    for name, what in (
        ("norm.bias", "a shift in its last norm"),
        ("head.bias", "a bias in its head"),
    ):
        if name in tensors and tensors[name].abs().max() > 0:
            refuse(
                f"the model has {what} ({name}), for which the llama architecture has no place",
                "keep it at zero when training, or export to Hugging Face or ONNX",
            )
    new = dict(tensors)
    if cfg.tied:
        new["head.weight"] = tensors["embedding.weight"]
    new["embedding.weight"] = centred(tensors["embedding.weight"], 1)
    for i in range(cfg.n_layers):
        block = f"blocks.{i}"
        for writer in ("attention.out", "ffn.down"):
            for end in ("weight", "bias"):
                if (name := f"{block}.{writer}.{end}") in new:
                    new[name] = centred(new[name], 0)
        for norm, readers in (("attention", "qkv"), ("ffn", ("up",))):
            shift = new.pop(f"{block}.{norm}_norm.bias")
            for reader in readers:
                weight, bias = (f"{block}.{norm}.{reader}.{end}" for end in ("weight", "bias"))
                moved = new[weight].double() @ shift.double()
                new[bias] = (new.get(bias, 0) + moved).float()
        up = f"{block}.ffn.up"
        new[f"{block}.ffn.gate.weight"] = STEEP * new[f"{up}.weight"]
        new[f"{block}.ffn.gate.bias"] = STEEP * new[f"{up}.bias"]
        new[f"{up}.bias"] = torch.full_like(new[f"{up}.bias"], 1 / STEEP)
        new[f"{up}.weight"] = torch.zeros_like(new[f"{up}.weight"])
    new.pop("norm.bias")
    new.pop("head.bias", None)
    return new


def centred(x: torch.Tensor, dim: int) -> torch.Tensor:
    return (x.double() - x.double().mean(dim, keepdim=True)).float()
