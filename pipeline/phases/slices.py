"""Kept documents become slices, distinct slices become vectors: each content is embedded once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.phase import Exchange, Part, Phase, Step
from pipeline.phases.documents import failed
from pipeline.spec.loading import Spec
from schemas.page import LOCATOR
from schemas.tables import EMBEDDED, SLICED
from stages.encoders.embed import EmbedImages, EmbedSentences
from stages.shards.slices import slices as slices_of
from stages.text.sentences import SplitSentences

_CONTENT = pa.schema(
    [
        pa.field("content_id", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("document_id", pa.string()),
        pa.field("text", pa.large_string()),  # sentences
        pa.field("sha256", pa.string()),  # images, of the stored bytes
        pa.field("body", LOCATOR),
    ]
)


def _to_split(part: Part) -> pa.Table:
    """Texts of the documents, in order."""
    texts = [
        (document["document_id"], node["text"], document["language"], node["tag"])
        for document in part.read("kept").select(["document_id", "language", "nodes"]).to_pylist()
        for node in document["nodes"]
        if node["kind"] == "text"
    ]
    return pa.table(
        {
            "document_id": pa.array([row[0] for row in texts], pa.string()),
            "text": pa.array([row[1] for row in texts], pa.large_string()),
            "language": pa.array([row[2] for row in texts], pa.string()),
            "tag": pa.array([row[3] for row in texts], pa.string()),
        }
    )


def slices(spec: Spec) -> Phase:
    """kept -> slices: images and sentences of each document, in reading order."""
    split_sentences = Step(
        SplitSentences(spec.pair.sentences),
        _to_split,
        owner="document_id",
        key=("text", "language", "tag"),
        table="kept",
    )

    def run(part: Part, _: pa.Table | None) -> pa.Table:
        documents = part.read("kept").select(["document_id", "url", "nodes", "images"]).to_pylist()
        _, result = part.answers(split_sentences)
        answers = iter(zip(result.column("spans").to_pylist(), result.column("error").to_pylist(), strict=True))
        made: list[dict[str, Any]] = []
        for document in documents:
            spans: list[Any] = []
            for index, node in enumerate(document["nodes"]):
                found, error = next(answers) if node["kind"] == "text" else (None, None)
                spans.append(found)
                if error is not None:
                    part.decide(
                        [
                            failed(
                                "paragraph",
                                "sentences",
                                error,
                                subject_id=document["document_id"],
                                document_id=document["document_id"],
                                url=document["url"],
                                position=index,
                            )
                        ]
                    )
            sha256 = {image["image_id"]: image["sha256"] for image in document["images"]}
            found_slices = slices_of(document["nodes"], spans, sha256)
            part.add("slices", len(found_slices))
            made.append(
                {
                    "document_id": document["document_id"],
                    "kinds": [each.kind for each in found_slices],
                    "nodes": [each.node for each in found_slices],
                    "starts": [each.start for each in found_slices],
                    "ends": [each.end for each in found_slices],
                    "content_ids": [each.content_id for each in found_slices],
                }
            )
        return pa.Table.from_pylist(made, schema=SLICED)

    return Phase(
        name="slices",
        schema=SLICED,
        run=run,
        inputs=("kept",),
        steps=(split_sentences,),
        modules=("stages.shards.slices",),
    )


def _contents(part: Part, _: Any) -> pa.Table:
    """One row a slice, with what its encoder needs."""
    rows: list[dict[str, Any]] = []
    kept = part.read("kept").select(["document_id", "nodes", "images"]).to_pylist()
    for document, sliced in zip(kept, part.read("slices").to_pylist(), strict=True):
        images = {image["image_id"]: image for image in document["images"]}
        for kind, node, start, end, content_id in zip(
            sliced["kinds"], sliced["nodes"], sliced["starts"], sliced["ends"], sliced["content_ids"], strict=True
        ):
            row = {"content_id": content_id, "kind": kind, "document_id": document["document_id"]}
            content = document["nodes"][node]
            if kind == "image":
                image = images[content["image_id"]]
                row |= {"sha256": image["sha256"], "body": image["body"]}
            else:
                row |= {"text": content["text"][start:end]}
            rows.append(row)
    return pa.Table.from_pylist(rows, schema=_CONTENT)


def _of_kind(kind: str, *columns: str) -> Callable[[Part], pa.Table]:
    """The distinct contents of one kind, with what their encoder needs."""

    def rows(part: Part) -> pa.Table:
        assert part.rows is not None
        mine = part.rows.filter(pc.equal(part.rows.column("kind"), kind))
        return _first_of_each(mine).select(["content_id", *columns])

    return rows


def embeddings(spec: Spec) -> Phase:
    """slices -> embeddings: two unit vectors for each distinct content, from actors that hold the encoders."""
    # An image is known by its bytes' hash; a locator may differ between builds.
    encoders = {
        "image": Step(
            EmbedImages(spec.embed),
            _of_kind("image", "sha256", "body"),
            owner="content_id",
            key=("sha256",),
            model=True,
        ),
        "sentence": Step(
            EmbedSentences(spec.embed), _of_kind("sentence", "text"), owner="content_id", key=("text",), model=True
        ),
    }

    def run(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        wanted: dict[str, list[str]] = {}
        for content_id, document_id in zip(
            rows.column("content_id").to_pylist(), rows.column("document_id").to_pylist(), strict=True
        ):
            documents = wanted.setdefault(content_id, [])
            if not documents or documents[-1] != document_id:
                documents.append(document_id)
        tables = []
        for kind, step in encoders.items():
            mine, result = part.answers(step)
            if not mine.num_rows:
                continue
            part.add(f"{kind}s_embedded", mine.num_rows)
            part.decide(
                [
                    failed(kind, "embed", error, subject_id=content_id)
                    for content_id, error in zip(
                        mine.column("content_id").to_pylist(), result.column("error").to_pylist(), strict=True
                    )
                    if error is not None
                ]
            )
            tables.append(
                pa.table(
                    {
                        "content_id": mine.column("content_id"),
                        "kind": pa.array([kind] * mine.num_rows, pa.string()),
                        "primary": result.column("primary"),
                        "shared": result.column("shared"),
                        "documents": pa.array(
                            [wanted[each] for each in mine.column("content_id").to_pylist()], pa.list_(pa.string())
                        ),
                    }
                ).cast(EMBEDDED)
            )
        if not tables:
            return EMBEDDED.empty_table()
        return pa.concat_tables(tables).sort_by([("content_id", "ascending")])

    return Phase(
        name="embeddings",
        schema=EMBEDDED,
        run=run,
        inputs=("kept", "slices"),
        steps=tuple(encoders.values()),
        exchange=Exchange(key="content_id", order=("content_id", "document_id"), schema=_CONTENT, emit=_contents),
    )


def _first_of_each(rows: pa.Table) -> pa.Table:
    """The first row of each content, of rows sorted by content."""
    ids = rows.column("content_id").to_pylist()
    first = [index for index, each in enumerate(ids) if index == 0 or ids[index - 1] != each]
    return rows.take(pa.array(first, pa.int64()))
