"""Two documents side by side."""

from __future__ import annotations

from pipeline.report.differences import MOST_ROWS, MOST_WORDS, Piece, Row, compare


def test_equal_paragraphs_are_counted_and_others_stand_beside_each_other() -> None:
    kept = ["One.", "Two.", "The cat sat on the mat.", "Four."]
    copy = ["One.", " Two. ", "The dog sat on the mat.", "Four.", "Only here."]
    found = compare(kept, copy)
    assert found.more == 0 and found.rows == [
        Row(same=2),
        Row(
            [Piece("The", False), Piece("cat", True), Piece("sat on the mat.", False)],
            [Piece("The", False), Piece("dog", True), Piece("sat on the mat.", False)],
        ),
        Row(same=1),
        Row([], [Piece("Only here.", True)]),
    ]


def test_what_is_drawn_is_bounded() -> None:
    many = compare([f"left {n}" for n in range(50)], [f"right {n}" for n in range(30)])
    assert (len(many.rows), many.more) == (MOST_ROWS, 50 - MOST_ROWS)
    (row,) = compare([" ".join(["word"] * 5 * MOST_WORDS)], ["other"]).rows
    assert row.left[-1] == Piece("…", False) and len(row.left[0].text.split()) <= MOST_WORDS + 1
    assert compare([], []).rows == []
