"""Shards of version 1, as they were written, and their rows in the layout of today (schemas.shard.SHARD).

They held both splits in a file (part-NNNNN.arrow), pictures among the facts about them, mined negatives alone, and no
word on how a match was found.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from schemas.contract import contract
from schemas.hugging_face import PICTURE
from schemas.negative import NEGATIVE
from schemas.shard import IMAGE_INFO, SHARD, SLICE

_VECTOR = pa.list_(pa.float16())
_CONSENT = pa.struct(
    [
        pa.field("robots_allowed", pa.bool_()),
        pa.field("robots_source", pa.string()),
        pa.field("x_robots_tag", pa.string()),
        pa.field("agent", pa.string()),
    ]
)
_NODE = pa.struct(
    [
        pa.field("kind", pa.string()),
        pa.field("text", pa.large_string()),
        pa.field("separator", pa.string()),
        pa.field("image", pa.int32()),
        pa.field("position", pa.int32()),
    ]
)
_IMAGE = pa.struct(
    [
        pa.field("image_id", pa.string()),
        pa.field("url", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("bytes", pa.large_binary()),
        pa.field("format", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("original_width", pa.int32()),
        pa.field("original_height", pa.int32()),
        pa.field("phash", pa.string()),
        pa.field("alt", pa.string()),
        pa.field("title", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("consent", _CONSENT),
    ]
)
_SLICE = pa.struct(
    [
        pa.field("kind", pa.string()),
        pa.field("node", pa.int32()),
        pa.field("start", pa.int32()),
        pa.field("end", pa.int32()),
        pa.field("primary", _VECTOR),
        pa.field("shared", _VECTOR),
        pa.field("matched", pa.int32()),
        pa.field("similarity", pa.float32()),
    ]
)
_NEGATIVE = pa.struct(
    [
        pa.field("slice", pa.int32()),
        pa.field("kind", pa.string()),  # what is a direction today
        pa.field("document_id", pa.string()),
        pa.field("candidate", pa.int32()),
        pa.field("score", pa.float32()),
        pa.field("guard", pa.float32()),
    ]
)
_PROVENANCE = pa.struct(
    [
        pa.field("kind", pa.string()),
        pa.field("snapshot", pa.string()),
        pa.field("file", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("length", pa.int64()),
    ]
)

SHARD_V1 = contract(
    "shard",
    1,
    [
        pa.field("document_id", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("language", pa.string()),
        pa.field("license", pa.string()),
        pa.field("split", pa.string(), nullable=False),
        pa.field("cluster_id", pa.string(), nullable=False),
        pa.field("nodes", pa.list_(_NODE), nullable=False),
        pa.field("images", pa.list_(_IMAGE), nullable=False),
        pa.field("slices", pa.list_(_SLICE), nullable=False),
        pa.field("similarity_matrix", pa.list_(pa.list_(pa.float32())), nullable=False),
        pa.field("negatives", pa.list_(_NEGATIVE), nullable=False),
        pa.field("provenance", _PROVENANCE, nullable=False),
        pa.field("consent", _CONSENT, nullable=False),
    ],
)


def upgraded(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A valid batch of SHARD_V1 (or some rows of one) in the layout of SHARD; pictures and vectors are not copied.

    `match_kind` is null: version 1 did not record it. ArrowInvalid where the batch's pictures exceed 2 GiB.
    """
    columns = {name: batch.column(name) for name in batch.schema.names}
    pictures, negatives = columns["images"].flatten(), columns["negatives"].flatten()
    path = pc.binary_join_element_wise(_of(pictures, "image_id"), _of(pictures, "format"), ".")
    picture = pa.StructArray.from_arrays([_of(pictures, "bytes").cast(pa.binary()), path], fields=list(PICTURE))
    columns["image_info"] = _lists(columns["images"], _renamed(pictures, IMAGE_INFO, {}))
    columns["images"] = _lists(columns["images"], picture)
    columns["slices"] = _lists(columns["slices"], _renamed(columns["slices"].flatten(), SLICE, {}))
    mined = {"kind": pa.array(["mined"] * len(negatives), pa.string()), "direction": _of(negatives, "kind")}
    columns["negatives"] = _lists(columns["negatives"], _renamed(negatives, NEGATIVE, mined))
    return pa.RecordBatch.from_arrays([columns[name] for name in SHARD.names], schema=SHARD)


def _of(items: pa.StructArray, name: str) -> pa.Array:
    return pc.struct_field(items, name)


def _renamed(items: pa.StructArray, kind: pa.StructType, given: dict[str, pa.Array]) -> pa.StructArray:
    """Structs of another type: fields as given, else those of the same name, else nulls."""
    there = {field.name for field in items.type}
    arrays = [
        given[field.name]
        if field.name in given
        else _of(items, field.name)
        if field.name in there
        else pa.nulls(len(items), field.type)
        for field in kind
    ]
    return pa.StructArray.from_arrays(arrays, fields=list(kind))


def _lists(like: pa.ListArray, items: pa.Array) -> pa.ListArray:
    """Lists of the same lengths as `like`, none of which is null, over its flattened items."""
    offsets = pc.subtract(like.offsets, like.offsets[0])
    return pa.ListArray.from_arrays(offsets, items)
