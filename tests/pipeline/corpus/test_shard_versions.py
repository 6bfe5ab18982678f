"""A corpus whose shards an older program wrote, or nobody: what report and explain make of it."""

from __future__ import annotations

import io
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.corpus.explanation import explain
from pipeline.corpus.version import Corpus
from pipeline.engine.damage import Damaged
from pipeline.engine.table import described
from pipeline.report.collect import collect
from schemas.contract import table_from_rows
from schemas.shard import SHARD
from schemas.shard_v1 import SHARD_V1
from tests.pipeline.small_corpus import SITE, write
from tests.trainer.fabricated import version_1


def with_shard(corpus: Corpus, name: str, data: bytes, version: int) -> Corpus:
    """The same version of the corpus, with this file for its only shard."""
    shard = described(name, data, 2)
    corpus.storage.write(f"{corpus.folder}/{name}", data)
    manifest = replace(corpus.manifest, shards=(shard,), schema_version=version)
    corpus.storage.write(f"{corpus.folder}/manifest.json", manifest.to_json().encode())
    return Corpus(corpus.storage.url)


def in_version_1(corpus: Corpus) -> Corpus:
    rows = [version_1(row) for table in corpus.shards() for row in table.to_pylist()]
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, SHARD_V1) as writer:
        writer.write_table(table_from_rows(rows, SHARD_V1))
    return with_shard(corpus, "shards/part-00000.arrow", sink.getvalue(), 1)


def unmatched(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that do not say how a match was found."""
    return [{**row, "slices": [{**piece, "match_kind": None} for piece in row["slices"]]} for row in rows]


@pytest.mark.slow
def test_a_corpus_of_version_1_reads_as_one_of_today(tmp_path: Path) -> None:
    new = write(str(tmp_path))
    (table,) = new.shards()
    told, page = list(explain(new, f"{SITE}/cats")), asdict(collect(new))
    assert {piece["match_kind"] for row in table.to_pylist() for piece in row["slices"]} == {"similarity", None}

    old = in_version_1(new)
    (again,) = old.shards()
    assert again.schema.equals(SHARD, check_metadata=True)
    # nan == nan: vectors and matrices are compared as they are printed.
    assert repr(again.to_pylist()) == repr(unmatched(table.to_pylist()))
    assert list(explain(old, f"{SITE}/cats")) == told
    for name in ("documents", "histograms"):
        assert repr(asdict(collect(old))[name]) == repr(page[name])


@pytest.mark.slow
def test_the_report_shows_what_was_mined_alone(tmp_path: Path) -> None:
    corpus = write(str(tmp_path))
    before = collect(corpus)
    (table,) = corpus.shards()
    rows = table.to_pylist()
    empty = dict.fromkeys(("document_id", "candidate", "guard"))
    for row in rows:
        wrong = {"kind": "counterfactual", "direction": "sentence_to_image", "text": "A dog.", "score": 0.9}
        row["negatives"].append({**empty, **wrong, "slice": 0})
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, SHARD) as writer:
        writer.write_table(table_from_rows(rows, SHARD))
    after = collect(with_shard(corpus, "shards/train-00000-of-00001.arrow", sink.getvalue(), 2))
    assert after.histograms == before.histograms
    assert [each.blocks for each in after.documents] == [each.blocks for each in before.documents]
    assert [each.negatives for each in after.documents] == [each.negatives + 1 for each in before.documents]


@pytest.mark.slow
def test_a_listed_file_that_is_no_shard_is_named(tmp_path: Path) -> None:
    corpus = with_shard(write(str(tmp_path)), "shards/train-00000-of-00001.arrow", b"not arrow", 2)
    with pytest.raises(Damaged, match=r"shards/train-00000-of-00001\.arrow is not a shard: "):
        collect(corpus)


def test_tables_of_an_earlier_release_are_one_line_and_its_shards_are_read(tmp_path: Path) -> None:
    corpus = write(str(tmp_path))
    (before,) = corpus.shards()
    phases = {phase: f"{index:032x}" for index, phase in enumerate(corpus.phases)}
    manifest = replace(corpus.manifest, manifest_version=1, phases=phases)
    corpus.storage.write(f"{corpus.folder}/manifest.json", manifest.to_json().encode())
    old = Corpus(corpus.storage.url)
    (after,) = old.shards()
    assert after.equals(before)
    told = f"{corpus.folder}/manifest.json: the tables of this version are of an earlier release: build again, which "
    for ask in (lambda: old.table("pages"), lambda: list(explain(old, f"{SITE}/cats")), lambda: collect(old)):
        with pytest.raises(Damaged, match=re.escape(told)) as damage:
            ask()
        assert "\n" not in str(damage.value)


def test_a_table_is_known_by_its_record(tmp_path: Path) -> None:
    corpus = write(str(tmp_path))
    record = corpus.table("documents").record
    assert (record.phase, record.rows, record.counts) == ("documents", 4, {"pages_fetched": 4, "pages": 6})
    assert record.run["rows_computed"] == 4 and record.ingredients["libraries"] == {"pyarrow": pa.__version__}
    assert corpus.table("documents").record_name == corpus.manifest.phases["documents"]
    keys = corpus.rows("documents").column("document_id").to_pylist()
    assert keys == sorted(keys) and len(keys) == 4
    name = corpus.manifest.phases["documents"]
    corpus.storage.delete(name)
    with pytest.raises(Damaged, match=rf"{name} is missing: build again"):
        Corpus(corpus.storage.url).table("documents")
