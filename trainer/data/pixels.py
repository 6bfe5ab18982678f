"""Encoded image bytes to pixels for a tower, by the build's decoder: a model is shown what it was trained on."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from pictures.decoding import PILLOW_PIXELS
from pictures.decoding import decode as decode_picture
from pictures.headers import Undecodable
from trainer.errors import CorruptRecordError


def decode(data: bytes, size: int, where: str) -> torch.Tensor:
    """RGB pixels resized to a square by bicubic interpolation; uint8 (3, size, size).

    Upright, 8 bits of 16, transparent pixels on white, as a corpus's pictures are. Raises CorruptRecordError naming
    `where` when the bytes are no picture, are damaged, or promise more than 89,478,485 pixels (Pillow's own limit).
    """
    try:
        picture = decode_picture(data, PILLOW_PIXELS)
    except Undecodable as error:
        raise CorruptRecordError(f"{where}: {error.reason.replace('_', ' ')}: {error.detail}") from None
    pixels = np.asarray(Image.fromarray(picture.pixels).resize((size, size), Image.Resampling.BICUBIC))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()


def blank(size: int) -> torch.Tensor:
    """What stands in for an unreadable image: mid-grey, uint8 (3, size, size)."""
    return torch.full((3, size, size), 128, dtype=torch.uint8)
