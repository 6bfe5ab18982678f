"""soft-DTW of batches of pairs, from their costs: values, gradients, expected alignments, tables."""

from typing import Any

import torch

from alignment.arguments import (
    Lengths,
    check_band,
    check_cost,
    check_gamma,
    check_lengths,
    full_lengths,
)
from alignment.dispatch import Backend, alignment_of, table_of, values_of
from alignment.wavefront import wavefront_values


class _SoftDTW(torch.autograd.Function):
    """Keeps the expected alignment, which is the gradient; differentiates the wavefront twice."""

    @staticmethod
    def forward(
        ctx: Any,
        cost: torch.Tensor,
        gamma: float,
        lengths_x: torch.Tensor,
        lengths_y: torch.Tensor,
        band: int | None,
        backend: Backend,
    ) -> torch.Tensor:
        values, expected = alignment_of(cost, gamma, lengths_x, lengths_y, band, backend)
        ctx.save_for_backward(cost, expected)
        ctx.settings = (gamma, lengths_x, lengths_y, band)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        cost, expected = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return gradient.reshape(-1, 1, 1) * expected, None, None, None, None, None
        values = wavefront_values(cost, *ctx.settings)
        reached = values < torch.inf
        (again,) = torch.autograd.grad(
            values[reached], cost, gradient[reached], create_graph=True, materialize_grads=True
        )
        return again, None, None, None, None, None


def _checked(
    cost: torch.Tensor, gamma: float, lengths_x: Lengths, lengths_y: Lengths, band: int | None
) -> tuple[float, torch.Tensor, torch.Tensor, int | None]:
    check_cost(cost)
    pairs, rows, columns = cost.shape
    return (
        check_gamma(gamma),
        full_lengths(check_lengths(lengths_x, "lengths_x", pairs, rows), pairs, rows),
        full_lengths(check_lengths(lengths_y, "lengths_y", pairs, columns), pairs, columns),
        check_band(band),
    )


def soft_dtw(
    cost: torch.Tensor,
    gamma: float = 1.0,
    lengths_x: Lengths = None,
    lengths_y: Lengths = None,
    *,
    band: int | None = None,
    backend: Backend = "auto",
) -> torch.Tensor:
    """Soft minimum, over all monotone alignments, of the summed cost (Cuturi and Blondel 2017).

    R_ij = cost_ij + min^gamma(R_{i-1,j}, R_{i-1,j-1}, R_{i,j-1}), min^gamma(a) = -gamma log sum exp(-a/gamma).

    cost: (pairs, rows, columns), float32 or float64, any strides; infinity forbids a cell; what lies
    beyond the lengths is never read. Returns (pairs,) in its dtype, infinity where no path exists.
    gamma: positive, in units of the cost. lengths_x, lengths_y: (pairs,) whole numbers >= 1, or None
    for full. band: cells with |i - j| <= band only, widened by the difference of the lengths.
    Differentiable twice; the gradient is the expected alignment. The cost is never written to.
    float32 keeps about 1e-6 of the gradient's norm at any gamma: no centring is needed.
    Raises ValueError for NaN or minus infinity, empty lengths, wrong shapes, gamma <= 0.
    """
    gamma, n, m, width = _checked(cost, gamma, lengths_x, lengths_y, band)
    if cost.shape[0] == 0:
        return cost.sum((1, 2))
    if torch.is_grad_enabled() and cost.requires_grad:
        values: torch.Tensor = _SoftDTW.apply(cost, gamma, n, m, width, backend)
        return values
    return values_of(cost, gamma, n, m, width, backend)


def expected_alignment(
    cost: torch.Tensor,
    gamma: float = 1.0,
    lengths_x: Lengths = None,
    lengths_y: Lengths = None,
    *,
    band: int | None = None,
    backend: Backend = "auto",
) -> torch.Tensor:
    """Probability that an alignment drawn by exp(-cost / gamma) visits each cell: d soft_dtw / d cost.

    Arguments and errors as for `soft_dtw`. Returns (pairs, rows, columns), each in [0, 1], 1 at the
    first and last cell, 0 beyond the lengths; differentiable when the cost is.
    """
    gamma, n, m, width = _checked(cost, gamma, lengths_x, lengths_y, band)
    if cost.shape[0] == 0:
        return cost * 0.0
    if torch.is_grad_enabled() and cost.requires_grad:
        values = soft_dtw(cost, gamma, n, m, band=width, backend=backend)
        (expected,) = torch.autograd.grad(values, cost, torch.ones_like(values), create_graph=True)
        return expected
    return alignment_of(cost, gamma, n, m, width, backend)[1]


def soft_dtw_table(
    cost: torch.Tensor,
    gamma: float = 1.0,
    lengths_x: Lengths = None,
    lengths_y: Lengths = None,
    *,
    band: int | None = None,
    backend: Backend = "auto",
) -> torch.Tensor:
    """soft-DTW of every pair of prefixes at once: entry (i, j) aligns x[: i + 1] with y[: j + 1].

    Arguments and errors as for `soft_dtw`; a band is that of the whole pair. Returns (pairs, rows,
    columns), infinity beyond the lengths and where no path exists. Not differentiable.
    """
    gamma, n, m, width = _checked(cost, gamma, lengths_x, lengths_y, band)
    if cost.shape[0] == 0:
        return cost.detach().clone()
    return table_of(cost, gamma, n, m, width, backend)
