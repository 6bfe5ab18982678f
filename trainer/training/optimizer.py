"""AdamW over two kinds of weights, and the learning-rate curve as a function of the step alone."""

from __future__ import annotations

import math

import torch
from torch import nn

from trainer.recipe import OptimizerRecipe

# Modules that start from random weights; everything else is pretrained or an adapter.
NEW_MODULES = ("connector.", "retrieval.")


def build_optimizer(model: nn.Module, recipe: OptimizerRecipe) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) over the trainable weights; vectors are not decayed."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith(NEW_MODULES), parameter.dim() >= 2), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": 0.0,
                "peak": recipe.new_learning_rate if new else recipe.learning_rate,
                "weight_decay": recipe.weight_decay if matrix else 0.0,
            }
            for (new, matrix), parameters in groups.items()
        ],
        betas=(0.9, 0.95),
    )


def rate(step: int, recipe: OptimizerRecipe) -> float:
    """Share of the peak learning rate at step 0 .. steps - 1: linear warm-up, then cosine to zero."""
    warmup = math.ceil(recipe.warmup * recipe.steps)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, recipe.steps - warmup)))


def set_rate(optimizer: torch.optim.Optimizer, step: int, recipe: OptimizerRecipe) -> float:
    """Set every group's rate for a step; returns the adapters' (or the first group's)."""
    share = rate(step, recipe)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
    return recipe.learning_rate * share
