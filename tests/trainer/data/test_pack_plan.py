"""The pack plan: a pure function that places every segment once, beside its negatives."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.corpus import open_corpus
from trainer.data.layout import PlainText, Segment, Vocabulary
from trainer.data.pack_plan import describe, plan_epoch
from trainer.data.rows import Limits, Row, build_rows
from trainer.model.text import byte_tokenizer


def row(number: int, tokens: int, negatives: tuple[tuple[str, int], ...] = ()) -> Row:
    segment = Segment(0, 3, tokens, True)
    return Row(number, f"d{number}", "train", segment, 1, ((0, 1, 20),), negatives)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.lists(st.integers(10, 100), min_size=1, max_size=40), st.integers(1, 4), st.integers(0, 3))
def test_places_every_segment_at_most_once_within_room(sizes: list[int], packs: int, epoch: int) -> None:
    rows = [row(number, size, ((f"d{(number + 1) % len(sizes)}", 1),)) for number, size in enumerate(sizes)]
    plan = plan_epoch(rows, 7, epoch, 128, packs, 1)
    assert plan == plan_epoch(list(rows), 7, epoch, 128, packs, 1)
    placed = [entry.row for step in plan.steps for pack in step for entry in pack]
    assert len(placed) == len(set(placed)) == len(rows) - plan.left_out
    for step in plan.steps:
        assert len(step) == packs and all(step)
        for pack in step:
            assert sum(entry.tokens for entry in pack) <= 128


def test_epochs_and_seeds_differ() -> None:
    rows = [row(number, 30) for number in range(30)]
    plans = [plan_epoch(rows, seed, epoch, 128, 2, 1) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert len({str(plan) for plan in plans}) == 3


def test_negatives_come_along() -> None:
    rows = [row(number, 30, ((f"d{(number + 17) % 40}", 1),)) for number in range(40)]
    blind = [dataclasses.replace(item, negatives=()) for item in rows]
    report = describe(rows, plan_epoch(rows, 0, 0, 240, 1, 0), plan_epoch(blind, 0, 0, 240, 1, 0), 240)
    assert report.with_negative > report.with_negative_random + 0.3
    assert report.segments + report.left_out == 40
    assert 0 <= report.padding < 0.2


def test_too_long_a_segment_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="document d0"):
        plan_epoch([row(0, 500)], 0, 0, 128, 1, 0)


def test_held_out_documents_are_never_planned(corpus: Path) -> None:
    opened = open_corpus(str(corpus))
    rows = build_rows(opened, Vocabulary(PlainText(byte_tokenizer()), 256, 257, 4), Limits(160, 4, "bytes"))
    held = {opened.document(i).document_id for i, split in enumerate(opened.column("split")) if split == "held_out"}
    training = [item for item in rows if item.split == "train"]
    assert len(held) == 6
    assert held.isdisjoint(item.document_id for item in training)
    assert held.isdisjoint(
        training[entry.row].document_id
        for step in plan_epoch(training, 0, 0, 640, 2, 2).steps
        for pack in step
        for entry in pack
    )
