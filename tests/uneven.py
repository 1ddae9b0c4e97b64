"""A small model whose channels differ in size by a factor of hundreds, as trained ones do, and ids
to run it on."""

import torch

from minitransformer.model import ModelConfig, Transformer


def uneven(biases=False, **k):
    """Gains of the norms are spread over two decades in random order; with `biases`, those are
    large too."""
    torch.manual_seed(0)
    model = Transformer(
        ModelConfig(**({"vocab_size": 50, "d_model": 32, "n_heads": 2, "context": 16} | k))
    ).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("norm.weight"):
                p.mul_(torch.logspace(-1, 1, len(p))[torch.randperm(len(p))])
            elif name.endswith("bias") and biases:
                p.normal_()
    return model


def ids(rows=8):
    """(rows, 16), always the same."""
    return torch.randint(50, (rows, 16), generator=torch.Generator().manual_seed(1))
