"""soft-DTW in plain torch, one anti-diagonal at a time: the reference, the fallback for any device,
and what is differentiated twice.

Computed in float64 where the device has it: this path is bound by the number of operations, not by
their width, and a reference should be beyond doubt.
"""

import torch

from alignment.arguments import allowed_cells, raise_for_invalid

# Stands for an infinite cost: larger than any sum of real ones, small enough not to overflow.
FORBIDDEN = 1e25


def _working_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def masked_cost(cost: torch.Tensor, lengths_x: torch.Tensor, lengths_y: torch.Tensor, band: int | None) -> torch.Tensor:
    """The cost in the working dtype, with FORBIDDEN wherever no path may go. Raises for NaN."""
    rows, columns = cost.shape[1:]
    allowed = allowed_cells(lengths_x, lengths_y, rows, columns, band, cost.device)
    invalid = allowed & (torch.isnan(cost) | (cost == -torch.inf))
    if bool(invalid.any()):
        raise_for_invalid(int(torch.nonzero(invalid)[0, 0]))
    possible = allowed & (cost < torch.inf)
    return torch.where(possible, cost, FORBIDDEN).to(_working_dtype(cost.device))


def anti_diagonals(cost: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Anti-diagonal d as (pairs, rows): row i holds column d - i, FORBIDDEN outside."""
    pairs, rows, columns = cost.shape
    padded = torch.nn.functional.pad(cost, (0, rows), value=FORBIDDEN)
    # Dropping the last `rows` numbers shifts each row by one more place than the row above it.
    flat = padded.reshape(pairs, rows * (rows + columns))[:, : rows * (rows + columns - 1)]
    return flat.reshape(pairs, rows, rows + columns - 1).unbind(2)


def wavefront(
    cost: torch.Tensor,
    gamma: float,
    lengths_x: torch.Tensor,
    lengths_y: torch.Tensor,
    band: int | None,
) -> torch.Tensor:
    """R of every cell, as (diagonals, pairs, rows) in the working dtype; differentiable to any order."""
    cost = masked_cost(cost, lengths_x, lengths_y, band)
    pairs = cost.shape[0]
    border = cost.new_full((pairs, 1), FORBIDDEN)
    start = cost.new_zeros((pairs, 1))
    before = cost.new_full((pairs, cost.shape[1]), FORBIDDEN)
    earlier = before
    finished = []
    for number, diagonal in enumerate(anti_diagonals(cost)):
        corner = start if number == 0 else border
        up = torch.cat((border, before[:, :-1]), 1)
        diagonal_move = torch.cat((corner, earlier[:, :-1]), 1)
        # Summed in this order, transposed costs give the same bits.
        moves = torch.stack((up, before, diagonal_move))
        now = diagonal - gamma * torch.logsumexp(moves / -gamma, 0)
        # Keeps sums of forbidden cells from growing.
        now = torch.where(now < FORBIDDEN / 2, now, FORBIDDEN)
        earlier, before = before, now
        finished.append(now)
    return torch.stack(finished)


def wavefront_values(
    cost: torch.Tensor,
    gamma: float,
    lengths_x: torch.Tensor,
    lengths_y: torch.Tensor,
    band: int | None,
) -> torch.Tensor:
    """soft-DTW of each pair, (pairs,), in the dtype of `cost`; infinity where no path exists."""
    cells = wavefront(cost, gamma, lengths_x, lengths_y, band)
    n, m = lengths_x.to(cost.device), lengths_y.to(cost.device)
    values = cells[n + m - 2, torch.arange(cost.shape[0], device=cost.device), n - 1]
    return torch.where(values < FORBIDDEN / 2, values, torch.inf).to(cost.dtype)


def wavefront_table(
    cost: torch.Tensor,
    gamma: float,
    lengths_x: torch.Tensor,
    lengths_y: torch.Tensor,
    band: int | None,
) -> torch.Tensor:
    """R of every cell, (pairs, rows, columns); infinity where no path exists."""
    rows, columns = cost.shape[1:]
    cells = wavefront(cost, gamma, lengths_x, lengths_y, band)
    i = torch.arange(rows, device=cost.device)[:, None]
    j = torch.arange(columns, device=cost.device)[None, :]
    table = cells[i + j, :, i].permute(2, 0, 1)
    return torch.where(table < FORBIDDEN / 2, table, torch.inf).to(cost.dtype)


def wavefront_alignment(
    cost: torch.Tensor,
    gamma: float,
    lengths_x: torch.Tensor,
    lengths_y: torch.Tensor,
    band: int | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values (pairs,) and expected alignment (pairs, rows, columns), both detached."""
    with torch.enable_grad():
        leaf = cost.detach().requires_grad_(True)
        values = wavefront_values(leaf, gamma, lengths_x, lengths_y, band)
        (expected,) = torch.autograd.grad(values[values < torch.inf].sum(), leaf)
    return values.detach(), expected
