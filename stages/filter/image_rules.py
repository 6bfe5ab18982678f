"""Image-side decisions: what only the decoded image tells, and the last word on documents."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.decision import DECISION
from stages.filter.settings import Bounds, FilterSettings
from stages.filter.text_rules import flatten, kept_table, kept_words, repeats
from stages.filter.verdicts import Rule, decision_table, float_values, judge, ratio

_FORBIDDEN = Bounds(max=0.0)
# An image's content: sha256 of the stored bytes where they are known, so that copies under many URLs count as one.


def decide_images(
    kept: pa.Table,
    documents: pa.Table,
    scores: pa.Table,
    images: pa.Table,
    frequency: pa.Table | None,
    settings: FilterSettings,
) -> tuple[pa.Table, pa.Table]:
    """(KEPT_NODES after image rules and final document rules, DECISION rows).

    `kept`: KEPT_NODES of filter_text. `documents` (document_id, url, nodes) and `scores` (`ScoreText`), row by row the
    same documents, a superset of those kept. `images`: schemas.image rows. `frequency`: (content, num_documents) over
    the whole corpus, content being a sha256, or null to leave that rule out. An image without a row in `images` fails
    rule "status".
    """
    if documents.num_rows != scores.num_rows:
        raise ValueError(f"{documents.num_rows} documents but {scores.num_rows} rows of scores")
    ids = documents.column("document_id").to_pylist()
    rows = _kept_images(kept, documents)
    image_ids = rows.column("image_id")
    owner = np.asarray(rows.column("row"))
    position = np.asarray(rows.column("position"))

    width = float_values(_by_image_id(images, image_ids, "original_width"))
    height = float_values(_by_image_id(images, image_ids, "original_height"))
    status = _by_image_id(images, image_ids, "status").to_pylist()
    reason = _by_image_id(images, image_ids, "reason").to_pylist()
    formats = _by_image_id(images, image_ids, "original_format").to_pylist()
    content = _by_image_id(images, image_ids, "sha256")
    rules = settings.image
    judged = [
        Rule("status", np.array([float(one != "ok") for one in status], np.float64), _FORBIDDEN),
        Rule("format", np.array([float(one not in rules.formats) for one in formats], np.float64), _FORBIDDEN),
        Rule("original_width", width, rules.original_width),
        Rule("original_height", height, rules.original_height),
        Rule("aspect_ratio", ratio(width, height), rules.aspect_ratio),
    ]
    if frequency is not None:
        index = pc.index_in(content, value_set=frequency.column("content").combine_chunks())
        counts = float_values(frequency.column("num_documents").take(index))
        judged.append(Rule("documents", counts, rules.documents))
    passed = judge(judged, len(owner)).passed
    judged.append(Rule("repeated_in_document", repeats(owner, content.to_pylist(), passed), _FORBIDDEN))
    verdicts = judge(judged, len(owner))
    failed = np.flatnonzero(~verdicts.passed)
    details = [(reason[i] or status[i] or "not fetched") if status[i] != "ok" else formats[i] for i in failed.tolist()]
    decisions = [
        decision_table(
            "image",
            "drop",
            image_ids.take(pa.array(failed)).to_pylist(),
            document_id=[ids[i] for i in owner[failed].tolist()],
            url=[url[:2048] for url in rows.column("url").take(pa.array(failed)).to_pylist()],
            position=position[failed],
            detail=details,
            **verdicts.columns(failed),
        )
    ]

    nodes = flatten(documents.column("nodes"))
    starts = np.searchsorted(nodes.owner, np.arange(len(ids)))
    keep = _kept_mask(kept, documents, starts, len(nodes.owner))
    keep[(starts[owner] + position)[failed]] = False
    alive = np.asarray(pc.is_in(documents.column("document_id"), value_set=kept.column("document_id").combine_chunks()))
    is_image = np.asarray(pc.equal(nodes.column("kind"), "image"))
    num_images = np.bincount(nodes.owner[keep & is_image], minlength=len(ids)).astype(np.float64)
    paragraphs = flatten(scores.column("paragraphs"))
    paragraph_nodes = starts[paragraphs.owner] + float_values(paragraphs.column("position")).astype(np.int64)
    num_words = kept_words(paragraphs, keep[paragraph_nodes], len(ids))
    final = judge(
        [
            Rule("num_images", num_images, settings.document.num_images),
            Rule("num_words", num_words, settings.document.num_words),
        ],
        len(ids),
    )
    dropped = np.flatnonzero(alive & ~final.passed)
    subjects = [ids[i] for i in dropped.tolist()]
    decisions.append(
        decision_table(
            "document",
            "drop",
            subjects,
            document_id=subjects,
            url=documents.column("url").take(pa.array(dropped)).to_pylist(),
            **final.columns(dropped),
        )
    )
    return kept_table(ids, nodes, keep, alive & final.passed), pa.concat_tables(decisions).cast(DECISION)


def _kept_mask(kept: pa.Table, documents: pa.Table, starts: NDArray[np.int64], num_nodes: int) -> NDArray[np.bool_]:
    """Mask over all nodes of `documents`: those that `kept` lists."""
    mask = np.zeros(num_nodes, np.bool_)
    row = np.asarray(_document_rows(kept, documents), np.int64)
    positions = kept.column("positions").combine_chunks()
    lengths = np.asarray(pc.list_value_length(positions), np.int64)
    mask[np.repeat(starts[row], lengths) + np.asarray(positions.flatten(), np.int64)] = True
    return mask


def _document_rows(kept: pa.Table, documents: pa.Table) -> pa.Array:
    """Row in `documents` of each kept document; ValueError when one is missing."""
    index = pc.index_in(kept.column("document_id"), value_set=documents.column("document_id").combine_chunks())
    if index.null_count:
        raise ValueError(f"{index.null_count} kept documents are not among the documents given")
    return index.combine_chunks() if isinstance(index, pa.ChunkedArray) else index


def _kept_images(kept: pa.Table, documents: pa.Table) -> pa.Table:
    """Rows (row, document_id, position, image_id, url) of the kept image nodes, in document order."""
    nodes = flatten(documents.column("nodes"))
    starts = np.searchsorted(nodes.owner, np.arange(documents.num_rows))
    keep = _kept_mask(kept, documents, starts, len(nodes.owner))
    keep &= np.asarray(pc.equal(nodes.column("kind"), "image"))
    chosen = np.flatnonzero(keep)
    taken = pa.array(chosen)
    return pa.table(
        {
            "row": nodes.owner[chosen],
            "document_id": documents.column("document_id").take(pa.array(nodes.owner[chosen])),
            "position": nodes.position[chosen],
            "image_id": nodes.column("image_id").take(taken),
            "url": nodes.column("image_url").take(taken),
        }
    )


def _by_image_id(images: pa.Table, image_ids: pa.ChunkedArray, column: str) -> pa.ChunkedArray:
    """A column of `images` for each image id; null where there is no row."""
    index = pc.index_in(image_ids, value_set=images.column("image_id").combine_chunks())
    return images.column(column).take(index)
