"""What an image tower sees of a picture, without its network: CPUs prepare it while the network is at work."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages.encoders.names import parse

Pixels = NDArray[Any]
Transform = Callable[[Image.Image], Pixels]
"""RGB picture to an array of one shape and dtype, the tower's own."""
SIDE = 224


def squeezed(picture: Image.Image) -> Pixels:
    """RGB picture to float32 (3, 224, 224), as the offline image tower takes it.

    The whole picture, squeezed: the usual centre crop would cut the axes off a plot and the ends off a banner.
    """
    resized = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = (np.asarray(resized, dtype=np.float32) - 127.0) / 128.0
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def of_library(transform: Callable[[Image.Image], Any]) -> tuple[Transform, str]:
    """A torchvision transform that ends in a tensor, as a transform to float32, and its identity."""

    def pixels(picture: Image.Image) -> Pixels:
        return np.asarray(transform(picture).numpy(), dtype=np.float32)

    return pixels, " ".join(str(transform).split())


def tower_name(name: str) -> str:
    """Which image tower stands behind an encoder's name: the offline encoders share one."""
    family, _ = parse(name, "image")
    return "efficientnet_lite0" if family in ("lit", "conse") else name


def packed(pixels: Pixels) -> bytes:
    """An array as the bytes of an .npy file, which say its shape and dtype."""
    sink = io.BytesIO()
    np.save(sink, pixels, allow_pickle=False)
    return sink.getvalue()


def unpacked(data: bytes) -> Pixels:
    """The array of `packed`."""
    found: Pixels = np.load(io.BytesIO(data), allow_pickle=False)
    return found
