"""GPTQ (Frantar et al. 2023): columns are rounded one by one, and those still to come make up for
the error of each."""

import torch

from ..fields import real
from .calibration import Moments
from .clipping import clip_grid
from .schemes import QuantScheme, decode, encode, finite, fit_grid, grouped, store, ungrouped

BLOCK = 128  # columns whose corrections reach the rest of the matrix together


def gptq_tensor(weight: torch.Tensor, scheme: QuantScheme, moments: Moments, damping: float = 0.01):
    """(N, K) -> codes, scale, zero-points as `quantize_tensor`, with less error of the outputs on
    the calibration tokens.

    Grids are fixed beforehand (as groups must be, if columns are to come in the order of falling
    activation), on the range and on the clipped range that weighs a column by its activation. Row
    by row the best of three is kept: rounded to nearest, compensated on either grid. So no row is
    worse than round-to-nearest; with one scale a tensor, no matrix. ValueError for a damping that
    is not positive."""
    damping = real("damping", damping, above=True)
    w = grouped(finite(weight), scheme)
    importance = grouped(moments.importance.to(w).expand_as(weight), scheme)
    plain, clipped = fit_grid(w, scheme), clip_grid(w, scheme, importance)
    made = [(encode(w, *plain, scheme), *plain)]
    for grid in (plain, clipped):
        columns = [ungrouped(x.expand_as(w), weight.shape) for x in grid]  # one for every weight
        codes = compensate(weight.detach(), *columns, moments.second, scheme, damping)
        made.append((grouped(codes, scheme), *grid))
    errors = [ungrouped(decode(*x, scheme) - w, weight.shape) for x in made]
    losses = torch.stack([moments.loss(e) for e in errors])  # (candidates, N)
    losses = losses.sum(1, keepdim=True) if scheme.granularity == "tensor" else losses
    best = losses.argmin(0)  # (N or 1,); ties: the first
    pick = [
        torch.stack(part)[best, torch.arange(len(best), device=best.device)]
        for part in zip(*made, strict=False)
    ]
    return store(*pick, scheme, weight.shape)


def _factor(H, damping):
    """The upper Cholesky factor of H⁻¹; ValueError where H is too nearly singular to have one."""
    lower, failed = torch.linalg.cholesky_ex(H)
    if not failed:
        upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
    if failed or not torch.isfinite(upper).all():
        raise ValueError(
            f"damping {damping:g} leaves the Hessian of its inputs (diagonal "
            f"{H.diagonal().min():.3g} "
            f"to {H.diagonal().max():.3g}) singular: give a larger one, or more calibration tokens"
        )
    return upper


def compensate(weight, scale, zero, second, scheme: QuantScheme, damping: float):
    """The rounding itself: weight (N, K), scale and zero-point of each (N, K) -> codes (N, K),
    whole floats.

    H = 2 (E[x xᵀ] + λ) with λ `damping` times the mean of the diagonal, and U is the upper Cholesky
    factor of H⁻¹: the error of column j over U_jj is taken, times U_j, off the columns after it.
    Columns come by falling diagonal (act-order)."""
    order = second.diagonal().argsort(descending=True, stable=True)
    level = damping * second.diagonal().mean()
    eye = torch.eye(len(order), dtype=second.dtype, device=second.device)
    H = 2 * (second[order][:, order] + eye * (level if level > 0 else 1.0))
    U = _factor(H, damping)
    w, codes = weight.double()[:, order], torch.empty_like(scale)
    for start in range(0, len(order), BLOCK):
        stop = min(start + BLOCK, len(order))
        errors = torch.zeros_like(w[:, start:stop])
        for j in range(start, stop):
            at = order[j]
            grid = scale[:, at], zero[:, at]
            codes[:, at] = encode(w[:, j].float(), *grid, scheme)
            errors[:, j - start] = (w[:, j] - decode(codes[:, at], *grid, scheme)) / U[j, j]
            w[:, j + 1 : stop] -= errors[:, j - start, None] * U[j, j + 1 : stop]
        w[:, stop:] -= errors @ U[start:stop, stop:]
    return codes
