"""Expectations: bounds on a finished corpus."""

from __future__ import annotations

import pytest

from pipeline.corpus.expectations import measured, unmet
from pipeline.spec.sections import ExpectSettings
from stages.filter.settings import Bounds

COUNTS = {
    "shards.documents": 40,
    "shards.images": 70,
    "shards.negatives": 300,
    "documents.documents": 50,
    "fetched_images.image_urls": 100,
    "images.images_ok": 90,
}


def test_values_are_those_of_the_counts() -> None:
    assert measured(COUNTS) == {
        "documents": 40,
        "images": 70,
        "negatives": 300,
        "images_fetched": 0.9,
        "documents_kept": 0.8,
    }


def test_a_corpus_without_anything_has_no_shares() -> None:
    assert set(measured({}).values()) == {0.0}
    assert unmet(ExpectSettings(), {}) == ["documents is 0, expected at least 1"]


@pytest.mark.parametrize(
    ("name", "bound", "line"),
    [
        ("documents", Bounds(min=41), "documents is 40, expected at least 41"),
        ("negatives", Bounds(max=299), "negatives is 300, expected at most 299"),
        ("images_fetched", Bounds(min=0.95), "images_fetched is 0.9, expected at least 0.95"),
        ("documents_kept", Bounds(min=0.1, max=0.5), "documents_kept is 0.8, expected at most 0.5"),
    ],
)
def test_what_does_not_hold_is_a_line(name: str, bound: Bounds, line: str) -> None:
    assert unmet(ExpectSettings.model_validate({name: bound}), COUNTS) == [line]


def test_bounds_include_their_ends() -> None:
    assert unmet(ExpectSettings(documents=Bounds(min=40, max=40), images_fetched=Bounds(max=0.9)), COUNTS) == []
