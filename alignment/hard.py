"""Hard DTW: the limit of soft-DTW at gamma = 0, with the path."""

import torch

from alignment.arguments import Lengths, check_band, check_cost, check_lengths, full_lengths
from alignment.wavefront import FORBIDDEN, anti_diagonals, masked_cost


def hard_dtw(
    cost: torch.Tensor,
    lengths_x: Lengths = None,
    lengths_y: Lengths = None,
    *,
    band: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Least summed cost of a monotone alignment, and a path that has it (Sakoe and Chiba 1978).

    cost: (pairs, rows, columns), float32 or float64, any device; lengths and band as in `soft_dtw`.
    Returns values (pairs,), infinity without a path, and paths (pairs, rows, columns): 1 on the path,
    0 elsewhere. Of equally good moves the diagonal wins, then up. Not differentiable (the path is the
    subgradient). Raises ValueError as `soft_dtw` does.
    """
    check_cost(cost)
    pairs, rows, columns = cost.shape
    n = full_lengths(check_lengths(lengths_x, "lengths_x", pairs, rows), pairs, rows)
    m = full_lengths(check_lengths(lengths_y, "lengths_y", pairs, columns), pairs, columns)
    paths = torch.zeros_like(cost, memory_format=torch.contiguous_format)
    if pairs == 0:
        return cost.detach().sum((1, 2)), paths
    masked = masked_cost(cost.detach(), n, m, check_band(band))
    n, m = n.to(cost.device), m.to(cost.device)
    every = torch.arange(pairs, device=cost.device)

    border = masked.new_full((pairs, 1), FORBIDDEN)
    before = masked.new_full((pairs, rows), FORBIDDEN)
    earlier = before
    finished, moves = [], []
    for number, diagonal in enumerate(anti_diagonals(masked)):
        corner = torch.zeros_like(border) if number == 0 else border
        corner = torch.cat((corner, earlier[:, :-1]), 1)
        up = torch.cat((border, before[:, :-1]), 1)
        best = torch.minimum(corner, up)
        move = torch.where(before < best, 2, (up < corner).to(torch.uint8)).to(torch.uint8)
        best = torch.minimum(best, before)
        earlier, before = before, (diagonal + best).clamp(max=FORBIDDEN)
        finished.append(before)
        moves.append(move)
    values = torch.stack(finished)[n + m - 2, every, n - 1]
    reached = values < FORBIDDEN / 2

    all_moves = torch.stack(moves)
    i, j = n - 1, m - 1
    walking = reached.clone()
    for _ in range(rows + columns - 1):
        paths[every, i, j] = torch.where(walking, 1.0, paths[every, i, j])
        move = all_moves[i + j, every, i]
        walking = walking & (i + j > 0)
        i = torch.where(walking & (move != 2), i - 1, i)
        j = torch.where(walking & (move != 1), j - 1, j)
    return torch.where(reached, values, torch.inf).to(cost.dtype), paths
