"""The gallery: documents of the shards as a reader meets them, and the near misses mined for their pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.aggregates import Aggregate, matching
from pipeline.report.data import (
    Document,
    Figure,
    NearMisses,
    NearPicture,
    NearSentence,
    Paragraph,
    Picture,
    Span,
    Thread,
)
from pipeline.report.pictures import thumbnail
from schemas.shard import SLICE

PLATE_SIDE = 560  # pixels of a picture in its document
THUMB_SIDE = 176
MOST_BLOCKS = 40
MOST_FIGURES = 8
WITH_MISSES = 3  # pairs of a document whose near misses are shown
MISSES = 6  # near misses of one pair and kind
LONGEST_TEXT = 4000  # characters of a paragraph, and a quarter of it for a mined sentence

Row = dict[str, Any]
Place = tuple[str, int]  # document_id, slice
Anchor = tuple[str, int]  # direction of negatives, slice


def chosen(most: int) -> Aggregate:
    """The documents with the smallest ids, by these, in the layout of `without_vectors`."""
    first = partial(_first, most)
    return Aggregate(partial(_first_of_shard, most), first)


def _first_of_shard(most: int, shard: pa.Table) -> pa.Table:
    # A copy, so that the rest of the shard can go.
    return _first(most, without_vectors(_first(most, shard)))


def _first(most: int, documents: pa.Table) -> pa.Table:
    order = pc.sort_indices(documents.column("document_id"))
    return documents.take(order[:most])


def without_vectors(shard: pa.Table) -> pa.Table:
    """The shard with slices that carry no vectors and without the matrices: what people look at."""
    column = shard.column("slices").combine_chunks()
    items = column.flatten()
    fields = [field for field in SLICE if field.name not in ("primary", "shared")]
    plain = pa.StructArray.from_arrays([pc.struct_field(items, field.name) for field in fields], fields=fields)
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    slices = pa.ListArray.from_arrays(offsets, plain)
    kept = shard.drop_columns(["slices", "similarity_matrix"])
    return pa.table({**{name: kept.column(name) for name in kept.column_names}, "slices": slices})


def chosen_negatives(row: Row) -> dict[Anchor, list[Row]]:
    """The near misses to show: by (direction, anchor slice) a few of the best that were mined."""
    found: dict[Anchor, list[Row]] = {}
    for image, sentence in _pairs(row)[:WITH_MISSES]:
        for anchor in (("image_to_sentence", image), ("sentence_to_image", sentence)):
            found[anchor] = _mined(row, anchor)[:MISSES]
    return found


def _mined(row: Row, anchor: Anchor) -> list[Row]:
    """All mined negatives of one anchor, the nearest first."""
    return [
        item for item in row["negatives"] if item["kind"] == "mined" and (item["direction"], item["slice"]) == anchor
    ]


def holding(documents: Iterable[str]) -> Aggregate:
    """Those of the documents that a shard holds, in the layout of `without_vectors`."""
    some = matching("document_id", documents)
    return Aggregate(partial(_without_vectors_of, some.of), some.together)


def _without_vectors_of(some: Callable[[pa.Table], pa.Table], shard: pa.Table) -> pa.Table:
    return without_vectors(some(shard))


def look_up(documents: Iterable[Row], wanted: set[Place]) -> dict[Place, Row]:
    """Slices of other documents, which `holding` found: text or picture, title and url, by place."""
    found: dict[Place, Row] = {}
    for row in documents:
        for index, item in enumerate(row["slices"]):
            if (row["document_id"], index) in wanted:
                node = row["nodes"][item["node"]]
                about: Row = {"title": row["title"] or "", "url": row["url"]}
                if item["kind"] == "image":
                    about["picture"] = thumbnail(row["images"][node["image"]]["bytes"], THUMB_SIDE)
                else:
                    about["text"] = node["text"][item["start"] : item["end"]][: LONGEST_TEXT // 4]
                found[row["document_id"], index] = about
    return found


def document(row: Row, others: Mapping[Place, Row]) -> Document:
    """A shard row as the gallery shows it."""
    slices = row["slices"]
    pairs = _pairs(row)
    number = {image: place + 1 for place, (image, _) in enumerate(pairs)}
    # A sentence bears the number of the image it points back to.
    number |= {
        i: number[s["matched"]] for i, s in enumerate(slices) if s["kind"] == "sentence" and s["matched"] in number
    }
    of_node: dict[int, list[int]] = {}
    for index, item in enumerate(slices):
        of_node.setdefault(item["node"], []).append(index)
    negatives = chosen_negatives(row)
    blocks: list[Paragraph | Figure] = []
    figures = 0
    for index, node in enumerate(row["nodes"]):
        inside = of_node.get(index, [])
        if len(blocks) == MOST_BLOCKS or (node["kind"] == "image" and figures == MOST_FIGURES):
            break
        if node["kind"] == "image":
            figures += 1
            blocks.append(_figure(row, node, inside, number, negatives, others))
        else:
            blocks.append(_paragraph(node["text"], [(i, slices[i]) for i in inside], number))
    texts = [row["nodes"][item["node"]]["text"] for item in slices]
    return Document(
        document_id=row["document_id"],
        title=row["title"] or "",
        url=row["url"],
        language=row["language"] or "",
        split=row["split"],
        cluster_id=row["cluster_id"],
        blocks=blocks,
        threads=[
            Thread("image", 0, number.get(index))
            if item["kind"] == "image"
            else Thread("sentence", len(texts[index][item["start"] : item["end"]].split()), number.get(index))
            for index, item in enumerate(slices)
        ],
        sentences=sum(item["kind"] == "sentence" for item in slices),
        images=sum(item["kind"] == "image" for item in slices),
        negatives=len(row["negatives"]),
        cut=len(row["nodes"]) - len(blocks),
    )


def _pairs(row: Row) -> list[tuple[int, int]]:
    """(image slice, sentence slice) of the matched images, in reading order."""
    return [
        (index, item["matched"])
        for index, item in enumerate(row["slices"])
        if item["kind"] == "image" and item["matched"] is not None
    ]


def _paragraph(text: str, inside: Sequence[tuple[int, Row]], number: Mapping[int, int]) -> Paragraph:
    """The text cut at its matched sentences."""
    spans: list[Span] = []
    position = 0
    text = text[:LONGEST_TEXT]
    for index, item in inside:
        if index in number and item["end"] <= len(text):
            if item["start"] > position:
                spans.append(Span(text[position : item["start"]]))
            spans.append(Span(text[item["start"] : item["end"]], number[index], item["similarity"]))
            position = item["end"]
    if position < len(text):
        spans.append(Span(text[position:]))
    return Paragraph(spans)


def _figure(
    row: Row,
    node: Row,
    inside: Sequence[int],
    number: Mapping[int, int],
    negatives: Mapping[Anchor, list[Row]],
    others: Mapping[Place, Row],
) -> Figure:
    image = row["image_info"][node["image"]]
    encoded = row["images"][node["image"]]["bytes"]
    index = inside[0] if inside else None
    item = row["slices"][index] if index is not None else None
    size = f"{image['width']} × {image['height']}"
    if (image["original_width"], image["original_height"]) != (image["width"], image["height"]):
        size += f", was {image['original_width']} × {image['original_height']}"
    alt = image["alt"] or ""
    return Figure(
        picture=thumbnail(encoded, PLATE_SIDE, alt),
        url=image["url"],
        alt=alt[:500],
        caption=(image["caption"] or "")[:800],
        size=size,
        match=number.get(index) if index is not None else None,
        similarity=item["similarity"] if item else None,
        misses=_misses(row, index, encoded, negatives, others) if index is not None else None,
    )


def _misses(
    row: Row, index: int, encoded: bytes, negatives: Mapping[Anchor, list[Row]], others: Mapping[Place, Row]
) -> NearMisses | None:
    item = row["slices"][index]
    sentence = item["matched"]
    if ("image_to_sentence", index) not in negatives or sentence is None:
        return None
    truth = row["slices"][sentence]
    sentences = [
        NearSentence(other["text"], mined["score"], other["title"], other["url"])
        for mined in negatives["image_to_sentence", index]
        if (other := others.get((mined["document_id"], mined["candidate"]))) and "text" in other
    ]
    # Where several images share a sentence, its negatives belong to the image that it points back to.
    mine = negatives.get(("sentence_to_image", sentence), []) if truth["matched"] == index else []
    pictures = [
        NearPicture(other["picture"], mined["score"], other["title"], other["url"])
        for mined in mine
        if (other := others.get((mined["document_id"], mined["candidate"]))) and "picture" in other
    ]
    if not sentences and not pictures:
        return None
    text = row["nodes"][truth["node"]]["text"][truth["start"] : truth["end"]]
    small: Picture | None = thumbnail(encoded, THUMB_SIDE)
    return NearMisses(
        sentence=text[: LONGEST_TEXT // 4],
        picture=small,
        similarity=item["similarity"],
        sentences=sentences,
        pictures=pictures,
        sentences_mined=len(_mined(row, ("image_to_sentence", index))),
        pictures_mined=len(_mined(row, ("sentence_to_image", sentence))),
    )
