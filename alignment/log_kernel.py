"""log kernels between positions of sequences of slices: one recursion a pair of sequences serves all
their positions, because its table already holds every pair of prefixes."""

from dataclasses import dataclass

import torch

from alignment.costs import Slices, triple_kernel_cost
from alignment.dispatch import choose_backend
from alignment.gak import divisible_cost
from alignment.grid import Recursion, row_blocks, run_grid
from alignment.lanes import limits_of
from alignment.packing import pack_columns, pack_rows
from alignment.recursion import soft_dtw_table

TABLE = 2
# Cells of one batch of tables where the bandwidth differs from pair to pair.
CELLS = 8 * 2**20


@dataclass(frozen=True)
class Sequences:
    """Sequences of slices, and the positions in them that are compared.

    slices: (sequences, longest) rows of `squared`; lengths: (sequences,); sequence and index: (positions,)
    say that position p stands for the first index[p] + 1 slices of its sequence. On the CPU.
    """

    slices: torch.Tensor
    lengths: torch.Tensor
    sequence: torch.Tensor
    index: torch.Tensor


def used_slices(slices: Slices, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Squared distances between the distinct slices that `numbers` names, and `numbers` renumbered."""
    distinct, renumbered = torch.unique(numbers, return_inverse=True)
    chosen = distinct.to(slices.is_image.device)
    some = Slices(slices.primary[chosen], slices.shared[chosen], slices.is_image[chosen])
    return triple_kernel_cost(some, some), renumbered


def log_kernel_one_sigma(
    squared: torch.Tensor,
    sequences: Sequences,
    sigma: float,
    divisible: bool,
    band: int | None,
    triangular: float | None,
) -> torch.Tensor:
    """log kernel of all pairs of positions, (positions, positions), with one bandwidth."""
    if choose_backend(squared) != "lanes":
        count = len(sequences.lengths)
        sigmas = squared.new_full((count, count), sigma)
        return log_kernel_many_sigmas(squared, sequences, sigmas, divisible, band, triangular)[0]
    dtype = squared.dtype
    longest = sequences.slices.shape[1]
    rows = pack_rows(sequences.lengths, longest)
    columns = pack_columns(sequences.lengths, longest, dtype)
    numbers = sequences.slices.reshape(-1)
    row_slices, column_slices = numbers[rows.slices], numbers[columns.slices]
    recursion = Recursion(1.0, 1.0 / (2.0 * sigma**2), divisible, band, triangular)
    lanes = int(limits_of(dtype)[0])

    place_of = torch.empty_like(rows.order)
    place_of[rows.order] = torch.arange(len(rows.order))
    place = place_of[sequences.sequence]
    row_of = rows.starts[place] + sequences.index
    starts = torch.from_numpy(columns.group_starts)
    column_of = starts[place // lanes] + sequences.index * lanes + place % lanes

    result = squared.new_empty((len(place), len(place)))
    for first, stop, group in row_blocks(rows, columns, lanes, squared.element_size(), True):
        top, bottom = int(rows.starts[first]), int(rows.starts[stop])
        left = int(starts[group])
        products = squared[row_slices[top:bottom]][:, column_slices[left:]]
        run_grid(
            products,
            recursion,
            products.new_zeros(bottom - top),
            products.new_zeros(products.shape[1]),
            rows,
            columns,
            first,
            stop,
            group,
            True,
            TABLE,
        )
        here = torch.nonzero((place >= first) & (place < stop))[:, 0]
        later = torch.nonzero(place >= first)[:, 0]
        found = products[row_of[here] - top][:, column_of[later] - left]
        # The kernel fills pairs whose row document is not after the column document.
        known = place[here][:, None] <= place[later][None, :]
        pair = (here[:, None].expand_as(known)[known], later[None, :].expand_as(known)[known])
        result[pair] = -found[known]
        result[pair[1], pair[0]] = -found[known]
    return result


def log_kernel_many_sigmas(
    squared: torch.Tensor,
    sequences: Sequences,
    sigmas: torch.Tensor,
    divisible: bool,
    band: int | None,
    triangular: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """log kernel of all pairs of positions with one bandwidth a pair of sequences, (sequences,
    sequences), and half the sum of the two self kernels at that bandwidth; any device."""
    positions = len(sequences.sequence)
    crossed = squared.new_empty((positions, positions))
    own = squared.new_empty((positions, positions))
    for number in range(len(sequences.lengths)):
        mine = torch.nonzero(sequences.sequence == number)[:, 0]
        if len(mine) == 0:
            continue
        rows = sequences.slices[number, : int(sequences.lengths[number])]
        levels, level = torch.unique(sigmas[number].cpu(), return_inverse=True)

        def tables(
            column_slices: torch.Tensor,
            column_lengths: torch.Tensor,
            bandwidths: torch.Tensor,
            rows: torch.Tensor = rows,
        ) -> torch.Tensor:
            batches = []
            size = max(1, CELLS // (len(rows) * column_slices.shape[1]))
            for begin in range(0, len(column_slices), size):
                some = slice(begin, begin + size)
                pairs = squared[rows[None, :, None], column_slices[some, None, :]]
                variance = bandwidths[some].to(squared)[:, None, None] ** 2
                scaled = pairs / (2.0 * variance)
                lengths = torch.full((len(pairs),), len(rows))
                cost = divisible_cost(scaled, triangular) if divisible else scaled
                table = soft_dtw_table(cost, 1.0, lengths, column_lengths[some], band=band)
                batches.append(-table)
            return torch.cat(batches)

        table = tables(sequences.slices, sequences.lengths, sigmas[number])
        crossed[mine] = table[sequences.sequence[None, :], sequences.index[mine][:, None], sequences.index[None, :]]
        itself = rows[None, :].expand(len(levels), -1)
        self_table = tables(itself, torch.full((len(levels),), len(rows)), levels)
        index = sequences.index[mine][:, None]
        own[mine] = self_table[level[sequences.sequence][None, :], index, index]
    return crossed, (own + own.mT) / 2.0
