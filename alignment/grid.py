"""Torch tensors in and out of the all-pairs kernel, a block of row documents at a time."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from alignment.lanes import factors_of, integers_like, limits_of
from alignment.packing import Columns, Rows
from alignment.status import NO_PATH, TOO_STEEP
from alignment.threads import scratch, share

# Products held at a time: large enough for efficient matrix multiplication, small enough to forget.
BLOCK_BYTES = 64 * 2**20
# Kept slopes are weighed in pieces of this size, in memory that stays: fresh pages cost more than the work.
WEIGH_BYTES = 16 * 2**20


@cache
def _kernels() -> Any:
    from alignment import grid_kernel

    return grid_kernel


@dataclass(frozen=True)
class Recursion:
    """What is summed along paths: slope * product + biases, maybe made divisible, maybe banded."""

    gamma: float
    slope: float
    divisible: bool
    band: int | None
    triangular: float | None

    def offset_costs(self, longest: int) -> Any:
        """-log(1 - |i - j| / triangular) by |i - j|, infinite from `triangular` on."""
        if self.triangular is None:
            return np.empty(0)
        weights = 1.0 - np.arange(longest + 1) / self.triangular
        with np.errstate(divide="ignore"):
            return -np.log(np.maximum(weights, 0.0))


def run_grid(
    products: torch.Tensor,
    recursion: Recursion,
    row_bias: torch.Tensor,
    column_bias: torch.Tensor,
    rows: Rows,
    columns: Columns,
    first: int,
    stop: int,
    first_group: int,
    symmetric: bool,
    mode: int,
    incoming: torch.Tensor | None = None,
) -> torch.Tensor:
    """Align row documents at places first..stop with the groups from first_group on.

    products: their rows of the product, overwritten as `mode` says. Returns values (stop - first,
    filled places). Raises ValueError if float32 cannot carry cost / gamma.
    """
    dtype = products.dtype
    limits = limits_of(dtype)
    lanes = int(limits[0])
    filled = len(columns.lengths)
    values = torch.full((stop - first, filled), math.inf, dtype=dtype)
    status = np.zeros((stop - first, filled), np.int32)
    width = int(columns.group_widths.max()) * lanes
    longest = max(int(rows.lengths[stop - 1]), width // lanes)
    weights = torch.ones((1, 1), dtype=dtype) if incoming is None else incoming.contiguous()
    starts = (rows.starts[first:stop] - rows.starts[first]).numpy()
    band = -1 if recursion.band is None else recursion.band
    kernel = _kernels().align_grid
    transitions = int(rows.lengths[stop - 1]) * 3 * width if mode == 1 else 0

    def task(first_task: int, step: int) -> None:
        kernel(
            products.numpy(),
            recursion.slope,
            row_bias.numpy(),
            column_bias.numpy(),
            recursion.offset_costs(longest),
            recursion.divisible,
            starts,
            rows.lengths[first:stop].numpy(),
            columns.group_starts[:-1],
            columns.group_widths,
            columns.lengths,
            first_group,
            first,
            symmetric,
            band,
            factors_of(recursion.gamma, dtype),
            limits,
            first_task,
            step,
            scratch("floats", 4 * width + width + lanes + transitions, dtype),
            scratch("integers", width + lanes, integers_like(dtype)),
            mode,
            weights.numpy(),
            values.numpy(),
            status,
        )

    share(task, (stop - first) * (len(columns.group_widths) - first_group), products.numel())
    possible = recursion.band is None and recursion.triangular is None
    if (status & TOO_STEEP).any() or (possible and (status & NO_PATH).any()):
        raise ValueError(
            f"cost / gamma is too large for {dtype} at gamma = {recursion.gamma}: pass float64 "
            "vectors, scale them down, or use hard_dtw"
        )
    return values


def weighed(
    slopes: torch.Tensor, incoming: torch.Tensor, documents: torch.Tensor, columns: Columns, first_group: int
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Slopes times the incoming gradient of their pairs, some rows at a time, in one buffer.

    slopes: (rows, columns from first_group on), as GRADIENT leaves them for an incoming gradient of ones;
    incoming: (documents, filled places); documents: (rows,), the row of `incoming` for each row.
    """
    rows, width = slopes.shape
    limits = limits_of(slopes.dtype)
    most = min(rows, max(1, WEIGH_BYTES // (width * slopes.element_size())))
    buffer = scratch("weighed", most * width, slopes.dtype)
    layout = (columns.group_starts[:-1], columns.group_widths, first_group)
    kernel = _kernels().weigh_grid
    for begin in range(0, rows, most):
        some = slopes[begin : begin + most]
        target = buffer[: some.numel()].reshape(some.shape)
        arrays = (some.numpy(), incoming.numpy(), documents[begin : begin + most].numpy(), *layout)

        def task(first: int, step: int, arrays: Any = arrays, target: Any = target) -> None:
            kernel(*arrays, first, step, limits, target)

        share(task, len(some), some.numel())
        yield slice(begin, begin + len(some)), torch.from_numpy(target)


def row_blocks(
    rows: Rows, columns: Columns, lanes: int, itemsize: int, symmetric: bool
) -> Iterator[tuple[int, int, int]]:
    """(first, stop, first_group): places of row documents whose products fit in BLOCK_BYTES.

    When symmetric, the groups wholly before `first` are dropped, and blocks are at most a quarter
    of all rows, so that about half of the multiplication is saved.
    """
    total = int(rows.starts[-1])
    places = len(rows.order)
    first = 0
    while first < places:
        first_group = first // lanes if symmetric else 0
        width = int(columns.group_starts[-1] - columns.group_starts[first_group])
        budget = max(1, BLOCK_BYTES // (width * itemsize))
        if symmetric:
            budget = min(budget, -(-total // 4))
        stop = int(torch.searchsorted(rows.starts, int(rows.starts[first]) + budget, right=True)) - 1
        stop = min(places, max(stop, first + 1))
        yield first, stop, first_group
        first = stop
