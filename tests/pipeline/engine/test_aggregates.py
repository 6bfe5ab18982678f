"""The same rows give the same aggregates, however they are cut, and whether this process, dask or Ray counts them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.engine import aggregates
from pipeline.engine.aggregates import Aggregate, Ranking, Rows, counts, decision_rows, matching, table_rows, totals
from pipeline.engine.damage import Damaged
from pipeline.engine.storage import Storage
from pipeline.engine.table import Table
from schemas.decision import DECISION
from schemas.tables import CLUSTER
from tests.pipeline.small_corpus import decisions, document_id, write

SCHEMA = pa.schema([("host", pa.string()), ("language", pa.string()), ("bytes", pa.int64())])
MOST = 5
WANTED = (
    counts("language"),
    counts("host", "language"),
    totals("bytes"),
    Ranking("host", MOST),
    matching("host", ["host-07", "host-11"]),
)


def rows() -> list[dict[str, Any]]:
    """Hosts of unequal size, some of the same; sums that no float64 holds."""
    draw = random.Random(0)
    hosts = [f"host-{min(draw.randrange(40), draw.randrange(40)):02d}" for _ in range(600)] + [None] * 9
    languages = ("en", "de", None)
    return [{"host": host, "language": draw.choice(languages), "bytes": 2**53 + 1} for host in hosts]


def cut(found: list[dict[str, Any]], pieces: int, seed: int) -> Rows:
    """The rows in order, in so many pieces, some of them empty."""
    ends = sorted(random.Random(seed).choices(range(len(found) + 1), k=pieces - 1))
    parts = [found[a:b] for a, b in zip([0, *ends], [*ends, len(found)], strict=True)]
    return Rows(read, parts, SCHEMA, 3)


def read(part: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(part, schema=SCHEMA)


@pytest.fixture
def much(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is little enough to be counted without dask; names are spread over processes."""
    monkeypatch.setattr(aggregates, "FEW_BYTES", 0)
    monkeypatch.setattr(aggregates, "SPREAD_BYTES", 1)
    yield


def expected() -> list[list[dict[str, Any]]]:
    """Counted by Python."""
    found = rows()
    hosts = Counter(row["host"] for row in found)
    ranked = sorted(hosts.items(), key=lambda item: (-item[1], str(item[0])))
    rest = ranked[MOST:]
    by_language = Counter(row["language"] for row in found)
    by_both = Counter((row["host"], row["language"]) for row in found)

    def nulls_last(key: Any) -> Any:
        return [(each is None, each or "") for each in (key if isinstance(key, tuple) else (key,))]

    return [
        [{"language": key, "n": by_language[key]} for key in sorted(by_language, key=nulls_last)],
        [{"host": h, "language": x, "n": by_both[h, x]} for h, x in sorted(by_both, key=nulls_last)],
        [{"bytes": len(found) * (2**53 + 1)}],
        [
            *({"host": host, "n": n, "others": None} for host, n in ranked[:MOST]),
            {"host": None, "n": sum(n for _, n in rest), "others": len(rest)},
        ],
        [row for row in found if row["host"] in ("host-07", "host-11")],
    ]


@pytest.mark.parametrize("pieces", [1, 2, 23])
def test_this_process_counts_little(pieces: int) -> None:
    assert [answer.to_pylist() for answer in cut(rows(), pieces, 1).aggregate(*WANTED)] == expected()


@pytest.mark.parametrize("pieces", [1, 2, 23])
def test_dask_counts_much(pieces: int, much: None) -> None:
    assert [answer.to_pylist() for answer in cut(rows(), pieces, 2).aggregate(*WANTED)] == expected()


def test_so_it_does_on_ray(local_ray: dict[str, float], much: None) -> None:
    for pieces in (1, 23):
        assert [answer.to_pylist() for answer in cut(rows(), pieces, 3).aggregate(*WANTED)] == expected()


def test_nothing_is_counted_too(much: None) -> None:
    for nothing in (Rows(read, [], SCHEMA, 0), Rows(read, [[], []], SCHEMA, 1)):
        by_language, by_both, size, hosts, some = (answer.to_pylist() for answer in nothing.aggregate(*WANTED))
        assert size == [{"bytes": 0}] and not (by_language or by_both or hosts or some)


def _read_once(part: Path) -> pa.Table:
    with part.open("a") as log:
        log.write("read\n")
    return read(rows())


def test_every_part_is_read_once_for_all_that_is_wanted(tmp_path: Path, much: None) -> None:
    parts = [tmp_path / name for name in "ab"]
    Rows(_read_once, parts, SCHEMA, 1).aggregate(*WANTED)
    assert [part.read_text() for part in parts] == ["read\n"] * 2


def _nested(table: pa.Table) -> pa.Table:
    return table.slice(0, 1)


def test_lists_of_structs_and_bytes_come_through_dask_as_they_are(much: None) -> None:
    schema = pa.schema([("images", pa.list_(pa.struct([("bytes", pa.large_binary()), ("width", pa.int32())])))])
    found = [{"images": [{"bytes": b"\x00\xff", "width": 3}, {"bytes": None, "width": None}]}, {"images": None}]
    (answer,) = Rows(_Fixed(schema), [found, found], schema, 1).aggregate(Aggregate(_nested, _nested))
    assert answer.schema == schema and answer.to_pylist() == found[:1]


class _Fixed:
    """Reads rows of a schema."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema

    def __call__(self, part: list[dict[str, Any]]) -> pa.Table:
        return pa.Table.from_pylist(part, schema=self._schema)


def test_of_a_table_some_columns_are_read_and_of_a_corpus_all_decisions(tmp_path: Path, much: None) -> None:
    corpus = write(str(tmp_path))
    (found,) = table_rows(corpus.table("clusters"), CLUSTER, ("cluster_id",)).aggregate(counts("cluster_id"))
    assert {row["cluster_id"]: row["n"] for row in found.to_pylist()}[document_id("/dogs")] == 2
    tables = [corpus.table(phase) for phase in corpus.phases]
    (ruled,) = decision_rows(tables, DECISION).aggregate(counts("phase"))
    assert {row["phase"]: row["n"] for row in ruled.to_pylist()} == {k: len(v) for k, v in decisions().items()}
    assert len(decision_rows([], DECISION).aggregate(counts("phase"))[0]) == 0


@pytest.mark.parametrize("on_ray", [False, pytest.param(True, marks=pytest.mark.ray)])
def test_damage_is_told_in_its_own_words(
    tmp_path: Path, much: None, on_ray: bool, request: pytest.FixtureRequest
) -> None:
    if on_ray:
        request.getfixturevalue("local_ray")
    table: Table = write(str(tmp_path)).table("clusters")
    Storage(str(tmp_path)).write(table.parts[0].name, b"other bytes")
    with pytest.raises(Damaged) as told:
        table_rows(table, CLUSTER, ("cluster_id",)).aggregate(counts("cluster_id"))
    assert str(told.value).count("\n") == 0 and told.value.name == table.parts[0].name
