"""Row stores in an S3 bucket: what they ask for, listings in several answers, a server that fails and dawdles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from pipeline.engine.key_range import WHOLE, KeyRange
from pipeline.engine.packs import read_packed
from pipeline.engine.row_store import RowStore
from pipeline.engine.storage import Storage
from tests.s3_server import Call, S3Server, Trouble, filesystem, s3_server

OUTPUT = pa.schema([pa.field("n", pa.int64()), pa.field("body", pa.large_binary())])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    # A file system that was made for another test's server would be taken again.
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with s3_server("corpora") as running:
        for name, value in running.env.items():
            monkeypatch.setenv(name, value)
        yield running
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def rows(numbers: list[int], generation: int = 0) -> pa.Table:
    return pa.table(
        {
            "row_key": [f"{n * 0x01000000:08x}{n:024x}" for n in numbers],
            "generation": pa.array([generation] * len(numbers), pa.int32()),
            "n": pa.array(numbers, pa.int64()),
            "body": pa.array([f"body {n}".encode() * 9 for n in numbers], pa.large_binary()),
        }
    )


def fill(storage: Storage) -> pa.Table:
    """Flushes of two ranges, a kill after the first's compaction, and the second's."""
    store = RowStore(storage, "fetch_page", "k", OUTPUT)
    for numbers in ([1, 7], [3, 9], [5]):
        store.append(rows(numbers))
    store.append(rows([200]), KeyRange(200 << 24, (201 << 24) - 1))
    store.compact(KeyRange(0, (10 << 24) - 1))
    return RowStore(storage, "fetch_page", "k", OUTPUT).compact(rows=rows([3], generation=1))


def test_what_a_range_asks_for_does_not_grow_with_its_rows(server: S3Server) -> None:
    storage = Storage("s3://corpora/small")
    counts = []
    for count in (2, 60):
        server.log.clear()
        store = RowStore(storage, f"f{count}", "k", OUTPUT)
        assert store.keys().num_rows == 0
        found = store.compact(rows=rows(list(range(count))))
        assert read_packed(storage, found.column("body"))[-1] == f"body {count - 1}".encode() * 9
        counts.append(server.kinds())
    # The store is listed; a pack and its rows are put; the pack is read.
    assert counts[0] == counts[1] == {"LIST": 1, "PUT": 2, "GET": 1}
    server.log.clear()
    again = RowStore(storage, "f60", "k", OUTPUT)
    assert again.keys().num_rows == again.compact().num_rows == 60
    # The store and its one folder are listed; the rows are read once.
    assert server.kinds() == {"LIST": 2, "GET": 1}


@pytest.mark.slow
def test_listings_in_several_answers_are_read_to_their_end(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "100")
    storage = Storage("s3://corpora/many")
    found = fill(storage)
    folder = f"corpora/many/{RowStore(storage, 'fetch_page', 'k', OUTPUT).folder}/all"
    # Before and behind what is there, in the order of names.
    more = {f"{folder}/{place}{n:031d}.pack": b"x" for place in "0z" for n in range(60)}
    filesystem(server.env).pipe(more)
    server.log.clear()
    store = RowStore(storage, "fetch_page", "k", OUTPUT)
    assert store.read().equals(found)
    assert server.log.count(Call("LIST", f"{folder.removeprefix('corpora/')}/")) == 2
    assert len(storage.names("rows/fetch_page/k/all")) == len(more) + 4


def _now_and_then(call: Call, number: int) -> Trouble | None:
    if number % 4 == 1:
        return Trouble("503 SlowDown")
    if number % 9 == 2:
        return Trouble("500 InternalError")
    return Trouble(seconds=0.3) if number % 13 == 5 else None


@pytest.mark.slow
def test_a_server_that_fails_and_dawdles_gets_the_same_bytes(server: S3Server, tmp_path: Path) -> None:
    local = Storage(str(tmp_path))
    expected = fill(local)
    server.trouble = _now_and_then
    remote = Storage("s3://corpora/flaky")
    found = fill(remote)
    assert found.equals(expected)
    assert read_packed(remote, found.column("body")) == read_packed(local, expected.column("body"))
    assert remote.walk("rows") == local.walk("rows")
    assert all(remote.read(name) == local.read(name) for name in local.walk("rows"))
    assert RowStore(remote, "fetch_page", "k", OUTPUT).read(WHOLE).equals(expected)
