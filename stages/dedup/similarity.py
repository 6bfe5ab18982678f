"""How similar candidate pairs are, and the clusters that similar ones make.

A pair is compared where one of its documents lies: what travels there of the other is a sketch of integers, its
signature or the hashes of its shingles, and never its text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.dedup.banding import BAND, TEXT, URL
from stages.dedup.components import Components
from stages.dedup.document_keys import DOCUMENT_KEY, from_halves, halves, ids_of
from stages.dedup.near import DedupSettings, numbers_in, signature_matrix, value_ends
from stages.dedup.shingles import hash_sets


def sketches(column: pa.ChunkedArray, settings: DedupSettings) -> pa.LargeBinaryArray:
    """What is compared of documents, by `settings.verify`, of their signatures (SIGNATURE) or texts (large_string).

    "signature": the signature. "jaccard": the distinct hashes of the text's shingles, ascending, uint64
    little-endian. "none": null.
    """
    if settings.verify == "none":
        return pa.nulls(len(column), pa.large_binary())
    if settings.verify == "signature":
        return column.combine_chunks().cast(pa.large_binary())
    sets = [found.astype("<u8").tobytes() for found in hash_sets(column, settings.shingle_words)]
    return pa.array(sets, pa.large_binary())


def similarities(left: pa.ChunkedArray, right: pa.ChunkedArray, settings: DedupSettings) -> NDArray[np.float64]:
    """Jaccard similarity, 0..1, of each of `left` with that of `right`, both `sketches`; NaN with verify "none".

    Of signatures it is the share of values that agree. ValueError for a signature that is not there, or has another
    length.
    """
    from stages.dedup.pair_kernel import agreement, overlaps

    shares = np.full(len(left), np.nan)
    if settings.verify == "none" or not len(left):
        return shares
    sides = [side.combine_chunks().cast(pa.large_binary()) for side in (left, right)]
    if settings.verify == "signature":
        if any(side.null_count for side in sides):
            raise ValueError("a pair names a document without a signature")
        one, other = (signature_matrix(pa.chunked_array([side]), settings.num_perm) for side in sides)
        agreement(one, other, shares)
        return shares
    one_ends, other_ends = ((ends - ends[0]) // 8 for ends in map(value_ends, sides))
    overlaps(numbers_in(sides[0], "<u8"), one_ends, numbers_in(sides[1], "<u8"), other_ends, shares)
    return shares


# What `members` reads: two documents, what they share, and how similar they are where that was measured.
COMPARED = pa.schema(
    [
        pa.field("a", DOCUMENT_KEY),
        pa.field("b", DOCUMENT_KEY),
        pa.field("kind", pa.uint8()),  # one of stages.dedup.banding.BAND, TEXT, URL
        pa.field("similarity", pa.float64()),
    ]
)
# Forests: documents with nearly or exactly the same text; with exactly the same; of one URL; any of these.
_CLUSTER, _SAME_TEXT, _SAME_URL, _ANY = range(4)
_JOINED = {BAND: (_ANY, _CLUSTER), TEXT: (_ANY, _CLUSTER, _SAME_TEXT), URL: (_ANY, _SAME_URL)}


def members(pairs: Iterable[pa.Table], threshold: float) -> tuple[pa.Table, int]:
    """(Documents that may be copies, by id; how many pairs of shared bands tie them.)

    `pairs`: COMPARED, in any order and number of tables. A pair of a shared band ties its documents at a similarity of
    `threshold` or more, and where it was not measured (null); the others always do. Columns: document_id; cluster_id,
    text_id, url_id and copies_id, each the smallest document id of those with nearly the same text, the same text, the
    same URL, and any of these; similarity, that to its nearest. TooManyEdges as `Components`.
    """
    graph = Components(forests=4)
    tied = 0
    nearest = np.empty(0, np.float64)
    for table in pairs:
        near = pc.equal(table.column("kind"), BAND)
        similar = pc.fill_null(pc.greater_equal(table.column("similarity"), threshold), True)
        tied += int(pc.sum(pc.and_(near, similar)).as_py() or 0)
        for kind, forests in _JOINED.items():
            ties = pc.equal(table.column("kind"), kind)
            mine = table.filter(pc.and_(ties, similar) if kind == BAND else ties)
            ends = graph.add(halves(mine.column("a")), halves(mine.column("b")), *forests)
            nearest = _longer(nearest, len(graph.keys), np.nan)
            similarity = np.asarray(mine.column("similarity"), np.float64)
            for end in ends:
                np.fmax.at(nearest, end, similarity)
    ids = ids_of(from_halves(graph.keys))
    named = {"cluster_id": _CLUSTER, "text_id": _SAME_TEXT, "url_id": _SAME_URL, "copies_id": _ANY}
    made = pa.table(
        {
            "document_id": ids,
            **{name: ids.take(pa.array(graph.roots(forest))) for name, forest in named.items()},
            "similarity": pa.array(nearest[: len(ids)], pa.float64(), from_pandas=True),
        }
    )
    return made.sort_by("document_id"), tied


def _longer(values: NDArray[Any], count: int, rest: float) -> NDArray[Any]:
    """The values with room for `count` of them, the new ones `rest`."""
    if count <= len(values):
        return values
    made = np.full(max(count, 2 * len(values)), rest, values.dtype)
    made[: len(values)] = values
    return made
