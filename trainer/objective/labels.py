"""Labels of the structure loss for one step: the recipe's choices in the words of `alignment`, which computes them."""

from __future__ import annotations

import torch

from alignment import LabelSettings, Positions, Slices, labelled_pairs, position_labels
from trainer.recipe import ObjectiveRecipe

Tensor = torch.Tensor


def label_settings(recipe: ObjectiveRecipe) -> LabelSettings:
    """The recipe's fields as `alignment` names them; 0 stands for no band and no weights."""
    return LabelSettings(
        span=recipe.span,
        window=recipe.window,
        unequal_lengths="keep" if recipe.unlike_lengths == "label" else "ignore",
        kernel=recipe.kernel,
        normalization=recipe.label_normalization,
        sigma=recipe.sigma,
        delta=recipe.delta,
        band=recipe.band or None,
        triangular=recipe.triangular or None,
        same_document="kernel" if recipe.same_document_rule == "gak" else recipe.same_document_rule,
        single_slices=recipe.single_slices,
    )


def label_rows(
    positions: Positions, start: int, stop: int, slices: Slices, recipe: ObjectiveRecipe, seed: int = 0
) -> Tensor:
    """m^l of positions start .. stop - 1 against all, float32 (stop - start, P), computed in float64.

    Row blocks are the rows of the whole to the last bit, so ranks share the work. seed: of the permutation of
    kernel "shuffled", the same on every rank.
    """
    exact = Slices(slices.primary.double(), slices.shared.double(), slices.is_image)
    generator = torch.Generator().manual_seed(seed % 2**63)
    settings = label_settings(recipe)
    return position_labels(exact, positions, settings, rows=slice(start, stop), generator=generator).values.float()


def pair_weights(positions: Positions, recipe: ObjectiveRecipe) -> Tensor:
    """Which pairs enter the structure loss, float32 (P, P) of 0 and 1, symmetric."""
    return labelled_pairs(positions, label_settings(recipe)).float()


def label_lengths(positions: Positions, recipe: ObjectiveRecipe) -> Tensor:
    """Slices of every position's label sequence, int64 (P,)."""
    return positions.span_lengths(label_settings(recipe))
