"""The structure loss as one formula, for autograd: what the closed form is checked against."""

from __future__ import annotations

import torch

from trainer.objective.structure import pair_scale


def structure_loss(
    vectors: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, reduction: str = "mean"
) -> torch.Tensor:
    """scale * sum_ij w_ij (r_i . r_j - m_ij)^2, differentiable."""
    difference = vectors @ vectors.T - labels
    return pair_scale(weights, reduction) * (weights * difference.square()).sum()
