"""Candidate pairs by banding (Leskovec, Rajaraman and Ullman, chapter 3), on integers.

b bands of r rows find a pair of Jaccard similarity s with probability 1 - (1 - s^r)^b. What is exchanged are hashes of
bands and DOCUMENT_KEYs.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.dedup.document_keys import DOCUMENT_KEY, halves, keys_of
from stages.dedup.near import DedupSettings, signature_matrix

# Documents of one band key up to which every pair of them is a candidate.
SMALL_BUCKET = 8
# Documents of a larger one that share a centre, so that no document has more edges than that in a bucket of a million.
HUB = 1024

# What documents share that meet under a key; it is told by the key's last two bits.
BAND, TEXT, URL = range(3)
_KIND = np.uint64(3)

BAND_KEYS = pa.schema([pa.field("band_key", pa.uint64()), pa.field("id", DOCUMENT_KEY)])
EDGES = pa.schema([pa.field("a", DOCUMENT_KEY), pa.field("b", DOCUMENT_KEY)])


def band_keys(rows: pa.Table, settings: DedupSettings) -> pa.Table:
    """BAND_KEYS: `bands` rows for every signature; equal keys mean equal bands.

    `rows`: columns id, signature; rows with a null signature give none. The key hashes band number and values to 64
    bits: accidental equality is left to verification.
    """
    from stages.dedup.pair_kernel import hash_bands

    valid = pc.is_valid(rows.column("signature"))
    matrix = signature_matrix(rows.column("signature"), settings.num_perm)
    keys = np.empty((len(matrix), settings.bands), np.uint64)
    hash_bands(matrix, settings.rows, keys)
    keys &= ~_KIND
    ids = rows.column("id").filter(valid).combine_chunks()
    repeated = ids.take(pa.array(np.repeat(np.arange(len(matrix)), settings.bands)))
    return pa.table([pa.array(keys.ravel()), repeated], schema=BAND_KEYS)


def shared_keys(ids: pa.Array, shared: pa.Array | pa.ChunkedArray, kind: int) -> pa.Table:
    """BAND_KEYS of what documents are known by besides their bands: TEXT, the hash of a text, or URL, a URL's id.

    `ids`: DOCUMENT_KEYs; `shared`: 32 hex digits each, or null, which gives no row.
    """
    there = pc.is_valid(shared)
    keys = halves(keys_of(shared.filter(there)))[:, 0] & ~_KIND | np.uint64(kind)
    return pa.table([pa.array(keys), ids.filter(there)], schema=BAND_KEYS)


def kinds_of(keys: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """BAND, TEXT or URL of band keys."""
    return (keys & _KIND).astype(np.uint8)


def candidate_edges(rows: pa.Table, max_bucket: int) -> tuple[pa.Table, pa.Table]:
    """(band_key and EDGES a < b, each once in a bucket, sorted; hot buckets of bands (band_key, documents)).

    `rows`: BAND_KEYS, all rows of every band_key. A bucket of up to SMALL_BUCKET documents gives all its pairs. A
    larger one gives a chain through its ids and a star from the first of every HUB of them, whose centres are a star
    from the smallest id: no more than twice its size, and one document that resembles no other does not part the rest.
    """
    rows = _in_order(rows).combine_chunks()
    keys = np.asarray(rows.column("band_key"), np.uint64)
    ids = rows.column("id").combine_chunks()
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1]))) if len(keys) else np.zeros(0, np.int64)
    sizes = np.diff(np.append(starts, len(keys)))
    hot = np.flatnonzero((sizes > max_bucket) & (kinds_of(keys[starts]) == BAND))
    met = sizes > 1
    first, last = np.repeat(starts[met], sizes[met]), np.repeat(starts[met] + sizes[met], sizes[met])
    place = np.arange(len(first)) - np.repeat(np.cumsum(sizes[met]) - sizes[met], sizes[met]) + first
    small = last - first <= SMALL_BUCKET
    hub = first + (place - first) // HUB * HUB
    centre = np.where(place == hub, first, hub)
    leaf = ~small & (place != first)
    pairs = [(centre[leaf], place[leaf])]
    # Neighbours on the chain, less those that a star has already.
    lower = place[~small & (place + 1 < last) & (place != hub)]
    pairs.append((lower, lower + 1))
    for distance in range(1, SMALL_BUCKET):
        lower = place[small & (place + distance < last)]
        pairs.append((lower, lower + distance))
    lower, upper = (np.concatenate(ends) for ends in zip(*pairs, strict=True))
    order = np.lexsort((upper, lower))
    lower, upper = lower[order], upper[order]
    edges = pa.table(
        [pa.array(keys[lower]), ids.take(pa.array(lower)), ids.take(pa.array(upper))],
        schema=pa.schema([BAND_KEYS.field("band_key"), *EDGES]),
    )
    return edges, pa.table({"band_key": keys[starts[hot]], "documents": sizes[hot].astype(np.int64)})


def _in_order(rows: pa.Table) -> pa.Table:
    """BAND_KEYS by key and id, each once; rows of an exchange are so already, and are only looked at."""
    for _ in range(2):
        keys, ids = (rows.column(name) for name in BAND_KEYS.names)
        behind = pc.or_(
            pc.less(keys[:-1], keys[1:]), pc.and_(pc.equal(keys[:-1], keys[1:]), pc.less(ids[:-1], ids[1:]))
        )
        if pc.all(behind, min_count=0).as_py():
            break
        rows = rows.group_by(BAND_KEYS.names).aggregate([]).sort_by([(name, "ascending") for name in BAND_KEYS.names])
    return rows


def distinct(pairs: pa.Table) -> pa.Table:
    """Rows that name EDGES and what they share, each once, sorted."""
    found = pairs.group_by(pairs.column_names).aggregate([]).select(pairs.column_names)
    return found.sort_by([(name, "ascending") for name in pairs.column_names])
