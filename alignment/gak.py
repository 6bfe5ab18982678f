"""The global alignment kernel (Cuturi 2007, 2011), in log space: soft-DTW of a transformed cost."""

import torch

from alignment.arguments import (
    Lengths,
    check_cost,
    check_sigma,
    check_triangular,
)
from alignment.dispatch import Backend
from alignment.recursion import soft_dtw, soft_dtw_table


def divisible_cost(scaled: torch.Tensor, triangular: float | None = None) -> torch.Tensor:
    """t + log(2 - exp(-t)): the local cost that makes the kernel geometrically divisible.

    scaled: t = distance^2 / (2 sigma^2) >= 0, (pairs, rows, columns). triangular: weights (1 - |i - j|
    / triangular)_+ on the local Gaussian, so cells with |i - j| >= triangular cost infinity.
    """
    return local_cost(scaled, True, triangular)


def local_cost(scaled: torch.Tensor, divisible: bool, triangular: float | None) -> torch.Tensor:
    """-log of the local kernel: of the Gaussian exp(-t) times its weight, or made divisible after the weight."""
    if triangular is None:
        return scaled + torch.log1p(-torch.expm1(-scaled)) if divisible else scaled
    i = torch.arange(scaled.shape[-2], device=scaled.device, dtype=scaled.dtype)[:, None]
    j = torch.arange(scaled.shape[-1], device=scaled.device, dtype=scaled.dtype)[None, :]
    weights = (1.0 - (i - j).abs() / triangular).clamp(min=0.0)
    outside = weights == 0.0
    inside = scaled - torch.log(torch.where(outside, 1.0, weights))
    costs = inside + torch.log1p(-torch.expm1(-inside)) if divisible else inside
    return torch.where(outside, torch.inf, costs)


def log_gak(
    squared_distance: torch.Tensor,
    sigma: float | torch.Tensor = 1.0,
    lengths_x: Lengths = None,
    lengths_y: Lengths = None,
    *,
    band: int | None = None,
    triangular: float | None = None,
    backend: Backend = "auto",
) -> torch.Tensor:
    """log of the sum over alignments of the product of local kernels s / (2 - s), s = exp(-d^2 / 2 sigma^2).

    squared_distance: (pairs, rows, columns), float32 or float64, >= 0. sigma: one number, or one a
    pair. lengths, band: as in `soft_dtw`, of which this is minus the value at gamma = 1 of the cost
    t + log(2 - exp(-t)). triangular: T of the weights (1 - |i - j| / T)_+ (Cuturi 2011); the kernel is
    0 if the lengths differ by T or more. Returns (pairs,), minus infinity where the kernel is 0; not
    bounded by 0: equal slices give the number of paths. Differentiable twice. Raises ValueError as
    `soft_dtw` does, and for sigma or triangular <= 0.
    """
    cost = _local_cost(squared_distance, sigma, triangular)
    return -soft_dtw(cost, 1.0, lengths_x, lengths_y, band=band, backend=backend)


def log_gak_table(
    squared_distance: torch.Tensor,
    sigma: float | torch.Tensor = 1.0,
    lengths_x: Lengths = None,
    lengths_y: Lengths = None,
    *,
    band: int | None = None,
    triangular: float | None = None,
    backend: Backend = "auto",
) -> torch.Tensor:
    """log_gak of every pair of prefixes at once: (pairs, rows, columns). Not differentiable."""
    cost = _local_cost(squared_distance.detach(), sigma, triangular)
    return -soft_dtw_table(cost, 1.0, lengths_x, lengths_y, band=band, backend=backend)


def _local_cost(squared_distance: torch.Tensor, sigma: float | torch.Tensor, triangular: float | None) -> torch.Tensor:
    check_cost(squared_distance)
    pairs = squared_distance.shape[0]
    if isinstance(sigma, torch.Tensor):
        if sigma.shape not in ((), (pairs,)) or not bool(((sigma > 0) & torch.isfinite(sigma)).all()):
            raise ValueError(f"sigma must be positive and finite, one number or one a pair ({pairs},)")
        variance = (sigma.to(squared_distance) ** 2).reshape(-1, 1, 1)
        scaled = squared_distance / (2.0 * variance)
    else:
        scaled = squared_distance / (2.0 * check_sigma(sigma) ** 2)
    return divisible_cost(scaled, check_triangular(triangular))
