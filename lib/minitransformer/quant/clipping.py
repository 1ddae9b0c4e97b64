"""Rounding to a smaller grid: the ends of a range are rare, and clipping them buys a finer step for
everything else."""

import torch

from .schemes import QuantScheme, decode, encode, finite, fit_grid, grouped, store

SHRINKS = [1 - i / 50 for i in range(41)]  # the whole range first, then down to a fifth of it


def clip_grid(w: torch.Tensor, scheme: QuantScheme, importance: torch.Tensor | float = 1.0):
    """The grid with the least error Σ h (w - ŵ)² of those that cover a share of the range: (...,
    size) -> (..., 1) each.

    `importance` h broadcasts against w. A full-range grid tries both signs. Ties go to the larger
    grid, so that what round-to-nearest gets exactly is left alone."""
    scale, zero = fit_grid(w, scheme)
    least = None
    for shrink in SHRINKS + [-x for x in SHRINKS if scheme.full_range]:
        grid = fit_grid(w, scheme, shrink)
        error = ((decode(encode(w, *grid, scheme), *grid, scheme) - w).square() * importance).sum(
            -1, keepdim=True
        )
        better = torch.zeros_like(error, dtype=torch.bool) if least is None else error < least
        least = error if least is None else torch.where(better, error, least)
        scale, zero = torch.where(better, grid[0], scale), torch.where(better, grid[1], zero)
    return scale, zero


def clip_tensor(weight: torch.Tensor, scheme: QuantScheme, importance: torch.Tensor | None = None):
    """Round to nearest on the best clipped grid: (N, K) -> codes, scale, zero-points as
    `quantize_tensor`.

    `importance` (K,) weighs the columns; None weighs them alike."""
    w = grouped(finite(weight), scheme)
    h = 1.0 if importance is None else grouped(importance.to(w).expand_as(weight), scheme)
    scale, zero = clip_grid(w, scheme, h)
    return store(encode(w, scale, zero, scheme), scale, zero, scheme, weight.shape)
