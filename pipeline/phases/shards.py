"""The last phase: documents with their pictures, vectors and negatives as Arrow IPC files under versions/.

A file holds one split: shard i of n has the i-th of n equal key ranges, n being what the split's bytes ask for. Names
and bytes follow the documents alone, whatever machine writes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.key_range import KeyRange, evenly
from pipeline.engine.layout import version_folder, version_of
from pipeline.engine.phase import Part, Phase
from pipeline.phases.pairs import STORED_BYTES
from pipeline.spec.loading import Spec
from schemas.contract import CARRIED, contract
from schemas.image import IMAGE
from schemas.shard import SHARD, SPLITS, shard_name
from stages.encoders.cosine import from_column
from stages.shards.rows import ShardDocument, Vectors, row_bytes, shard_bytes, shard_table
from stages.shards.slices import Slice

# Where each document went: the index a reader needs to find one without opening every shard.
SHARD_ROW = contract(
    "shard_row",
    1,
    [
        pa.field("document_id", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False, metadata=CARRIED),  # relative to the version's folder
        pa.field("row", pa.int32(), nullable=False, metadata=CARRIED),
        pa.field("split", pa.string(), nullable=False),
        pa.field("num_images", pa.int32(), nullable=False),
        pa.field("num_sentences", pa.int32(), nullable=False),
        pa.field("num_matched_images", pa.int32(), nullable=False),
        pa.field("num_negatives", pa.int32(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
    ],
    key="document_id",
)
# Stored pictures that are held at a time, besides those of the shard that is being filled.
_GROUP_BYTES = 256 << 20
_NODE_FIELDS = ("kind", "text", "separator", "image_id", "alt", "title", "caption")


def _document(kept: dict[str, Any], rows: list[dict[str, Any]], negatives: list[dict[str, Any]]) -> ShardDocument:
    """One document from its kept nodes and its paired slices; images that pairing dropped are left out."""
    paired_images = {row["node"] for row in rows if row["kind"] == "image"}
    chosen = [index for index, node in enumerate(kept["nodes"]) if node["kind"] == "text" or index in paired_images]
    place = {index: position for position, index in enumerate(chosen)}
    nodes = [
        {**{name: kept["nodes"][i][name] for name in _NODE_FIELDS}, "position": kept["positions"][i]} for i in chosen
    ]
    return ShardDocument(
        document_id=kept["document_id"],
        url=kept["url"],
        title=kept["title"],
        language=kept["language"],
        license=kept["license"],
        split=rows[0]["split"],
        cluster_id=rows[0]["cluster_id"],
        nodes=nodes,
        slices=[Slice(r["kind"], place[r["node"]], r["start"], r["end"], r["content_id"]) for r in rows],
        matched=[r["matched"] for r in rows],
        match_kind=[r["match_kind"] for r in rows],
        similarity=[r["similarity"] for r in rows],
        matrix=[r["similarities"] for r in rows if r["kind"] == "image"],
        negatives=negatives,
        provenance=kept["provenance"],
        consent=kept["consent"] or {},
    )


def _vectors(pairs: pa.Table) -> Vectors:
    """content_id -> (primary, shared), float16 or None; modalities differ in dimension, so each by itself."""
    found: dict[str, tuple[Any, Any]] = {}
    for kind in ("image", "sentence"):
        mine = pairs.filter(pa.compute.equal(pairs.column("kind"), kind))
        primary, has_primary = from_column(mine.column("primary"))
        shared, has_shared = from_column(mine.column("shared"))
        for row, content_id in enumerate(mine.column("content_id").to_pylist()):
            found[content_id] = (
                np.array(primary[row]) if has_primary[row] else None,
                np.array(shared[row]) if has_shared[row] else None,
            )
    return found


def _image_ids(document: ShardDocument) -> list[str]:
    return [node["image_id"] for node in document.nodes if node["kind"] == "image"]


def _groups(documents: Sequence[ShardDocument], facts: dict[str, Any]) -> Iterator[list[ShardDocument]]:
    """Consecutive documents whose pictures take _GROUP_BYTES at most, one at least."""
    group: list[ShardDocument] = []
    size = 0
    for document in documents:
        value = sum(facts[image_id]["body"]["length"] for image_id in set(_image_ids(document)))
        if group and size + value > _GROUP_BYTES:
            yield group
            group, size = [], 0
        group.append(document)
        size += value
    if group:
        yield group


def _table(part: Part, documents: Sequence[ShardDocument], facts: dict[str, Any], vectors: Vectors) -> pa.Table:
    """The documents' rows, their pictures read from where they were stored."""
    used = sorted({image_id for document in documents for image_id in _image_ids(document)})
    bodies = part.blobs(pa.array([facts[image_id]["body"] for image_id in used], IMAGE.field("body").type))
    images = {image_id: {**facts[image_id], "bytes": body} for image_id, body in zip(used, bodies, strict=True)}
    return shard_table(documents, images, vectors)


def _shard_row(document: ShardDocument, file: str, row: int, size: int) -> dict[str, Any]:
    kinds = [item.kind for item in document.slices]
    matched = [m for k, m in zip(kinds, document.matched, strict=True) if k == "image" and m is not None]
    return {
        "document_id": document.document_id,
        "url": document.url,
        "file": file,
        "row": row,
        "split": document.split,
        "num_images": kinds.count("image"),
        "num_sentences": kinds.count("sentence"),
        "num_matched_images": len(matched),
        "num_negatives": len(document.negatives),
        "bytes": size,
    }


def shards(spec: Spec) -> Phase:
    """Everything -> shards, and a row for each document that says where it lies."""
    settings = spec.shard

    def layout(counts: Mapping[str, Mapping[str, int]]) -> list[KeyRange]:
        stored = {split: counts["pairs"].get(f"{STORED_BYTES}.{split}", 0) for split in SPLITS}
        wanted = {split: -(-stored[split] // settings.target_bytes) for split in SPLITS}
        if not any(wanted.values()):
            wanted[SPLITS[0]] = 1  # a table has a part, even where no document is left
        return [keys for split in SPLITS for keys in evenly(wanted[split], split)]

    def run(part: Part, _: pa.Table | None) -> pa.Table:
        folder = version_folder(version_of(part.key))
        split = part.keys.side
        pairs = part.read("pairs")
        pairs = pairs.filter(pc.equal(pairs.column("split"), split))
        plain = pairs.drop_columns(["primary", "shared", "phash"]).to_pylist()
        rows_of: dict[str, list[dict[str, Any]]] = {}
        for row in plain:
            rows_of.setdefault(row["document_id"], []).append(row)
        mined = {row["document_id"]: row["negatives"] for row in part.read("negatives").to_pylist()}
        kept = [row for row in part.read("kept").to_pylist() if row["document_id"] in rows_of]
        documents = []
        facts: dict[str, dict[str, Any]] = {}
        for row in kept:
            document_id = row["document_id"]
            documents.append(_document(row, rows_of[document_id], mined.get(document_id, [])))
            facts |= {image["image_id"]: image for image in row["images"]}
        vectors = _vectors(pairs)
        tables = [_table(part, group, facts, vectors) for group in _groups(documents, facts)]
        shard = pa.concat_tables(tables) if tables else SHARD.empty_table()
        ranges = [keys for keys in layout(part.counted) if keys.side == split]
        name = f"shards/{shard_name(split, ranges.index(part.keys), len(ranges))}"
        part.put_file(f"{folder}/{name}", shard_bytes(shard, settings), shard.num_rows)
        sizes = row_bytes(shard).tolist()
        made = [_shard_row(document, name, row, sizes[row]) for row, document in enumerate(documents)]
        for name, column in (
            ("images", "num_images"),
            ("sentences", "num_sentences"),
            ("matched_images", "num_matched_images"),
            ("negatives", "num_negatives"),
        ):
            part.add(name, sum(row[column] for row in made))
        part.add("documents", len(made))
        part.add("held_out", len(made) if split == "held_out" else 0)
        return pa.Table.from_pylist(made, schema=SHARD_ROW)

    return Phase(
        name="shards",
        schema=SHARD_ROW,
        run=run,
        inputs=("kept", "pairs", "negatives"),
        settings={"shard": settings},
        modules=("stages.shards.rows", "schemas.shard"),
        layout=layout,
    )
