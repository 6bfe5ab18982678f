"""What people write themselves: a per-pair numba kernel as in Maghoumi's code, and plain torch autograd."""

from typing import Any

import numba
import numpy as np
import torch


@numba.njit(parallel=True)
def _values(cost: Any, gamma: float) -> Any:
    pairs, rows, columns = cost.shape
    table = np.full((pairs, rows + 2, columns + 2), np.inf)
    table[:, 0, 0] = 0.0
    for pair in numba.prange(pairs):
        for j in range(1, columns + 1):
            for i in range(1, rows + 1):
                a = -table[pair, i - 1, j - 1] / gamma
                b = -table[pair, i - 1, j] / gamma
                c = -table[pair, i, j - 1] / gamma
                most = max(max(a, b), c)
                total = np.exp(a - most) + np.exp(b - most) + np.exp(c - most)
                table[pair, i, j] = cost[pair, i - 1, j - 1] - gamma * (np.log(total) + most)
    return table


@numba.njit(parallel=True)
def _gradient(cost: Any, table: Any, gamma: float) -> Any:
    pairs, rows, columns = cost.shape
    padded = np.zeros((pairs, rows + 2, columns + 2))
    padded[:, 1 : rows + 1, 1 : columns + 1] = cost
    expected = np.zeros((pairs, rows + 2, columns + 2))
    expected[:, -1, -1] = 1.0
    table[:, :, -1] = -np.inf
    table[:, -1, :] = -np.inf
    table[:, -1, -1] = table[:, -2, -2]
    for pair in numba.prange(pairs):
        for j in range(columns, 0, -1):
            for i in range(rows, 0, -1):
                here = table[pair, i, j]
                a = np.exp((table[pair, i + 1, j] - here - padded[pair, i + 1, j]) / gamma)
                b = np.exp((table[pair, i, j + 1] - here - padded[pair, i, j + 1]) / gamma)
                c = np.exp((table[pair, i + 1, j + 1] - here - padded[pair, i + 1, j + 1]) / gamma)
                expected[pair, i, j] = (
                    expected[pair, i + 1, j] * a + expected[pair, i, j + 1] * b + expected[pair, i + 1, j + 1] * c
                )
    return expected[:, 1 : rows + 1, 1 : columns + 1]


class _MaghoumiStyle(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cost: torch.Tensor, gamma: float) -> torch.Tensor:
        ctx.table = _values(cost.detach().numpy(), gamma)
        ctx.cost, ctx.gamma = cost.detach(), gamma
        return torch.from_numpy(ctx.table[:, -2, -2].copy()).to(cost.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        expected = _gradient(ctx.cost.numpy(), ctx.table, ctx.gamma)
        return gradients[0][:, None, None] * torch.from_numpy(expected).to(ctx.cost.dtype), None


def maghoumi_style(cost: torch.Tensor, gamma: float) -> torch.Tensor:
    """The recursion on R, float64 inside, a pair a task (after Maghoumi/pytorch-softdtw-cuda)."""
    values: torch.Tensor = _MaghoumiStyle.apply(cost, gamma)
    return values


def plain_torch(cost: torch.Tensor, gamma: float, n: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """Anti-diagonals with logsumexp, differentiated by autograd, in the dtype of the cost."""
    pairs, rows, columns = cost.shape
    big = 1e10
    padded = torch.nn.functional.pad(cost, (0, rows), value=big).reshape(pairs, -1)
    skewed = padded[:, : rows * (rows + columns - 1)].view(pairs, rows, -1).permute(2, 0, 1).contiguous()
    border = cost.new_full((pairs, 1), big)
    start = torch.cat((cost.new_zeros((pairs, 1)), cost.new_full((pairs, rows), big)), 1)
    earlier, before, finished = start, cost.new_full((pairs, rows + 1), big), []
    for diagonal in skewed:
        moves = torch.stack((earlier[:, :-1], before[:, :-1], before[:, 1:]))
        now = diagonal - gamma * torch.logsumexp(moves / -gamma, 0)
        earlier, before = before, torch.cat((border, now), 1)
        finished.append(now)
    return torch.stack(finished)[n + m - 2, torch.arange(pairs), n - 1]
