"""Samples of what was dropped: the same whatever files the decisions lie in, and in which order those are read."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pytest

from pipeline.report.dropped import Dropped
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


def sampled(files: list[pa.Table], examples: int = EXAMPLES) -> Dropped:
    dropped = Dropped(examples)
    for file in files:
        dropped.add(file)
    return dropped


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
    assert cut.wanted() == whole.wanted()
    assert cut._samples == whole._samples
    assert {rule[2]: len(held) for rule, held in whole._samples.items()} == {
        "num_words": EXAMPLES,
        "repetition": EXAMPLES,
        "rare": 1,
        "robots": EXAMPLES,
    }
    assert sorted(cut.funnel.counts.values()) == [1, EXAMPLES, 40, 90], "all are counted"


def test_any_row_may_be_a_sample_however_many_there_are() -> None:
    """Not the first of a file alone: files may be long, and hold what follows from how they were made."""
    rows = [row for row in decisions() if row["rule"] == "num_words"]
    many = [{**row, "subject_id": digest(f"{row['subject_id']} {copy}")} for copy in range(20) for row in rows]
    last = {row["subject_id"] for row in many[len(many) // 2 :]}
    ((_, held),) = sampled([table_from_rows(many, DECISION)], 200)._samples.items()
    found = {row["subject_id"] for _, row in held}
    assert len(found) == 200 and 70 < len(last & found) < 130


def test_no_samples_where_none_are_asked_for() -> None:
    dropped = sampled([table_from_rows(decisions(), DECISION)], examples=0)
    assert not dropped._samples and sum(dropped.funnel.counts.values()) == 134
