"""Labels of the structure loss: global alignment kernels between sequences of slices.

Triple kernel, equation 4, and global alignment kernel, equation 2 of Chow et al. 2024; the recursion is
Cuturi's (ICML 2011) in log space: with t = phi / (2 sigma^2) and log k = -t - log(2 - exp(-t)),
L_ij = log k_ij + logsumexp(L_{i-1,j}, L_{i,j-1}, L_{i-1,j-1}), L_00 = 0, borders -inf.
Labels are constants: everything runs without gradient, in float64.

Letters: P positions, S sequences, W slices of the longest sequence, X slices of the step, D vector dimensions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from trainer.recipe import ObjectiveRecipe

Tensor = torch.Tensor

# Log of zero that survives logsumexp: exp(-1e30 - anything) is 0, and differences of two stay finite.
LOG_ZERO = -1e30
# Elements of the table of one row block: 64 MB of float64.
BLOCK_ELEMENTS = 8_000_000


@dataclass(frozen=True)
class SliceVectors:
    """Unit vectors of the step's slices: is_image bool (X,), primary and shared float (X, D), zero-padded."""

    is_image: Tensor
    primary: Tensor
    shared: Tensor


@dataclass(frozen=True)
class Positions:
    """What the labels are of, in the order of the retrieval vectors.

    document int64 (P,): which document; view bool (P,): a bare slice; sequence int64 (P,) and end int64 (P,):
    the position's label sequence is the first `end` slices of sequence `sequence`.
    slices int64 (S, W): slice indices, padded with 0; lengths int64 (S,).
    """

    document: Tensor
    view: Tensor
    sequence: Tensor
    end: Tensor
    slices: Tensor
    lengths: Tensor

    def rows(self, start: int, stop: int) -> Positions:
        """The positions start .. stop - 1, over the same sequences."""
        part = slice(start, stop)
        return Positions(
            self.document[part], self.view[part], self.sequence[part], self.end[part], self.slices, self.lengths
        )


def triple_kernel(vectors: SliceVectors) -> Tensor:
    """Squared distances of all slice pairs, float64 (X, X): primary within a modality, shared across."""
    primary, shared = vectors.primary.double(), vectors.shared.double()
    image = vectors.is_image.nonzero()[:, 0]
    text = (~vectors.is_image).nonzero()[:, 0]
    cosine = shared @ shared.T
    for group in (image, text):
        cosine[group[:, None], group[None, :]] = primary[group] @ primary[group].T
    return (2 - 2 * cosine).clamp_min(0)


def log_local_kernel(phi: Tensor, sigma: Tensor | float, kernel: str = "gak") -> Tensor:
    """log k of squared distances: gak -t - log(2 - exp(-t)); soft_dtw -t, with t = phi / (2 sigma^2)."""
    t = phi / (2 * sigma**2) if isinstance(sigma, float) else phi / (2 * sigma.double() ** 2)
    if kernel == "soft_dtw":
        return -t
    return -t - torch.log1p(-torch.expm1(-t))


def log_kernel_table(log_k: Tensor, band: int = 0, triangular: int = 0) -> Tensor:
    """L of every pair of prefixes, float64 (..., N + 1, M + 1), from log k (..., N, M); borders are LOG_ZERO.

    `band` b > 0 keeps |i - j| <= b (Sakoe-Chiba). `triangular` T > 0 weights the Gaussian by (1 - |i - j| / T)+
    inside Cuturi's local kernel: w s / (2 - w s), where s is recovered from log k of the gak.
    """
    num_rows, num_columns = log_k.shape[-2:]
    offset = (torch.arange(num_rows)[:, None] - torch.arange(num_columns)[None, :]).abs().to(log_k.device)
    log_k = log_k.double()
    if triangular:
        # k = s / (2 - s), so s = 2 k / (1 + k).
        weight = (1 - offset.double() / triangular).clamp_min(0)
        log_s = math.log(2) + log_k - torch.log1p(log_k.exp()) + weight.log()
        log_k = log_s - torch.log(2 - log_s.exp())
        log_k = log_k.masked_fill(weight == 0, LOG_ZERO)
    if band:
        log_k = log_k.masked_fill(offset > band, LOG_ZERO)
    table = log_k.new_full((*log_k.shape[:-2], num_rows + 1, num_columns + 1), LOG_ZERO)
    table[..., 0, 0] = 0
    for i in range(num_rows):
        for j in range(num_columns):
            before = torch.logaddexp(torch.logaddexp(table[..., i, j + 1], table[..., i + 1, j]), table[..., i, j])
            table[..., i + 1, j + 1] = (log_k[..., i, j] + before).clamp_min(LOG_ZERO)
    return table


def log_gak(phi: Tensor, sigma: float) -> Tensor:
    """log K of whole sequences from squared distances (..., N, M), float64 (...)."""
    return log_kernel_table(log_local_kernel(phi, sigma))[..., -1, -1]


def log_delannoy(longest: int) -> Tensor:
    """log of the number of alignments of i against j slices, float64 (longest + 1, longest + 1)."""
    return log_kernel_table(torch.zeros(longest, longest, dtype=torch.float64))


@torch.no_grad()
def label_rows(positions: Positions, start: int, stop: int, vectors: SliceVectors, recipe: ObjectiveRecipe) -> Tensor:
    """m^l of positions start .. stop - 1 against all, float32 (stop - start, P).

    Row blocks need only their own rows, so ranks share the work; the blocks of a step make one symmetric matrix.
    """
    phi = triple_kernel(_shuffle(vectors) if recipe.kernel == "shuffled" else vectors)
    rows = positions.rows(start, stop)
    if recipe.kernel == "mean_similarity":
        labels = _mean_similarity(rows, positions, phi)
    else:
        labels = _kernel_labels(rows, positions, phi, recipe)
    return _apply_rules(labels, rows, positions, phi, recipe).float()


def pair_weights(positions: Positions, recipe: ObjectiveRecipe) -> Tensor:
    """Which pairs enter the structure loss, float32 (P, P) of 0 and 1, symmetric.

    With span "window" and unlike_lengths "ignore", label sequences meet only those of like length, except that
    pairs of one document always count (their label is a rule's). same_document_rule "ignore" takes those out.
    """
    same = positions.document[:, None] == positions.document[None, :]
    bare = positions.view[:, None] & positions.view[None, :]
    keep = torch.ones_like(same)
    if recipe.span == "window" and recipe.unlike_lengths == "ignore":
        keep = (positions.end[:, None] == positions.end[None, :]) | same
    if recipe.same_document_rule == "ignore":
        keep = keep & (~same | bare)
    return keep.float()


def _apply_rules(labels: Tensor, rows: Positions, columns: Positions, phi: Tensor, recipe: ObjectiveRecipe) -> Tensor:
    """The paper's two rules: one slice against one slice is a plain cosine; one document is 1."""
    single = (rows.end == 1)[:, None] & (columns.end == 1)[None, :]
    first, other = rows.slices[rows.sequence, 0], columns.slices[columns.sequence, 0]
    labels = torch.where(single, 1 - phi[first[:, None], other[None, :]] / 2, labels)
    if recipe.same_document_rule == "one":
        same = rows.document[:, None] == columns.document[None, :]
        # Two bare slices are samples of their own: a caption and another image of its page stay what they are.
        labels = labels.masked_fill(same & ~(rows.view[:, None] & columns.view[None, :]), 1.0)
    return labels


def _kernel_labels(rows: Positions, columns: Positions, phi: Tensor, recipe: ObjectiveRecipe) -> Tensor:
    """Normalised kernels (rows, P), one table per pair of sequences where sigma allows it."""
    kernel = "soft_dtw" if recipe.kernel == "soft_dtw" else "gak"
    if recipe.sigma == "paper":
        # Sigma depends on where a prefix ends: every position becomes a sequence of its own.
        rows, columns = _own_sequences(rows), _own_sequences(columns)
    used, local_row = torch.unique(rows.sequence, return_inverse=True)
    width = columns.slices.shape[1]
    labels = torch.empty(len(rows.document), len(columns.document), dtype=torch.float64)
    block = max(1, BLOCK_ELEMENTS // max(1, len(columns.slices) * (width + 1) ** 2))
    delannoy = log_delannoy(width)
    for start in range(0, len(used), block):
        chosen = used[start : start + block]
        in_block = ((local_row >= start) & (local_row < start + block)).nonzero()[:, 0]
        sigma = _sigma(rows.lengths[chosen], columns.lengths, recipe)
        x, y = rows.slices[chosen], columns.slices

        def table(a: Tensor, b: Tensor, sigma: Tensor = sigma) -> Tensor:
            cost = log_local_kernel(phi[a, b], sigma[..., None, None], kernel)
            return log_kernel_table(cost, recipe.band, recipe.triangular)

        at = (local_row[in_block] - start)[:, None]
        end_x, end_y = rows.end[in_block][:, None], columns.end[None, :]
        of = columns.sequence[None, :]
        log_k = table(x[:, None, :, None], y[None, :, None, :])[at, of, end_x, end_y]
        if recipe.label_normalization == "cosine":
            # With one sigma the self tables do not depend on the pair; broadcasting keeps them at size one.
            uniform = recipe.sigma == "global"
            if uniform:
                own_x = table(x[:, :, None], x[:, None, :], sigma[:, 0])[at, end_x, end_x]
                own_y = table(y[:, :, None], y[:, None, :], sigma[0, :])[of, end_y, end_y]
            else:
                pairs = (len(chosen), len(y), width, width)
                own_x = table(x[:, None, :, None].expand(pairs), x[:, None, None, :].expand(pairs))
                own_x = own_x[at, of, end_x, end_x]
                own_y = table(y[None, :, :, None].expand(pairs), y[None, :, None, :].expand(pairs))
                own_y = own_y[at, of, end_y, end_y]
            value = (log_k - (own_x + own_y) / 2).exp().clamp(0, 1)
        elif recipe.label_normalization == "path_mean":
            value = (log_k - delannoy[end_x, end_y]).exp()
        else:
            value = log_k.exp()
        labels[in_block] = value
    return labels


def _own_sequences(positions: Positions) -> Positions:
    return Positions(
        positions.document,
        positions.view,
        torch.arange(len(positions.sequence)),
        positions.end,
        positions.slices[positions.sequence],
        positions.end,
    )


def _sigma(rows: Tensor, columns: Tensor, recipe: ObjectiveRecipe) -> Tensor:
    """Bandwidth of every pair of sequences, float64 (rows, columns)."""
    if recipe.sigma == "global":
        value = recipe.delta * math.sqrt(recipe.window)
        return torch.full((len(rows), len(columns)), value, dtype=torch.float64)
    return recipe.delta * ((rows[:, None] + columns[None, :]).double() / 2).sqrt()


def _mean_similarity(rows: Positions, columns: Positions, phi: Tensor) -> Tensor:
    """Mean cosine over all slice pairs of two label sequences (the paper's "w/o GAK" arm)."""
    num_slices = len(phi)

    def membership(of: Positions) -> Tensor:
        inside = torch.arange(of.slices.shape[1])[None, :] < of.end[:, None]
        weights = torch.zeros(len(of.end), num_slices, dtype=torch.float64)
        weights.scatter_add_(1, of.slices[of.sequence], inside.double())
        return weights / of.end[:, None]

    return membership(rows) @ (1 - phi / 2) @ membership(columns).T


def _shuffle(vectors: SliceVectors) -> SliceVectors:
    """Every slice's vectors replaced by another's of its modality, by a fixed permutation: the negative control."""
    order = torch.arange(len(vectors.is_image))
    generator = torch.Generator().manual_seed(len(order))
    for group in (vectors.is_image.nonzero()[:, 0], (~vectors.is_image).nonzero()[:, 0]):
        order[group] = group[torch.randperm(len(group), generator=generator)]
    return SliceVectors(vectors.is_image, vectors.primary[order], vectors.shared[order])
