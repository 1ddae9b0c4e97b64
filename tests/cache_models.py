"""Models in which attention matters, for the tests of caches: peaked weights, every variant,
float64."""

from functools import partial

import torch
from hypothesis import strategies as st

from minitransformer.decode import in_float64
from minitransformer.model import ModelConfig, Transformer

VARIANTS = {
    "n_kv_heads": st.sampled_from([None, 2, 1]),
    "norm": st.sampled_from(["layernorm", "rmsnorm"]),
    "ffn": st.sampled_from(["relu", "gelu", "relu2", "swiglu"]),
    "bias": st.booleans(),
    "tied": st.booleans(),
    "qk_norm": st.booleans(),
    "smeared_keys": st.booleans(),
    "rope_scaling": st.sampled_from([None, ("linear", 2.0), ("llama3", 8.0, 1.0, 4.0, 16)]),
}


def takes(kind, cfg):
    """Whether there is a cache of this kind for such a model: what is refused by name is tested
    apart."""
    if cfg.smeared_keys and kind in ("window", "int4", "int2"):
        return False
    return kind != "window" or cfg.position != "sinusoidal"


def configs(context, positions):
    """Every variant of a small two-block model."""
    fixed = {"vocab_size": 30, "d_model": 32, "n_layers": 2, "n_heads": 4, "context": context}
    return st.builds(partial(ModelConfig, **fixed), **VARIANTS, position=st.sampled_from(positions))


def peaked(cfg, scale=6.0):
    """A float64 model whose attention looks at few tokens, so that one wrong key shows in the
    logits."""
    torch.manual_seed(5)
    model = Transformer(cfg)
    with torch.no_grad():
        for block in model.blocks:
            a = block.attention
            for part in (a.q_norm, a.k_norm) if cfg.qk_norm else (a.q, a.k):
                part.weight *= scale**0.5 if cfg.qk_norm else scale
            a.v.weight *= 3
    return in_float64(model.eval())


def tokens(cfg, batch, n):
    return torch.randint(0, cfg.vocab_size, (batch, n), generator=torch.Generator().manual_seed(7))


@torch.no_grad()
def fed(model, cache, ids, cuts=()):
    """Logits of ids (B, T) fed to the cache in pieces: (B, T, V)."""
    edges = sorted({0, ids.shape[1], *(c for c in cuts if c < ids.shape[1])})
    return torch.cat(
        [model(ids[:, a:b], cache) for a, b in zip(edges, edges[1:], strict=False)], dim=1
    )


def near(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=0)
