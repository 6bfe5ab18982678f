"""Split: train or held out, and nothing that leaks from one to the other.

Near-duplicates, and documents that share an image, would leak (measured on caption pairs: retrieval at 1 of .44 with a
naive split, .23 with one by group). Every document has a position h in 0..1, a hash of its id; its cluster of
near-duplicates the largest of theirs, p; and q is the largest p of the documents that it shares a picture with. Trained
on is what has p >= t, held out what has q < t, and what is neither is dropped. More documents can only raise p and q:
while t stays, nothing that was trained on is ever held out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from schemas.keys import digest

# Documents up to which the border is looked for among all positions; beyond, among as many steps as below.
MOST_EXACT = 100_000
STEPS = 1 << 16
_BITS = 64

# Where a document meets others: one row for each key of each of its pictures.
SHOWN = pa.schema(
    [
        pa.field("key", pa.string()),  # of the picture's bytes, or of a band of its perceptual hash
        pa.field("picture", pa.uint64()),  # the perceptual hash; 0 for bytes, which are all the same under a key
        pa.field("document_id", pa.string()),
        pa.field("position", pa.float64()),  # p
    ]
)


def positions(ids: Iterable[str], salt: str) -> NDArray[np.float64]:
    """h of documents: a hash of 53 bits as a fraction of its range, 0 <= h < 1."""
    head = f"{salt}\0".encode()
    found = [xxhash.xxh3_64_intdigest(head + each.encode()) >> 11 for each in ids]
    return np.array(found, np.float64) / 2.0**53


def picture_keys(sha256: str | None, phash: str | None, distance: int) -> list[tuple[str, int]]:
    """(key, picture) under which a picture meets those of the same bytes or within `distance` bits.

    Two hashes of 64 bits that differ in `distance` agree in one of distance + 1 bands at least.
    """
    if phash is None:
        return [(digest("sha256", sha256), 0)] if sha256 is not None else []
    value = int(phash, 16)
    ends = [_BITS * band // (distance + 1) for band in range(distance + 2)]
    bands = [value >> low & (1 << high - low) - 1 for low, high in itertools.pairwise(ends)]
    return [(digest("phash", str(band), str(each)), value) for band, each in enumerate(bands)]


def reached(rows: pa.Table, distance: int) -> pa.Table:
    """SHOWN without pictures, (key, document_id, position): the largest p that a document meets under a key.

    `rows`: SHOWN, all rows of every key, by key. Documents that meet none larger than their own have no row.
    """
    keys = rows.column("key").combine_chunks()
    picture = np.asarray(rows.column("picture"), np.uint64)
    own = np.asarray(rows.column("position"), np.float64)
    found = own.copy()
    codes = np.asarray(keys.dictionary_encode().indices, np.int64)
    ends = np.flatnonzero(np.diff(codes, prepend=-1, append=-1))
    for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        if end - start > 1:
            found[start:end] = _largest(picture[start:end], own[start:end], distance)
    higher = pa.array(found > own)
    made = pa.table({"key": keys, "document_id": rows.column("document_id"), "position": found}).filter(higher)
    best = made.group_by(["key", "document_id"], use_threads=False).aggregate([("position", "max")])
    best = best.rename_columns(["key", "document_id", "position"])
    return best.sort_by([("key", "ascending"), ("document_id", "ascending")])


# Pairs of pictures that are compared at a time.
_AT_ONCE = 1 << 22


def _largest(pictures: NDArray[np.uint64], own: NDArray[np.float64], distance: int) -> NDArray[np.float64]:
    """For each picture the largest position of those within `distance` bits, itself among them."""
    distinct, place = np.unique(pictures, return_inverse=True)
    best = np.zeros(len(distinct))
    np.maximum.at(best, place, own)
    found = np.empty(len(distinct))
    rows = max(1, _AT_ONCE // len(distinct))
    for start in range(0, len(distinct), rows):
        apart = np.bitwise_count(distinct[start : start + rows, None] ^ distinct[None])
        found[start : start + rows] = np.where(apart <= distance, best[None], 0.0).max(axis=1)
    return found[place]


class Border:
    """Finds t from the positions of all documents, which are added in any order and number of pieces."""

    def __init__(self) -> None:
        self.count = 0
        self._exact: list[tuple[NDArray[np.float64], NDArray[np.float64]]] | None = []
        self._steps = np.zeros((2, STEPS), np.int64)

    def add(self, p: NDArray[np.float64], q: NDArray[np.float64]) -> None:
        """Documents with these p and q, 0 <= p <= q < 1."""
        self.count += len(p)
        for row, values in zip(self._steps, (p, q), strict=True):
            row += np.bincount((values * STEPS).astype(np.int64), minlength=STEPS)
        if self.count > MOST_EXACT:
            self._exact = None
        elif self._exact is not None:
            self._exact.append((p, q))

    def find(self, share: float) -> float:
        """The smallest t that holds out at least `share` of what it does not drop; 0 when that would train on none."""
        if self._exact is None:
            steps = np.arange(1, STEPS + 1) / STEPS
            trained = self.count - np.cumsum(self._steps[0])
            held = np.cumsum(self._steps[1])
        elif self._exact:
            p, q = (np.sort(np.concatenate(each)) for each in zip(*self._exact, strict=True))
            steps = np.nextafter(np.union1d(p, q), 2.0)
            trained = self.count - np.searchsorted(p, steps)
            held = np.searchsorted(q, steps)
        else:
            return 0.0
        enough = np.flatnonzero((held >= share * (held + trained)) & (trained > 0))
        return float(steps[enough[0]]) if share > 0 and len(enough) else 0.0


def sides(p: NDArray[np.float64], q: NDArray[np.float64], border: float) -> Sequence[str | None]:
    """Split of each document: "train", "held_out", or None where it would leak."""
    return [
        "train" if one >= border else "held_out" if other < border else None
        for one, other in zip(p.tolist(), q.tolist(), strict=True)
    ]


def cluster_positions(ids: pa.Array, clusters: pa.Array, salt: str) -> NDArray[np.float64]:
    """p of documents by their clusters, of which all members are there."""
    codes = np.asarray(pc.dictionary_encode(clusters).indices, np.int64)
    largest = np.zeros(codes.max(initial=-1) + 1)
    np.maximum.at(largest, codes, positions(ids.to_pylist(), salt))
    return largest[codes]
