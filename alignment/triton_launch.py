"""Torch tensors in and out of the Triton kernels."""

import math
from functools import cache
from typing import Any

import torch

from alignment.arguments import allowed_cells, raise_for_invalid

# Up to this many rows and columns a lane walks a whole pair; above, a program shares one.
LANE_SLICES = 64
BLOCK_PAIRS = 64
UNREACHED = -1e29


@cache
def _kernels() -> Any:
    from alignment import triton_kernel

    return triton_kernel


def triton_align(
    cost: torch.Tensor,
    gamma: float,
    lengths_x: torch.Tensor,
    lengths_y: torch.Tensor,
    band: int | None,
    *,
    want_expected: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values (pairs,) and expected alignment (pairs, rows, columns), empty if not wanted.

    cost: float32 or float64 on a device that Triton serves, or on the CPU under TRITON_INTERPRET=1.
    """
    rows, columns = cost.shape[1:]
    allowed = allowed_cells(lengths_x, lengths_y, rows, columns, band, cost.device)
    invalid = allowed & (torch.isnan(cost) | (cost == -torch.inf))
    if bool(invalid.any()):
        raise_for_invalid(int(torch.nonzero(invalid)[0, 0]))
    masked = torch.where(allowed, cost, torch.inf)
    by_lane = max(rows, columns) <= LANE_SLICES
    run = _by_lanes if by_lane else _by_programs
    n, m = lengths_x.to(cost.device), lengths_y.to(cost.device)
    mantissas, exponents, expected = run(masked, gamma, n, m, want_expected)
    logs = exponents.double() + torch.log2(mantissas.double())
    values = torch.where(exponents > UNREACHED, -gamma * math.log(2.0) * logs, torch.inf)
    return values.to(cost.dtype), expected


def _constants(gamma: float, cost: torch.Tensor) -> torch.Tensor:
    """As in lanes.py: the cost of one power of two, split so that products are exact.

    A tensor, because Triton takes Python floats as float32.
    """
    step = gamma * math.log(2.0)
    # Without a guaranteed fused multiply-add, half of the bits make steps * high exact.
    kept = 12 if cost.dtype == torch.float32 else 26
    mantissa, exponent = math.frexp(step)
    high = math.ldexp(math.floor(mantissa * 2**kept), exponent - kept)
    return cost.new_tensor([1.0 / step, high, step - high])


def _flags(dtype: torch.dtype) -> tuple[bool, float, float]:
    """Whether double, the negligible shift, the flushed expectation: those of simd.py."""
    return (True, 400.0, 1e-150) if dtype == torch.float64 else (False, 60.0, 1e-18)


def _by_lanes(
    cost: torch.Tensor, gamma: float, n: torch.Tensor, m: torch.Tensor, want_expected: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    pairs, rows, columns = cost.shape
    # Neighbours in size share a block, so that a block's loops end together.
    order = torch.argsort(n * (columns + 1) + m)
    n, m = n[order].contiguous(), m[order].contiguous()
    costs = cost[order].permute(1, 2, 0).contiguous()
    state = [cost.new_empty((columns + 1, pairs)) for _ in range(2)]
    ends = [cost.new_full((pairs,), fill) for fill in (1.0, -1e30)]
    shape = (rows, columns, 3, pairs) if want_expected else (1,)
    transitions = cost.new_empty(shape)
    double, negligible, flush = _flags(cost.dtype)
    grid = (-(-pairs // BLOCK_PAIRS),)
    _kernels().forward_lanes[grid](
        costs,
        *state,
        transitions,
        *ends,
        n,
        m,
        pairs,
        rows,
        columns,
        _constants(gamma, cost),
        KEEP=want_expected,
        NEGLIGIBLE=negligible,
        DOUBLE=double,
        BLOCK=BLOCK_PAIRS,
        num_warps=BLOCK_PAIRS // 32,
    )
    mantissas, exponents = (torch.empty_like(end).index_copy_(0, order, end) for end in ends)
    if not want_expected:
        return mantissas, exponents, cost.new_empty((0, rows, columns))
    expected = torch.zeros_like(costs)
    _kernels().backward_lanes[grid](
        transitions,
        cost.new_zeros((columns, pairs)),
        expected,
        (ends[1] > UNREACHED).to(cost.dtype),
        n,
        m,
        pairs,
        columns,
        FLUSH=flush,
        DOUBLE=double,
        BLOCK=BLOCK_PAIRS,
        num_warps=BLOCK_PAIRS // 32,
    )
    by_pair = expected.permute(2, 0, 1)
    result = torch.empty_like(cost, memory_format=torch.contiguous_format)
    return mantissas, exponents, result.index_copy_(0, order, by_pair)


def _by_programs(
    cost: torch.Tensor, gamma: float, n: torch.Tensor, m: torch.Tensor, want_expected: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    pairs, rows, columns = cost.shape
    diagonals = rows + columns - 1
    # Shift row i by i places: anti-diagonals become columns, then the row the innermost axis.
    padded = torch.nn.functional.pad(cost, (0, rows), value=torch.inf)
    flat = padded.reshape(pairs, -1)[:, : rows * diagonals]
    costs = flat.reshape(pairs, rows, diagonals).mT.contiguous()
    state = [cost.new_empty((pairs, 3, rows + 1)) for _ in range(2)]
    ends = [cost.new_full((pairs,), fill) for fill in (1.0, -1e30)]
    transitions = cost.new_empty((pairs, diagonals, 3, rows) if want_expected else (1,))
    double, negligible, flush = _flags(cost.dtype)
    block = 1 << rows.bit_length()
    warps = max(1, min(16, block // 64))
    n, m = n.contiguous(), m.contiguous()
    _kernels().forward_program[(pairs,)](
        costs,
        *state,
        transitions,
        *ends,
        n,
        m,
        rows,
        diagonals,
        _constants(gamma, cost),
        KEEP=want_expected,
        NEGLIGIBLE=negligible,
        DOUBLE=double,
        BLOCK=block,
        num_warps=warps,
    )
    if not want_expected:
        return ends[0], ends[1], cost.new_empty((0, rows, columns))
    expected = torch.zeros_like(costs)
    _kernels().backward_program[(pairs,)](
        transitions,
        expected,
        (ends[1] > UNREACHED).to(cost.dtype),
        n,
        m,
        rows,
        diagonals,
        FLUSH=flush,
        BLOCK=block,
        num_warps=warps,
    )
    i = torch.arange(rows, device=cost.device)[:, None]
    j = torch.arange(columns, device=cost.device)[None, :]
    return ends[0], ends[1], expected[:, i + j, i]
