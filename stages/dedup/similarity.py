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


# What `members` reads: two documents, how similar they are, and what the choice between them needs of both.
COMPARED = pa.schema(
    [
        pa.field("a", DOCUMENT_KEY),
        pa.field("b", DOCUMENT_KEY),
        pa.field("similarity", pa.float64()),
        pa.field("a_num_images", pa.int32()),
        pa.field("a_modified", pa.timestamp("s", tz="UTC")),
        pa.field("b_num_images", pa.int32()),
        pa.field("b_modified", pa.timestamp("s", tz="UTC")),
    ]
)


def members(pairs: Iterable[pa.Table], threshold: float) -> tuple[pa.Table, int]:
    """(Documents of clusters, by id, as `choose_kept` reads them; how many of the pairs tie them.)

    `pairs`: COMPARED, in any order and number of tables; a pair ties its documents at a similarity of `threshold` or
    more, and where it was not measured (null). A document's similarity is that to its nearest. TooManyEdges as
    `Components`.
    """
    graph = Components()
    tied = 0
    nearest, images = np.empty(0, np.float64), np.empty(0, np.int32)
    modified = np.empty(0, np.int64)
    for table in pairs:
        similar = pc.fill_null(pc.greater_equal(table.column("similarity"), threshold), True)
        table = table.filter(similar)
        tied += table.num_rows
        ends = graph.add(halves(table.column("a")), halves(table.column("b")))
        count = len(graph.keys)
        nearest = _longer(nearest, count, np.nan)
        images, modified = _longer(images, count, 0), _longer(modified, count, _NO_DATE)
        similarity = np.asarray(table.column("similarity"), np.float64)
        for side, end in zip("ab", ends, strict=True):
            np.fmax.at(nearest, end, similarity)
            images[end] = np.asarray(table.column(f"{side}_num_images"), np.int32)
            modified[end] = np.asarray(pc.fill_null(table.column(f"{side}_modified").cast(pa.int64()), _NO_DATE))
    ids = ids_of(from_halves(graph.keys))
    made = pa.table(
        {
            "id": ids,
            "cluster": ids.take(pa.array(graph.roots())),
            "num_images": images[: len(ids)],
            "modified": pa.array(modified[: len(ids)], mask=modified[: len(ids)] == _NO_DATE).cast(
                COMPARED.field("a_modified").type
            ),
            "similarity": pa.array(nearest[: len(ids)], from_pandas=True),
        }
    )
    return made.sort_by("id"), tied


_NO_DATE = np.iinfo(np.int64).min


def _longer(values: NDArray[Any], count: int, rest: float) -> NDArray[Any]:
    """The values with room for `count` of them, the new ones `rest`."""
    if count <= len(values):
        return values
    made = np.full(max(count, 2 * len(values)), rest, values.dtype)
    made[: len(values)] = values
    return made
