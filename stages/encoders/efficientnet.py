"""EfficientNet-Lite0, the offline image tower: ImageNet-1k classes and the features below them."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stages.encoders.availability import efficientnet_file
from stages.encoders.pixels import squeezed
from stages.encoders.protocol import Floats
from stages.encoders.runtime import Runtime
from stages.encoders.towers import ImageTower
from stages.encoders.weight_files import hash_files

NAME = "efficientnet_lite0"
WIDTH = 1280
PREPROCESSING = "bicubic 224 x 224 of the whole picture, (x - 127) / 128"


@functools.cache
def load_model(weights: Path) -> Any:
    """The network with its weights, float32, on the CPU."""
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class Classifier:
    """The last layer, which ConSE reads: features to logits of the 1,000 ImageNet classes."""

    weight: Floats
    """(1000, 1280)."""
    bias: Floats
    """(1000,)."""


def classifier() -> Classifier:
    """The network's own last layer."""
    layer = load_model(efficientnet_file())._fc
    return Classifier(layer.weight.numpy(), layer.bias.numpy())


def load_tower(runtime: Runtime) -> ImageTower:
    """The tower: average of the last feature map, 1,280 features."""
    weights = efficientnet_file()
    # A copy: `classifier` reads the loaded one in float32.
    model = runtime.place(copy.deepcopy(load_model(weights)))
    model = model.to(memory_format=torch.channels_last)  # twice as fast on a CPU

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = model.extract_features(pixels.contiguous(memory_format=torch.channels_last))
        return maps.mean((2, 3))

    return ImageTower(NAME, PREPROCESSING, hash_files(weights), WIDTH, runtime, squeezed, forward)
