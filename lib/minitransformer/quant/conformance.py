"""Does a kernel compute the product it promises? Asked with vectors on which the known mistakes
show."""

import torch
import torch.nn.functional as F

from .layers import QuantWeight

# relative error: a right kernel that rounds to bf16 or int8 leaves 0.025 at worst; a wrong one is
# far off
TOLERANCE = 0.03


def disagreement(multiply, weight: QuantWeight) -> tuple[float, str]:
    """The largest relative error of multiply, x (M, K) -> x Ŵᵀ (M, N), and on what: inf where an
    answer is no number.

    Two random vectors are judged by the norm of all they give. That misses a kernel which adds
    products of bytes in pairs, in 16 bits, and so saturates: few pairs are that large. So the two
    `extreme_pairs` are asked for alone, with inputs of 1 and 0 that every 8-bit step holds exactly;
    each is judged at its own row, against the largest weight there."""
    full = weight().float()
    pairs, rows = extreme_pairs(weight)
    x = torch.cat(
        (torch.randn(2, weight.columns, generator=torch.Generator().manual_seed(0)), pairs)
    )
    exact = F.linear(x, full)
    gap = multiply(x) - exact
    at_random = gap[:2].norm() / exact[:2].norm().clamp(min=1e-30)
    own = gap[2:].gather(1, rows[:, None])[:, 0].abs() / full[rows].abs().amax(1).clamp(min=1e-30)
    errors = torch.cat((at_random[None], own)).nan_to_num(float("inf")).tolist()
    return max(errors), "a random vector" if errors[0] == max(
        errors
    ) else "an extreme pair of neighbours"


def extreme_pairs(weight: QuantWeight) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (2, K), 1 at columns 2j and 2j + 1 and else 0, and rows (2,): where these two codes
    add up to most and to least.

    The extremes are the same for signed codes and unsigned ones. Of a scheme that keeps columns
    apart, (0, K) and (0,)."""
    if weight.scheme.outliers:
        return torch.empty(0, weight.columns), torch.empty(0, dtype=torch.long)
    sums = weight.integers().int().unfold(1, min(2, weight.columns), 2).sum(-1)  # (N, K // 2)
    at = torch.stack((sums.argmax(), sums.argmin()))
    first = at % sums.shape[1] * 2
    columns = torch.stack((first, (first + 1).clamp(max=weight.columns - 1)), 1)
    return torch.zeros(2, weight.columns).scatter_(1, columns, 1.0), at // sums.shape[1]
