"""What is chosen once: the same however work is cut, told in decisions, and the same border for later versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.engine.damage import Damaged
from pipeline.engine.key_range import evenly
from pipeline.engine.storage import Storage
from pipeline.phases.choice import border, choose, kept, shared_pictures
from pipeline.spec.loading import Spec
from schemas.contract import table_from_rows
from schemas.digests import bucket_digests, table_digest
from schemas.document import DOCUMENT
from schemas.keys import digest
from schemas.tables import CLUSTER, PASSED, REPEATED
from tests.pipeline.phases.driving import Cut, driven

PHASES = (choose, shared_pictures, border, kept)
FEWEST = 10
# A document: what it shares with others, the words of its own, repeated paragraphs (of 4 words more than their number).
DOCUMENT_LIKE = st.fixed_dictionaries(
    {
        "url": st.sampled_from([None, "u", "v"]),
        "text": st.sampled_from([None, "s", "t"]),
        "words": st.integers(0, 15),
        "paragraphs": st.lists(st.integers(0, 3), max_size=3),
        "pictures": st.lists(st.integers(0, 4), max_size=2),
        "num_images": st.integers(1, 3),
        "passes": st.booleans(),
    }
)
Like = dict[str, Any]


def spec_of(*, share: float = 0.3, **dedup: Any) -> Spec:
    source = {"kind": "html", "path": "/nowhere", "base_url": "https://a.example/"}
    return Spec.model_validate(
        {
            "name": "a",
            "output": {"url": "/nowhere"},
            "source": source,
            "dedup": {"paragraph_max_documents": 1, **dedup},
            "filter": {"document": {"num_words": {"min": FEWEST}}},
            "shard": {"held_out_fraction": share},
        }
    )


def name(number: int) -> str:
    return digest(f"document {number}")


def tables(documents: list[Like]) -> dict[str, Cut]:
    """Tables before the choice; node 0 is of the document's own, the next are its repeated paragraphs."""
    rows: dict[str, list[dict[str, Any]]] = {"documents": [], "passed": [], "clusters": [], "paragraphs": []}
    first: dict[tuple[str, str], str] = {}
    for number in sorted(range(len(documents)), key=name):
        for kind in ("url", "text"):
            if documents[number][kind]:
                first.setdefault((kind, documents[number][kind]), name(number))
    for number, each in enumerate(documents):
        document_id, url = name(number), f"https://a.example/{number}"
        nodes = [{"kind": "text", "text": f"text {place}"} for place in range(1 + len(each["paragraphs"]))]
        common = {"document_id": document_id, "url": url}
        rows["documents"].append({**common, "page_id": document_id, "nodes": nodes, "dropped": []})
        words = each["words"] + sum(4 + paragraph for paragraph in each["paragraphs"])
        if each["passes"] and words >= FEWEST:
            images = [
                {
                    "image_id": str(p),
                    "url": "",
                    "status": "ok",
                    "sha256": digest(str(p)),
                    "phash": f"{1 << 13 * p:016x}",
                }
                for p in set(each["pictures"])
            ]
            rows["passed"].append(
                {**common, "positions": list(range(len(nodes))), "num_images": each["num_images"], "num_words": words}
                | {"images": images}
            )
        if each["url"] or each["text"]:
            shared = {kind: first.get((kind, each[kind]), document_id) for kind in ("url", "text")}
            rows["clusters"].append(
                {"document_id": document_id, "cluster_id": shared["text"], "text_id": document_id}
                | {"url_id": shared["url"], "copies_id": document_id, "similarity": 0.8}
            )
        rows["paragraphs"] += [
            {"key": digest(f"paragraph {p}"), "document_id": document_id, "position": place + 1, "words": 4 + p}
            for place, p in enumerate(each["paragraphs"])
        ]
    schemas = {"documents": DOCUMENT, "passed": PASSED, "clusters": CLUSTER, "paragraphs": REPEATED}
    order = {"paragraphs": ("key", "document_id", "position")}
    made = {}
    for table, schema in schemas.items():
        by = order.get(table, ("document_id",))
        found = sorted(rows[table], key=lambda row, by=by: tuple(row[column] for column in by))
        made[table] = table_from_rows(found, schema)
    return {table: Cut(found, 3) for table, found in made.items()}


def run(documents: list[Like], storage: Storage, num_ranges: int = 2, **spec: Any) -> tuple[dict[str, Cut], list[dict]]:
    """(Tables, decisions) of the phases."""
    known = tables(documents)
    decisions = []
    for make in PHASES:
        phase = make(spec_of(**spec))
        rows, said, _ = driven(phase, known, evenly(num_ranges), storage)
        known[phase.name] = Cut(rows, num_ranges)
        decisions += said.to_pylist() if said is not None else []
    return known, decisions


def storage_of(folder: Path, documents: Any) -> Storage:
    """A corpus of their own for each example."""
    return Storage(str(folder / digest(json.dumps(documents))))


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(DOCUMENT_LIKE, max_size=9))
def test_every_document_is_kept_or_a_row_says_why_and_no_group_is_lost(tmp_path: Path, documents: list[Like]) -> None:
    found, decisions = run(documents, storage_of(tmp_path, documents))
    passed = {row["document_id"]: row for row in found["passed"].rows.to_pylist()}
    stays = {row["document_id"]: row for row in found["kept"].rows.to_pylist()}
    why = {row["subject_id"]: row for row in decisions if row["kind"] == "document"}
    assert set(why) | set(stays) == set(passed) and not set(why) & set(stays)
    # What the split drops it drops of what was chosen: that is no other choice.
    chosen = set(stays) | {each for each, row in why.items() if row["rule"] == "leaks"}
    by_name = {name(number): each for number, each in enumerate(documents)}
    for kind, other in (("url", "near_duplicate"), ("text", "same_url")):
        for group in {each[kind] for each in documents} - {None}:
            members = [each for each in passed if by_name[each][kind] == group]
            able = [each for each in members if each in chosen or why[each]["rule"] not in ("num_words", other)]
            assert len([each for each in members if each in chosen]) == bool(able), (kind, group)
    for row in why.values():
        if row["rule"] in ("same_url", "near_duplicate"):
            assert row["detail"].removeprefix("kept ") in chosen
    cut = {(row["document_id"], row["position"]): row for row in decisions if row["kind"] == "paragraph"}
    assert all(row["detail"].removeprefix("kept ") in chosen for row in cut.values())
    for paragraph in range(4):
        holders = [each for each in chosen if paragraph in by_name[each]["paragraphs"]]
        places = [(h, 1 + at) for h in holders for at, p in enumerate(by_name[h]["paragraphs"]) if p == paragraph]
        copies = [place for place in places if place not in cut]
        assert len(copies) == (1 if len(holders) > 1 else len(places))
    for document_id, row in stays.items():
        gone = [place for place in passed[document_id]["positions"] if (document_id, place) in cut]
        assert row["positions"] == [place for place in passed[document_id]["positions"] if place not in gone]
        assert len(row["nodes"]) == len(row["positions"])
        assert sum(4 + by_name[document_id]["paragraphs"][place - 1] for place in gone) <= (
            passed[document_id]["num_words"] - FEWEST
        )


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(DOCUMENT_LIKE, max_size=9))
def test_nothing_depends_on_how_work_is_cut(tmp_path: Path, documents: list[Like]) -> None:
    def digests(found: Mapping[str, Cut]) -> list[str]:
        rows = [found[make.__name__].rows for make in PHASES]
        return [table_digest(each.schema, [bucket_digests(each)]) for each in rows]

    one = digests(run(documents, storage_of(tmp_path / "one", documents), 1)[0])
    assert digests(run(documents, storage_of(tmp_path / "five", documents), 5)[0]) == one


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(DOCUMENT_LIKE, min_size=3, max_size=8), st.lists(DOCUMENT_LIKE, max_size=6))
def test_a_later_version_is_split_where_the_first_was(tmp_path: Path, before: list[Like], added: list[Like]) -> None:
    """No picture and no text on both sides; nothing that was trained on is held out when documents are added."""
    storage = storage_of(tmp_path, [before, added])
    sides, borders = [], []
    for documents in (before, before + added):
        found, _ = run(documents, storage)
        sides.append({row["document_id"]: row["split"] for row in found["kept"].rows.to_pylist()})
        borders.append(found["border"].rows.column("border").to_pylist())
        for shown in ({p for p in each["pictures"]} for each in documents):
            for picture in shown:
                of = {sides[-1].get(name(n)) for n, each in enumerate(documents) if picture in each["pictures"]}
                assert of - {None} != {"train", "held_out"}
    assert borders[0] == borders[1] and len(storage.names("splits")) == 1
    assert not {each for each, side in sides[1].items() if side == "held_out" and sides[0].get(each) == "train"}


ALONE: Like = {
    "url": None,
    "text": None,
    "words": 50,
    "paragraphs": [],
    "pictures": [],
    "num_images": 1,
    "passes": True,
}


def test_of_a_corpus_the_wanted_share_is_held_out_and_another_share_is_another_border(tmp_path: Path) -> None:
    documents = [{**ALONE, "pictures": [n % 5] if n < 20 else []} for n in range(400)]
    storage = Storage(str(tmp_path))
    for share in (0.1, 0.3):
        found, decisions = run(documents, storage, share=share)
        sides = found["kept"].rows.column("split").to_pylist()
        assert 0 <= sides.count("held_out") / len(sides) - share < 0.01
        assert {row["rule"] for row in decisions} <= {"leaks"} and len(decisions) + len(sides) == 400
    assert len(storage.names("splits")) == 2
    found, decisions = run(documents, storage, share=0)
    assert set(found["kept"].rows.column("split").to_pylist()) == {"train"} and not decisions


def test_a_border_that_cannot_be_read_is_told_in_one_line(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    run([ALONE] * 3, storage)
    (file,) = storage.names("splits")
    for data in (b"{}", b"[]", b"no"):
        storage.write(f"splits/{file}", data)
        with pytest.raises(Damaged, match=f"^splits/{file} is damaged: .* delete it to split the corpus anew$"):
            run([ALONE] * 3, storage)


def test_a_copy_stays_where_the_one_that_was_preferred_would_be_left_without_text(tmp_path: Path) -> None:
    """Print 1 has more pictures, but its one paragraph stands in another document too; its copy elsewhere does not."""
    first = min(range(3), key=name)
    preferred, copy = (n for n in range(3) if n != first)
    documents: list[Like] = [ALONE] * 3
    documents[first] = {**ALONE, "paragraphs": [3]}
    documents[preferred] = {**ALONE, "text": "t", "words": 4, "paragraphs": [3], "num_images": 3}
    documents[copy] = {**ALONE, "text": "t", "words": 12}
    found, decisions = run(documents, Storage(str(tmp_path)), share=0)
    assert [(row["subject_id"], row["rule"], row["value"]) for row in decisions] == [
        (name(preferred), "num_words", 4.0)
    ]
    assert {row["document_id"] for row in found["kept"].rows.to_pylist()} == {name(first), name(copy)}


@pytest.mark.parametrize("by_pictures", ["never", "always"])
def test_pictures_that_make_copies_are_looked_for_among_all_documents(tmp_path: Path, by_pictures: str) -> None:
    documents = [{**ALONE, "pictures": [1]}, {**ALONE, "pictures": [1]}, {**ALONE, "pictures": [2]}]
    known = tables(documents)
    rows = known["passed"].rows
    shown = pa.array([digest(str(row["images"][0]["phash"])) for row in rows.to_pylist()])
    known["passed"] = Cut(
        rows.set_column(rows.schema.get_field_index("pictures"), rows.schema.field("pictures"), shown), 2
    )
    _, said, counts = driven(choose(spec_of(copies_by_pictures=by_pictures)), known, evenly(2))
    if by_pictures == "never":
        assert said is None and counts["same_pictures"] == 0
    else:
        ids = sorted([name(0), name(1)])
        (row,) = said.to_pylist()
        assert (row["subject_id"], row["rule"], row["detail"]) == (ids[1], "same_pictures", f"kept {ids[0]}")
        assert counts["same_pictures"] == counts["copies_kept"] == 1
