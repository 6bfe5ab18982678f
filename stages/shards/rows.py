"""Shards: documents with all a trainer needs, as Arrow IPC files; equal rows give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from schemas.contract import conform
from schemas.shard import IMAGE_INFO, SHARD, SHARD_NODE, SLICE
from stages.encoders.cosine import Half
from stages.row_function import Settings
from stages.shards.slices import Slice

# Accounted for each node, image, slice and negative besides its text, bytes and vectors.
ITEM_BYTES = 64

Vectors = Mapping[str, tuple[Half | None, Half | None]]


class ShardSettings(Settings):
    """How documents are laid out in files (spec section `shard`)."""

    target_bytes: int = Field(default=256 << 20, ge=1 << 10)
    """Bytes of a shard before compression, about: a split is cut by hash of the document into as few equal ranges as
    keep below it on average. Default: ours, large enough for sequential reads from object storage, small enough to
    spread over ranks (datasets cuts at 500 MB, webdataset at 3 GB)."""

    max_rows_per_batch: int = Field(default=64, ge=1)
    """Rows of a record batch: with compression, what one random read has to unpack. Default: ours, somewhat below the
    100 rows that datasets takes for images."""

    max_batch_bytes: int = Field(default=16 << 20, ge=1, le=1 << 30)
    """Bytes of a record batch before compression; a larger document stands alone. Default: ours, what a reader holds at
    a time however large its documents are. At most 1 GiB: pictures are addressed by 32 bits within a batch."""

    held_out_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of the documents that is held out from training, 0..1, when a corpus is first split (`stages.dedup.split`);
    its later versions are split at the same place. Default: ours, a tenth, as is customary."""

    split_salt: str = "split"
    """What the places of documents are hashed with, any text: another one makes another split, at a border of its own.
    Default: ours, the word itself, as nothing depends on which it is."""

    split_phash_distance: int = Field(default=3, ge=0, le=15)
    """Bits of 64 between the perceptual hashes of pictures; up to it they count as the same picture, which may not
    stand on both sides. Default: ours, what four bands of 16 bits find: a picture that was resized or stored anew."""

    compression: Literal["none", "lz4", "zstd"] = "none"
    """Codec of the buffers. Default: ours, none, so that rows are read in place from a memory-mapped file; images are
    compressed anyway."""


@dataclass(frozen=True)
class ShardDocument:
    """One document, all phases done."""

    document_id: str
    url: str
    title: str | None
    language: str | None
    license: str | None
    split: str
    cluster_id: str
    # kind, text, separator, image_id, alt, title, caption and position (index in the extracted document)
    nodes: Sequence[Mapping[str, Any]]
    slices: Sequence[Slice]
    matched: Sequence[int | None]
    match_kind: Sequence[str | None]  # one of schemas.shard.MATCH_KINDS where there is a match
    similarity: Sequence[float | None]
    matrix: Sequence[Sequence[float | None]]
    negatives: Sequence[Mapping[str, Any]]  # schemas.negative.NEGATIVE
    provenance: Mapping[str, Any]
    consent: Mapping[str, Any]


def shard_table(
    documents: Sequence[ShardDocument], images: Mapping[str, Mapping[str, Any]], vectors: Vectors
) -> pa.Table:
    """Documents to a table of schemas.shard.SHARD, in order.

    images: by image_id the facts of schemas.image.IMAGE plus `bytes`; vectors: by content_id (primary, shared), each
    a float16 unit vector or None. KeyError for an image or a content that is missing: both are the caller's promise.
    """
    rows = [_row(document, images) for document in documents]
    plain = pa.schema([field for field in SHARD if field.name != "slices"])
    table = pa.Table.from_pylist(rows, schema=plain)
    return conform(table.append_column("slices", _slices(documents, vectors)), SHARD)


def row_bytes(table: pa.Table) -> npt.NDArray[np.int64]:
    """Bytes of each row of a SHARD table, from its values alone (not from how Arrow happens to lay them out)."""
    sizes = [_batch_row_bytes(batch) for batch in table.to_batches()]
    return np.concatenate([np.empty(0, dtype=np.int64), *sizes])


def _batch_row_bytes(batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    total: npt.NDArray[np.int64] = np.full(batch.num_rows, ITEM_BYTES, dtype=np.int64)

    def add(path: Sequence[str], size: Any) -> None:
        column = batch.column(path[0])
        parents = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
        items = column.flatten()
        for name in path[1:]:
            items = pc.struct_field(items, name)
        np.add.at(total, parents, pc.fill_null(size(items), 0).to_numpy(zero_copy_only=False).astype(np.int64))

    def vector(items: Any) -> Any:
        return pc.multiply(pc.list_value_length(items), 2)

    def item(items: Any) -> Any:
        return pa.array(np.full(len(items), ITEM_BYTES))

    add(["nodes"], item)
    add(["nodes", "text"], pc.binary_length)
    add(["images"], item)
    add(["images", "bytes"], pc.binary_length)
    add(["slices"], item)
    add(["slices", "primary"], vector)
    add(["slices", "shared"], vector)
    add(["negatives"], item)
    add(["negatives", "text"], pc.binary_length)
    add(["similarity_matrix"], lambda items: pc.multiply(pc.list_value_length(items), 4))
    return total


def write_shard(table: pa.Table, sink: BinaryIO, settings: ShardSettings) -> None:
    """Write a SHARD table as one Arrow IPC file; equal tables give equal bytes, however they are chunked.

    Raises schemas.contract.ContractError when the table does not follow the contract.
    """
    table = conform(table, SHARD)
    options = pa.ipc.IpcWriteOptions(compression=None if settings.compression == "none" else settings.compression)
    with pa.ipc.new_file(sink, SHARD, options=options) as writer:
        for start, end in _runs(row_bytes(table), settings.max_batch_bytes, settings.max_rows_per_batch):
            # `take` lays the rows out anew: no offsets, no leftovers of the table that they were cut from.
            batch = table.slice(start, end - start).take(pa.array(np.arange(end - start)))
            writer.write_batch(pa.RecordBatch.from_arrays([_single(column) for column in batch.columns], schema=SHARD))


def shard_bytes(table: pa.Table, settings: ShardSettings) -> bytes:
    """`write_shard` into memory."""
    sink = io.BytesIO()
    write_shard(table, sink, settings)
    return sink.getvalue()


def _runs(sizes: npt.NDArray[np.int64], most_bytes: int, most_rows: int) -> Iterator[tuple[int, int]]:
    """Consecutive (start, end) whose sizes stay under both bounds, one row at least."""
    start = size = 0
    for row, value in enumerate(sizes.tolist()):
        if row > start and (size + value > most_bytes or row - start >= most_rows):
            yield start, row
            start, size = row, 0
        size += value
    if len(sizes):
        yield start, len(sizes)


def _row(document: ShardDocument, images: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """All columns but the slices."""
    order: dict[str, int] = {}
    nodes, pictures, info = [], [], []
    for node in document.nodes:
        image = None
        if node["kind"] == "image":
            if node["image_id"] not in order:
                order[node["image_id"]] = len(order)
                facts = images[node["image_id"]]
                pictures.append({"bytes": facts["bytes"], "path": f"{node['image_id']}.{facts['format']}"})
                # Words about an image are those of its first place in the document.
                about = {name: node.get(name) for name in ("alt", "title", "caption")}
                info.append({**{name: facts.get(name) for name in IMAGE_INFO.names}, **about})
            image = order[node["image_id"]]
        nodes.append({**{name: node.get(name) for name in SHARD_NODE.names}, "image": image})
    return {
        "document_id": document.document_id,
        "url": document.url,
        "title": document.title,
        "language": document.language,
        "license": document.license,
        "split": document.split,
        "cluster_id": document.cluster_id,
        "nodes": nodes,
        "images": pictures,
        "image_info": info,
        "similarity_matrix": document.matrix,
        "negatives": document.negatives,
        "provenance": document.provenance,
        "consent": document.consent,
    }


def _slices(documents: Sequence[ShardDocument], vectors: Vectors) -> pa.Array:
    """The slices column; vectors go through numpy, not one Python float at a time."""
    flat = [item for document in documents for item in document.slices]
    found = [vectors[item.content_id] for item in flat]
    columns = {
        "kind": pa.array([item.kind for item in flat], pa.string()),
        "node": pa.array([item.node for item in flat], pa.int32()),
        "start": pa.array([item.start for item in flat], pa.int32()),
        "end": pa.array([item.end for item in flat], pa.int32()),
        "primary": vector_array([primary for primary, _ in found]),
        "shared": vector_array([shared for _, shared in found]),
        "matched": pa.array([match for document in documents for match in document.matched], pa.int32()),
        "match_kind": pa.array([kind for document in documents for kind in document.match_kind], pa.string()),
        "similarity": pa.array([value for document in documents for value in document.similarity], pa.float32()),
    }
    items = pa.StructArray.from_arrays([columns[field.name] for field in SLICE], fields=list(SLICE))
    offsets = np.cumsum([0, *(len(document.slices) for document in documents)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items, type=pa.list_(SLICE))


def vector_array(vectors: Sequence[Half | None]) -> pa.Array:
    """Vectors or nulls to a list<halffloat> array (schemas.embedding.VECTOR)."""
    present = [np.asarray(vector, dtype=np.float16) for vector in vectors if vector is not None]
    offsets = np.cumsum([0, *(0 if vector is None else len(vector) for vector in vectors)])
    missing = np.array([vector is None for vector in vectors], dtype=np.bool_)
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()),
        pa.array(np.concatenate(present) if present else np.empty(0, np.float16), pa.float16()),
        mask=pa.array(missing) if missing.any() else None,
    )


def _single(column: pa.ChunkedArray) -> pa.Array:
    """One array of a chunked column."""
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
