"""Captures by rows of an index: the same rows as of their whole file, and what rows get wrong is named."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.engine.storage import Storage, StorageError
from pipeline.phases import sources
from pipeline.phases.sources import RowsChunk, check_source, chunks, read_captures
from pipeline.phases.takedowns import Takedowns
from pipeline.spec.loading import Spec
from pipeline.spec.sections import WarcSource
from schemas.page import PAGE
from stages.sources.byte_ranges import BadRange, Range
from stages.sources.sample import Sample
from stages.sources.warc import read_warc
from stages.sources.warc_rows import IndexRow, count_groups, fetch_rows, read_rows, taken_rows
from stages.web.settings import CrawlSettings
from tests.stages.sources.test_warc import HTML, INFO, http, members, record

FILE = "crawl-data/one.warc.gz"
RECORDS = [
    INFO,
    *(record(f"http://h/{name}", http(HTML + name.encode())) for name in "abcde"),
    record("http://h/gone", http(status="404 Not Found")),
    record("http://h/req", b"GET / HTTP/1.1\r\n\r\n", kind="request"),
]
DATA = members(*RECORDS)
STARTS = [len(members(*RECORDS[:index])) for index in range(len(RECORDS) + 1)]


def index_row(url: str, place: int, **more: Any) -> dict[str, Any]:
    start, end = STARTS[place], STARTS[place + 1]
    return {
        "url": url,
        "warc_filename": FILE,
        "warc_record_offset": start,
        "warc_record_length": end - start,
        "content_mime_type": "text/html",
        **more,
    }


ROWS = [index_row(f"http://h/{name}", 1 + place) for place, name in enumerate("abcde")]
ROWS.append(index_row("http://h/gone", 6))


def parquet(path: Path, rows: list[dict[str, Any]], **options: Any) -> str:
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return str(path)


def cdxj(path: Path, rows: list[dict[str, Any]]) -> str:
    lines = b""
    for row in rows:
        said = {"url": row["url"], "filename": row["warc_filename"]}
        said |= {name: str(row[f"warc_record_{name}"]) for name in ("offset", "length")}
        lines += f"h)/ 20200102030405 {json.dumps(said)}\n".encode()
    path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    return str(path)


@pytest.fixture
def base(tmp_path: Path) -> str:
    path = tmp_path / "base" / FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    return str(tmp_path / "base")


def test_rows_are_read_the_same_from_every_kind_of_file(tmp_path: Path) -> None:
    files = [
        parquet(tmp_path / "a.parquet", ROWS),
        parquet(tmp_path / "b.parquet", ROWS, row_group_size=2),
        cdxj(tmp_path / "c.cdxj", ROWS),
        cdxj(tmp_path / "d.cdxj.gz", ROWS),
    ]
    assert [count_groups(path) for path in files] == [1, 3, 1, 1]
    read = [[row for n in range(count_groups(path)) for some in read_rows(path, n) for row in some] for path in files]
    expected = [IndexRow(row["url"], Range(FILE, row["warc_record_offset"], row["warc_record_length"])) for row in ROWS]
    assert read == [expected] * 4


def test_captures_are_those_of_the_whole_file(base: str, tmp_path: Path) -> None:
    [rows] = read_rows(parquet(tmp_path / "a.parquet", ROWS), 0)
    found = fetch_rows(base, rows, CrawlSettings()).to_pylist()
    whole = pa.concat_tables(read_warc(io.BytesIO(DATA), FILE)).to_pylist()
    assert found == whole
    assert {row["reason"] for row in found} == {None, "http_status"}


WRONG = {
    "a record of another URL": (index_row("http://h/a", 2), "a capture of http://h/b lies there"),
    "no capture": (index_row("http://h/a", 7), "no capture lies there"),
    "the middle of a record": (
        index_row("http://h/a", 1, warc_record_offset=STARTS[1] + 3),
        f"a capture of {FILE}#0 lies there",
    ),
    "past the end": (index_row("http://h/a", 1, warc_record_length=10**6), "the file ends"),
    "far past the end": (index_row("http://h/a", 1, warc_record_offset=10**9), "the file ends"),
    "a negative place": (index_row("http://h/a", 1, warc_record_offset=-1), "no record is"),
    "a record of nothing": (index_row("http://h/a", 1, warc_record_length=0), "no record is 0 bytes"),
    "no place": (index_row("http://h/a", 1, warc_record_offset=None), "has no warc_filename, offset or length"),
    "a file above the base": (index_row("http://h/a", 1, warc_filename="../one.warc.gz"), "no file below source.base"),
    "a file elsewhere": (index_row("http://h/a", 1, warc_filename="file:///etc/passwd"), "no file below source.base"),
    "no URL": (index_row("nowhere", 1), "not an absolute"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_a_row_gets_wrong_is_a_row_that_says_so(base: str, tmp_path: Path, name: str) -> None:
    wrong, said = WRONG[name]
    [rows] = read_rows(parquet(tmp_path / "a.parquet", [wrong, *ROWS[3:]]), 0)
    first, *others = fetch_rows(base, rows, CrawlSettings()).to_pylist()
    assert (first["status"], first["reason"], first["retryable"]) == ("error", "malformed", False)
    assert said in first["detail"] and first["url"] == wrong["url"]
    assert [row["url"] for row in others] == [row["url"] for row in ROWS[3:]]
    assert len({row["page_id"] for row in (first, *others)}) == 4


def test_lines_that_are_none_are_told_by_their_number(base: str, tmp_path: Path) -> None:
    path = tmp_path / "a.cdxj"
    path.write_bytes(b'junk\n\nh)/ 2020 {"url": 1}\nh)/ 2020 [\n')
    [rows] = read_rows(str(path), 0)
    found = fetch_rows(base, rows, CrawlSettings()).to_pylist()
    assert [row["url"] for row in found] == [f"{path}#{number}" for number in (0, 2, 3)]
    assert {row["reason"] for row in found} == {"malformed"}


def test_files_that_are_no_index_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"^not a Parquet file$"):
        count_groups(str(tmp_path / "a.parquet"))
    path = parquet(tmp_path / "b.parquet", [{"url": "http://h/a", "warc_filename": FILE}])
    with pytest.raises(ValueError, match="has no column warc_record_offset, warc_record_length"):
        count_groups(path)


def test_a_sample_takes_rows_by_their_pages() -> None:
    rows = [IndexRow(f"http://h/{number}", Range(FILE, 50 - number, 1)) for number in range(40)]
    sample, other = Sample(0.4), Sample(0.4)
    taken = taken_rows([*rows, *rows], sample)
    assert taken == [row for row in rows[::-1] if other.takes(row.url)]
    assert sample.left_out == len(rows) - len(taken)


def captures(out: Path, base: str, path: str) -> tuple[pa.Table, int]:
    """PAGE rows of a file of rows, and how many were read for it."""
    part = mock.Mock(storage=Storage(str(out)))
    source = WarcSource(kind="warc", rows=[path], base=base)
    [chunk] = chunks(source)
    assert isinstance(chunk, RowsChunk)
    table = read_captures(part, source, chunk, CrawlSettings(), Sample(), Takedowns())
    return table, sum(call.args[1] for call in part.tell.call_args_list)


def test_a_run_that_was_stopped_reads_what_is_missing(base: str, tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", ROWS)
    whole, read = captures(tmp_path / "whole", base, path)
    assert read == len(ROWS) and whole.schema.equals(PAGE)
    calls: list[int] = []

    def stops(base: str, rows: list[IndexRow], settings: CrawlSettings) -> pa.Table:
        calls.append(len(rows))
        if len(calls) == 3:
            raise BadRange("http://h/one.warc.gz: bytes 0 to 9: HTTP status 503")
        return fetch_rows(base, rows, settings)

    with mock.patch.object(sources, "_ROWS_AT_A_TIME", 2):
        with mock.patch.object(sources, "fetch_rows", stops), pytest.raises(StorageError, match="HTTP status 503"):
            captures(tmp_path / "parts", base, path)
        again, read = captures(tmp_path / "parts", base, path)
        assert (calls, read) == ([2, 2, 2], 2)
        assert captures(tmp_path / "parts", base, path)[1] == 0
    identity = [name for name in PAGE.names if name != "body"]
    assert again.select(identity).sort_by("page_id").equals(whole.select(identity).sort_by("page_id"))
    assert [row["provenance"]["file"] for row in again.to_pylist()] == [FILE] * len(ROWS)


def test_mistakes_of_the_spec_are_one_line(tmp_path: Path) -> None:
    def spec(**source: Any) -> Spec:
        return Spec.model_validate(
            {"name": "x", "output": {"url": str(tmp_path)}, "source": {"kind": "warc", **source}}
        )

    for source in ({}, {"paths": ["a"], "rows": ["b"]}):
        with pytest.raises(ValueError, match="give paths, files that are read whole, or rows"):
            spec(**source)
    with pytest.raises(Exception, match=r"source\.rows: .*: no such file"):
        check_source(spec(rows=[str(tmp_path / "none.parquet")]))
    (tmp_path / "a.parquet").write_bytes(b"nothing")
    bad = spec(rows=[str(tmp_path / "a.parquet")]).source
    assert isinstance(bad, WarcSource)
    with pytest.raises(Exception, match=r"source\.rows: .*a\.parquet: not a Parquet file"):
        chunks(bad)
    with pytest.raises(Exception, match=r"source\.base: "):
        check_source(spec(rows=[str(tmp_path / "a.parquet")], base="https://user:secret@h/"))
