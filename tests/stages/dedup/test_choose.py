"""Which copy stays: laws that hold whatever other rules have dropped, and the words of the decisions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.dedup.choose import PASSED, choose_documents
from stages.dedup.near import DedupSettings

DEFAULT = DedupSettings()
NAMES = st.sampled_from([None, "1", "2", "3"])
DOCUMENT = st.fixed_dictionaries(
    {
        "url_id": NAMES,
        "cluster_id": NAMES,
        "num_images": st.integers(0, 2),
        "modified": st.sampled_from([None, 1, 2]),
        "pictures": NAMES,
        "captions": NAMES,
        "passes": st.booleans(),
    }
)


def table(documents: list[dict[str, Any]]) -> pa.Table:
    rows = []
    for number, each in enumerate(documents):
        day = each.get("modified")
        rows.append(
            {"document_id": f"d{number:02}", "url": f"http://h/{number}", "similarity": 0.9}
            | {"text_id": each.get("cluster_id"), "num_images": 0}
            | {name: value for name, value in each.items() if name in PASSED.names}
            | {"modified": day and datetime(2020, 1, day, tzinfo=UTC)}
        )
    return pa.Table.from_pylist(rows, schema=PASSED)


def groups(rows: list[dict[str, Any]], name: str) -> list[list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row[name] or f"alone {row['document_id']}", []).append(row)
    return list(found.values())


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(DOCUMENT, max_size=14))
def test_of_a_group_with_a_member_that_passes_all_else_exactly_one_stays(documents: list[dict[str, Any]]) -> None:
    """Whatever rules drop before. What goes for its URL does not pass for its cluster, and the other way round."""
    rows = table(documents)
    passes = [each["passes"] for each in documents]
    rows = rows.filter(pa.array(passes, pa.bool_()))
    kept, decisions = choose_documents(rows, DEFAULT)
    stays = dict(zip(rows.column("document_id").to_pylist(), kept.tolist(), strict=True))
    why = {row["subject_id"]: row for row in decisions.to_pylist()}
    assert set(why) == {each for each, there in stays.items() if not there}
    of = {row["document_id"]: row for row in rows.to_pylist()}
    for name, others in (("url_id", ("same_text", "near_duplicate")), ("cluster_id", ("same_url",))):
        for group in groups(rows.to_pylist(), name):
            there = [row for row in group if stays[row["document_id"]]]
            passing = [row for row in group if why.get(row["document_id"], {}).get("rule") not in others]
            assert len(there) == bool(passing), (name, group)
    for document_id, row in why.items():
        kept_id = row["detail"].removeprefix("kept ")
        one, other = of[document_id], of[kept_id]
        shared = "url_id" if row["rule"] == "same_url" else "cluster_id"
        assert stays[kept_id] and one[shared] == other[shared] is not None
        # The one that is named is the one that is preferred there.
        day = (
            (one["modified"] is not None, one["modified"] or 0),
            (other["modified"] is not None, other["modified"] or 0),
        )
        better = [(day[1], day[0]), (-int(other["document_id"][1:]), -int(one["document_id"][1:]))]
        if shared == "cluster_id":
            better.insert(0, (other["num_images"], one["num_images"]))
        assert next(a > b for a, b in better if a != b), (one, other)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(DOCUMENT, max_size=10), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(documents: list[dict[str, Any]], chance: Any) -> None:
    rows = table(documents)
    order = list(range(len(documents)))
    chance.shuffle(order)
    for dedup in (DEFAULT, DedupSettings(copies_by_text="same_pictures", copies_by_pictures="same_captions")):
        kept, decisions = choose_documents(rows, dedup)
        again, said = choose_documents(rows.take(pa.array(order, pa.int64())), dedup)
        assert again.tolist() == [kept.tolist()[place] for place in order] and said.equals(decisions)


def choose(*documents: dict[str, Any], **dedup: Any) -> tuple[list[int], list[tuple[str, str, str, float | None]]]:
    kept, decisions = choose_documents(table(list(documents)), DedupSettings(**dedup))
    said = [(row["subject_id"], row["rule"], row["detail"], row["value"]) for row in decisions.to_pylist()]
    return [place for place, stays in enumerate(kept.tolist()) if stays], said


def test_most_images_then_newest_then_smallest_id_of_a_text() -> None:
    text = {"cluster_id": "t"}
    stays, said = choose({**text, "num_images": 1, "modified": 2}, {**text, "num_images": 2}, {**text, "num_images": 2})
    assert (stays, said) == ([1], [("d00", "same_text", "kept d01", None), ("d02", "same_text", "kept d01", None)])
    assert choose({**text, "modified": 1}, text, {**text, "modified": 2})[0] == [2]


def test_the_newest_of_a_url() -> None:
    url = {"url_id": "u"}
    stays, said = choose({**url, "num_images": 9}, {**url, "modified": 1}, {**url, "modified": 2})
    assert (stays, said) == ([2], [("d00", "same_url", "kept d02", None), ("d01", "same_url", "kept d02", None)])


def test_an_older_page_stays_where_the_newest_is_a_copy_of_another() -> None:
    """Page u was rewritten as a copy of v, which has more pictures: what stood there before is in no other document."""
    old, new = {"url_id": "u", "modified": 1}, {"url_id": "u", "modified": 2, "cluster_id": "t", "text_id": "x"}
    stays, said = choose(old, new, {"url_id": "v", "cluster_id": "t", "text_id": "y", "num_images": 3})
    assert (stays, said) == ([0, 2], [("d01", "near_duplicate", "kept d02", 0.9)])


def test_a_near_duplicate_says_how_similar_and_against_what() -> None:
    rows = table([{"cluster_id": "t", "text_id": "x"}, {"cluster_id": "t", "text_id": "y"}])
    (said,) = choose_documents(rows, DEFAULT)[1].to_pylist()
    assert (said["rule"], said["value"], said["high"], said["url"]) == ("near_duplicate", 0.9, 0.7, "http://h/1")
    unmeasured = rows.set_column(rows.schema.get_field_index("similarity"), "similarity", pa.nulls(2, pa.float64()))
    (said,) = choose_documents(unmeasured, DEFAULT)[1].to_pylist()
    assert said["value"] is said["high"] is None


SHOWN = [
    {"cluster_id": "t", "pictures": "p", "captions": "c"},
    {"cluster_id": "t", "pictures": "q", "captions": "c"},
    {"pictures": "p", "captions": "c"},
    {"pictures": "p", "captions": "d"},
    {"pictures": None, "captions": None},
]


@pytest.mark.parametrize(
    ("by_text", "by_pictures", "stays"),
    [
        ("always", "never", [0, 2, 3, 4]),
        ("same_pictures", "never", [0, 1, 2, 3, 4]),
        ("always", "same_captions", [0, 3, 4]),
        ("always", "always", [0, 4]),
        ("same_pictures", "same_captions", [0, 1, 3, 4]),
    ],
)
def test_pictures_tell_copies_apart_or_make_them_by_spec(by_text: str, by_pictures: str, stays: list[int]) -> None:
    found, said = choose(*SHOWN, copies_by_text=by_text, copies_by_pictures=by_pictures)
    assert found == stays
    rules = {subject: rule for subject, rule, *_ in said}
    assert rules.get("d01", "same_text") == "same_text" and rules.get("d02", "same_pictures") == "same_pictures"


def test_nothing_to_choose() -> None:
    kept, decisions = choose_documents(PASSED.empty_table(), DEFAULT)
    assert len(kept) == decisions.num_rows == 0
