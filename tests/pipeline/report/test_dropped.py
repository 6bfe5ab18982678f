"""Samples of what was dropped: the same whatever files the decisions lie in, and in which order those are read."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pytest

from pipeline.engine.aggregates import Rows
from pipeline.report.dropped import examples
from schemas.contract import table_from_rows
from schemas.decision import DECISION
from schemas.keys import digest

EXAMPLES = 3


def decisions() -> list[dict[str, Any]]:
    """Rules with few and with many subjects; those of whole documents have no position, those of pages no document."""
    found = []
    for rule, count in (("num_words", 90), ("repetition", EXAMPLES), ("rare", 1)):
        for number in range(count):
            subject = digest(f"{rule} {number}")
            found.append({"kind": "paragraph", "rule": rule, "subject_id": subject, "document_id": subject})
            found[-1]["position"] = number
    found += [{"kind": "page", "rule": "robots", "subject_id": digest(str(number))} for number in range(40)]
    return [{"phase": "text", "action": "drop", **row} for row in found]


def sampled(files: list[pa.Table], examples_per_rule: int = EXAMPLES) -> dict[str, list[dict[str, Any]]]:
    """What is drawn from files, by rule."""
    (found,) = Rows(_same, files, DECISION, 1).aggregate(examples(examples_per_rule))
    by_rule: dict[str, list[dict[str, Any]]] = {}
    for row in found.to_pylist():
        by_rule.setdefault(row["rule"], []).append(row)
    return by_rule


def _same(file: pa.Table) -> pa.Table:
    return file


@pytest.mark.parametrize("seed", range(5))
def test_they_follow_the_rows_and_not_the_files(seed: int) -> None:
    rows = decisions()
    whole = sampled([table_from_rows(rows, DECISION)])
    draw = random.Random(seed)
    draw.shuffle(rows)
    files = []
    while rows:
        size = draw.randint(1, 40)
        file, rows = rows[:size], rows[size:]
        # In several chunks, as a file of several row groups is read.
        files.append(pa.concat_tables(table_from_rows(half, DECISION) for half in (file[:5], file[5:])))
    cut = sampled(files)
    assert cut == whole
    assert {rule: len(held) for rule, held in whole.items()} == {
        "num_words": EXAMPLES,
        "repetition": EXAMPLES,
        "rare": 1,
        "robots": EXAMPLES,
    }


def test_rows_of_one_subject_lie_by_what_they_say() -> None:
    """As many as there are: their draws are the same, and so is what is chosen, whatever their order."""
    rows = [{**decisions()[0], "detail": f"{number:02d}"} for number in range(40)]
    files = [[table_from_rows(half, DECISION) for half in (each[:7], each[7:])] for each in (rows, rows[::-1])]
    assert sampled(files[0]) == sampled(files[1])
    assert [row["detail"] for row in sampled(files[0])["num_words"]] == ["00", "01", "02"]


def test_any_row_may_be_a_sample_however_many_there_are() -> None:
    """Not the first of a file alone: files may be long, and hold what follows from how they were made."""
    rows = [row for row in decisions() if row["rule"] == "num_words"]
    many = [{**row, "subject_id": digest(f"{row['subject_id']} {copy}")} for copy in range(20) for row in rows]
    last = {row["subject_id"] for row in many[len(many) // 2 :]}
    found = {row["subject_id"] for row in sampled([table_from_rows(many, DECISION)], 200)["num_words"]}
    assert len(found) == 200 and 70 < len(last & found) < 130


def test_no_samples_where_none_are_asked_for() -> None:
    assert not sampled([table_from_rows(decisions(), DECISION)], 0)
