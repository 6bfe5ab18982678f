"""Vectors come back to their documents: pairing, mined negatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.phase import Exchange, Part, Phase
from pipeline.spec.loading import Spec
from schemas.embedding import VECTOR
from schemas.shard import SPLITS
from schemas.tables import MINED, PAIRED
from stages.encoders.cosine import from_column
from stages.mining.mine import SLICES, mine
from stages.pairing.page import Standing
from stages.pairing.pair import Measured, match_kinds, measure, pair

# Counted by split: bytes of pictures, words and vectors, which tell how many shards they fill.
STORED_BYTES = "stored_bytes"
_VECTOR_OF = pa.schema(
    [
        pa.field("document_id", pa.string()),
        pa.field("content_id", pa.string()),
        pa.field("primary", VECTOR),
        pa.field("shared", VECTOR),
    ]
)


def _vectors(part: Part, _: Any) -> pa.Table:
    """Each content's vectors, once for every document that holds it."""
    embedded = part.read("embeddings")
    owners = pa.compute.list_parent_indices(embedded.column("documents"))
    repeated = embedded.select(["content_id", "primary", "shared"]).take(owners)
    documents = pa.compute.list_flatten(embedded.column("documents"))
    return pa.table(
        {
            "document_id": documents,
            "content_id": repeated.column("content_id"),
            "primary": repeated.column("primary"),
            "shared": repeated.column("shared"),
        }
    )


def pairs(spec: Spec) -> Phase:
    """slices + embeddings -> pairs: each image's sentence, similarities, and images that resemble none dropped."""

    def run(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        place = {
            key: index
            for index, key in enumerate(
                zip(rows.column("document_id").to_pylist(), rows.column("content_id").to_pylist(), strict=True)
            )
        }
        shared, usable = from_column(rows.column("shared"))
        made: list[dict[str, Any]] = []
        columns = ["document_id", "url", "cluster_id", "split", "positions", "nodes", "images"]
        kept = part.read("kept").select(columns).to_pylist()
        for document, sliced in zip(kept, part.read("slices").to_pylist(), strict=True):
            document_id = document["document_id"]
            phash = {image["image_id"]: image["phash"] for image in document["images"]}
            where = [place[document_id, content] for content in sliced["content_ids"]]
            standing = _standing(document, sliced)
            found = pair(sliced["kinds"], [shared[i] if usable[i] else None for i in where], spec.pair, standing)
            for lost in found.dropped:
                node = sliced["nodes"][lost.slice]
                part.decide(
                    [
                        {
                            "kind": "image",
                            "action": "drop",
                            "subject_id": document["nodes"][node]["image_id"],
                            "document_id": document_id,
                            "url": document["nodes"][node]["image_url"],
                            "position": document["positions"][node],
                            "rule": lost.rule,
                            "value": lost.value,
                            "low": lost.low,
                            "detail": "no sentence of the document is as similar to the image as pair.min_similarity",
                        }
                    ]
                )
            matrix = iter(found.matrix_rows())
            kinds = [sliced["kinds"][index] for index in found.kept]
            standing = [standing[index] for index in found.kept]
            how = match_kinds(found.matched, standing, spec.pair)
            _count(part, measure(found.matched, how, standing))
            if "image" not in kinds:
                part.decide(
                    [
                        {
                            "kind": "document",
                            "action": "drop",
                            "subject_id": document_id,
                            "document_id": document_id,
                            "url": document["url"],
                            "rule": "num_images",
                            "value": 0.0,
                            "low": 1.0,
                            "detail": "pairing left no image",
                        }
                    ]
                )
                continue
            part.add(f"{STORED_BYTES}.{document['split']}", _words_and_pictures(document, sliced, found.kept))
            for position, index in enumerate(found.kept):
                node = sliced["nodes"][index]
                is_image = sliced["kinds"][index] == "image"
                made.append(
                    {
                        "document_id": document_id,
                        "slice": position,
                        "kind": sliced["kinds"][index],
                        "content_id": sliced["content_ids"][index],
                        "node": node,
                        "start": sliced["starts"][index],
                        "end": sliced["ends"][index],
                        "cluster_id": document["cluster_id"],
                        "split": document["split"],
                        "phash": phash[document["nodes"][node]["image_id"]] if is_image else None,
                        "row": where[index],
                        "matched": found.matched[position],
                        "match_kind": how[position],
                        "similarity": found.similarity[position],
                        "similarities": next(matrix) if is_image else None,
                        "position": document["positions"][node],
                    }
                )
        # Vectors are taken as they lie in Arrow: as Python numbers they would cost more than all the rest.
        taken = pa.array([row.pop("row") for row in made], pa.int64())
        plain = pa.schema([field for field in PAIRED if field.name not in ("primary", "shared")])
        table = pa.Table.from_pylist(made, schema=plain)
        for name in ("primary", "shared"):
            table = table.append_column(PAIRED.field(name), rows.column(name).take(taken))
            for side in SPLITS:
                mine = table.filter(pc.equal(table.column("split"), side)).column(name)
                part.add(f"{STORED_BYTES}.{side}", 2 * int(pc.sum(pc.list_value_length(mine)).as_py() or 0))
        return table.select(PAIRED.names)

    return Phase(
        name="pairs",
        schema=PAIRED,
        run=run,
        inputs=("kept", "slices", "embeddings"),
        settings={"pair": spec.pair},
        modules=("stages.pairing.pair",),
        libraries=("scipy",),
        exchange=Exchange(key="document_id", order=("document_id", "content_id"), schema=_VECTOR_OF, emit=_vectors),
    )


def _standing(document: dict[str, Any], sliced: dict[str, Any]) -> list[Standing]:
    """Where each slice stands, with the words of sentences."""
    nodes = document["nodes"]
    return [
        Standing(node, nodes[node], "" if kind == "image" else nodes[node]["text"][start:end])
        for kind, node, start, end in zip(
            sliced["kinds"], sliced["nodes"], sliced["starts"], sliced["ends"], strict=True
        )
    ]


def _count(part: Part, measured: Measured) -> None:
    """Counters that summary, card and report tell (pipeline.corpus.matches)."""
    part.add("matched_images", sum(measured.kinds.values()))
    part.add("captioned_images", measured.num_captioned)
    part.add("own_captions", measured.num_own_caption)
    for kind, number in measured.kinds.items():
        part.add(f"matched.{kind}", number)
    for distance in measured.distances:
        part.add(f"distance.{distance}", 1)


def _words_and_pictures(document: dict[str, Any], sliced: dict[str, Any], kept: Sequence[int]) -> int:
    """Bytes of a document's text and of the distinct pictures among its kept slices, as they are stored."""
    size: dict[str, int] = {image["image_id"]: image["body"]["length"] for image in document["images"]}
    places = [sliced["nodes"][index] for index in kept if sliced["kinds"][index] == "image"]
    shown = {document["nodes"][place]["image_id"] for place in places}
    words = sum(len(node["text"].encode()) for node in document["nodes"] if node["kind"] == "text")
    return words + sum(size[image_id] for image_id in shown)


def negatives(spec: Spec) -> Phase:
    """pairs -> negatives: what resembles a slice most in other documents, and is not its match."""

    def run(part: Part, _: pa.Table | None) -> pa.Table:
        queries = part.read("pairs").select(SLICES.names)
        candidates = (table.select(SLICES.names) for table in part.read_all("pairs"))
        mined = mine(queries, candidates, spec.mine)
        for (kind, guard), number in mined.guards.items():
            part.add(f"guard.{kind}.{guard}", number)
        for (kind, state), number in mined.lists.items():
            part.add(f"lists.{kind}.{state}", number)
        part.add(
            "negatives",
            int(pa.compute.sum(pa.compute.list_value_length(mined.negatives.column("negatives"))).as_py() or 0),
        )
        return mined.negatives

    return Phase(
        name="negatives",
        schema=MINED,
        run=run,
        inputs=("pairs",),
        settings={"mine": spec.mine},
        modules=("stages.mining.mine",),
        libraries=("torch",),
        gpu=True,
    )
