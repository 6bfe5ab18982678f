"""Manifests and records: what is written is what is read, and anything else is one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any

import pytest

from schemas.build_record import BuildRecord
from schemas.manifest import ListedFile, Part, PhaseRecord, TableManifest, VersionManifest

SHARD = ListedFile("shards/train-00000-of-00001.arrow", 3, 700, "0f" * 16)
VERSION = VersionManifest(
    name="small",
    version="abcdef012345",
    shards=(SHARD,),
    schema="shard",
    schema_version=2,
    phases={"pages": f"records/pages/{'1' * 32}/00002.json"},
    spec={"name": "small"},
    counts={"shards.documents": 3},
    run={"seconds": 1.5},
)
TABLE = TableManifest(
    schema="page",
    schema_version=1,
    digest="2" * 32,
    parts=(Part(f"tables/pages/parts/{'3' * 32}.parquet", 3, 70, "3" * 32, 0, (1 << 32) - 1),),
)
RECORD = PhaseRecord(
    phase="pages",
    key="1" * 32,
    generation=2,
    table=f"tables/pages/{'2' * 32}/{'4' * 32}.json",
    digest="2" * 32,
    rows=3,
    decisions=(ListedFile(f"tables/pages/parts/{'5' * 32}.parquet", 1, 9, "5" * 32),),
    ingredients={"inputs": {}, "settings": {"depth": 3}},
    files=(SHARD,),
    counts={"retryable": 1},
    run={"seconds": 1.5},
)
BUILD = BuildRecord(
    id="20260101-a",
    label="small.yaml",
    overrides=("mine.top_k=3",),
    spec={"name": "small"},
    phases={"pages": "work/pages/p1", "documents": ""},
    stores=("rows/score/1",),
    state="running",
    cause="",
    started="2026-01-01T00:00:00Z",
    updated="2026-01-01T00:00:30Z",
    host="here/boot",
    process=7,
)
KINDS: list[tuple[Any, str, str]] = [
    (VERSION, "manifest", "manifest_version"),
    (TABLE, "table", "table_version"),
    (RECORD, "record", "record_version"),
    (BUILD, "build record", "record_version"),
]


def refusal(read: Callable[[str], Any], text: str) -> str:
    with pytest.raises(ValueError) as refused:
        read(text)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(("made", "what", "version"), KINDS)
def test_what_is_written_is_what_is_read(made: Any, what: str, version: str) -> None:
    read = type(made).from_json
    assert read(made.to_json()) == made == read(made.to_json().encode())
    said = json.loads(made.to_json())
    assert said[version] == 2
    assert refusal(read, json.dumps(said | {version: 3})) == f"{what} version 3, and this program reads version 2"
    assert refusal(read, json.dumps(said | {"more": 1})) == f"not a {what}: more is unknown"
    assert refusal(read, "[]") == refusal(read, "{}") == f"not a {what}: it has no {version}"
    assert refusal(read, made.to_json()[:-2]).startswith("not JSON: ")
    for each in fields(made):
        rest = {name: value for name, value in said.items() if name != each.name}
        if each.default is MISSING and each.default_factory is MISSING:
            assert refusal(read, json.dumps(rest)) == f"not a {what}: {each.name} is missing"


def test_a_version_of_an_earlier_release_is_read_and_its_tables_are_not() -> None:
    said = json.loads(VERSION.to_json()) | {"manifest_version": 1, "phases": {"pages": "1" * 32}}
    old = VersionManifest.from_json(json.dumps(said))
    assert old.manifest_version == 1 and old.shards == VERSION.shards and old.phases == {"pages": "1" * 32}
    said["manifest_version"] = 0
    words = "manifest version 0, and this program reads version 2"
    assert refusal(VersionManifest.from_json, json.dumps(said)) == words
    for made, what, version in KINDS[1:]:
        text = json.dumps(json.loads(made.to_json()) | {version: 1})
        assert refusal(type(made).from_json, text) == f"{what} version 1, and this program reads version 2"


def test_a_fault_inside_is_named_by_its_place() -> None:
    said = json.loads(TABLE.to_json())
    said["parts"][0]["first"] = "0"
    assert refusal(TableManifest.from_json, json.dumps(said)) == "not a table: parts.0.first is no int"
    said = json.loads(RECORD.to_json())
    said["decisions"] = [{"name": "x"}]
    assert refusal(PhaseRecord.from_json, json.dumps(said)) == "not a record: decisions.0.rows is missing"
    said = json.loads(BUILD.to_json()) | {"state": "asleep"}
    assert refusal(BuildRecord.from_json, json.dumps(said)) == "not a build record: state 'asleep'"
