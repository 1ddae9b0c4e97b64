"""LayerNorm and ReLU as RMSNorm and SwiGLU: nearly the same function on other weights, for a
runtime that knows only the latter.

LayerNorm: where every writer to the residual stream (embedding, attention, FFN) has its mean over
the width taken out, the stream's mean is zero and LayerNorm is RMSNorm; its shift goes into the
biases of the linear layers that read it. ReLU: silu(K·u) / K -> relu(u) as K grows; with K = 10⁴
the difference is at most 3e-5, near 0, and nothing at activations of order one. One FFN matrix is
the price.

The last norm's shift β and the head's bias b: logits = W(γ ⊙ n) + c with c = Wβ + b and n the
normalized stream, whose mean is 0 and whose mean square is 1. The head has no bias to take c up, so
one more block makes a constant of known size: with an attention of zeros and an FFN that is linear
it adds M(n + 1) to the stream, beside which the stream itself, a multiple of n, is nothing. The
last RMSNorm then divides by √2 M, n and the constant stand side by side, and the head reads c from
the sum over the width, which n leaves at 0. That block is the price, where c is not 0."""

from dataclasses import replace

import torch

from .weights import refuse

STEEP = 1e4
LARGE = 2.0**30  # M: beside it the stream is less than a float resolves, and its square is a float


def as_llama(cfg, tensors: dict) -> tuple:
    """The configuration and tensors of a LayerNorm, ReLU model as those of an RMSNorm, SwiGLU model
    with biases, its head without one.

    ValueError where it has another norm, FFN or position, or an FFN narrower than the stream and a
    shift in its last norm."""
    if (cfg.norm, cfg.ffn, cfg.position) != ("layernorm", "relu", "rope"):
        refuse(
            f"{cfg.norm} with {cfg.ffn} and {cfg.position} has no rewrite",
            "train with layernorm, relu and rope",
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
    gain, shift = new["norm.weight"].double(), new.pop("norm.bias").double()
    head = new.get("head.weight", tensors["embedding.weight"]).double()
    constant = head @ shift + new.pop("head.bias", torch.zeros(len(head))).double()
    cfg = replace(cfg, norm="rmsnorm", ffn="swiglu", d_ff=cfg.ffn_dim, tied=False)
    if constant.abs().max() == 0:
        return cfg, new
    new["norm.weight"] = torch.full_like(new["norm.weight"], 2**0.5)
    centre = head * gain - (head * gain).mean(1, keepdim=True)
    new["head.weight"] = (centre + constant[:, None] / cfg.d_model).float()
    return replace(cfg, n_layers=cfg.n_layers + 1), new | constant_block(cfg, new)


def constant_block(cfg, tensors) -> dict:
    """A block after the last: x + M(RMSNorm(x) + 1)."""
    last, width = f"blocks.{cfg.n_layers - 1}.", cfg.d_model
    if cfg.ffn_dim < width:
        refuse(
            f"an FFN of {cfg.ffn_dim} is narrower than the stream of {width}, and the shift of the "
            "last norm (norm.bias) needs one as wide",
            "train with a larger d_ff, or export to Hugging Face or ONNX",
        )
    block = {n.removeprefix(last): torch.zeros_like(x) for n, x in tensors.items() if last in n}
    for norm in ("attention_norm", "ffn_norm"):
        block[f"{norm}.weight"] += 1
    block["ffn.gate.bias"][:width] = LARGE  # silu(M) = M
    block["ffn.up.bias"][:width] = 1
    for name in ("up", "down"):
        block[f"ffn.{name}.weight"].fill_diagonal_(1)
    return {f"blocks.{cfg.n_layers}.{name}": tensor for name, tensor in block.items()}


def centred(x: torch.Tensor, dim: int) -> torch.Tensor:
    return (x.double() - x.double().mean(dim, keepdim=True)).float()
