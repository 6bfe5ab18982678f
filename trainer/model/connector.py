"""The connector: tower tokens to embeddings the decoder can read."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

Tensor = torch.Tensor


class Connector(nn.Module):
    """Pool the token grid, then LayerNorm-Linear-GELU-Linear, then RMS norm to the size of word embeddings.

    The paper's projector (LLaVA's two-layer MLP); the norms are ours: tower features and word embeddings differ in
    size by orders of magnitude, and a decoder started from pretrained weights is thrown off by large inputs.
    """

    def __init__(self, tower_grid: int, tower_dim: int, grid: int, hidden_size: int, output_size: int) -> None:
        super().__init__()
        if grid > tower_grid:
            raise ValueError(f"connector grid {grid} exceeds the tower's {tower_grid}")
        self.tower_grid, self.grid = tower_grid, grid
        self.mlp = nn.Sequential(
            nn.LayerNorm(tower_dim),
            nn.Linear(tower_dim, hidden_size),
            nn.GELU(),
            nn.Linear(hidden_size, output_size),
        )
        self.norm = nn.RMSNorm(output_size)

    def match(self, embeddings: Tensor) -> None:
        """Start with outputs as large as these word embeddings (rows)."""
        with torch.no_grad():
            self.norm.weight.fill_(float(embeddings.float().square().mean().sqrt()))

    def forward(self, features: Tensor) -> Tensor:
        """(n, tower_grid ** 2, tower_dim) to (n, grid ** 2, output_size)."""
        if self.grid != self.tower_grid:
            square = features.transpose(1, 2).reshape(len(features), -1, self.tower_grid, self.tower_grid)
            features = adaptive_avg_pool2d(square, self.grid).flatten(2).transpose(1, 2)
        output: Tensor = self.norm(self.mlp(features).float())
        return output
