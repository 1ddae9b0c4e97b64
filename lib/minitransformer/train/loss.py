"""The cross-entropy of a batch and its gradient, in the memory of the logits."""

import torch

AT_ONCE = 2**20  # logits of a part: few enough to stay in a processor's cache, many for its threads


class CrossEntropy(torch.autograd.Function):
    """`cross_entropy(logits, targets, reduction="sum") * scale` for class ids: logits (N, V),
    targets (N,) -> a scalar. The logits are *overwritten* with their gradient, rows after rows
    while they are near: of a large vocabulary they are the largest tensor of a training step, which
    `torch.nn.functional.cross_entropy` copies twice and goes through eight times."""

    @staticmethod
    def forward(ctx, logits, targets, scale):
        rows, total = max(1, AT_ONCE // logits.shape[1]), 0.0
        for part, ids in zip(logits.split(rows), targets.split(rows), strict=True):
            log_probabilities = part.log_softmax(-1)
            total = total - log_probabilities.gather(1, ids[:, None]).sum()
            torch.exp(log_probabilities, out=part)
            part.scatter_add_(1, ids[:, None], part.new_full((len(ids), 1), -1.0)).mul_(scale)
        ctx.slope = logits.detach()
        return total * scale

    @staticmethod
    def backward(ctx, slope):
        return (ctx.slope if slope == 1 else ctx.slope * slope), None, None
