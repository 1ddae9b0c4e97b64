"""The cross-entropy of a batch and its gradient, in the memory of the logits."""

import torch

AT_ONCE = 2**20  # logits of a part: few enough to stay in a processor's cache, many for its threads


@torch.no_grad()
def cross_entropy_(logits: torch.Tensor, targets: torch.Tensor, scale: float) -> torch.Tensor:
    """The sum of -log softmax at the targets times `scale`, a scalar: logits (N, V) are
    *overwritten* with its gradient, targets (N,) are ids.

    Rows are gone through while they are near. The logits of a large vocabulary are the largest
    tensor of a training step, of which `torch.nn.functional.cross_entropy` makes two more."""
    rows, total = max(1, AT_ONCE // logits.shape[1]), logits.new_zeros(())
    for part, ids in zip(logits.split(rows), targets[:, None].split(rows), strict=True):
        log_probabilities = part.log_softmax(-1)
        total -= log_probabilities.gather(1, ids).sum()
        torch.exp(log_probabilities, out=part)
        part.scatter_add_(1, ids, part.new_full(ids.shape, -1.0)).mul_(scale)
    return total * scale
