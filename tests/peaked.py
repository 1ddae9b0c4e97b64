"""Random models in which attention matters, so that a broken cache cannot pass: sharp softmax, loud
values."""

import torch

from minitransformer.decode import in_float64
from minitransformer.model import ModelConfig, Transformer

CFG = ModelConfig(vocab_size=24, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, context=48)


def peaked(cfg=CFG, seed=0):
    """A float64 model with queries, keys and attention outputs four times the default
    initialisation."""
    torch.manual_seed(seed)
    model = Transformer(cfg).eval()
    with torch.no_grad():
        for block in model.blocks:
            for linear in (block.attention.q, block.attention.k, block.attention.out):
                linear.weight *= 4
    return in_float64(model)
