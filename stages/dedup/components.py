"""Connected components of edges that stream by: union-find in one process, good to about 1e9 edges.

Only documents that have an edge take part. What is held are they, and of edges those of one call, as two numbers of
eight bytes each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.row_function import CannotRun

# Beyond this a component finder of several processes would be needed.
MOST_EDGES = 1_000_000_000
_FEWEST_SLOTS = 1 << 10


class TooManyEdges(CannotRun):
    """More edges than one process joins; the message says how many."""


class Components:
    """Numbers 128-bit keys in the order in which they come, and joins them, in one forest or in several."""

    def __init__(self, most_edges: int = MOST_EDGES, forests: int = 1) -> None:
        self._most_edges = most_edges
        self._edges = 0
        self._count = 0
        self._known = np.empty((0, 2), np.uint64)
        self._parents = [np.empty(0, np.int64) for _ in range(forests)]
        self._slots = np.full(_FEWEST_SLOTS, -1, np.int64)

    @property
    def keys(self) -> NDArray[np.uint64]:
        """All keys by their numbers, uint64 (n, 2)."""
        return self._known[: self._count]

    def add(
        self, a: NDArray[np.uint64], b: NDArray[np.uint64], *forests: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Join a[i] and b[i], keys as uint64 (n, 2), in these forests (the first, unless told); their numbers.

        TooManyEdges when these are too many in all.
        """
        from stages.dedup.pair_kernel import unite

        self._edges += len(a)
        if self._edges > self._most_edges:
            raise TooManyEdges(
                f"dedup: more than {self._most_edges:,} pairs of documents that may be copies, which one process "
                "cannot join: raise dedup.rows or dedup.threshold, or build the corpus in pieces"
            )
        one, other = self._numbers(a), self._numbers(b)
        for forest in forests or (0,):
            unite(self._parents[forest], one, other)
        return one, other

    def _numbers(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        from stages.dedup.pair_kernel import number

        self._make_room(self._count + len(keys))
        numbers = np.empty(len(keys), np.int64)
        self._count = number(np.ascontiguousarray(keys), self._count, self._known, self._slots, numbers)
        return numbers

    def _make_room(self, count: int) -> None:
        """For as many keys, and half of the slots free."""
        from stages.dedup.pair_kernel import number

        if count > len(self._known):
            size = max(count, 2 * self._count)
            known = np.empty((size, 2), np.uint64)
            known[: self._count] = self.keys
            self._known = known
            for forest, before in enumerate(self._parents):
                self._parents[forest] = np.arange(size)
                self._parents[forest][: self._count] = before[: self._count]
        if 2 * count > len(self._slots):
            self._slots = np.full(1 << (2 * count - 1).bit_length(), -1, np.int64)
            old = self.keys.copy()
            number(old, 0, self._known, self._slots, np.empty(len(old), np.int64))

    def roots(self, forest: int = 0) -> NDArray[np.int64]:
        """Of every key the number of the smallest key of its component in a forest, int64 (n,)."""
        from stages.dedup.pair_kernel import flatten

        parent = self._parents[forest][: self._count].copy()
        flatten(parent)
        order = np.lexsort((self.keys[:, 1], self.keys[:, 0]))
        smallest = np.empty(self._count, np.int64)
        # Written from the largest key to the smallest, which stays.
        smallest[parent[order[::-1]]] = order[::-1]
        return smallest[parent]


def component_roots(num_nodes: int, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Smallest node of the component of each of the nodes 0..num_nodes-1, for edges a[i] - b[i]."""
    from stages.dedup.pair_kernel import flatten, unite

    parent = np.arange(num_nodes)
    unite(parent, a, b)
    flatten(parent)
    return parent
