"""Labels of the structure loss (Chow et al. 2024, Eq. 2 to 4): how alike two positions' contents are.

A position is the end of a slice of a document; its label sequence is a span of slices that ends there.
Labels are constants: nothing here is differentiable.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch

from alignment.arguments import (
    Lengths,
    check_band,
    check_lengths,
    check_sigma,
    check_triangular,
    full_lengths,
)
from alignment.costs import Slices
from alignment.log_kernel import (
    Sequences,
    log_kernel_many_sigmas,
    log_kernel_one_sigma,
    used_slices,
)

Span = Literal["window", "prefix"]
Kernel = Literal["gak", "soft_dtw", "mean_similarity", "shuffled"]
Normalization = Literal["cosine", "path_mean", "none"]
Bandwidth = Literal["global", "pair", "paper"]
SameDocument = Literal["one", "kernel", "ignore"]
UnequalLengths = Literal["ignore", "keep"]


@dataclass(frozen=True)
class LabelSettings:
    """What is compared and how; each field is one choice that the paper leaves open or that differs."""

    span: Span = "window"
    """`window`: the last `window` slices; `prefix`: all slices so far (the paper)."""
    window: int = 6
    """Slices a window; a position with fewer uses what there is."""
    unequal_lengths: UnequalLengths = "ignore"
    """Windows of different length: `ignore` marks the label invalid, `keep` compares them. Prefixes are
    always kept."""
    kernel: Kernel = "gak"
    """`gak`; `soft_dtw`: without the divisible local kernel; `mean_similarity`: mean cosine over slice
    pairs; `shuffled`: gak after every slice was replaced by a random one of its modality, the control."""
    normalization: Normalization = "cosine"
    """`cosine`: K_xy / sqrt(K_xx K_yy), in [0, 1]; `path_mean`: K / number of paths; `none`: K itself."""
    sigma: Bandwidth = "global"
    """`global`: delta * sqrt(`sigma_length`); `pair`: delta * sqrt((N + M) / 2) with the lengths of the
    whole documents; `paper`: the same with the lengths of the two spans."""
    delta: float = 1.0
    """Scale of the bandwidth; the median distance of unrelated unit vectors is 1.0 to 1.3."""
    sigma_length: float = 6.0
    """Length in the global bandwidth: with the window's, full windows get what `paper` gives them."""
    band: int | None = None
    """Sakoe-Chiba band, slices."""
    triangular: float | None = None
    """T of the weights (1 - |i - j| / T)_+, slices."""
    same_document: SameDocument = "one"
    """Two positions of one document: label 1, the kernel, or no label."""

    def __post_init__(self) -> None:
        for name, kind in (
            ("span", Span),
            ("unequal_lengths", UnequalLengths),
            ("kernel", Kernel),
            ("normalization", Normalization),
            ("sigma", Bandwidth),
            ("same_document", SameDocument),
        ):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} must be one of {get_args(kind)}, got {getattr(self, name)!r}")
        if self.window < 1:
            raise ValueError(f"window must be at least 1 slice, got {self.window}")
        check_sigma(self.delta, "delta")
        check_sigma(self.sigma_length, "sigma_length")
        check_band(self.band)
        check_triangular(self.triangular)


class Labels(NamedTuple):
    """values: (positions, positions), symmetric; valid: bool, False where the loss has no label."""

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
    generator: torch.Generator | None = None,
) -> Labels:
    """Label of every pair of positions of a batch of documents.

    slices: (documents, slices) with their vectors, float32 or float64, unit length; lengths:
    (documents,). document, end: (positions,), the document of each position and the index of the last
    slice it has seen. single: (positions,) bool, True where the sequence is that one slice alone (a
    bare caption or image). generator: for `shuffled`, on the CPU.
    Two single slices get the plain cosine that the triple kernel selects. Labels come in the dtype and
    on the device of the vectors; with normalization "none", above exp(88) float32 is infinite.
    Raises ValueError for shapes, indices beyond the lengths, and vectors with NaN inside the lengths.
    """
    chosen = LabelSettings() if settings is None else settings
    if slices.is_image.dim() != 2:
        raise ValueError(f"slices must have shape (documents, slices), got {tuple(slices.is_image.shape)}")
    documents, longest = slices.is_image.shape
    n = full_lengths(check_lengths(lengths, "lengths", documents, longest), documents, longest)
    document, end = _checked_positions(document, end, n)
    alone = torch.zeros_like(end, dtype=torch.bool) if single is None else single.cpu().bool()
    if alone.shape != end.shape:
        raise ValueError(f"single must have shape {tuple(end.shape)}, got {tuple(alone.shape)}")
    if len(end) == 0:
        empty = slices.primary.new_empty((0, 0))
        return Labels(empty, empty.bool())

    start = torch.zeros_like(end)
    if chosen.span == "window":
        start = (end - chosen.window + 1).clamp(min=0)
    start = torch.where(alone, end, start)
    with torch.no_grad():
        flat = _flatten(slices, n, chosen.kernel == "shuffled", generator)
        if chosen.kernel == "mean_similarity":
            values = _mean_similarity(flat, longest, document, start, end)
        else:
            values = _kernel_labels(flat, longest, n, document, start, end, chosen)
        return _apply_rules(values, flat, longest, document, start, end, chosen)


def shuffled_slices(
    is_image: torch.Tensor, valid: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """A permutation of all slices, (slices,), that moves valid ones within their modality only."""
    places = torch.arange(len(is_image))
    for image in (True, False):
        members = torch.nonzero(valid & (is_image == image))[:, 0]
        places[members] = members[torch.randperm(len(members), generator=generator)]
    return places


def _checked_positions(
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


def _flatten(slices: Slices, lengths: torch.Tensor, shuffle: bool, generator: torch.Generator | None) -> Slices:
    """Slices in one row, padding zeroed, permuted within their modality if asked."""
    longest = slices.is_image.shape[1]
    valid = (torch.arange(longest)[None, :] < lengths[:, None]).reshape(-1)
    inside = valid.to(slices.primary.device)
    primary, shared = slices.primary.detach().flatten(0, 1), slices.shared.detach().flatten(0, 1)
    primary = primary.masked_fill(~inside[:, None], 0.0)
    shared = shared.masked_fill(~inside[:, None], 0.0)
    for name, vectors in (("primary", primary), ("shared", shared)):
        bad = ~torch.isfinite(vectors).all(1)
        if bool(bad.any()):
            where = int(torch.nonzero(bad)[0])
            raise ValueError(
                f"{name} has NaN or infinity at document {where // longest}, slice {where % longest}; "
                "drop slices whose encoder failed"
            )
    is_image = slices.is_image.flatten()
    if shuffle:
        places = shuffled_slices(is_image.cpu(), valid, generator).to(is_image.device)
        primary, shared = primary[places], shared[places]
    return Slices(primary, shared, is_image)


def _mean_similarity(
    slices: Slices,
    longest: int,
    document: torch.Tensor,
    start: torch.Tensor,
    end: torch.Tensor,
) -> torch.Tensor:
    """Mean of the selected cosine over all pairs of slices of two spans: two matrix products."""
    width = int((end - start).max()) + 1
    steps = start[:, None] + torch.arange(width)
    inside = steps <= end[:, None]
    numbers = torch.where(inside, document[:, None] * longest + steps, document[:, None] * longest)
    squared, renumbered = used_slices(slices, numbers)
    cosines = 1.0 - squared / 2.0
    weights = inside.to(squared) / inside.sum(1, keepdim=True).to(squared)
    average = squared.new_zeros((len(end), len(squared)))
    average.scatter_add_(1, renumbered.to(squared.device), weights)
    means = average @ cosines @ average.mT
    return (means + means.mT) / 2.0


def _kernel_labels(
    slices: Slices,
    longest: int,
    lengths: torch.Tensor,
    document: torch.Tensor,
    start: torch.Tensor,
    end: torch.Tensor,
    settings: LabelSettings,
) -> torch.Tensor:
    """Normalised kernel of all pairs of spans."""
    # Spans with one beginning are prefixes of the longest of them and share its table, unless the
    # bandwidth or the band depends on where a span ends.
    key = document * longest + start
    if settings.sigma == "paper" or settings.band is not None:
        key = torch.arange(len(document))
    index = end - start
    distinct, sequence = torch.unique(key, return_inverse=True)
    some = torch.empty_like(distinct).scatter_(0, sequence, torch.arange(len(key)))
    used, first = document[some], start[some]
    count = torch.zeros_like(distinct).scatter_reduce_(0, sequence, index + 1, "amax")
    steps = torch.arange(int(count.max()))[None, :].minimum(count[:, None] - 1)
    numbers = used[:, None] * longest + first[:, None] + steps
    squared, renumbered = used_slices(slices, numbers)
    sequences = Sequences(renumbered, count, sequence, index)

    sizes = (lengths[used] if settings.sigma == "pair" else count).to(squared.dtype)
    sigmas = settings.delta * torch.sqrt((sizes[:, None] + sizes[None, :]) / 2.0)
    sigma = settings.delta * settings.sigma_length**0.5
    choices = (settings.kernel != "soft_dtw", settings.band, settings.triangular)

    def logs(costs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if settings.sigma != "global":
            return log_kernel_many_sigmas(costs, sequences, sigmas.to(costs.device), *choices)
        crossed = log_kernel_one_sigma(costs, sequences, sigma, *choices)
        own = crossed.diagonal()
        return crossed, (own[:, None] + own[None, :]) / 2.0

    crossed, own = logs(squared)
    # Rounding may differ between (p, q) and (q, p).
    crossed = (crossed + crossed.mT) / 2.0
    if settings.normalization == "cosine":
        return torch.exp(crossed - own).clamp(0.0, 1.0)
    if settings.normalization == "path_mean":
        # At distance zero every path counts 1: the kernel is their number.
        return torch.exp(crossed - logs(torch.zeros_like(squared))[0]).nan_to_num(0.0)
    return torch.exp(crossed)


def _apply_rules(
    values: torch.Tensor,
    slices: Slices,
    longest: int,
    document: torch.Tensor,
    start: torch.Tensor,
    end: torch.Tensor,
    settings: LabelSettings,
) -> Labels:
    """Single slices, unequal windows, positions of one document."""
    device = values.device
    alone = torch.nonzero(start == end)[:, 0]
    if len(alone):
        squared, renumbered = used_slices(slices, document[alone] * longest + end[alone])
        plain = (1.0 - squared / 2.0)[renumbered.to(device)][:, renumbered.to(device)]
        rows = alone.to(device)
        values[rows[:, None], rows[None, :]] = plain
    count = (end - start + 1).to(device)
    valid = torch.ones_like(values, dtype=torch.bool)
    if settings.span == "window" and settings.unequal_lengths == "ignore":
        valid = count[:, None] == count[None, :]
    owner = document.to(device)
    same = owner[:, None] == owner[None, :]
    if settings.same_document == "one":
        values = torch.where(same, torch.ones_like(values), values)
        valid = valid | same
    elif settings.same_document == "ignore":
        valid = valid & ~same
    return Labels(values, valid)
