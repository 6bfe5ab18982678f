"""Vision towers: pixels to tokens, behind one small protocol."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

Tensor = torch.Tensor


class VisionTower(Protocol):
    """Pixels uint8 or float 0 .. 255 (n, 3, S, S) to tokens float (n, grid * grid, dim), rows of the grid in order."""

    grid: int
    dim: int

    def __call__(self, pixels: Tensor) -> Tensor:
        """The tokens."""


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0's last feature map as tokens: 224 px give 7 x 7 tokens of 1280 (Tan & Le 2019, Lite variant).

    Normalisation is the model's own, (x - 127) / 128. Stays in eval mode whatever is asked: its 49 BatchNorms and
    drop-connect would otherwise make an image depend on its neighbours.
    """

    dim = 1280

    def __init__(self, image_size: int) -> None:
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        self.grid = -(-image_size // 32)
        self.network = EfficientNet.from_name("efficientnet-lite0", image_size=image_size)
        # The classifier is not part of the tower; its weights would only be saved and never used.
        self.network._fc = nn.Identity()
        self.eval()

    def train(self, mode: bool = True) -> EfficientNetLite0:
        """Always eval; see the class."""
        return super().train(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, 3, S, S) to (n, grid * grid, 1280)."""
        dtype = self.network._conv_stem.weight.dtype
        features: Tensor = self.network.extract_features((pixels.to(dtype) - 127) / 128)
        return features.flatten(2).transpose(1, 2)


class Patches(nn.Module):
    """A random patch embedding with one non-linearity: a tower of microseconds for tests."""

    dim = 32

    def __init__(self, image_size: int, patch: int = 8) -> None:
        super().__init__()
        if image_size % patch:
            raise ValueError(f"image_size {image_size} is not a multiple of {patch}")
        self.grid = image_size // patch
        self.project = nn.Conv2d(3, self.dim, patch, patch)

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, 3, S, S) to (n, grid * grid, 32)."""
        dtype = self.project.weight.dtype
        features = torch.tanh(self.project((pixels.to(dtype) - 127) / 64))
        return features.flatten(2).transpose(1, 2)


TOWERS: dict[str, Any] = {"efficientnet-lite0": EfficientNetLite0, "patches": Patches}


def build_tower(name: str, image_size: int) -> VisionTower:
    """An untrained tower by name; ValueError names the known ones."""
    if name not in TOWERS:
        raise ValueError(f"unknown vision tower {name!r}; known: {', '.join(TOWERS)}")
    tower: VisionTower = TOWERS[name](image_size)
    return tower
