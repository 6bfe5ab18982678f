"""Where a batch's images come from: pixels, or a frozen tower's features computed once per distinct image.

    OUT/cache/features-<key>/part-00000.arrow

A part is one Arrow IPC file: sha256, what was wrong with the image (or null), and its features in float16.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch

from schemas.keys import digest
from trainer.data.cache_parts import Peers, build_parts, write_part
from trainer.data.pixels import blank, decode
from trainer.data.shards import Document, ShardCorpus
from trainer.errors import CorruptRecordError
from trainer.keys import code_key

BATCH = 8  # images through the tower at a time: larger gains nothing on a CPU
PART = 128  # images in a part: seconds of work, some 16 MB


class ImageSource(Protocol):
    """What the collator asks for an image."""

    def image(self, document: Document, image: int) -> tuple[torch.Tensor, str | None]:
        """(what the model takes, None), or (a stand-in, one line naming the unreadable image)."""


class PixelSource:
    """Decodes when asked: uint8 (3, size, size). For towers that are trained, or corpora too large to cache."""

    def __init__(self, size: int, strict: bool) -> None:
        self.size, self.strict = size, strict

    def image(self, document: Document, image: int) -> tuple[torch.Tensor, str | None]:
        """Pixels of an image; see ImageSource. With `strict`, CorruptRecordError instead of a stand-in."""
        try:
            return decode(document.image_bytes(image), self.size, _where(document, image)), None
        except CorruptRecordError as error:
            if self.strict:
                raise
            return blank(self.size), str(error)


class FeatureSource:
    """Features of a frozen tower, float16 on disk, memory-mapped: float32 (tokens, dim) when asked.

    With `strict`, CorruptRecordError at once when any of the images could not be read.
    """

    def __init__(self, folder: Path, parts: int, strict: bool) -> None:
        self.paths = [part_path(folder, number) for number in range(parts)]
        self._place: dict[str, tuple[int, int]] = {}
        self._unreadable: dict[str, str] = {}
        for number, path in enumerate(self.paths):
            part = _read(path)
            names, problems = part.column("sha256").to_pylist(), part.column("problem").to_pylist()
            self._place.update({name: (number, row) for row, name in enumerate(names)})
            self._unreadable.update({name: line for name, line in zip(names, problems, strict=True) if line})
        if strict and self._unreadable:
            name, problem = next(iter(self._unreadable.items()))
            raise CorruptRecordError(f"image {name}: {problem}")
        self._features: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        # A memory map does not cross to a worker process; it is mapped again there.
        return {**self.__dict__, "_features": {}}

    def image(self, document: Document, image: int) -> tuple[torch.Tensor, str | None]:
        """Features of an image; see ImageSource."""
        name = document.image_hash(image)
        part, row = self._place[name]
        problem = self._unreadable.get(name)
        if part not in self._features:
            found = _read(self.paths[part])
            shape = [int(size) for size in found.schema.metadata[b"shape"].split()]
            values = found.column("features").values.to_numpy(zero_copy_only=True)
            self._features[part] = values.reshape(-1, *shape)
        features = torch.from_numpy(self._features[part][row].astype(np.float32))
        return features, None if problem is None else f"{_where(document, image)}: {problem}"


def _where(document: Document, image: int) -> str:
    return f"document {document.document_id}, image {image} ({document.image_field(image, 'url')})"


def feature_folder(cache: Path, corpus: ShardCorpus, tower: str, size: int) -> Path:
    """Where the features of a corpus under a tower lie. `tower`: digest of its weights (trainer.keys.weights_key)."""
    code = code_key(
        "trainer.data.features",
        "trainer.model.vision",
        libraries=("efficientnet-lite-pytorch", "numpy", "pillow", "simplejpeg", "torch"),
    )
    return cache / f"features-{digest(code, corpus.hash, tower, str(size))}"


def part_path(folder: Path, number: int) -> Path:
    """A part's file."""
    return folder / f"part-{number:05d}.arrow"


@torch.no_grad()
def build_features(
    folder: Path,
    corpus: ShardCorpus,
    tower: Callable[[torch.Tensor], torch.Tensor],
    pixels: PixelSource,
    device: torch.device,
    peers: Peers,
) -> int:
    """Run `tower` (uint8 (n, 3, S, S) -> (n, tokens, dim)) once over the corpus's distinct images.

    Returns the number of parts; those that are there are left as they are. Raises as build_parts.
    """
    images = corpus.distinct_images()
    parts = [images[first : first + PART] for first in range(0, len(images), PART)]

    def ready(number: int) -> bool:
        try:
            found = _read(part_path(folder, number)).column("sha256").to_pylist()
        except (OSError, pa.ArrowInvalid):
            return False
        return bool(found == [name for name, _, _ in parts[number]])

    def build(number: int) -> None:
        problems: list[str | None] = []
        features: list[torch.Tensor] = []
        for first in range(0, len(parts[number]), BATCH):
            pictures: list[torch.Tensor] = []
            for _, at, image in parts[number][first : first + BATCH]:
                document = corpus.document(at)
                picture, problem = pixels.image(document, image)
                pictures.append(picture)
                # Other documents may show the same image: where it is, is said when it is used.
                problems.append(problem and problem.removeprefix(f"{_where(document, image)}: "))
            found = tower(torch.stack(pictures).to(device))
            features.append(found.to("cpu", torch.float16))
        write_part(part_path(folder, number), _part([name for name, _, _ in parts[number]], problems, features))

    build_parts(len(parts), ready, build, peers)
    return len(parts)


def _part(names: list[str], problems: list[str | None], features: list[torch.Tensor]) -> bytes:
    """One part's file."""
    values = torch.cat(features).numpy()
    flat = pa.array(values.reshape(-1), pa.float16())
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array(names, pa.string()),
            pa.array(problems, pa.string()),
            pa.FixedSizeListArray.from_arrays(flat, values[0].size),
        ],
        ["sha256", "problem", "features"],
    ).replace_schema_metadata({"shape": " ".join(map(str, values.shape[1:]))})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _read(path: Path) -> pa.RecordBatch:
    return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
