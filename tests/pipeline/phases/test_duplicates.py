"""Near-duplicates through their phases: the same clusters however tables and work are cut, and nobody else's rows."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

import pyarrow as pa
import pytest

from pipeline.engine.key_range import evenly
from pipeline.engine.recovery import line_for_people
from pipeline.phases.duplicates import candidate_pairs, clusters, edges, similarities
from pipeline.spec.loading import Spec
from schemas.contract import conform
from schemas.digests import bucket_digests, table_digest
from schemas.keys import digest
from schemas.tables import CLUSTER, SELECTED, SIGNATURE
from stages.dedup import components
from stages.dedup.banding import BAND, TEXT, URL
from stages.dedup.near import MinHashSignatures
from stages.dedup.shingles import shingles
from stages.text.normal_form import text_hash
from tests.pipeline.phases.driving import Cut, driven

PHASES = (edges, candidate_pairs, similarities, clusters)
BOILERPLATE = " ".join(f"word{number}" for number in range(300))


def texts() -> dict[str, str]:
    """Families of near-duplicates, one of them in a hot bucket, among strangers; one text has no word."""
    chance = random.Random(3)
    vocabulary = [f"w{number}" for number in range(5000)]
    found = ["... !"]
    for family in range(30):
        words = chance.choices(vocabulary, k=300)
        for copy in range(family % 4 + 1):
            edited = list(words)
            edited[7 * copy : 7 * copy + 2 * copy] = chance.choices(vocabulary, k=2 * copy)
            found.append(" ".join(edited))
    found += [f"{BOILERPLATE} end{number}" for number in range(40)]
    found.append(found[1])
    return {digest(str(number)): text for number, text in enumerate(found)}


def spec_of(**dedup: Any) -> Spec:
    source = {"kind": "html", "path": "/nowhere", "base_url": "https://a.example/"}
    return Spec.model_validate({"name": "a", "output": {"url": "/nowhere"}, "source": source, "dedup": dedup})


@cache
def signed() -> dict[str, pa.Table]:
    """The tables "text" and "signatures" of the texts."""
    known = dict(sorted(texts().items()))
    signature = MinHashSignatures(spec_of().dedup)(pa.table({"text": pa.array(known.values(), pa.large_string())}))
    hashes = [text_hash(text) if any(char.isalnum() for char in text) else None for text in known.values()]
    # Two strangers have one URL.
    urls = [digest("one URL") if place < 2 else digest(name, "URL") for place, name in enumerate(known)]
    facts = {"document_id": list(known), "text_hash": hashes, "url_key": urls}
    none = [[]] * len(known)
    text = {**facts, "language": none, "positions": none, "num_images": [0] * len(known), "text": list(known.values())}
    text["language"] = [None] * len(known)
    return {
        "text": conform(pa.table([pa.array(text[f.name], f.type) for f in SELECTED], SELECTED.names), SELECTED),
        "signatures": conform(pa.table({**facts, "signature": signature.column("signature")}), SIGNATURE),
    }


def run(num_ranges: int, **dedup: Any) -> tuple[dict[str, Cut], dict[str, dict[str, int]]]:
    """(tables, counts) of the phases, worked on and cut in as many ranges."""
    spec = spec_of(**dedup)
    tables = {name: Cut(rows, num_ranges) for name, rows in signed().items()}
    counted = {}
    for make in PHASES:
        phase = make(spec)
        rows, decisions, counted[phase.name] = driven(phase, tables, evenly(num_ranges))
        assert decisions is None, "which copy stays is not said yet"
        tables[phase.name] = Cut(rows, num_ranges)
    return tables, counted


def digests(tables: Mapping[str, Cut]) -> dict[str, str]:
    return {
        name: table_digest(cut.rows.schema, [bucket_digests(cut.rows)])
        for name, cut in tables.items()
        if name not in signed()
    }


@pytest.mark.parametrize("verify", ["signature", "jaccard", "none"])
def test_clusters_do_not_depend_on_how_work_is_cut(verify: str) -> None:
    whole, counted = run(1, verify=verify)
    for num_ranges in (3, 16):
        tables, counts = run(num_ranges, verify=verify)
        assert digests(tables) == digests(whole) and counts == counted


def test_only_documents_with_an_edge_meet_and_each_pair_once() -> None:
    tables, counted = run(4)
    assert {name: cut.read_whole for name, cut in tables.items() if cut.read_whole} == {"similarities": 1}
    pairs = tables["candidate_pairs"].rows
    assert counted["candidate_pairs"]["pairs"] == pairs.num_rows == tables["similarities"].rows.num_rows
    assert pairs.num_rows < tables["edges"].rows.num_rows
    a, b = (pairs.column("a").to_pylist(), [bytes.fromhex(each) for each in pairs.column("document_id").to_pylist()])
    kinds = pairs.column("kind").to_pylist()
    assert len(set(zip(a, b, kinds, strict=True))) == len(a)
    assert all(one < other for one, other in zip(a, b, strict=True)) and set(kinds) == {BAND, TEXT, URL}


def test_clusters_are_the_families() -> None:
    """Against Jaccard of all pairs, whose families are far apart."""
    known = {document_id: set(shingles(text, 5)) for document_id, text in texts().items()}
    tables, counted = run(4, verify="jaccard")
    similar = {
        (a, b)
        for a, one in known.items()
        for b, other in known.items()
        if a < b and len(one & other) / max(1, len(one | other)) >= 0.7
    }
    found = tables["clusters"].rows.to_pylist()
    cluster_of = {row["document_id"]: row["cluster_id"] for row in found}
    of_one_url = sorted(known)[:2]
    assert set(cluster_of) == {each for pair in similar for each in pair} | set(of_one_url)
    assert all(cluster_of[a] == cluster_of[b] for a, b in similar)
    assert all(cluster_of[cluster] == cluster <= document_id for document_id, cluster in cluster_of.items())
    assert [row["url_id"] for row in found if row["document_id"] in of_one_url] == [of_one_url[0]] * 2
    assert cluster_of[of_one_url[0]] != cluster_of[of_one_url[1]]
    sizes = Counter(cluster_of.values())
    assert counted["clusters"]["clusters"] == sum(size > 1 for size in sizes.values())
    assert all((row["similarity"] or 0) >= 0.7 for row in found if sizes[row["cluster_id"]] > 1)


def test_a_hot_bucket_is_counted_and_keeps_its_edges() -> None:
    tables, counted = run(4, max_bucket=20)
    assert counted["edges"]["hot_buckets"] > 0
    boilerplate = {document_id for document_id, text in texts().items() if text.startswith(BOILERPLATE)}
    rows = tables["clusters"].rows.to_pylist()
    assert {row["cluster_id"] for row in rows if row["document_id"] in boilerplate} == {min(boilerplate)}
    assert run(4)[1]["edges"]["hot_buckets"] == 0


def test_more_pairs_than_one_process_joins_end_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components.Components.__init__, "__defaults__", (10, 1))
    with pytest.raises(components.TooManyEdges) as failed:
        run(2)
    (line,) = str(failed.value).splitlines()
    assert line.startswith(
        "dedup: more than 10 pairs of documents that may be copies, which one process cannot join: raise"
    )
    assert line_for_people(failed.value) == line


def test_texts_are_read_for_exact_jaccard_alone() -> None:
    assert "text" in similarities(spec_of(verify="jaccard")).inputs
    assert "text" not in similarities(spec_of()).inputs
    assert all("text" not in make(spec_of(verify="jaccard")).inputs for make in PHASES if make is not similarities)


def test_no_pair_no_cluster() -> None:
    tables: dict[str, Cut] = {name: Cut(rows.slice(0, 1), 1) for name, rows in signed().items()}
    for make in PHASES:
        rows, decisions, _ = driven(make(spec_of()), tables, evenly(2))
        assert decisions is None and rows.num_rows == 0
        tables[make.__name__] = Cut(rows, 1)
    assert tables["clusters"].rows.schema.equals(CLUSTER, check_metadata=True)
