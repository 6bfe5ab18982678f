"""The structure loss L_d (equation 3 of Chow et al. 2024) and its gradient in closed form.

L_d = scale * sum_ij w_ij (c_ij - m_ij)^2 with c_ij = r_i . r_j, where scale is 1 / sum(w) (`mean`) or 1 / n
(`mean_row`, the paper). For symmetric w and m the gradient with respect to the unit vectors is
g_i = 4 scale sum_j w_ij (c_ij - m_ij) r_j. Its rows need only a rank's own labels and everyone's vectors, and
<r(theta), g> has the right gradient through the normalisation, so one rule serves one pass, two passes, one
rank and many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

Tensor = torch.Tensor

BINS = 10  # of the label histogram


@dataclass(frozen=True)
class StructureTerms:
    """Rows of the loss that one rank owns: their gradient (rows, D), their share of the value, and its scale."""

    gradient: Tensor
    value: Tensor  # float64 scalar; the sum over ranks is L_d


def pair_scale(weights: Tensor, reduction: str) -> float:
    """What the sum of squares is multiplied by, from all pairs' weights (n, n)."""
    count = float(weights.sum()) if reduction == "mean" else float(len(weights))
    return 1 / count if count else 0.0


def structure_rows(vectors: Tensor, start: int, labels: Tensor, weights: Tensor, scale: float) -> StructureTerms:
    """Closed form for rows start .. start + len(labels) - 1.

    vectors: unit retrieval vectors of all positions, float32 (n, D), constants here; labels and weights of the
    rows, float32 (rows, n).
    """
    with torch.no_grad():
        every = vectors.double()
        rows = every[start : start + len(labels)]
        difference = rows @ every.T - labels.double()
        weighted = weights.double() * difference
        return StructureTerms((4 * scale * weighted @ every).to(vectors.dtype), scale * (weighted * difference).sum())


def similarity_statistics(
    vectors: Tensor, start: int, labels: Tensor, weights: Tensor, lengths: Tensor
) -> dict[str, Any]:
    """What shows a collapse first, over pairs of different positions that count.

    Arguments as structure_rows; lengths int64 (rows,): slices of the label sequences of the rows. Returns
    off_diagonal_mean and _std of cosines, label_mean and _std, label_error (mean absolute), label_correlation of
    cosine and label, effective_rank = exp(entropy of the singular values' shares of energy) of the vectors, and
    label_histogram.
    """
    with torch.no_grad():
        rows = torch.arange(start, start + len(labels), device=vectors.device)
        keep = (weights > 0) & (rows[:, None] != torch.arange(len(vectors), device=vectors.device)[None, :])
        cosines, wanted = (vectors[rows] @ vectors.T)[keep].double(), labels[keep].double()
        if not bool(vectors.isfinite().all()):
            return {}  # the step is about to be skipped; there is nothing to measure
        energy = torch.linalg.svdvals(vectors.double()).square()
        share = energy / energy.sum()
        rank = float(torch.exp(-(share * share.clamp_min(1e-30).log()).sum()))
        if cosines.numel() < 2:
            return {"effective_rank": rank}
        together = torch.stack([cosines, wanted])
        moving = bool((together.std(dim=1) > 0).all())
        return {
            "off_diagonal_mean": float(cosines.mean()),
            "off_diagonal_std": float(cosines.std()),
            "label_mean": float(wanted.mean()),
            "label_std": float(wanted.std()),
            "label_error": float((cosines - wanted).abs().mean()),
            "label_correlation": float(torch.corrcoef(together)[0, 1]) if moving else 0.0,
            "effective_rank": rank,
            "label_histogram": label_histogram(labels, keep, lengths),
        }


def label_histogram(labels: Tensor, keep: Tensor, lengths: Tensor) -> dict[str, list[int]]:
    """Counts of labels in ten bins of [0, 1] by length of the row's label sequence: "1", "2", "3-4", "5-8", ...

    labels (rows, n); keep bool (rows, n): pairs that are counted; lengths int64 (rows,), slices. Labels outside
    [0, 1] (negative cosines, raw kernels) count in the first or last bin. Lengths without a pair are left out.
    """
    bucket = torch.ceil(torch.log2(lengths.double())).long()
    place = (labels.double() * BINS).floor().clamp(0, BINS - 1).long()
    flat = (bucket[:, None] * BINS + place)[keep]
    counts = torch.bincount(flat, minlength=BINS).reshape(-1)
    counts = torch.nn.functional.pad(counts, (0, -len(counts) % BINS)).view(-1, BINS)
    return {_bucket_name(number): row for number, row in enumerate(counts.tolist()) if any(row)}


def _bucket_name(number: int) -> str:
    first, last = 2 ** (number - 1) + 1 if number else 1, 2**number
    return str(last) if first >= last else f"{first}-{last}"
