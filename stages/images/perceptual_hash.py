"""64-bit perceptual hash: equal or close for pictures that look alike, whatever their size or compression.

The low 8 x 8 frequencies of the DCT of a 32 x 32 grey thumbnail, each one bit: above their median or not
(Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions"; imagehash's `phash`, with an
area-averaged thumbnail in place of a Lanczos one).
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from PIL import Image

THUMBNAIL = 32  # pixels a side
FREQUENCIES = 8  # a side: 64 bits


@functools.cache
def dct_rows() -> NDArray[np.float64]:
    """First FREQUENCIES rows of the DCT-II matrix, shape (8, 32)."""
    k = np.arange(FREQUENCIES)[:, None]
    n = np.arange(THUMBNAIL)[None, :]
    return np.asarray(np.cos(np.pi * k * (2 * n + 1) / (2 * THUMBNAIL)))


def phash(pixels: NDArray[np.uint8]) -> str:
    """Hash of a picture, uint8 of shape (height, width) or (height, width, 3) RGB, as 16 hex digits.

    Raises ValueError for another dtype or shape.
    """
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ValueError(f"a picture is uint8 (height, width) or (height, width, 3), not {pixels.dtype} {pixels.shape}")
    small = Image.fromarray(pixels).convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    grey = np.asarray(small).astype(np.float64)
    rows = dct_rows()
    # Rounded: a flat picture's frequencies are rounding noise, and noise must not choose bits.
    low = np.round(rows @ grey @ rows.T, 3)
    bits = (low > np.median(low)).ravel()
    return np.packbits(bits).tobytes().hex()
