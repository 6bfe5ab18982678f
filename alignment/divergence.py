"""The soft-DTW divergence: soft-DTW without its bias, zero for equal series (Blondel et al. 2021)."""

import torch

from alignment.arguments import Lengths, check_lengths
from alignment.costs import Metric, pairwise_cost, zeroed_beyond
from alignment.dispatch import Backend
from alignment.recursion import soft_dtw


def soft_dtw_divergence(
    x: torch.Tensor,
    y: torch.Tensor,
    gamma: float = 1.0,
    lengths_x: Lengths = None,
    lengths_y: Lengths = None,
    *,
    metric: Metric = "sqeuclidean",
    band: int | None = None,
    backend: Backend = "auto",
) -> torch.Tensor:
    """soft_dtw(x, y) - soft_dtw(x, x) / 2 - soft_dtw(y, y) / 2, pair by pair.

    x: (pairs, rows, dimension), y: (pairs, columns, dimension), float32 or float64. Returns (pairs,).
    gamma, lengths, band, gradients and errors as in `soft_dtw`; metric as in `pairwise_cost`. Zero at
    x = y and, unlike soft-DTW, not negative for the squared Euclidean cost without a band.
    """
    x, y = (
        zeroed_beyond(z, check_lengths(n, name, z.shape[0], z.shape[1])) if z.dim() == 3 else z
        for z, n, name in ((x, lengths_x, "lengths_x"), (y, lengths_y, "lengths_y"))
    )
    crossed = soft_dtw(pairwise_cost(x, y, metric), gamma, lengths_x, lengths_y, band=band, backend=backend)
    own_x, own_y = (
        soft_dtw(pairwise_cost(z, z, metric), gamma, n, n, band=band, backend=backend)
        for z, n in ((x, lengths_x), (y, lengths_y))
    )
    return crossed - (own_x + own_y) / 2.0
