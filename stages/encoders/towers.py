"""Running a network on batches of one shape: pictures by their pixels, texts by buckets of length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from stages.encoders.pixels import Pixels, Transform
from stages.encoders.protocol import Floats, Modality, in_fixed_batches
from stages.encoders.runtime import Runtime

# Padded lengths in tokens. A text's bucket follows from its own length, never from its company.
BUCKETS = (16, 32, 64, 128, 256, 512)


@dataclass(frozen=True)
class ImageTower:
    """A network over pixels."""

    name: str
    preprocessing: str
    weights: str
    width: int
    """Features a picture."""
    runtime: Runtime
    transform: Transform
    """Picture to float32 (3, height, width), always the same height and width."""
    forward: Callable[[torch.Tensor], torch.Tensor] = field(repr=False)
    """(batch, 3, height, width) to (batch, width)."""
    modality: Modality = "image"

    @property
    def batch_size(self) -> int:
        """Rows of its fixed shape."""
        return self.runtime.batch_size

    def features(self, batch: Sequence[Image.Image]) -> Floats:
        """Float32 (len(batch), width)."""
        found = np.empty((len(batch), self.width), dtype=np.float32)
        # Block by block, so that only one block of pixels is held at a time.
        for start in range(0, len(batch), self.batch_size):
            pictures = batch[start : start + self.batch_size]
            found[start : start + len(pictures)] = self.seen([self.transform(picture) for picture in pictures])
        return found

    def seen(self, pixels: Sequence[Pixels]) -> Floats:
        """Float32 (len(pixels), width), of pictures that are transformed already."""
        found = np.empty((len(pixels), self.width), dtype=np.float32)
        for start in range(0, len(pixels), self.batch_size):
            block = np.stack(pixels[start : start + self.batch_size])
            found[start : start + len(block)] = in_fixed_batches(block, self.batch_size, self.run, self.width)
        return found

    def run(self, pixels: Floats) -> Floats:
        """One block of the fixed shape."""
        with torch.inference_mode():
            block = torch.from_numpy(pixels).to(device=self.runtime.torch_device, dtype=self.runtime.dtype)
            return as_floats(self.forward(block))


@dataclass(frozen=True)
class TextTower:
    """A network over tokens."""

    name: str
    preprocessing: str
    weights: str
    width: int
    """Features a text."""
    runtime: Runtime
    tokenize: Callable[[Sequence[str]], list[list[int]]]
    """Texts to token ids, cut to the longest length that the network takes."""
    padding: int
    """Token id that fills a row up."""
    buckets: tuple[int, ...]
    """Padded lengths in tokens, ascending."""
    forward: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = field(repr=False)
    """Token ids and mask, both int64 (batch, length), to (batch, width)."""
    modality: Modality = "text"

    @property
    def batch_size(self) -> int:
        """Rows of its fixed shape."""
        return self.runtime.batch_size

    def features(self, batch: Sequence[str]) -> Floats:
        """Float32 (len(batch), width)."""
        tokens = self.tokenize(list(batch)) if len(batch) else []
        buckets = np.array([self.bucket(len(row)) for row in tokens], dtype=np.int64)
        found = np.empty((len(tokens), self.width), dtype=np.float32)
        for length in self.buckets:
            (members,) = np.nonzero(buckets == length)
            for start in range(0, len(members), self.batch_size):
                block = members[start : start + self.batch_size]
                found[block] = self.run([tokens[row] for row in block], length)[: len(block)]
        return found

    def seen(self, pixels: Sequence[str]) -> Floats:
        """There is nothing to transform: as `features`."""
        return self.features(pixels)

    def bucket(self, length: int) -> int:
        """The smallest bucket that holds `length` tokens."""
        return next(bucket for bucket in self.buckets if length <= bucket)

    def run(self, rows: Sequence[Sequence[int]], length: int) -> Floats:
        """One block of the fixed shape; filling rows are one padding token, so that no softmax is empty."""
        ids: NDArray[np.int64] = np.full((self.batch_size, length), self.padding, dtype=np.int64)
        mask: NDArray[np.int64] = np.zeros((self.batch_size, length), dtype=np.int64)
        mask[:, 0] = 1
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        with torch.inference_mode():
            device = self.runtime.torch_device
            return as_floats(self.forward(torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)))


def as_floats(features: torch.Tensor) -> Floats:
    """A tensor of any precision and device as a float32 array."""
    return np.asarray(features.float().cpu().numpy(), dtype=np.float32)


def buckets_up_to(longest: int) -> tuple[int, ...]:
    """The bucket lengths for a network that takes `longest` tokens, which is the last of them."""
    return (*(bucket for bucket in BUCKETS if bucket < longest), longest)
