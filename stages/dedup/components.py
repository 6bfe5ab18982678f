"""Connected components of an edge list: union-find in one process, good to about 1e9 edges (16 bytes each).

The root of a component is its smallest id, so the answer depends on the edges alone and not on their order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def components(edges: pa.Table) -> pa.Table:
    """(id, root) sorted by id, one row for every id that has an edge.

    `edges`: columns a, b of document ids; order, direction and repetition do not matter.
    """
    ends = pa.chunked_array([*edges.column("a").chunks, *edges.column("b").chunks], pa.string())
    ids = pc.unique(ends)
    ids = ids.take(pc.sort_indices(ids))
    a = np.asarray(pc.index_in(edges.column("a"), value_set=ids), np.int64)
    b = np.asarray(pc.index_in(edges.column("b"), value_set=ids), np.int64)
    roots = component_roots(len(ids), a, b)
    return pa.table({"id": ids, "root": ids.take(pa.array(roots))})


def component_roots(num_nodes: int, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Smallest node of the component of each of the nodes 0..num_nodes-1, for edges a[i] - b[i]."""
    return np.asarray(_compiled()(num_nodes, a, b))


@functools.cache
def _compiled() -> Callable[..., NDArray[np.int64]]:
    # Imported where it is needed: workers of other phases load this module too.
    import numba

    compiled: Callable[..., NDArray[np.int64]] = numba.njit(cache=True)(_union_find)
    return compiled


def _union_find(num_nodes: int, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    parent = np.arange(num_nodes)
    for i in range(len(a)):
        x, y = a[i], b[i]
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        while parent[y] != y:
            parent[y] = parent[parent[y]]
            y = parent[y]
        # the smaller node becomes the root, so a root is always the smallest of its tree
        if x < y:
            parent[y] = x
        elif y < x:
            parent[x] = y
    for i in range(num_nodes):
        parent[i] = parent[parent[i]]
    return parent
