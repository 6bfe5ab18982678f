"""What an encoder is: a frozen tower with its preprocessing, and a projection of its features to unit vectors.

Every network here sees batches of one fixed shape, short ones filled up with zeros. BLAS and convolution libraries
choose their kernels, and so the last bits of a result, by the shape; with one shape a row's vector does not depend on
its company, which is what lets it be remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Modality = Literal["image", "text"]
Precision = Literal["float32", "bfloat16", "float16"]
Floats = NDArray[np.float32]


class WeightsMissing(RuntimeError):
    """Weights that a spec names cannot be had; the message is one line that says which and how to get them."""


class Tower(Protocol):
    """A frozen network and its preprocessing."""

    @property
    def name(self) -> str:
        """As in the spec."""

    @property
    def modality(self) -> Modality:
        """What `features` takes: pictures (PIL, RGB) or strings."""

    @property
    def width(self) -> int:
        """Features a row."""

    @property
    def preprocessing(self) -> str:
        """Identity of the preprocessing, for the record."""

    @property
    def weights(self) -> str:
        """xxh3-128 hex over the files it was loaded from."""

    @property
    def batch_size(self) -> int:
        """Rows of its fixed shape."""

    def features(self, batch: Sequence[Any]) -> Floats:
        """Float32 of shape (len(batch), width), each row a function of its own input alone."""

    def seen(self, pixels: Sequence[Any]) -> Floats:
        """The same of pictures that are transformed already (stages.encoders.pixels); of strings, as `features`."""


@dataclass(frozen=True)
class Encoder:
    """A tower and what turns its features into vectors; encoders with the same tower share one forward pass."""

    name: str
    """As in the spec."""
    dimension: int
    """Of the vectors."""
    modality: Modality
    """image or text."""
    tower: Tower
    """Its network."""
    weights: str
    """xxh3-128 hex over all files that shape the vectors."""
    project: Callable[[Floats], Floats] | None = None
    """(batch_size, width) -> (batch_size, dimension); None where the features are the vectors."""

    @property
    def preprocessing(self) -> str:
        """Identity of the tower's preprocessing."""
        return self.tower.preprocessing

    def encode(self, batch: Sequence[Any]) -> Floats:
        """Unit vectors, float32 of shape (len(batch), dimension), of pictures (PIL, RGB) or strings."""
        return self.vectors(self.tower.features(batch))

    def vectors(self, features: Floats) -> Floats:
        """Unit vectors of the tower's features; NaN where a feature is not finite or all are zero."""
        return in_fixed_batches(features, self.tower.batch_size, self.project_to_unit, self.dimension)

    def project_to_unit(self, block: Floats) -> Floats:
        """One block of the fixed shape."""
        projected = block if self.project is None else self.project(block)
        with np.errstate(invalid="ignore", divide="ignore"):
            norms = np.sqrt(np.einsum("nd,nd->n", projected, projected, dtype=np.float64))
            return np.asarray(projected / norms[:, None], dtype=np.float32)


def in_fixed_batches(rows: Floats, size: int, function: Callable[[Floats], Floats], width: int) -> Floats:
    """`function` over blocks of exactly `size` rows, the last one filled up with zeros; (len(rows), width)."""
    found = np.empty((len(rows), width), dtype=np.float32)
    for start in range(0, len(rows), size):
        block = rows[start : start + size]
        filled = np.zeros((size, *rows.shape[1:]), dtype=rows.dtype)
        filled[: len(block)] = block
        found[start : start + len(block)] = function(filled)[: len(block)]
    return found
