"""Encoded image bytes to pixels for a tower."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from trainer.errors import CorruptRecordError


def decode(data: bytes, size: int, where: str) -> torch.Tensor:
    """RGB pixels resized to a square by bicubic interpolation; uint8 (3, size, size).

    Transparent pixels are laid on white, as a page would show them. Raises CorruptRecordError naming `where`
    when the bytes do not decode to the last row.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            image: Image.Image = opened
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                rgba = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
            pixels = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))
    except UnidentifiedImageError:
        # Pillow's own words hold an address, and would differ from run to run.
        raise CorruptRecordError(f"{where}: no image format that is known") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CorruptRecordError(f"{where}: {error}") from None
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()


def blank(size: int) -> torch.Tensor:
    """What stands in for an unreadable image: mid-grey, uint8 (3, size, size)."""
    return torch.full((3, size, size), 128, dtype=torch.uint8)
