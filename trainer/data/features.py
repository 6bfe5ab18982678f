"""Where a batch's images come from: pixels, or a frozen tower's features computed once per distinct image."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import xxhash

from trainer.data.pixels import blank, decode
from trainer.data.rows import Row
from trainer.data.shards import Corpus, Document
from trainer.errors import CorruptRecordError

BATCH = 8  # images through the tower at a time: larger gains nothing on a CPU


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
        where = f"document {document.document_id}, image {image} ({document.image_field(image, 'url')})"
        try:
            return decode(document.image_bytes(image), self.size, where), None
        except CorruptRecordError as error:
            if self.strict:
                raise
            return blank(self.size), str(error)


class FeatureSource:
    """Features of a frozen tower, float16 on disk, memory-mapped: float32 (tokens, dim) when asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        index = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        self._place: dict[str, int] = {name: place for place, name in enumerate(index["images"])}
        self._unreadable: dict[str, str] = index["unreadable"]
        self._features: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_features": None}

    def image(self, document: Document, image: int) -> tuple[torch.Tensor, str | None]:
        """Features of an image; see ImageSource."""
        if self._features is None:
            self._features = np.load(self.path, mmap_mode="r")
        name = document.image_hash(image)
        features = torch.from_numpy(self._features[self._place[name]].astype(np.float32))
        return features, self._unreadable.get(name)


def distinct_images(corpus: Corpus, rows: Sequence[Row]) -> Iterator[tuple[str, Document, int]]:
    """(sha256, a document that has it, its index there) of every distinct image shown in the rows."""
    seen: set[str] = set()
    for index in dict.fromkeys(row.document for row in rows):
        document = corpus.document(index)
        for number, piece in enumerate(document.slices):
            if piece.is_image:
                image = document.image_of(number)
                if (name := document.image_hash(image)) not in seen:
                    seen.add(name)
                    yield name, document, image


def feature_path(folder: Path, corpus: Corpus, tower: str, size: int) -> Path:
    """Where the features of a corpus under a tower (its identity, with its weights) lie."""
    key = xxhash.xxh3_128_hexdigest(f"1\0{corpus.hash}\0{tower}\0{size}".encode())
    return folder / f"features-{key}.npy"


@torch.no_grad()
def build_features(
    path: Path,
    corpus: Corpus,
    rows: Sequence[Row],
    tower: Callable[[torch.Tensor], torch.Tensor],
    pixels: PixelSource,
    device: torch.device,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Run `tower` (uint8 (n, 3, S, S) -> (n, tokens, dim)) once over the rows' distinct images; no-op when done.

    The index is written last, so a file without one is an interrupted run and is written anew.
    """
    if path.with_suffix(".json").is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    unreadable: dict[str, str] = {}
    parts: list[np.ndarray[Any, Any]] = []
    waiting: list[torch.Tensor] = []

    def flush() -> None:
        if waiting:
            parts.append(tower(torch.stack(waiting).to(device)).to("cpu", torch.float16).numpy())
            waiting.clear()
            if progress:
                progress(len(names))

    for name, document, image in distinct_images(corpus, rows):
        found, problem = pixels.image(document, image)
        names.append(name)
        waiting.append(found)
        if problem:
            unreadable[name] = problem
        if len(waiting) == BATCH:
            flush()
    flush()
    np.save(path, np.concatenate(parts) if parts else np.zeros((0, 1, 1), np.float16))
    path.with_suffix(".json").write_text(json.dumps({"images": names, "unreadable": unreadable}), encoding="utf-8")
