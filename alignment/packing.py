"""Documents laid out for the all-pairs kernel: sorted by length, in groups that fill a vector."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from alignment.lanes import limits_of


@dataclass(frozen=True)
class Rows:
    """Documents one after another: which slice each row is, where each document starts."""

    order: torch.Tensor  # document at each place, shortest first
    lengths: torch.Tensor  # by place
    starts: torch.Tensor  # first row of each place, and the number of rows at the end
    places: torch.Tensor  # place of each row's document
    slices: torch.Tensor  # document * longest + slice, for each row


@dataclass(frozen=True)
class Columns:
    """Groups of `lanes` documents; columns ordered (group, slice, document of the group)."""

    order: torch.Tensor  # document at each place
    places: int  # number of documents; the last group is filled up by repeating the last one
    lengths: Any  # by place, filled up, numpy int64
    group_starts: Any  # first column of each group, and the number of columns at the end, numpy
    group_widths: Any  # longest length of each group, numpy
    slices: torch.Tensor  # document * longest + slice, for each column; 0 where padded
    padded: torch.Tensor  # bool, columns without a slice


def pack_rows(lengths: torch.Tensor, longest: int) -> Rows:
    """Lay out documents as rows, without padding."""
    order = torch.argsort(lengths, stable=True)
    sorted_lengths = lengths[order]
    ends = torch.cumsum(sorted_lengths, 0)
    starts = torch.cat((ends.new_zeros(1), ends))
    total = int(starts[-1])
    place = torch.repeat_interleave(torch.arange(len(order)), sorted_lengths)
    slices = order[place] * longest + torch.arange(total) - starts[place]
    return Rows(order, sorted_lengths, starts, place, slices)


def pack_columns(lengths: torch.Tensor, longest: int, dtype: torch.dtype) -> Columns:
    """Lay out documents as columns, in groups of documents of nearly equal length."""
    lanes = int(limits_of(dtype)[0])
    order = torch.argsort(lengths, stable=True)
    places = len(order)
    groups = -(-places // lanes)
    filled = torch.cat((order, order[-1:].expand(groups * lanes - places)))
    filled_lengths = lengths[filled].view(groups, lanes)
    widths = filled_lengths.amax(1)
    starts = torch.cat((widths.new_zeros(1), torch.cumsum(widths * lanes, 0)))
    group = torch.repeat_interleave(torch.arange(groups), widths * lanes)
    inside = torch.arange(int(starts[-1])) - starts[group]
    number, lane = inside // lanes, inside % lanes
    padded = number >= filled_lengths[group, lane]
    slices = torch.where(padded, 0, filled.view(groups, lanes)[group, lane] * longest + number)
    # The repeats at the end have columns of their own, which must not count twice in a gradient.
    repeated = group * lanes + lane >= places
    return Columns(
        order,
        places,
        filled_lengths.reshape(-1).numpy().astype(np.int64),
        starts.numpy().astype(np.int64),
        widths.numpy().astype(np.int64),
        slices,
        padded | repeated,
    )
