"""LiT: two small trained heads over the frozen offline towers, into one space for pictures and sentences.

Zhai et al. 2022, "LiT: Zero-Shot Transfer with Locked-image text Tuning"; here both towers are locked.
`python -m pipeline.train_lit` trains the heads; `lit_head.md` beside the weights says on what and how well.
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from stages.encoders.protocol import Encoder, Floats, Modality, Tower
from stages.encoders.weight_files import hash_files, hash_of

NAME = "lit"
WEIGHTS = Path(__file__).with_name("lit_head.safetensors")
CARD = WEIGHTS.with_suffix(".md")


class Head(nn.Module):
    """Normalise, widen, GELU, project: (batch, width) to (batch, dimension), not yet of unit norm."""

    def __init__(self, width: int, hidden: int, dimension: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, hidden)
        self.project = nn.Linear(hidden, dimension)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, width) to (batch, dimension)."""
        hidden = self.dropout(nn.functional.gelu(self.widen(self.norm(features))))
        projected: torch.Tensor = self.project(hidden)
        return projected


@functools.cache
def load_heads(weights: Path = WEIGHTS) -> dict[Modality, Head]:
    """The trained heads, float32, on the CPU."""
    tensors = {name: tensor.float() for name, tensor in load_file(weights).items()}
    heads: dict[Modality, Head] = {}
    modalities: tuple[Modality, Modality] = ("image", "text")
    for modality in modalities:
        own = {name.removeprefix(f"{modality}."): value for name, value in tensors.items() if name.startswith(modality)}
        hidden, width = own["widen.weight"].shape
        head = Head(width, hidden, own["project.weight"].shape[0])
        head.load_state_dict(own)
        heads[modality] = head.eval().requires_grad_(False)
    return heads


def encoder(tower: Tower, modality: Modality, weights: Path = WEIGHTS) -> Encoder:
    """A locked tower with its head."""
    head = load_heads(weights)[modality]

    def project(features: Floats) -> Floats:
        with torch.inference_mode():
            found: Floats = head(torch.from_numpy(features)).numpy()
        return found

    return Encoder(NAME, head.project.out_features, modality, tower, digest(modality, tower.weights, weights), project)


def digest(modality: Modality, tower: str, weights: Path = WEIGHTS) -> str:
    """Weights hash of one side, by that of its tower."""
    return hash_of(NAME, modality, tower, hash_files(weights))
