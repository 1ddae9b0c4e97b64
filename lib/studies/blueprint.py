"""What is the model made of? Its parts in the order in which a token passes them, each with what it
does, the shape it leaves, and its parameters."""

import pandas as pd

from minitransformer.bench import parameters
from minitransformer.model import ModelConfig

POSITIONS = {
    "rope": "rotary positions on queries and keys",
    "sinusoidal": "sinusoids added to the embedding",
    "none": "no positions",
}
NORMS = {"layernorm": "LayerNorm", "rmsnorm": "RMSNorm"}
FFNS = {"relu": "ReLU", "gelu": "GELU", "relu2": "squared ReLU", "swiglu": "SwiGLU"}


def parts(cfg: ModelConfig) -> pd.DataFrame:
    """Columns part, does, leaves (a shape of B texts and T tokens), parameters (of one block where
    `group` is not ""), group, joins (what entered the part before is added to what leaves).

    Parameters times blocks add up to `minitransformer.bench.parameters`."""
    count, C, V = parameters(cfg), cfg.d_model, cfg.vocab_size
    norm = count["norms"] // (2 * cfg.n_layers + 1)
    heads = f"{cfg.n_heads} heads of {cfg.head_dim}"
    heads += f", {cfg.kv_heads} of K and V" if cfg.kv_heads != cfg.n_heads else ""
    ffn = f"{C} → {cfg.ffn_dim} → {C}, {FFNS[cfg.ffn]}"
    head = f"{C} → {V:,}" + (", tied to the embedding" if cfg.tied else "")
    rows = [
        ("token ids", "words of the text as numbers", "B, T", 0, "", False),
        ("embedding", f"{V:,} rows of {C}", f"B, T, {C}", count["embedding"], "", False),
        (NORMS[cfg.norm], "", f"B, T, {C}", norm, "block", False),
        ("attention", heads, f"B, T, {C}", count["attention"] // cfg.n_layers, "block", True),
        (NORMS[cfg.norm], "", f"B, T, {C}", norm, "block", False),
        ("feed-forward", ffn, f"B, T, {C}", count["ffn"] // cfg.n_layers, "block", True),
        (NORMS[cfg.norm], "", f"B, T, {C}", norm, "", False),
        ("head", head, f"B, T, {V:,}", count["head"], "", False),
    ]
    return pd.DataFrame(rows, columns=["part", "does", "leaves", "parameters", "group", "joins"])


def blocks(cfg: ModelConfig) -> str:
    """What a block's frame says: how often it is there, and what it knows of positions."""
    times = "one block" if cfg.n_layers == 1 else f"{cfg.n_layers} blocks like this one"
    return f"{times}; {POSITIONS[cfg.position]}"


def cached(cfg: ModelConfig) -> str:
    """What the cache keeps beside attention, of S tokens: two tensors a block."""
    return f"cache: K and V, each B, {cfg.kv_heads}, S, {cfg.head_dim}"
