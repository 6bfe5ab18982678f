"""log kernels between positions of sequences of slices: one recursion a pair of sequences serves all
their positions, because its table already holds every pair of prefixes."""

from dataclasses import dataclass

import torch

from alignment.costs import Slices, triple_kernel_cost
from alignment.dispatch import choose_backend
from alignment.gak import local_cost
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
    """Squared distances between the distinct slices that `numbers` names, and `numbers` renumbered.

    Symmetric to the last bit, which a matrix product alone is not, and zero between a slice and itself.
    """
    distinct, renumbered = torch.unique(numbers, return_inverse=True)
    chosen = distinct.to(slices.is_image.device)
    some = Slices(slices.primary[chosen], slices.shared[chosen], slices.is_image[chosen])
    squared = triple_kernel_cost(some, some)
    return (squared + squared.mT).mul_(0.5).fill_diagonal_(0.0), renumbered


def log_kernel_one_sigma(
    squared: torch.Tensor,
    sequences: Sequences,
    mine: torch.Tensor,
    sigma: float,
    divisible: bool,
    band: int | None,
    triangular: float | None,
    wants_own: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """log kernel of the positions `mine` with all, (mine, positions), with one bandwidth; if wanted, half
    the sum of the two self kernels, else None. mine: ascending, on the CPU."""
    if choose_backend(squared) != "lanes":
        count = len(sequences.lengths)
        sigmas = squared.new_full((count, count), sigma)
        return log_kernel_many_sigmas(squared, sequences, mine, sigmas, divisible, band, triangular, wants_own)
    recursion = Recursion(1.0, 1.0 / (2.0 * sigma**2), divisible, band, triangular)
    crossed = _grid_logs(squared, sequences, mine, recursion)
    if not wants_own:
        return crossed, None
    own = crossed.diagonal() if len(mine) == len(sequences.sequence) else _own_logs(squared, sequences, recursion)
    return crossed, (own[mine, None] + own[None, :]) / 2.0


def _grid_logs(squared: torch.Tensor, sequences: Sequences, mine: torch.Tensor, recursion: Recursion) -> torch.Tensor:
    """log kernel of the positions `mine` with all, by the all-pairs kernel; half the work when all are mine.

    Both orders of a pair give the same bits (alignment/rows.py), so it does not matter which was computed.
    """
    dtype = squared.dtype
    longest = sequences.slices.shape[1]
    everyone = len(mine) == len(sequences.sequence)
    chosen = torch.arange(len(sequences.lengths)) if everyone else torch.unique(sequences.sequence[mine])
    rows = pack_rows(sequences.lengths[chosen], longest)
    columns = pack_columns(sequences.lengths, longest, dtype)
    row_slices = sequences.slices[chosen].reshape(-1)[rows.slices]
    column_slices = sequences.slices.reshape(-1)[columns.slices]
    lanes = int(limits_of(dtype)[0])

    place_of = torch.empty_like(sequences.lengths)
    place_of[chosen[rows.order]] = torch.arange(len(chosen))
    row_place = place_of[sequences.sequence[mine]]
    row_of = rows.starts[row_place] + sequences.index[mine]
    place_of[columns.order] = torch.arange(len(columns.order))
    place = place_of[sequences.sequence]
    starts = torch.from_numpy(columns.group_starts)
    column_of = starts[place // lanes] + sequences.index * lanes + place % lanes

    result = squared.new_empty((len(mine), len(place)))
    for first, stop, group in row_blocks(rows, columns, lanes, squared.element_size(), everyone):
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
            everyone,
            TABLE,
        )
        here = torch.nonzero((row_place >= first) & (row_place < stop))[:, 0]
        if not everyone:
            result[here] = -products[row_of[here] - top][:, column_of]
            continue
        later = torch.nonzero(place >= first)[:, 0]
        found = products[row_of[here] - top][:, column_of[later] - left]
        # The kernel fills pairs whose row document is not after the column document.
        known = place[here][:, None] <= place[later][None, :]
        pair = (here[:, None].expand_as(known)[known], later[None, :].expand_as(known)[known])
        result[pair] = -found[known]
        result[pair[1], pair[0]] = -found[known]
    return result


def _own_logs(squared: torch.Tensor, sequences: Sequences, recursion: Recursion) -> torch.Tensor:
    """log kernel of every position with itself, (positions,): a vector of sequences at a time, and the diagonal."""
    own = squared.new_empty(len(sequences.sequence))
    order = torch.argsort(sequences.lengths, stable=True)
    place, by_place = torch.sort(torch.argsort(order)[sequences.sequence], stable=True)
    lanes = int(limits_of(squared.dtype)[0])
    for begin in range(0, len(order), lanes):
        some = order[begin : begin + lanes]
        first, stop = torch.searchsorted(place, torch.tensor([begin, begin + lanes])).tolist()
        inside = by_place[first:stop]
        lengths = sequences.lengths[some]
        slices = sequences.slices[some, : int(lengths[-1])]
        few = Sequences(slices, lengths, place[first:stop] - begin, sequences.index[inside])
        own[inside] = _grid_logs(squared, few, torch.arange(len(inside)), recursion).diagonal()
    return own


def log_kernel_many_sigmas(
    squared: torch.Tensor,
    sequences: Sequences,
    mine: torch.Tensor,
    sigmas: torch.Tensor,
    divisible: bool,
    band: int | None,
    triangular: float | None,
    wants_own: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """As `log_kernel_one_sigma`, with one bandwidth a pair of sequences, (sequences, sequences); any device."""
    device = squared.device
    sequence, index = sequences.sequence.to(device), sequences.index.to(device)
    bandwidths = sigmas.to(squared)

    def tables(number: int, column_slices: torch.Tensor, lengths: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Of sequence `number` with each row of column_slices, (rows, its length, longest)."""
        rows = sequences.slices[number, : int(sequences.lengths[number])].to(device)
        batches = []
        size = max(1, CELLS // (len(rows) * column_slices.shape[1]))
        for begin in range(0, len(column_slices), size):
            some = slice(begin, begin + size)
            pairs = squared[rows[None, :, None], column_slices[some, None, :].to(device)]
            scaled = pairs / (2.0 * sigma[some, None, None] ** 2)
            full = torch.full((len(pairs),), len(rows))
            cost = local_cost(scaled, divisible, triangular)
            batches.append(-soft_dtw_table(cost, 1.0, full, lengths[some], band=band))
        return torch.cat(batches)

    def own(number: int, here: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Self kernels of the positions `here` of sequence `number` at every bandwidth of sigma, (here, sigma)."""
        levels, level = torch.unique(sigma, return_inverse=True)
        length = int(sequences.lengths[number])
        itself = sequences.slices[number, :length].expand(len(levels), -1)
        table = tables(number, itself, torch.full((len(levels),), length), levels)
        at = index[here.to(device), None]
        return table[level[None, :], at, at]

    crossed = squared.new_empty((len(mine), len(sequence)))
    owns = squared.new_empty(crossed.shape) if wants_own else None
    row_sequences = torch.unique(sequences.sequence[mine])
    for number in row_sequences.tolist():
        here = torch.nonzero(sequences.sequence[mine] == number)[:, 0]
        table = tables(number, sequences.slices, sequences.lengths, bandwidths[number])
        crossed[here.to(device)] = table[sequence[None, :], index[mine[here].to(device), None], index[None, :]]
        if owns is not None:
            owns[here.to(device)] = own(number, mine[here], bandwidths[number])[:, sequence]
    if owns is None:
        return crossed, None
    if len(mine) == len(sequence):
        return crossed, (owns + owns.mT) / 2.0
    # The other half of the sum: every position at the bandwidths that it has with these rows.
    others = torch.empty_like(owns)
    row_of = torch.searchsorted(row_sequences, sequences.sequence[mine]).to(device)
    for number in torch.unique(sequences.sequence).tolist():
        here = torch.nonzero(sequences.sequence == number)[:, 0]
        found = own(number, here, bandwidths[row_sequences.to(device), number])
        others[:, here.to(device)] = found[:, row_of].mT
    return crossed, (owns + others) / 2.0


def log_paths(
    squared: torch.Tensor,
    sequences: Sequences,
    mine: torch.Tensor,
    divisible: bool,
    band: int | None,
    triangular: float | None,
) -> torch.Tensor:
    """log kernel of the positions `mine` with all, were all distances zero: (mine, positions).

    Without triangular weights every path counts 1, so this is the log of their number.
    """
    # A band depends on both lengths; without one the table of the longest holds all the others.
    index, place = torch.unique(sequences.index, return_inverse=True)
    longest = int(index[-1]) + 1
    count = 1 if band is None else len(index)
    lengths = torch.full((1,), longest) if band is None else index + 1
    sequence = torch.zeros_like(index) if band is None else torch.arange(count)
    distinct = Sequences(torch.zeros((count, longest), dtype=torch.int64), lengths, sequence, index)
    nothing, everyone = squared.new_zeros((1, 1)), torch.arange(len(index))
    found = log_kernel_one_sigma(nothing, distinct, everyone, 1.0, divisible, band, triangular, False)[0]
    return found[place[mine].to(found.device)][:, place.to(found.device)]
