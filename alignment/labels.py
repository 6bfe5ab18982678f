"""Labels of the structure loss (Chow et al. 2024, Eq. 2 to 4): how alike two positions' contents are.

A position is the end of a slice of a document; its label sequence is a span of slices that ends there.
Labels are constants: nothing here is differentiable.
"""

from typing import NamedTuple

import torch

from alignment.arguments import Lengths, check_lengths, full_lengths
from alignment.costs import Slices
from alignment.label_settings import LabelSettings
from alignment.log_kernel import Sequences, log_kernel_many_sigmas, log_kernel_one_sigma, log_paths, used_slices
from alignment.positions import Positions

# Seeds `shuffled` where the caller gives no generator.
SHUFFLE_SEED = 0


class Labels(NamedTuple):
    """values: (rows, positions), symmetric over all rows; valid: bool, False where the loss has no label."""

    values: torch.Tensor
    valid: torch.Tensor


def gak_labels(
    slices: Slices,
    lengths: Lengths,
    document: torch.Tensor,
    end: torch.Tensor,
    settings: LabelSettings | None = None,
    *,
    single: torch.Tensor | None = None,
    rows: slice | None = None,
    generator: torch.Generator | None = None,
) -> Labels:
    """Label of every pair of positions of a batch of documents.

    slices: (documents, slices) with their vectors, float32 or float64, unit length; lengths:
    (documents,). document, end: (positions,), the document of each position and the index of the last
    slice it has seen. single: (positions,) bool, True where the sequence is that one slice alone (a
    bare caption or image), a sequence of its own with one slice in all. rows, generator, returned
    dtype and device: as for `position_labels`.
    Raises ValueError for shapes, indices beyond the lengths, and vectors with NaN inside the lengths.
    """
    if slices.is_image.dim() != 2:
        raise ValueError(f"slices must have shape (documents, slices), got {tuple(slices.is_image.shape)}")
    documents, longest = slices.is_image.shape
    n = full_lengths(check_lengths(lengths, "lengths", documents, longest), documents, longest)
    document, end = _checked_ends(document, end, n)
    alone = torch.zeros_like(end, dtype=torch.bool) if single is None else single.cpu().bool()
    if alone.shape != end.shape:
        raise ValueError(f"single must have shape {tuple(end.shape)}, got {tuple(alone.shape)}")
    numbers = torch.arange(documents * longest).view(documents, longest)
    positions = Positions(numbers, n, document, end)
    if bool(alone.any()):
        one = torch.nonzero(alone)[:, 0]
        bare = numbers[document[one], end[one]]
        positions = Positions(
            torch.cat((numbers, bare[:, None].expand(-1, longest))),
            torch.cat((n, torch.ones_like(one))),
            document.masked_scatter(alone, documents + torch.arange(len(one))),
            end.masked_fill(alone, 0),
            torch.cat((torch.arange(documents), document[one])),
        )
    inside = (torch.arange(longest)[None, :] < n[:, None]).reshape(-1)
    return _labels(_flatten(slices, inside), inside, positions, settings or LabelSettings(), rows, generator)


def position_labels(
    slices: Slices,
    positions: Positions,
    settings: LabelSettings | None = None,
    *,
    rows: slice | None = None,
    generator: torch.Generator | None = None,
) -> Labels:
    """Label of every pair of positions in sequences that may share slices, or be parts of one document.

    slices: (slices,) with their vectors, float32 or float64, unit length. rows: the positions whose rows
    are wanted, all by default; rows computed apart are the rows of the whole, to the last bit on the CPU,
    so that processes can share the work. generator: for `shuffled`, on the CPU; by default the same
    permutation for the same modalities, always.
    Two spans of one slice get the plain cosine that the triple kernel selects. Labels come in the dtype
    and on the device of the vectors; with normalization "none", above exp(88) float32 is infinite.
    Raises ValueError for shapes, indices out of bounds, and vectors with NaN in a sequence.
    """
    if slices.is_image.dim() != 1:
        raise ValueError(f"slices must have shape (slices,), got {tuple(slices.is_image.shape)}")
    checked = positions.checked(len(slices.is_image))
    used = torch.zeros(len(slices.is_image), dtype=torch.bool)
    used[checked.slices[checked.inside()]] = True
    flat = Slices(slices.primary.detach(), slices.shared.detach(), slices.is_image)
    bad = _not_finite(flat, used)
    if bad is not None:
        raise ValueError(f"{bad[0]} has NaN or infinity at slice {bad[1]}; drop slices whose encoder failed")
    return _labels(flat, used, checked, settings or LabelSettings(), rows, generator)


def labelled_pairs(
    positions: Positions, settings: LabelSettings | None = None, rows: slice | None = None
) -> torch.Tensor:
    """Which pairs have a label: `valid` of `position_labels`, (rows, positions) bool, without the labels."""
    chosen = settings or LabelSettings()
    mine = torch.arange(len(positions), device=positions.end.device)[rows or slice(None)]
    count, owner = positions.span_lengths(chosen), positions.owner
    valid = torch.ones((len(mine), len(positions)), dtype=torch.bool, device=mine.device)
    if chosen.span == "window" and chosen.unequal_lengths == "ignore":
        valid = count[mine, None] == count[None, :]
    if chosen.same_document == "kernel":
        return valid
    ruled = _ruled(count, owner, mine, chosen)
    return valid | ruled if chosen.same_document == "one" else valid & ~ruled


def shuffled_slices(
    is_image: torch.Tensor, valid: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """A permutation of all slices, (slices,), that moves valid ones within their modality only."""
    if generator is None:
        generator = torch.Generator().manual_seed(SHUFFLE_SEED)
    places = torch.arange(len(is_image))
    for image in (True, False):
        members = torch.nonzero(valid & (is_image == image))[:, 0]
        places[members] = members[torch.randperm(len(members), generator=generator)]
    return places


def _checked_ends(
    document: torch.Tensor, end: torch.Tensor, lengths: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    document, end = document.detach().cpu().long(), end.detach().cpu().long()
    if document.dim() != 1 or document.shape != end.shape:
        raise ValueError(
            f"document and end must both have shape (positions,), got {tuple(document.shape)} and {tuple(end.shape)}"
        )
    if len(document) and (int(document.min()) < 0 or int(document.max()) >= len(lengths)):
        raise ValueError(f"document must lie in 0..{len(lengths) - 1}")
    outside = torch.nonzero((end < 0) | (end >= lengths[document]))[:, 0]
    if len(outside):
        worst = int(outside[0])
        raise ValueError(
            f"end must lie inside its document: position {worst} ends at slice {int(end[worst])} of "
            f"document {int(document[worst])}, which has {int(lengths[document[worst]])}"
        )
    return document, end


def _flatten(slices: Slices, inside: torch.Tensor) -> Slices:
    """Slices in one row, padding zeroed."""
    longest = slices.is_image.shape[1]
    padding = ~inside.to(slices.primary.device)[:, None]
    primary = slices.primary.detach().flatten(0, 1).masked_fill(padding, 0.0)
    shared = slices.shared.detach().flatten(0, 1).masked_fill(padding, 0.0)
    flat = Slices(primary, shared, slices.is_image.flatten())
    bad = _not_finite(flat, inside)
    if bad is not None:
        raise ValueError(
            f"{bad[0]} has NaN or infinity at document {bad[1] // longest}, slice {bad[1] % longest}; "
            "drop slices whose encoder failed"
        )
    return flat


def _not_finite(slices: Slices, used: torch.Tensor) -> tuple[str, int] | None:
    """Name and slice of the first vector that is not finite."""
    for name, vectors in (("primary", slices.primary), ("shared", slices.shared)):
        bad = ~torch.isfinite(vectors).all(1) & used.to(vectors.device)
        if bool(bad.any()):
            return name, int(torch.nonzero(bad)[0])
    return None


def _labels(
    slices: Slices,
    used: torch.Tensor,
    positions: Positions,
    settings: LabelSettings,
    rows: slice | None,
    generator: torch.Generator | None,
) -> Labels:
    mine = torch.arange(len(positions))[rows or slice(None)]
    valid = labelled_pairs(positions, settings, rows).to(slices.primary.device)
    if len(mine) == 0:
        return Labels(slices.primary.new_empty(valid.shape), valid)
    with torch.no_grad():
        if settings.kernel == "shuffled":
            places = shuffled_slices(slices.is_image.cpu(), used, generator).to(slices.is_image.device)
            slices = Slices(slices.primary[places], slices.shared[places], slices.is_image)
        squared, sequences, whole = _spans(slices, positions, settings)
        if settings.kernel == "mean_similarity":
            values = _mean_similarity(squared, sequences, mine)
        else:
            values = _kernel_labels(squared, sequences, whole, mine, settings)
        return Labels(_apply_rules(values, squared, sequences, positions, mine, settings), valid)


def _spans(
    slices: Slices, positions: Positions, settings: LabelSettings
) -> tuple[torch.Tensor, Sequences, torch.Tensor]:
    """Squared distances of all slices that spans contain, the spans in them, and whole lengths."""
    start = positions.starts(settings)
    # Spans with one beginning are prefixes of the longest of them and share its table, unless the
    # bandwidth or the band depends on where a span ends.
    key = positions.sequence * positions.slices.shape[1] + start
    if settings.sigma == "paper" or settings.band is not None:
        key = torch.arange(len(positions))
    index = positions.end - start
    distinct, sequence = torch.unique(key, return_inverse=True)
    some = torch.empty_like(distinct).scatter_(0, sequence, torch.arange(len(key)))
    origin, first = positions.sequence[some], start[some]
    count = torch.zeros_like(distinct).scatter_reduce_(0, sequence, index + 1, "amax")
    steps = torch.arange(int(count.max()))[None, :].minimum(count[:, None] - 1)
    squared, renumbered = used_slices(slices, positions.slices[origin[:, None], first[:, None] + steps])
    return squared, Sequences(renumbered, count, sequence, index), positions.whole_lengths[origin]


def _mean_similarity(squared: torch.Tensor, sequences: Sequences, mine: torch.Tensor) -> torch.Tensor:
    """Mean of the selected cosine over all pairs of slices of two spans.

    Sums slice by slice and not by a matrix product, whose rounding depends on how many rows it has.
    """
    device = squared.device

    def mean(rows: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """(which, columns): the mean of the rows that each span in `which` names."""
        length = sequences.index[which] + 1
        total = rows.new_zeros((len(which), rows.shape[1]))
        for step in range(int(length.max())):
            inside = torch.nonzero(length > step)[:, 0]
            member = sequences.slices[sequences.sequence[which[inside]], step]
            total.index_add_(0, inside.to(device), rows[member.to(device)])
        return total / length.to(rows)[:, None]

    by_slice = mean(1.0 - squared / 2.0, mine)
    return mean(by_slice.mT.contiguous(), torch.arange(len(sequences.index))).mT.contiguous()


def _kernel_labels(
    squared: torch.Tensor,
    sequences: Sequences,
    whole: torch.Tensor,
    mine: torch.Tensor,
    settings: LabelSettings,
) -> torch.Tensor:
    """Normalised kernel of pairs of spans, (mine, positions)."""
    choices = (settings.kernel != "soft_dtw", settings.band, settings.triangular)
    wants_own = settings.normalization == "cosine"
    if settings.sigma == "global":
        crossed, own = log_kernel_one_sigma(squared, sequences, mine, settings.global_sigma, *choices, wants_own)
    else:
        sizes = (whole if settings.sigma == "pair" else sequences.lengths).to(squared.dtype)
        sigmas = settings.delta * torch.sqrt((sizes[:, None] + sizes[None, :]) / 2.0)
        crossed, own = log_kernel_many_sigmas(squared, sequences, mine, sigmas, *choices, wants_own)
    if own is not None:
        return torch.exp(crossed - own).clamp(0.0, 1.0)
    if settings.normalization == "path_mean":
        # Where both are zero, no path leads from one end to the other.
        return torch.exp(crossed - log_paths(squared, sequences, mine, *choices)).nan_to_num(0.0)
    return torch.exp(crossed)


def _ruled(count: torch.Tensor, owner: torch.Tensor, mine: torch.Tensor, settings: LabelSettings) -> torch.Tensor:
    """(mine, positions) bool: pairs that `same_document` decides about."""
    same = owner[mine, None] == owner[None, :]
    if settings.single_slices == "cosine":
        same &= ~((count == 1)[mine, None] & (count == 1)[None, :])
    return same


def _apply_rules(
    values: torch.Tensor,
    squared: torch.Tensor,
    sequences: Sequences,
    positions: Positions,
    mine: torch.Tensor,
    settings: LabelSettings,
) -> torch.Tensor:
    """Single slices, positions of one document."""
    device = values.device
    count = sequences.index + 1
    first = sequences.slices[sequences.sequence, 0]
    row, column = torch.nonzero(count[mine] == 1)[:, 0], torch.nonzero(count == 1)[:, 0]
    if len(row) and len(column):
        plain = 1.0 - squared[first[mine[row]].to(device)][:, first[column].to(device)] / 2.0
        values[row.to(device)[:, None], column.to(device)[None, :]] = plain
    if settings.same_document == "one":
        values.masked_fill_(_ruled(count, positions.owner, mine, settings).to(device), 1.0)
    return values
