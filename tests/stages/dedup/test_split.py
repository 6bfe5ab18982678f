"""The split: nothing leaks, nothing that was trained on is ever held out, and the share is what was asked for."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.keys import digest
from stages.dedup import split
from stages.dedup.split import SHOWN, Border, cluster_positions, picture_keys, positions, reached, sides

SALT = "split"
DISTANCE = 3
# A document: its cluster, and its pictures by number.
DOCUMENTS = st.lists(st.tuples(st.integers(0, 5), st.lists(st.integers(0, 7), max_size=3)), max_size=12)
# Pictures 0..7: the perceptual hashes of each two differ in 2 bits, others in many; the last has none.
PHASH = [(each // 2) * 0x0F0F_3333_5555_00FF % 2**64 ^ (0b11 << 7 if each % 2 else 0) for each in range(7)]


def picture(number: int) -> tuple[str, str | None]:
    return digest(f"bytes {number}"), None if number == 7 else f"{PHASH[number]:016x}"


def placed(documents: list[tuple[int, list[int]]]) -> tuple[np.ndarray, np.ndarray]:
    """(p, q) of documents."""
    ids = [f"d{number:03}" for number in range(len(documents))]
    p = cluster_positions(pa.array(ids, pa.string()), pa.array([str(c) for c, _ in documents], pa.string()), SALT)
    rows = [
        (key, value, document_id, position)
        for document_id, position, (_, shown) in zip(ids, p.tolist(), documents, strict=True)
        for number in set(shown)
        for key, value in picture_keys(*picture(number), DISTANCE)
    ]
    columns = list(zip(*sorted(rows), strict=True)) if rows else [[]] * 4
    shown = pa.table([pa.array(c, f.type) for c, f in zip(columns, SHOWN, strict=True)], schema=SHOWN)
    q = dict(zip(ids, p.tolist(), strict=True))
    for row in reached(shown, DISTANCE).to_pylist():
        assert row["position"] > p[int(row["document_id"][1:])]
        q[row["document_id"]] = max(q[row["document_id"]], row["position"])
    return p, np.array(list(q.values()))


def alike(one: list[int], other: list[int]) -> bool:
    """Whether documents with these pictures share one: by bytes, or by looks."""
    return any(
        a == b or (a < 7 and b < 7 and (PHASH[a] ^ PHASH[b]).bit_count() <= DISTANCE) for a in one for b in other
    )


@settings(max_examples=200, deadline=None, derandomize=True)
@given(DOCUMENTS, st.floats(0, 1))
def test_nothing_leaks(documents: list[tuple[int, list[int]]], t: float) -> None:
    p, q = placed(documents)
    side = sides(p, q, t)
    for number, (cluster, shown) in enumerate(documents):
        near = [m for m, (other, there) in enumerate(documents) if other == cluster or alike(shown, there)]
        assert q[number] == max(p[m] for m in near)
        if side[number] == "held_out":
            assert not any(side[m] == "train" for m in near)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(DOCUMENTS, DOCUMENTS, st.floats(0, 1))
def test_more_documents_move_none_from_training_to_held_out(
    before: list[tuple[int, list[int]]], added: list[tuple[int, list[int]]], t: float
) -> None:
    old = sides(*placed(before), t)
    new = sides(*placed(before + added), t)
    assert all(now == "train" for then, now in zip(old, new, strict=False) if then == "train")


@pytest.mark.parametrize("exact", [True, False])
def test_the_border_is_the_smallest_that_holds_out_enough(monkeypatch: pytest.MonkeyPatch, exact: bool) -> None:
    chance = random.Random(1)
    documents = [
        (number // chance.choice((1, 1, 3)), [chance.randrange(6)] if number % 9 == 0 else []) for number in range(900)
    ]
    p, q = placed(documents)
    if not exact:
        monkeypatch.setattr(split, "MOST_EXACT", 100)
    border = Border()
    for start, end in pairwise([0, 1, 40, 900]):
        border.add(p[start:end], q[start:end])
    for share in (0.01, 0.1, 0.3, 0.9):
        t = border.find(share)

        def held(at: float) -> float:
            side = sides(p, q, at)
            return side.count("held_out") / (side.count("held_out") + side.count("train"))

        assert held(t) >= share > held(t - 1 / split.STEPS)
        assert exact is (held(np.nextafter(t, 0)) < share)
    assert border.find(0) == 0


def test_so_few_documents_that_none_would_be_left_to_train_on_are_all_trained_on() -> None:
    one = Border()
    one.add(*placed([(0, [])]))
    linked = Border()
    linked.add(*placed([(0, [1]), (1, [1]), (2, [1])]))
    assert one.find(0.1) == linked.find(0.1) == Border().find(0.5) == 0
    two = Border()
    two.add(*placed([(0, []), (1, [])]))
    assert sides(*placed([(0, []), (1, [])]), two.find(0.1)).count("held_out") == 1


def test_another_salt_is_another_split() -> None:
    ids = [str(number) for number in range(4000)]
    one, other = positions(ids, "split"), positions(ids, "again")
    assert one.min() >= 0 and one.max() < 1 and abs(one.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.05


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 2**64 - 1), st.sets(st.integers(0, 63), max_size=15), st.integers(0, 15))
def test_hashes_within_the_distance_meet_under_a_key(value: int, bits: set[int], distance: int) -> None:
    other = value ^ sum(1 << bit for bit in bits)
    keys = [{key for key, _ in picture_keys(None, f"{each:016x}", distance)} for each in (value, other)]
    assert all(len(each) == distance + 1 for each in keys)
    if len(bits) <= distance:
        assert keys[0] & keys[1]


def test_a_picture_without_a_hash_of_its_looks_meets_its_bytes_alone() -> None:
    assert picture_keys(None, None, 3) == []
    ((key, picture),) = picture_keys("ab", None, 3)
    assert picture == 0 and [(key, 0)] == picture_keys("ab", None, 0) != picture_keys("ac", None, 0)
