"""Connected components against scipy's."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from stages.dedup.components import Components, component_roots


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), max_size=40))
def test_components_are_scipys_with_the_smallest_root(pairs: list[tuple[int, int]]) -> None:
    a, b = (np.array([pair[k] for pair in pairs], np.int64) for k in (0, 1))
    roots = component_roots(26, a, b)
    graph = coo_matrix((np.ones(len(pairs)), (a, b)), shape=(26, 26))
    labels = connected_components(graph, directed=False)[1]
    for label in set(labels.tolist()):
        members = np.flatnonzero(labels == label)
        assert (roots[members] == members.min()).all()


def test_components_of_a_long_chain() -> None:
    n = 200_000
    order = np.random.default_rng(0).permutation(n - 1)
    assert (component_roots(n, order, order + 1) == 0).all()


def test_keys_in_any_order_and_pieces_have_the_components_of_their_ranks() -> None:
    """As many keys as make the table grow several times."""
    chance = np.random.default_rng(1)
    nodes = np.unique(chance.integers(0, 1 << 64, (30_000, 2), np.uint64), axis=0)
    a, b = chance.integers(0, len(nodes), (2, 20_000))
    expected = component_roots(len(nodes), a, b)
    for pieces in (1, 7):
        graph = Components()
        order = chance.permutation(len(a))
        for some in np.array_split(order, pieces):
            one, other = graph.add(nodes[a[some]], nodes[b[some]])
            assert np.array_equal(graph.keys[one], nodes[a[some]]) and np.array_equal(graph.keys[other], nodes[b[some]])
        assert len(graph.keys) == len(np.unique(np.concatenate([a, b])))
        rank = {tuple(key): place for place, key in enumerate(nodes.tolist())}
        mine = [rank[tuple(key)] for key in graph.keys.tolist()]
        assert [mine[root] for root in graph.roots().tolist()] == expected[mine].tolist()


def test_no_edge_no_component() -> None:
    graph = Components()
    assert len(graph.roots()) == len(graph.keys) == 0
