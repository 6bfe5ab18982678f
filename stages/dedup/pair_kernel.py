"""Compiled work on signatures and on pairs of documents: band keys, similarities, numbering, connected components.

numba is imported with this module, so it is imported where it is first needed. Nothing here starts a thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stages.dedup.compiled import jit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MURMUR = np.uint64(0xFF51AFD7ED558CCD)
_HALF = np.uint64(32)


@jit
def hash_bands(signatures: Any, rows: int, keys: Any) -> None:
    """keys[i, band]: band number and its `rows` values of signature i, hashed to 64 bits."""
    for i in range(len(signatures)):
        for band in range(keys.shape[1]):
            key = np.uint64(band + 1) * _GOLDEN
            for column in range(band * rows, (band + 1) * rows):
                key = (key ^ np.uint64(signatures[i, column])) * _MURMUR
                key ^= key >> _HALF
            keys[i, band] = key


@jit
def agreement(left: Any, right: Any, shares: Any) -> None:
    """shares[i]: in how many of their values, 0..1, the i-th rows of two matrices agree."""
    for i in range(len(shares)):
        one = left[i]
        other = right[i]
        same = np.uint32(0)
        for k in range(len(one)):
            same += np.uint32(one[k] == other[k])
        shares[i] = same / len(one)


@jit
def overlaps(left: Any, left_ends: Any, right: Any, right_ends: Any, shares: Any) -> None:
    """shares[i]: Jaccard similarity of the i-th sets; each lies ascending between two ends of `left` or `right`."""
    for n in range(len(shares)):
        i, i_end = left_ends[n], left_ends[n + 1]
        j, j_end = right_ends[n], right_ends[n + 1]
        either = i_end - i + j_end - j
        both = 0
        while i < i_end and j < j_end:
            one, other = left[i], right[j]
            both += one == other
            i += one <= other
            j += other <= one
        shares[n] = both / (either - both) if either else 0.0


@jit
def number(keys: Any, count: int, known: Any, slots: Any, numbers: Any) -> int:
    """numbers[i]: number of keys[i] among `known`, where keys that are new are added; returns how many are known.

    `keys`, `known`: uint64 (n, 2). `slots`: an open-addressing table of numbers, a power of two long, -1 where free,
    and larger than all keys together.
    """
    mask = np.uint64(len(slots) - 1)
    for i in range(len(keys)):
        high, low = keys[i, 0], keys[i, 1]
        slot = ((high ^ low) * _MURMUR >> _HALF) & mask
        while True:
            found = slots[slot]
            if found < 0:
                known[count, 0] = high
                known[count, 1] = low
                slots[slot] = count
                numbers[i] = count
                count += 1
                break
            if known[found, 0] == high and known[found, 1] == low:
                numbers[i] = found
                break
            slot = (slot + np.uint64(1)) & mask
    return count


@jit
def unite(parent: Any, a: Any, b: Any) -> None:
    """Join the trees of a[i] and b[i]; the smaller root becomes the root, so that it is the smallest of its tree."""
    for i in range(len(a)):
        x, y = a[i], b[i]
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        while parent[y] != y:
            parent[y] = parent[parent[y]]
            y = parent[y]
        if x < y:
            parent[y] = x
        elif y < x:
            parent[x] = y


@jit
def flatten(parent: Any) -> None:
    """Let every node point to its root, which is no larger."""
    for i in range(len(parent)):
        parent[i] = parent[parent[i]]
