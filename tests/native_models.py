"""Models and formats for the tests of the engine, and whether there is a compiler to build it."""

from functools import cache

import pytest
import torch
from hypothesis import strategies as st

from minitransformer.model import ModelConfig, Transformer
from minitransformer.native import BuildError, library
from minitransformer.native.build import settle
from minitransformer.quant import QuantScheme

FORCES, WHY = ("native", "portable"), None
try:
    settle("native")
except BuildError as error:
    WHY, BUILT = str(error), "none"
else:  # where a compiler works, an engine that it cannot compile is a failure
    BUILT = library().engine_instructions().decode()
    FORCES += ("avx2",) * (BUILT == "vnni")
needs_compiler = pytest.mark.skipif(WHY is not None, reason=f"not built: {WHY}")
WEIGHT_ONLY = [
    QuantScheme(8),
    QuantScheme(8, symmetric=False),
    QuantScheme(8, "group", 8),
    QuantScheme(8, "tensor"),
    QuantScheme(6, "group", 24, symmetric=False, scale_dtype="bfloat16"),
    QuantScheme(5, "group", 10),
    QuantScheme(4),
    QuantScheme(4, "group", 32),
    QuantScheme(4, "group", 128, symmetric=False, scale_dtype="float32"),
    QuantScheme(4, "group", 16, full_range=True),
    QuantScheme(4, "group", 64, codebook="nf4"),
    QuantScheme(4, codebook="nf4"),
    QuantScheme(3, "group", 8, symmetric=False),
    QuantScheme(2, "group", 32),
    QuantScheme(2, "tensor", embeddings=False),
    QuantScheme(8, outliers=0, embeddings=False),
]
ROUNDED = [
    QuantScheme(8, activation_bits=8),
    QuantScheme(8, full_range=True, activation_bits=8),
    QuantScheme(8, "group", 32, symmetric=False, activation_bits=8),
    QuantScheme(4, "group", 32, activation_bits=8),
    QuantScheme(4, "group", 128, symmetric=False, activation_bits=8),
    QuantScheme(4, activation_bits=6),
    QuantScheme(3, "group", 40, activation_bits=4),
    QuantScheme(2, "group", 8, symmetric=False, activation_bits=8),
    QuantScheme(8, activation_bits=8, activation_symmetric=False),
    QuantScheme(4, "group", 32, codebook="nf4", activation_bits=8),
    QuantScheme(4, "group", 12, activation_bits=8),
]
SHAPES = st.sampled_from(
    [
        *((32, 4, 2), (24, 4, None), (30, 3, 1), (40, 2, None), (64, 2, 1), (8, 1, None)),
        *((48, 3, None), (34, 17, 1)),  # a head of 16 numbers, a group of 17 heads
    ]
)
CONFIGS = st.builds(
    lambda shape, **rest: ModelConfig(
        d_model=shape[0], n_heads=shape[1], n_kv_heads=shape[2], context=96, **rest
    ),
    SHAPES,
    vocab_size=st.sampled_from([5, 30, 33]),
    n_layers=st.sampled_from([1, 2]),
    d_ff=st.sampled_from([None, 37]),
    position=st.sampled_from(["rope", "sinusoidal", "none"]),
    norm=st.sampled_from(["layernorm", "rmsnorm"]),
    ffn=st.sampled_from(["relu", "gelu", "relu2", "swiglu"]),
    bias=st.booleans(),
    tied=st.booleans(),
    qk_norm=st.booleans(),
    smeared_keys=st.booleans(),
)


def even_rope(cfg):
    """Rotation needs an even head dim, sinusoids an even width; all shapes above have them."""
    return cfg.head_dim % 2 == 0 or cfg.position != "rope"


@cache
def model_of(cfg: ModelConfig, seed: int = 0) -> Transformer:
    """A model whose attention looks at few tokens and whose norms and biases are not the initial
    ones, so that a wrong number anywhere shows in the logits."""
    torch.manual_seed(seed)
    model = Transformer(cfg).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                p.add_(torch.randn_like(p) * 0.2)
        for block in model.blocks:
            block.attention.q.weight *= 3
            block.attention.k.weight *= 3
    return model


def ids_of(cfg, batch, n, seed=7):
    return torch.randint(
        0, cfg.vocab_size, (batch, n), generator=torch.Generator().manual_seed(seed)
    )


def apart(a, b) -> float:
    """The largest difference, relative to the largest number of b."""
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-6))
