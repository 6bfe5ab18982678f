"""Card and report are the same bytes, however the tables are cut into files and wherever their rows are counted."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import xxhash

from pipeline.corpus.card import card
from pipeline.corpus.card_facts import summary
from pipeline.corpus.version import Corpus
from pipeline.engine import aggregates
from pipeline.engine.key_range import KeyRange, evenly, within
from pipeline.engine.storage import Storage
from pipeline.engine.table import Table, put_parquet
from pipeline.report.collect import collect
from pipeline.report.render import render
from schemas.contract import key_of
from schemas.manifest import Part, TableManifest


def cut(out: Path, pieces: int) -> Corpus:
    """The corpus with each of its tables in so many files, and each phase's decisions too."""
    corpus = Corpus(str(out))
    for phase in corpus.phases:
        table = corpus.table(phase)
        if table.record.rows:
            _cut_table(corpus.storage, table, pieces)
    return Corpus(str(out))


def _cut_table(storage: Storage, table: Table, pieces: int) -> None:
    phase = table.record.phase
    manifest = TableManifest.from_json(storage.read(table.record.table))
    rows = pa.concat_tables(table.read_all())
    key = key_of(rows.schema)
    rows = rows.sort_by(key)
    parts = [_part(storage, phase, within(rows, key, keys), keys) for keys in evenly(pieces)]
    data = replace(manifest, parts=tuple(parts)).to_json().encode()
    # Under a name of its own: what is named by its hash does not change.
    name = f"tables/{phase}/{manifest.digest}/{xxhash.xxh3_128_hexdigest(data)}.json"
    storage.write(name, data)
    files = []
    if decided := list(table.decisions()):
        said = pa.concat_tables(decided)
        size = -(-len(said) // pieces)
        slices = [said.slice(at, size) for at in range(0, len(said), size)]
        files = [put_parquet(storage, f"tables/{phase}/decisions", each) for each in slices]
    record = replace(table.record, table=name, decisions=tuple(files))
    storage.write(table.record_name, record.to_json().encode())


def _part(storage: Storage, phase: str, rows: pa.Table, keys: KeyRange) -> Part:
    file = put_parquet(storage, f"tables/{phase}/parts", rows)
    return Part(file.name, file.rows, file.bytes, file.hash, keys.first, keys.last)


def said(corpus: Corpus) -> tuple[str, str]:
    """Card and page; where a copy lies is left out."""
    return card(summary(corpus)), render(collect(corpus)).replace(
        str(corpus.storage), corpus.manifest.spec["output"]["url"]
    )


def test_card_and_report_follow_the_rows_alone(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    shown = said(Corpus(str(built)))
    version = (built / "latest").read_text().strip()
    assert shown[0] == (built / "versions" / version / "README.md").read_text()
    corpora = []
    for pieces in (1, 9):
        shutil.copytree(built, tmp_path / str(pieces))
        corpora.append(cut(tmp_path / str(pieces), pieces))
        assert len(corpora[-1].table("documents").parts) == pieces
    assert list(map(said, corpora)) == [shown, shown], "counted by this process"
    monkeypatch.setattr(aggregates, "FEW_BYTES", 0)
    assert list(map(said, corpora)) == [shown, shown], "counted by dask in this process"
    request.getfixturevalue("local_ray")
    assert list(map(said, corpora)) == [shown, shown], "counted by dask on Ray"
