"""Exact duplicates and paragraphs a site repeats."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from stages.dedup.exact import choose_by_text, choose_by_url, url_key
from stages.dedup.paragraphs import OCCURRENCES, choose_paragraphs, occurrences

OLD, NEW = datetime(2020, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)


def rows(*values: tuple[Any, ...]) -> pa.Table:
    names = ("document_id", "url", "canonical_url", "text_hash", "modified")
    schema = pa.schema([*((name, pa.string()) for name in names[:4]), ("modified", pa.timestamp("s", tz="UTC"))])
    return pa.Table.from_pylist([dict(zip(names, value, strict=True)) for value in values], schema=schema)


def test_newest_then_smallest_id() -> None:
    table = rows(
        ("c", "http://h/1", "http://h/x", "t1", OLD),
        ("b", "http://h/2", "http://h/x", "t2", NEW),
        ("a", "http://h/3", "http://h/x", "t3", None),
        ("e", "http://h/4", None, "t4", None),
        ("d", "http://h/4", None, "t5", None),
    )
    kept, decisions = choose_by_url(table)
    assert kept.to_pylist() == ["b", "d"]
    assert [(row["subject_id"], row["rule"], row["detail"]) for row in decisions.to_pylist()] == [
        ("a", "same_url", "kept b"),
        ("c", "same_url", "kept b"),
        ("e", "same_url", "kept d"),
    ]


def test_order_of_rows_does_not_matter() -> None:
    values = [(f"d{i}", "http://h/p", None, f"t{i % 3}", NEW if i % 2 else None) for i in range(9)]
    forward, backward = choose_by_text(rows(*values)), choose_by_text(rows(*reversed(values)))
    assert forward[0].equals(backward[0])
    assert forward[1].equals(backward[1])
    assert len(forward[0]) == 3


def test_documents_without_text_are_no_duplicates() -> None:
    kept, decisions = choose_by_text(rows(("a", "u", None, None, None), ("b", "v", None, None, None)))
    assert kept.to_pylist() == ["a", "b"]
    assert decisions.num_rows == 0


@pytest.mark.parametrize(
    ("url", "canonical", "key"),
    [
        ("http://h/a?x=1", "http://h/a", "http://h/a"),
        ("http://h/a", None, "http://h/a"),
        ("http://h/a", "http://other/a", "http://h/a"),
        ("http://h/a", "http://h/", "http://h/a"),
        ("http://h/", "http://h/", "http://h/"),
        ("http://h/a", "http://h/?p=7", "http://h/?p=7"),
    ],
)
def test_url_key(url: str, canonical: str | None, key: str) -> None:
    assert url_key(url, canonical) == key


def test_one_copy_of_a_repeated_paragraph_stays() -> None:
    table = pa.Table.from_pylist(
        [
            {"domain": domain, "paragraph_hash": paragraph, "document_id": document, "position": position}
            for domain, paragraph, document, position in [
                ("h", "p", "c", 1),
                ("h", "p", "b", 2),
                ("h", "p", "a", 9),
                ("h", "p", "a", 3),
                ("h", "q", "a", 0),
                ("h", "q", "b", 0),
                ("g", "p", "d", 0),
            ]
        ],
        schema=OCCURRENCES,
    )
    decisions = choose_paragraphs(table, max_documents=2)
    found = [(r["subject_id"], r["position"], r["value"], r["high"], r["detail"]) for r in decisions.to_pylist()]
    assert found == [
        ("a", 9, 3.0, 2.0, "kept a of h"),
        ("b", 2, 3.0, 2.0, "kept a of h"),
        ("c", 1, 3.0, 2.0, "kept a of h"),
    ]
    assert choose_paragraphs(table, max_documents=3).num_rows == 0


def test_occurrences_are_of_every_paragraph() -> None:
    paragraphs = [[{"position": 0, "paragraph_hash": "p"}, {"position": 2, "paragraph_hash": "q"}], [], None]
    kind = pa.list_(pa.struct([("position", pa.int32()), ("paragraph_hash", pa.string())]))
    scores = pa.table(
        {
            "document_id": ["a", "b", "c"],
            "url": ["http://h:81/x", "http://g/y", "http://g/z"],
            "paragraphs": pa.array(paragraphs, kind),
        }
    )
    assert occurrences(scores).to_pylist() == [
        {"domain": "h:81", "paragraph_hash": "p", "document_id": "a", "position": 0},
        {"domain": "h:81", "paragraph_hash": "q", "document_id": "a", "position": 2},
    ]
    assert occurrences(scores.slice(1)).num_rows == 0
