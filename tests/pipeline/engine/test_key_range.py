"""Key ranges: they tile the key space, and what is left over of it is found whatever was done."""

from __future__ import annotations

import itertools

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.key_range import SPACE, WHOLE, KeyRange, evenly, leading_bits, left, overlapping, places, within
from schemas.digests import BUCKETS

BUCKET = SPACE // BUCKETS


def keys_of(prefixes: list[int]) -> pa.Array:
    return pa.array([f"{prefix:08x}{'0' * 24}" for prefix in prefixes], pa.string())


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(1, 999), st.lists(st.integers(0, 2**32 - 1), max_size=50))
def test_ranges_tile_the_key_space(count: int, prefixes: list[int]) -> None:
    ranges = evenly(count)
    assert len(ranges) == count and ranges[0].first == 0 and ranges[-1].last == WHOLE.last
    assert all(one.last + 1 == other.first for one, other in itertools.pairwise(ranges))
    assert all(each.first % BUCKET == 0 for each in ranges)
    keys = keys_of(prefixes)
    for bits, place in zip(leading_bits(keys).tolist(), places(keys, ranges).tolist(), strict=True):
        assert ranges[place].first <= bits <= ranges[place].last


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.integers(1, 40), st.integers(1, 40), st.lists(st.integers(0, 39), unique=True))
def test_pieces_that_overlap_some_ranges_are_found(cut: int, other: int, chosen: list[int]) -> None:
    ranges = [each for index, each in enumerate(evenly(other)) if index in chosen]
    pieces = evenly(cut)
    assert overlapping(pieces, ranges) == [any(piece.overlaps(each) for each in ranges) for piece in pieces]


def test_there_are_no_more_ranges_than_buckets() -> None:
    assert len(evenly(BUCKETS + 1)) == BUCKETS and evenly(1) == [WHOLE] and evenly(0) == []


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.integers(1, 40), st.integers(1, 40), st.lists(st.integers(0, 39), unique=True), st.data())
def test_what_is_left_and_what_is_done_are_all(before: int, now: int, chosen: list[int], data: st.DataObject) -> None:
    done = [each for index, each in enumerate(evenly(before)) if index in chosen]
    rest = left(data.draw(st.permutations(done)), evenly(now))
    together = sorted([*done, *rest])
    assert together[0].first == 0 and together[-1].last == WHOLE.last
    assert all(one.last + 1 == other.first for one, other in itertools.pairwise(together))
    assert all(any(piece.first <= each.first and each.last <= piece.last for piece in evenly(now)) for each in rest)


def test_keys_outside_of_every_range_have_no_place() -> None:
    ranges = [KeyRange(16, 31), KeyRange(64, 79)]
    assert places(keys_of([0, 16, 31, 32, 63, 64, 79, 80]), ranges).tolist() == [-1, 0, 0, -1, -1, 1, 1, -1]
    table = pa.table({"id": keys_of([0, 16, 31, 32])})
    assert leading_bits(within(table, "id", ranges[0]).column("id")).tolist() == [16, 31]
