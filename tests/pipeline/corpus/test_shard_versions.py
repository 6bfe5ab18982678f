"""A corpus whose shards an older program wrote, or nobody: what report and explain make of it."""

from __future__ import annotations

import io
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.corpus.explanation import explain
from pipeline.corpus.version import Corpus
from pipeline.engine.table import Damaged, described
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
    after = collect(with_shard(corpus, "shards/train-00001-00000.arrow", sink.getvalue(), 2))
    assert after.histograms == before.histograms
    assert [each.blocks for each in after.documents] == [each.blocks for each in before.documents]
    assert [each.negatives for each in after.documents] == [each.negatives + 1 for each in before.documents]


def test_a_listed_file_that_is_no_shard_is_named(tmp_path: Path) -> None:
    corpus = with_shard(write(str(tmp_path)), "shards/train-00000-00000.arrow", b"not arrow", 2)
    with pytest.raises(Damaged, match=r"shards/train-00000-00000\.arrow is not a shard: "):
        collect(corpus)
