"""Partitions: which part of a table a row belongs to, decided by its key alone.

A key is hex text with uniformly distributed leading digits (every id here is a hash). Part p of n holds the keys
whose first 32 bits lie in [p, p + 1) * 2^32 / n: ranges, so that row stores serve any number of partitions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SPACE = 1 << 32


@dataclass(frozen=True)
class KeyRange:
    """Leading 32 bits, first included, last included."""

    first: int
    last: int

    @property
    def label(self) -> str:
        return f"{self.first:08x}-{self.last:08x}"

    def overlaps(self, other: KeyRange) -> bool:
        return self.first <= other.last and other.first <= self.last


WHOLE = KeyRange(0, SPACE - 1)


def key_range(index: int, count: int) -> KeyRange:
    """The range of part `index` of `count`."""
    return KeyRange(-(-index * SPACE // count), -(-(index + 1) * SPACE // count) - 1)


def leading_bits(keys: pa.ChunkedArray | pa.Array) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """First 32 bits of hex keys, int64 (n,)."""
    prefixes = pc.utf8_slice_codeunits(keys, 0, 8).to_pylist()
    return np.fromiter((int(prefix, 16) for prefix in prefixes), np.int64, len(prefixes))


def partition_of(keys: pa.ChunkedArray | pa.Array, count: int) -> pa.Array:
    """Part index of every key, int32 (n,)."""
    return pa.array((leading_bits(keys) * count) >> 32, pa.int32())
