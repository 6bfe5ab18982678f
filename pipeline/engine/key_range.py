"""Key ranges: which rows of a table belong together, decided by their keys alone.

A key is hex text with uniformly distributed leading digits (every id here is a hash). Work is cut into ranges of its
leading 32 bits, whose ends are those of buckets (schemas.digests); how many there are means nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.digests import BUCKETS

SPACE = 1 << 32
_BUCKET = SPACE // BUCKETS


@dataclass(frozen=True, order=True)
class KeyRange:
    """Leading 32 bits, first included, last included; `side` tells work apart that is also cut otherwise (splits)."""

    first: int
    last: int
    side: str = ""

    @property
    def label(self) -> str:
        return f"{self.first:08x}-{self.last:08x}" + (f"-{self.side}" if self.side else "")

    def overlaps(self, other: KeyRange) -> bool:
        return self.first <= other.last and other.first <= self.last


WHOLE = KeyRange(0, SPACE - 1)


def evenly(count: int, side: str = "") -> list[KeyRange]:
    """The key space in ranges of as equal size as buckets allow, in order; no range for a count of 0."""
    if count == 0:
        return []
    count = min(count, BUCKETS)
    ends = [-(-index * BUCKETS // count) * _BUCKET for index in range(count + 1)] if count else []
    return [KeyRange(first, end - 1, side) for first, end in pairwise(ends)]


def overlapping(pieces: Sequence[KeyRange], ranges: Sequence[KeyRange]) -> list[bool]:
    """Which of the pieces have a key in one of the ranges, which are in order and apart."""
    firsts = [each.first for each in ranges]
    near = (bisect_right(firsts, piece.last) - 1 for piece in pieces)
    return [at >= 0 and ranges[at].last >= piece.first for at, piece in zip(near, pieces, strict=True)]


def left(done: Sequence[KeyRange], pieces: Sequence[KeyRange]) -> list[KeyRange]:
    """What of `pieces` lies in none of `done`, in order; neither overlap among themselves."""
    found = []
    ordered = sorted(done)
    firsts = [each.first for each in ordered]
    for piece in sorted(pieces):
        at = piece.first
        before = max(0, bisect_right(firsts, piece.first) - 1)
        for each in ordered[before : bisect_right(firsts, piece.last)]:
            if at < each.first:
                found.append(KeyRange(at, each.first - 1))
            at = max(at, each.last + 1)
        if at <= piece.last:
            found.append(KeyRange(at, piece.last))
    return found


def leading_bits(keys: pa.ChunkedArray | pa.Array) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """First 32 bits of hex keys, int64 (n,)."""
    prefixes = pc.utf8_slice_codeunits(keys, 0, 8).to_pylist()
    return np.fromiter((int(prefix, 16) for prefix in prefixes), np.int64, len(prefixes))


def hull(keys: pa.ChunkedArray | pa.Array) -> KeyRange:
    """The range from the first key to the last, of keys in order, one at least."""
    first, last = leading_bits(pa.array([keys[0].as_py(), keys[-1].as_py()], pa.string())).tolist()
    return KeyRange(first, last)


def places(keys: pa.ChunkedArray | pa.Array, ranges: Sequence[KeyRange]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Index of the range that holds each key, int64 (n,), -1 where none does; ranges are in order and apart."""
    bits = leading_bits(keys)
    firsts = np.array([each.first for each in ranges], np.int64)
    lasts = np.array([each.last for each in ranges], np.int64)
    found = np.searchsorted(firsts, bits, side="right") - 1
    return np.where((found >= 0) & (bits <= lasts[found]), found, -1)


def within(table: pa.Table, column: str, keys: KeyRange) -> pa.Table:
    """The rows whose key lies in the range."""
    bits = leading_bits(table.column(column))
    return table.filter(pa.array((bits >= keys.first) & (bits <= keys.last)))
