"""The corpus as the trainer sees it: memory-mapped Arrow IPC shards, one document a row (schemas/shard.py).

Which folder holds them is trainer/data/corpus.py's.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.shard_file import NotAShard, ShardFile
from trainer.errors import UserError

FloatArray = npt.NDArray[np.float32]

# Farthest that a label vector's norm may be from 1: float16 rounds each number by one part in 2048 at most.
NORM_TOLERANCE = 0.02


@dataclass(frozen=True)
class Slice:
    """One image or one sentence, in reading order."""

    is_image: bool
    node: int  # index into the document's nodes
    start: int  # character span in the node's text, 0 and 0 for an image
    end: int
    matched: int | None  # slice index of its match in the other modality
    match_kind: str | None  # how the match was found, one of schemas.shard.MATCH_KINDS, where that is known
    similarity: float | None  # cosine of shared vectors to that match


@dataclass(frozen=True)
class Edge:
    """One negative of slice `anchor` of this document, as schemas.negative has it: slice `candidate` of document
    `document_id` where it is mined, `text` where it is counterfactual, whatever it is where the kind is not known."""

    anchor: int
    kind: str
    direction: str | None
    document_id: str | None
    candidate: int | None
    text: str | None
    score: float | None


class Document:
    """One row of a shard, decoded column by column when asked for."""

    def __init__(self, row: pa.RecordBatch) -> None:
        self._row = row

    def _value(self, column: str) -> Any:
        return self._row.column(column)[0].as_py()

    @cached_property
    def document_id(self) -> str:
        """Its id, 32 hex digits."""
        return str(self._value("document_id"))

    @cached_property
    def url(self) -> str:
        """Where it came from."""
        return str(self._value("url"))

    @cached_property
    def title(self) -> str | None:
        """Title of the page, or None."""
        title = self._value("title")
        return None if title is None else str(title)

    @cached_property
    def split(self) -> str:
        """ "train" or "held_out"."""
        return str(self._value("split"))

    @cached_property
    def nodes(self) -> list[dict[str, Any]]:
        """Nodes in reading order: kind, text, separator, image, position."""
        return list(self._value("nodes"))

    @cached_property
    def _slices(self) -> pa.StructArray:
        return self._row.column("slices").flatten()

    @cached_property
    def slices(self) -> list[Slice]:
        """Slices in reading order."""
        names = ("kind", "node", "start", "end", "matched", "match_kind", "similarity")
        columns = [self._slices.field(name).to_pylist() for name in names]
        return [Slice(kind == "image", *rest) for kind, *rest in zip(*columns, strict=True)]

    @cached_property
    def has_vectors(self) -> list[bool]:
        """Whether a slice has both of its label vectors, and they are vectors: see `corrupt_vectors`."""
        bad = {index for index, _ in self.corrupt_vectors}
        both = [self._stored(name) for name in ("primary", "shared")]
        return [a is not None and b is not None and i not in bad for i, (a, b) in enumerate(zip(*both, strict=True))]

    @cached_property
    def corrupt_vectors(self) -> list[tuple[int, str]]:
        """(slice, what is wrong) of label vectors that are not finite or not of unit norm, in order."""
        found = []
        for name in ("primary", "shared"):
            for index, vector in enumerate(self._stored(name)):
                norm = 1.0 if vector is None else float(np.linalg.norm(vector.astype(np.float64)))
                if not math.isfinite(norm):
                    found.append((index, f"its {name} vector is not finite"))
                elif abs(norm - 1) > NORM_TOLERANCE:
                    found.append((index, f"its {name} vector has norm {norm:.3g}, not 1"))
        return sorted(found)

    def vectors(self, name: str) -> list[FloatArray | None]:
        """Label vectors "primary" or "shared" per slice, float32 unit norm, None where the encoder failed or the
        vector is corrupt."""
        bad = {index for index, _ in self.corrupt_vectors}
        return [None if index in bad else vector for index, vector in enumerate(self._stored(name))]

    def _stored(self, name: str) -> list[FloatArray | None]:
        column = self._slices.field(name)
        flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        sizes = [size or 0 for size in column.value_lengths().to_pylist()]
        ends = np.cumsum([0, *sizes])
        return [flat[ends[i] : ends[i + 1]] if size else None for i, size in enumerate(sizes)]

    @cached_property
    def negatives(self) -> list[Edge]:
        """Negatives of all slices and kinds, in the shard's order (slice, direction, falling score)."""
        names = ("slice", "kind", "direction", "document_id", "candidate", "text", "score")
        return [Edge(*(row[name] for name in names)) for row in self._value("negatives")]

    @cached_property
    def _image_info(self) -> pa.StructArray:
        return self._row.column("image_info").flatten()

    def image_hash(self, image: int) -> str:
        """sha256 of the encoded bytes of one of the row's images."""
        return str(self._image_info.field("sha256")[image].as_py())

    def image_bytes(self, image: int) -> bytes:
        """Encoded bytes of one of the row's images (jpeg, png or webp)."""
        return bytes(self._row.column("images").flatten().field("bytes")[image].as_py())

    def image_field(self, image: int, name: str) -> Any:
        """What else is known of one of the row's images (schemas.shard.IMAGE_INFO), e.g. "url", "caption", "alt"."""
        return self._image_info.field(name)[image].as_py()

    def image_of(self, index: int) -> int:
        """Which of the row's images an image slice shows."""
        return int(self.nodes[self.slices[index].node]["image"])

    def sentence(self, index: int) -> str:
        """Text of a sentence slice."""
        piece = self.slices[index]
        return str(self.nodes[piece.node]["text"])[piece.start : piece.end]


class ShardCorpus:
    """All documents of one corpus version, by index in shard order; opening reads no rows, so that those of shards
    which trainer.data.corpus.check_shards has not passed may be anything.

    `listed`: xxh3-128 hex of every shard's bytes as the version's manifest lists it, None where there is no manifest.
    `hash` identifies the shards' content: a checkpoint carries it and resume compares it.
    """

    def __init__(
        self, folder: Path, version: str, shards: list[Path], content: str, listed: tuple[str, ...] | None = None
    ) -> None:
        self.folder, self.version, self.shards, self.hash, self.listed = folder, version, shards, content, listed
        self._readers: list[ShardFile] | None = None
        self._batches: list[tuple[int, int]] = []
        self._starts: list[int] = []
        self._length = 0
        self._open()

    def _open(self) -> list[ShardFile]:
        if self._readers is None:
            self._readers, self._batches, self._starts, self._length = [], [], [], 0
            for number, path in enumerate(self.shards):
                reader, rows = _open_shard(path)
                self._readers.append(reader)
                for batch, count in enumerate(rows):
                    self._batches.append((number, batch))
                    self._starts.append(self._length)
                    self._length += count
        return self._readers

    def __getstate__(self) -> dict[str, Any]:
        # A memory map does not cross to a worker process; it is mapped again there.
        return {**self.__dict__, "_readers": None}

    def __len__(self) -> int:
        return self._length

    def document(self, index: int) -> Document:
        """The document at an index in 0 .. len - 1."""
        readers = self._open()
        place = bisect_right(self._starts, index) - 1
        shard, batch = self._batches[place]
        return Document(readers[shard].batch(batch, index - self._starts[place], 1))

    def shard_of(self, index: int) -> Path:
        """The file that holds the document at an index."""
        return self.shards[self._batches[bisect_right(self._starts, index) - 1][0]]

    def column(self, name: str) -> list[Any]:
        """One top-level column of all documents, in order; for scalars such as "split"."""
        return [
            value
            for (shard, batch) in self._batches
            for value in self._open()[shard].batch(batch).column(name).to_pylist()
        ]

    def distinct_images(self) -> list[tuple[str, int, int]]:
        """(sha256, document, which of the document's images) of every distinct image, where it is first."""
        readers, found = self._open(), dict[str, tuple[int, int]]()
        for (shard, batch), start in zip(self._batches, self._starts, strict=True):
            column = readers[shard].batch(batch).column("image_info")
            names = iter(column.flatten().field("sha256").to_pylist())
            for row, count in enumerate(column.value_lengths().to_pylist()):
                for image in range(count):
                    found.setdefault(str(next(names)), (start + row, image))
        return [(name, document, image) for name, (document, image) in found.items()]


def _open_shard(path: Path) -> tuple[ShardFile, list[int]]:
    """A shard, memory-mapped, and the rows of its batches."""
    try:
        shard = ShardFile(pa.memory_map(str(path)))
        return shard, [shard.num_rows(batch) for batch in range(shard.num_batches)]
    except (NotAShard, OSError) as error:
        raise UserError(f"{path} is not a shard: {error}") from None
