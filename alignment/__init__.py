"""Alignment of sequences: soft-DTW and global alignment kernels, with costs, gradients and labels.

Stands alone: needs torch and numpy, numba on the CPU, triton on GPUs. See docs/alignment.md.
"""

from alignment.all_pairs import log_gak_all_pairs, soft_dtw_all_pairs
from alignment.costs import Slices, pairwise_cost, triple_kernel_cost
from alignment.dispatch import choose_backend
from alignment.divergence import soft_dtw_divergence
from alignment.gak import divisible_cost, log_gak, log_gak_table
from alignment.hard import hard_dtw
from alignment.label_settings import LabelSettings
from alignment.labels import Labels, gak_labels, labelled_pairs, position_labels
from alignment.positions import Positions
from alignment.recursion import expected_alignment, soft_dtw, soft_dtw_table

__all__ = [
    "LabelSettings",
    "Labels",
    "Positions",
    "Slices",
    "choose_backend",
    "divisible_cost",
    "expected_alignment",
    "gak_labels",
    "hard_dtw",
    "labelled_pairs",
    "log_gak",
    "log_gak_all_pairs",
    "log_gak_table",
    "pairwise_cost",
    "position_labels",
    "soft_dtw",
    "soft_dtw_all_pairs",
    "soft_dtw_divergence",
    "soft_dtw_table",
    "triple_kernel_cost",
]
