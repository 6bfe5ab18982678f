"""LiT: two small trained heads over the frozen offline towers, into one space for pictures and sentences.

Zhai et al. 2022, "LiT: Zero-Shot Transfer with Locked-image text Tuning"; here both towers are locked. Each head is a
correction to ConSE (conse.py), which it is before training: on photographs ConSE is better than the few training pairs.
`python -m pipeline.lit.train` trains the heads; `lit_head.md` beside the weights says on what and how well.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import gelu, normalize

from stages.encoders import efficientnet
from stages.encoders.availability import LIT_WEIGHTS, lit_hash
from stages.encoders.protocol import Encoder, Floats, Modality, Tower

NAME = "lit"


class Correction(nn.Module):
    """Normalise, widen, GELU, project: (batch, width) to (batch, dimension), zero before training."""

    def __init__(self, width: int, hidden: int, dimension: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, hidden)
        self.project = nn.Linear(hidden, dimension)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, width) to (batch, dimension)."""
        hidden = gelu(self.widen(self.dropout(self.norm(features))))
        projected: torch.Tensor = self.project(self.dropout(hidden))
        return projected


class ImageHead(nn.Module):
    """Pooled features to the shared space: the classes' vectors by their probabilities, corrected."""

    classes: nn.Parameter
    """(1000, dimension), the classes' sentence vectors before training."""

    def __init__(self, classes: torch.Tensor, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        classifier = efficientnet.classifier()
        self.classes = nn.Parameter(classes)
        # The tower's own last layer, which is not stored again.
        self.register_buffer("weight", torch.from_numpy(classifier.weight), persistent=False)
        self.register_buffer("bias", torch.from_numpy(classifier.bias), persistent=False)
        self.correction = Correction(classifier.weight.shape[1], hidden, classes.shape[1], dropout)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, 1280) to (batch, dimension), not yet of unit norm."""
        likely = torch.softmax(nn.functional.linear(features, self.weight, self.bias), dim=1)  # type: ignore[arg-type]
        # (torch types every buffer as tensor or module.)
        found: torch.Tensor = normalize(likely @ self.classes) + self.correction(features)
        return found


class TextHead(nn.Module):
    """Sentence vectors to the shared space: themselves, corrected."""

    def __init__(self, dimension: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.correction = Correction(dimension, hidden, dimension, dropout)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, dimension) to (batch, dimension), not yet of unit norm."""
        found: torch.Tensor = normalize(features) + self.correction(features)
        return found


@dataclass(frozen=True)
class Heads:
    """Both heads."""

    image: ImageHead
    text: TextHead

    @property
    def dimension(self) -> int:
        """Of the shared space."""
        return int(self.image.classes.shape[1])

    def of(self, modality: Modality) -> nn.Module:
        """The head of one modality."""
        return self.image if modality == "image" else self.text


def build(classes: torch.Tensor, hidden: int, dropout: float = 0.0) -> Heads:
    """Untrained heads: ConSE, for the classes' sentence vectors (1000, dimension)."""
    return Heads(ImageHead(classes, hidden, dropout), TextHead(classes.shape[1], hidden, dropout))


@functools.cache
def load_heads(weights: Path = LIT_WEIGHTS) -> Heads:
    """The trained heads, float32, on the CPU."""
    tensors = {name: tensor.float() for name, tensor in load_file(weights).items()}
    heads = build(tensors["image.classes"], tensors["image.correction.widen.weight"].shape[0])
    for modality, head in (("image", heads.image), ("text", heads.text)):
        own = {name.split(".", 1)[1]: value for name, value in tensors.items() if name.startswith(f"{modality}.")}
        head.load_state_dict(own)
        head.eval().requires_grad_(False)
    return heads


def encoder(tower: Tower, modality: Modality, weights: Path = LIT_WEIGHTS) -> Encoder:
    """A locked tower with its head."""
    heads = load_heads(weights)
    head = heads.of(modality)

    def project(features: Floats) -> Floats:
        with torch.inference_mode():
            found: Floats = head(torch.from_numpy(features)).numpy()
        return found

    return Encoder(NAME, heads.dimension, modality, tower, lit_hash(modality, tower.weights, weights), project)
