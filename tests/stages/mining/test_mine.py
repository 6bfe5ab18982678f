from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.negative import NEGATIVE
from schemas.tables import MINED
from stages.encoders.cosine import row_cosines
from stages.mining.mine import SLICES, MineSettings, mine
from stages.shards.rows import vector_array

DIM = {"image": 12, "sentence": 8}


def unit(vector: np.ndarray) -> np.ndarray:
    return (vector / np.linalg.norm(vector)).astype(np.float16)


def corpus(seed: int, documents: int = 14, contents: int = 25) -> list[dict[str, Any]]:
    """Rows of SLICES with repeated contents, clusters, missing vectors, ties and near-equal perceptual hashes."""
    rng = np.random.default_rng(seed)
    shared = [unit(rng.integers(-2, 3, 6) + 0.01) for _ in range(contents)]
    primary = {kind: [unit(rng.integers(-2, 3, dim) + 0.01) for _ in range(contents)] for kind, dim in DIM.items()}
    rows = []
    for document in range(documents):
        kinds = rng.choice(["image", "sentence", "sentence"], size=rng.integers(1, 7)).tolist()
        matched: list[int | None] = [None] * len(kinds)
        for image in [i for i, kind in enumerate(kinds) if kind == "image"]:
            free = [i for i, kind in enumerate(kinds) if kind == "sentence" and matched[i] is None]
            if free and rng.random() < 0.8:
                matched[image] = int(rng.choice(free))
                matched[matched[image]] = image
        cluster = document // 2 * 2 if rng.random() < 0.3 else document
        for index, kind in enumerate(kinds):
            content = int(rng.integers(contents))
            rows.append(
                {
                    "document_id": f"{document * 7919 % 100:03}",
                    "slice": index,
                    "kind": kind,
                    "content_id": f"{kind}{content}",
                    "cluster_id": f"c{cluster}",
                    # A cluster lies on one side.
                    "split": "held_out" if cluster % 5 == 0 else "train",
                    "primary": None if content == 3 else primary[kind][content],
                    "shared": None if content == 4 else shared[content],
                    "matched": matched[index],
                    "phash": f"{content % 6:016x}" if kind == "image" and content != 5 else None,
                }
            )
    return rows


def table(rows: list[dict[str, Any]]) -> pa.Table:
    columns = [
        vector_array([row[name] for row in rows])
        if name in ("primary", "shared")
        else pa.array([row[name] for row in rows], SLICES.field(name).type)
        for name in SLICES.names
    ]
    return pa.table(columns, schema=SLICES)


def reference(
    rows: list[dict[str, Any]], options: MineSettings
) -> tuple[dict[str, list[dict[str, Any]]], Counter[Any]]:
    """The definition, one pair at a time."""
    by_place = {(row["document_id"], row["slice"]): row for row in rows}
    guards: Counter[Any] = Counter()
    result: dict[str, list[dict[str, Any]]] = {row["document_id"]: [] for row in rows}

    def match(row: dict[str, Any]) -> dict[str, Any] | None:
        return None if row["matched"] is None else by_place[row["document_id"], row["matched"]]

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(row_cosines(a[None], b[None])[0])

    def image_of(row: dict[str, Any]) -> dict[str, Any] | None:
        return row if row["kind"] == "image" else match(row)

    for anchor in sorted(rows, key=lambda row: (row["document_id"], row["slice"])):
        kind = "image_to_sentence" if anchor["kind"] == "image" else "sentence_to_image"
        truth = match(anchor)
        if kind not in options.kinds or anchor["shared"] is None or (truth is None and options.anchors == "matched"):
            continue
        ranked = []
        for row in rows:
            if row["kind"] == anchor["kind"] or row["shared"] is None:
                continue
            if row["document_id"] == anchor["document_id"]:
                guards[kind, "document"] += 1
            elif row["cluster_id"] == anchor["cluster_id"]:
                guards[kind, "cluster"] += 1
            elif row["split"] != anchor["split"]:
                guards[kind, "split"] += 1
            else:
                ranked.append((-cosine(anchor["shared"], row["shared"]), row["document_id"], row["slice"]))
        ranked.sort()
        distinct, seen = [], set()
        for score, document, index in ranked:
            content = by_place[document, index]["content_id"]
            if content not in seen:
                seen.add(content)
                distinct.append((score, by_place[document, index]))
        own = {row["content_id"] for row in rows if row["document_id"] == anchor["document_id"]}
        kept = []
        for score, row in distinct[: options.top_k * options.overfetch]:
            other = match(row)
            pictures = (image_of(anchor), image_of(row))
            hashes = [picture and picture["phash"] for picture in pictures]
            guard = None
            if truth is not None and truth["primary"] is not None and row["primary"] is not None:
                guard = cosine(truth["primary"], row["primary"])
            if row["content_id"] in own or (other is not None and other["content_id"] == anchor["content_id"]):
                guards[kind, "content"] += 1
            elif (
                options.max_phash_distance is not None
                and all(hashes)
                and (int(hashes[0], 16) ^ int(hashes[1], 16)).bit_count() <= options.max_phash_distance
            ):
                guards[kind, "phash"] += 1
            elif (
                options.max_same_modality_similarity is not None
                and guard is not None
                and guard > options.max_same_modality_similarity
            ):
                guards[kind, "similarity"] += 1
            else:
                kept.append((score, row, guard))
        for score, row, guard in kept[: options.top_k]:
            result[anchor["document_id"]].append(
                {"slice": anchor["slice"], "kind": "mined", "direction": kind, "document_id": row["document_id"],
                 "candidate": row["slice"], "text": None, "score": -score, "guard": guard}
            )  # fmt: skip
    return result, guards


def by_document(negatives: pa.Table) -> dict[str, list[dict[str, Any]]]:
    return {row["document_id"]: row["negatives"] for row in negatives.to_pylist()}


@pytest.mark.slow
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(0, 10_000),
    st.sampled_from([1, 2, 3, 50]),
    st.sampled_from([1, 3]),
    st.sampled_from([1, 3, 7, 4096]),
    st.sampled_from(["matched", "all"]),
    st.sampled_from([None, 0.3, 0.9]),
    st.sampled_from([None, 0, 1]),
    st.integers(1, 5),
)
def test_mining_equals_its_definition_however_it_is_cut(
    seed: int, top_k: int, overfetch: int, block: int, anchors: str, bound: float | None, phash: int | None, cuts: int
) -> None:
    rows = corpus(seed)
    options = MineSettings(
        top_k=top_k, overfetch=overfetch, block_size=block, anchors=anchors,
        max_same_modality_similarity=bound, max_phash_distance=phash,
    )  # fmt: skip
    documents = np.random.default_rng(seed).permutation(sorted({row["document_id"] for row in rows})).tolist()
    parts = [[row for row in rows if documents.index(row["document_id"]) % cuts == part] for part in range(cuts)]
    candidates = [table(part) for part in parts if part]
    expected, guards = reference(rows, options)
    found: dict[str, list[dict[str, Any]]] = {}
    counted: Counter[Any] = Counter()
    lengths: Counter[Any] = Counter()
    for part in candidates:  # a partition of queries at a time
        mined = mine(part, candidates, options, device="cpu")
        assert mined.negatives.schema == MINED
        assert not set(found) & set(by_document(mined.negatives))
        found |= by_document(mined.negatives)
        counted.update(mined.guards)
        lengths.update(mined.lists)
    assert found == expected
    assert +counted == +guards
    per_anchor = Counter((n["direction"], d, n["slice"]) for d, ns in expected.items() for n in ns)
    full = Counter(kind for (kind, _, _), count in per_anchor.items() if count == top_k)
    assert {kind: lengths[kind, "full"] for kind in options.kinds} == {kind: full[kind] for kind in options.kinds}


def one(document: str, slice_: int, kind: str, angle: float, matched: int | None = None, **more: Any) -> dict[str, Any]:
    vector = np.array([np.cos(angle), np.sin(angle)], dtype=np.float16)
    row = {
        "document_id": document, "slice": slice_, "kind": kind, "content_id": f"{document}/{slice_}",
        "cluster_id": document, "split": "train", "primary": None, "shared": vector, "matched": matched, "phash": None,
    }  # fmt: skip
    return {**row, **more}


def test_a_caption_used_twice_is_no_negative() -> None:
    rows = [
        one("a", 0, "image", 0.0, 1), one("a", 1, "sentence", 0.1, 0, content_id="caption"),
        one("b", 0, "image", 0.2, 1), one("b", 1, "sentence", 0.1, 0, content_id="caption"),
        one("c", 0, "image", 0.5, 1), one("c", 1, "sentence", 0.6, 0),
    ]  # fmt: skip
    mined = mine(table(rows), [table(rows)], MineSettings(), device="cpu")
    lists = by_document(mined.negatives)
    named = [(n["slice"], n["document_id"], n["candidate"]) for n in lists["a"]]
    assert named == [(0, "c", 1), (1, "c", 0)]
    assert mined.guards["image_to_sentence", "content"] == mined.guards["sentence_to_image", "content"] == 2
    assert mined.lists == {
        ("image_to_sentence", "full"): 0, ("image_to_sentence", "short"): 3, ("image_to_sentence", "empty"): 0,
        ("sentence_to_image", "full"): 0, ("sentence_to_image", "short"): 3, ("sentence_to_image", "empty"): 0,
    }  # fmt: skip


def test_a_collapsed_encoder_still_gives_lists_in_order_of_ids() -> None:
    rows = [
        row
        for index in range(60)
        for row in (one(f"{index:02}", 0, "image", 0.3, 1), one(f"{index:02}", 1, "sentence", 0.3, 0))
    ]
    small = mine(table(rows), [table(rows)], MineSettings(top_k=3, overfetch=2, block_size=7), device="cpu")
    assert [n["document_id"] for n in by_document(small.negatives)["01"]] == ["00", "02", "03"] * 2
    large = mine(table(rows), [table(rows)], MineSettings(top_k=3, overfetch=2), device="cpu")
    assert small.negatives.equals(large.negatives)


def test_partitions_may_hold_no_anchor_no_vector_or_nothing() -> None:
    empty = table([])
    assert mine(pa.table([pa.chunked_array([], field.type) for field in SLICES], schema=SLICES), [], MineSettings())
    lone = table([one("a", 0, "sentence", 0.1), one("b", 0, "image", 0.1, shared=None)])
    assert mine(empty, [lone, empty], MineSettings()).negatives.num_rows == 0
    mined = mine(lone, [empty], MineSettings(anchors="all"))
    assert by_document(mined.negatives) == {"a": [], "b": []}
    assert mined.negatives.column("negatives").type == pa.list_(NEGATIVE)
    assert mined.lists["sentence_to_image", "empty"] == 1


def test_a_match_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"document a: slice 0 is matched to 5, which is not there"):
        mine(table([one("a", 0, "sentence", 0.1, 5)]), [], MineSettings())


def test_settings_come_from_a_spec_as_lists() -> None:
    assert MineSettings.model_validate({"kinds": ["sentence_to_image"]}).kinds == ("sentence_to_image",)
    with pytest.raises(ValueError, match="kinds"):
        MineSettings.model_validate({"kinds": ["image_to_image"]})
