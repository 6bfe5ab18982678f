"""The retrieval head: a slice's hidden state to the unit vector it is searched by."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import normalize

Tensor = torch.Tensor


class RetrievalHead(nn.Module):
    """Linear-GELU-Linear, then L2 norm in float32 (the paper's "retrieval projector"; its shape is ours)."""

    def __init__(self, hidden_size: int, output_size: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(hidden_size, hidden_size), nn.GELU(), nn.Linear(hidden_size, output_size, bias=False)
        )

    def forward(self, states: Tensor) -> Tensor:
        """Mean hidden states (n, hidden) to unit vectors float32 (n, output)."""
        with torch.autocast(states.device.type, enabled=False):
            return normalize(self.mlp(states.float()), dim=-1)


def slice_states(hidden: Tensor, slots: Tensor, owner: Tensor, count: int) -> Tensor:
    """Mean of the hidden states (S, H) at `slots` by `owner` 0 .. count - 1: float32 (count, H)."""
    total = hidden.new_zeros((count, hidden.shape[-1]), dtype=torch.float32)
    total = total.index_add(0, owner, hidden[slots].float())
    number = torch.bincount(owner, minlength=count).clamp_min(1)
    return total / number[:, None]
