"""`hash:WIDTH`: vectors by hashed features, for tests and dry rehearsals of a build; no weights, no network.

What the vectors say is little: sentences with words in common are near, pictures with alike colours in alike places
are near, and across the modalities a cosine is an accident. What they are is like any encoder's: unit vectors that are
the same on every machine, a function of their own content alone. Signed feature hashing follows Weinberger et al.
2009, "Feature Hashing for Large Scale Multitask Learning".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from PIL import Image

from stages.encoders.pixels import Pixels
from stages.encoders.protocol import Floats, Modality

# Cells a side that a picture is reduced to, and steps that a colour channel is rounded to.
CELLS = 8
STEPS = 8
# Part of the identity of what it computes: change it with the features.
VERSION = "hash-1"


@dataclass(frozen=True)
class HashTower:
    """Features of pictures or strings, counted into `width` signed sums."""

    name: str
    width: int
    """Features a row, and values of the vector."""
    modality: Modality
    batch_size: int

    @property
    def preprocessing(self) -> str:
        """Identity of the preprocessing, for the record."""
        return f"{CELLS}x{CELLS} colours in {STEPS} steps" if self.modality == "image" else "lower-case words"

    @property
    def weights(self) -> str:
        """There is no file; the hash names the rule."""
        return rule(self.width)

    def features(self, batch: Sequence[Any]) -> Floats:
        """Float32 (len(batch), width), from pictures (PIL, RGB) or strings."""
        return self.seen([cells(picture) for picture in batch] if self.modality == "image" else batch)

    def seen(self, pixels: Sequence[Any]) -> Floats:
        """The same of what `cells` makes of pictures, or of strings."""
        found = np.zeros((len(pixels), self.width), dtype=np.float32)
        for row, content in enumerate(pixels):
            named = _named(content) if self.modality == "image" else _words(content)
            for name in ("", *named):  # the empty name, so that no vector is zero
                digest = xxhash.xxh3_64_intdigest(f"{self.modality} {name}".encode(errors="surrogatepass"))
                found[row, (digest >> 1) % self.width] += 1.0 if digest & 1 else -1.0
            if not found[row].any():  # all features met their opposites
                found[row, 0] = 1.0
        return found


def rule(width: int) -> str:
    """xxh3-128 hex that names how a vector of this width is made."""
    return xxhash.xxh3_128_hexdigest(f"{VERSION} {width}".encode())


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def cells(picture: Image.Image) -> Pixels:
    """Colours of a picture's cells, uint8 (8, 8, 3): box averages of whole numbers, the same everywhere."""
    return np.asarray(picture.convert("RGB").resize((CELLS, CELLS), Image.Resampling.BOX))


def _named(pixels: Pixels) -> list[str]:
    stepped = pixels.astype(np.int64) * STEPS // 256
    return [
        f"{row} {column} {channel} {stepped[row, column, channel]}"
        for row in range(CELLS)
        for column in range(CELLS)
        for channel in range(3)
    ]
