"""Paragraphs that a site repeats: one copy stays, and documents that would be left without text fall in order."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.dedup.paragraphs import REPEATED, choose_paragraphs, occurrences, repeated

FEWEST = 10


def documents(words: list[int]) -> pa.Table:
    names = [f"d{place:02}" for place in range(len(words))]
    return pa.table({"document_id": names, "url": [f"http://h/{name}" for name in names], "num_words": words})


def rows(found: list[tuple[int, int, int, int]]) -> pa.Table:
    """(paragraph, document, position, words)"""
    return pa.table([list(each) for each in zip(*found, strict=True)] if found else [[]] * 4, schema=REPEATED)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.lists(st.integers(0, 4), max_size=5)), max_size=8),
    st.integers(1, 3),
)
def test_a_repeated_paragraph_stands_once_or_in_no_document_that_could_stay(
    made: list[tuple[int, list[int]]], most: int
) -> None:
    """A document has words of its own and some of five paragraphs, of 4 to 8 words."""
    length = {paragraph: 4 + paragraph for paragraph in range(5)}
    words = [own + sum(length[each] for each in held) for own, held in made]
    known = [
        (paragraph, document, position, length[paragraph])
        for document, (_, held) in enumerate(made)
        for position, paragraph in enumerate(held)
    ]
    # Every document has passed on its whole text.
    passed = [number for number in range(len(made)) if words[number] >= FEWEST]
    place = {number: at for at, number in enumerate(passed)}
    known = [(p, place[document], *rest) for p, document, *rest in known if document in place]
    stays, cut, cuts, falls = choose_paragraphs(rows(known), documents([words[n] for n in passed]), most, FEWEST)
    gone = {(row["document"], row["position"]) for row in cut.to_pylist()}
    assert {(f"d{document:02}", position) for document, position in gone} == {
        (row["subject_id"], row["position"]) for row in cuts.to_pylist()
    }
    assert {row["subject_id"] for row in falls.to_pylist()} == {
        f"d{n:02}" for n, there in enumerate(stays) if not there
    }
    for document, number in enumerate(passed):
        left = words[number] - sum(size for _, d, position, size in known if (d, position) in gone and d == document)
        assert left >= FEWEST
    for paragraph in range(5):
        holders = {document for p, document, *_ in known if p == paragraph}
        copies = [(d, pos) for p, d, pos, _ in known if p == paragraph and stays[d] and (d, pos) not in gone]
        if len(holders) <= most:
            assert not any((d, pos) in gone for p, d, pos, _ in known if p == paragraph)
        else:
            assert len(copies) == any(stays[document] for document in holders)
            # One that fell had less than it needs, though it held what nobody before it keeps.
    for row in falls.to_pylist():
        assert row["rule"] == "num_words" and row["value"] < row["low"] == FEWEST


def test_a_document_that_falls_frees_its_paragraphs() -> None:
    """d00 keeps p; d01, which has nothing but p and q, falls; so q stays in d02, and not in the one that fell."""
    p, q = 0, 1
    known = rows([(p, 0, 0, 8), (p, 1, 0, 8), (q, 1, 1, 6), (q, 2, 0, 6), (p, 2, 1, 8), (q, 3, 0, 6)])
    stays, cut, cuts, falls = choose_paragraphs(known, documents([50, 14, 50, 50]), 1, FEWEST)
    assert stays.tolist() == [True, False, True, True]
    assert [(row["document"], row["position"]) for row in cut.to_pylist()] == [(2, 1), (3, 0)]
    assert [(row["subject_id"], row["detail"], row["value"], row["high"]) for row in cuts.to_pylist()] == [
        ("d02", "kept d00", 3.0, 1.0),
        ("d03", "kept d02", 3.0, 1.0),
    ]
    (fell,) = falls.to_pylist()
    assert (fell["subject_id"], fell["value"], fell["low"]) == ("d01", 6.0, 10.0)


def test_copies_inside_the_document_that_keeps_one_go_too() -> None:
    known = rows([(0, 0, 3, 5), (0, 0, 9, 5), (0, 1, 1, 5), (0, 2, 2, 5)])
    _, cut, cuts, falls = choose_paragraphs(known, documents([90, 90, 90]), 2, FEWEST)
    assert [(row["document"], row["position"]) for row in cut.to_pylist()] == [(0, 9), (1, 1), (2, 2)]
    assert set(cuts.column("detail").to_pylist()) == {"kept d00"} and falls.num_rows == 0
    assert choose_paragraphs(known, documents([90, 90, 90]), 3, FEWEST)[1].num_rows == 0


def test_repeated_paragraphs_are_those_of_more_documents_than_may_hold_them() -> None:
    table = pa.table({"key": ["a", "a", "a", "b", "b"], "document_id": ["1", "1", "2", "1", "2"], "n": [1, 2, 3, 4, 5]})
    assert repeated(table, 1).num_rows == 5 and repeated(table, 2).num_rows == 0


def test_occurrences_are_of_every_paragraph_that_is_left() -> None:
    paragraphs = [
        [
            {"position": 0, "paragraph_hash": "p", "words": 3},
            {"position": 2, "paragraph_hash": "q", "words": 4},
            {"position": 3, "paragraph_hash": "r", "words": 5},
        ],
        [{"position": 0, "paragraph_hash": "p", "words": 3}],
        None,
    ]
    kind = pa.list_(pa.struct([("position", pa.int32()), ("paragraph_hash", pa.string()), ("words", pa.int32())]))
    scores = pa.table(
        {
            "document_id": ["a", "b", "c"],
            "url": ["http://h:81/x", "http://g/y", "http://g/z"],
            "paragraphs": pa.array(paragraphs, kind),
        }
    )
    kept = pa.table({"document_id": ["a", "c"], "positions": pa.array([[0, 1, 3], []], pa.list_(pa.int32()))})
    assert occurrences(scores, kept).to_pylist() == [
        {"domain": "h:81", "paragraph_hash": "p", "document_id": "a", "position": 0, "words": 3},
        {"domain": "h:81", "paragraph_hash": "r", "document_id": "a", "position": 3, "words": 5},
    ]
    assert occurrences(scores, kept.slice(1)).num_rows == 0
