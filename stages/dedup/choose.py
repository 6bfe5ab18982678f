"""Which copy stays, chosen once, among the documents that every other rule has let pass.

A document has a URL and a cluster: the documents of the same or nearly the same text. Of both at most one stays. A URL
would keep its newest document (`modified`: WARC-Date or Last-Modified, never our fetch time; without a date is oldest),
a cluster the one with most images; then the newest, then the smallest id. Where the two disagree the choice is a stable
matching: whatever goes has a copy that stays in its URL or in its cluster, and which is preferred there. So of the
documents of a URL, or of a cluster, that no other rule drops, exactly one stays.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.dedup.components import component_roots
from stages.dedup.near import DedupSettings
from stages.filter.verdicts import decision_table, float_values

# What `choose_documents` reads: documents that passed; ids of groups are any names, null stands alone.
PASSED = pa.schema(
    [
        pa.field("document_id", pa.string(), nullable=False),
        pa.field("url", pa.string()),
        pa.field("cluster_id", pa.string()),
        pa.field("text_id", pa.string()),
        pa.field("url_id", pa.string()),
        pa.field("similarity", pa.float64()),  # to the nearest of its cluster
        pa.field("num_images", pa.int32()),
        pa.field("modified", pa.timestamp("s", tz="UTC")),
        pa.field("pictures", pa.string()),  # of the set of its pictures
        pa.field("captions", pa.string()),  # of the set of their captions
    ]
)


def choose_documents(rows: pa.Table, settings: DedupSettings) -> tuple[NDArray[np.bool_], pa.Table]:
    """(Whether each document stays; DECISION rows that name the kept copy, by subject.)

    `rows`: PASSED, all documents of every group. Rules: "same_url", "same_text", "near_duplicate" (with the similarity
    to the nearest) and "same_pictures".
    """
    from stages.dedup.choice_kernel import settle

    count = rows.num_rows
    url, texts, near = (_codes(rows, name) for name in ("url_id", "text_id", "cluster_id"))
    cluster = _clusters(rows, near, settings)
    newest = [("modified", "descending", "at_end"), ("document_id", "ascending", "at_end")]
    by_url = rows.append_column("group", pa.array(url))
    order = np.asarray(pc.sort_indices(by_url, sort_keys=[("group", "ascending", "at_end"), *newest]), np.int64)
    rank = _places(pc.sort_indices(rows, sort_keys=[("num_images", "descending", "at_end"), *newest]))
    place = _places(pa.array(order))
    starts = np.searchsorted(url[order], np.arange(url.max(initial=-1) + 2))
    holder = np.empty(cluster.max(initial=-1) + 1, np.int64)
    settle(order, starts, url, cluster, rank, holder)
    kept = np.zeros(count, np.bool_)
    kept[holder[holder >= 0]] = True

    of_url = np.full(len(starts) - 1, -1, np.int64)
    of_url[url[kept]] = np.flatnonzero(kept)
    gone = np.flatnonzero(~kept)
    newer = of_url[url[gone]]
    by_address = (newer >= 0) & (place[newer] < place[gone])
    copy = np.where(by_address, newer, holder[cluster[gone]])
    rules = np.select(
        [by_address, texts[gone] == texts[copy], near[gone] == near[copy]],
        ["same_url", "same_text", "near_duplicate"],
        "same_pictures",
    ).tolist()
    similarity = float_values(rows.column("similarity"))[gone].tolist()
    measured = [
        value if rule == "near_duplicate" and value == value else None
        for rule, value in zip(rules, similarity, strict=True)
    ]
    ids, urls = (rows.column(name).to_pylist() for name in ("document_id", "url"))
    subjects = [ids[row] for row in gone.tolist()]
    decisions = decision_table(
        "document",
        "drop",
        subjects,
        document_id=subjects,
        url=[urls[row] for row in gone.tolist()],
        rule=rules,
        value=measured,
        high=[None if value is None else settings.threshold for value in measured],
        detail=[f"kept {ids[row]}" for row in copy.tolist()],
    )
    return kept, decisions.sort_by("subject_id")


def _codes(rows: pa.Table, name: str) -> NDArray[np.int64]:
    """Numbers of the groups that a column names; a null is a group of its own."""
    column = rows.column(name).combine_chunks()
    codes = column.dictionary_encode().indices.cast(pa.int64())
    alone = np.asarray(pc.is_null(column))
    numbers = np.asarray(pc.fill_null(codes, 0), np.int64).copy()
    numbers[alone] = numbers.max(initial=-1) + 1 + np.arange(alone.sum())
    return numbers


def _clusters(rows: pa.Table, near: NDArray[np.int64], settings: DedupSettings) -> NDArray[np.int64]:
    """Numbers of the groups of which one stays, by text and, where the settings say so, by pictures."""
    if settings.copies_by_text == "always" and settings.copies_by_pictures == "never":
        return near
    pictures, captions = _codes(rows, "pictures"), _codes(rows, "captions")
    cluster = near
    if settings.copies_by_text == "same_pictures":
        cluster = _pairs(near, pictures)
    if settings.copies_by_pictures != "never":
        shown = pictures if settings.copies_by_pictures == "always" else _pairs(pictures, captions)
        first = cluster.max(initial=-1) + 1
        roots = component_roots(int(first + shown.max(initial=-1) + 1), cluster, first + shown)
        cluster = np.unique(roots[cluster], return_inverse=True)[1].astype(np.int64)
    return cluster


def _pairs(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.unique(np.stack([one, other], 1), axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _places(order: pa.Array) -> NDArray[np.int64]:
    """Where each row stands in an order."""
    found = np.empty(len(order), np.int64)
    found[np.asarray(order, np.int64)] = np.arange(len(order))
    return found
