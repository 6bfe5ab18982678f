"""Documents that were extracted elsewhere: every layout, every damage, a batch at a time."""

from __future__ import annotations

import gzip
import io
import json
import random
import tracemalloc
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.document import DOCUMENT
from schemas.keys import digest
from stages.sources import document_blocks
from stages.sources.document_blocks import Block, read_blocks
from stages.sources.documents import HEADER, READ, Piece, find_layout, read_documents, read_headers
from stages.sources.sample import Sample, in_sample
from stages.text.normal_form import text_hash
from stages.web.urls import url_id
from tests.given import lines, mmc4, obelics, parquet, zipped

URL = "http://site.test/page"


def read(data: bytes, name: str, layout: str = "auto", sample: float = 1.0, pieces: int = 1) -> list[dict[str, Any]]:
    """Rows of a file by place, read in pieces; their headers must be those that are read alone."""
    found: list[dict[str, Any]] = []
    for index in range(pieces):
        piece = Piece(name, index, pieces)
        tables = list(read_documents(io.BytesIO(data), piece, layout, Sample(sample)))
        assert all(table.schema.equals(READ) for table in tables)
        for table in tables:
            table.validate(full=True)
            found += table.to_pylist()
        headers = [row for t in read_headers(io.BytesIO(data), piece, layout, Sample(sample)) for row in t.to_pylist()]
        mine = sorted(found, key=lambda row: row["place"])[-len(headers) :] if headers else []
        told = [{name: row[name] for name in HEADER.names if name not in ("reason", "detail")} for row in mine]
        assert told == [{name: row[name] for name in told[0]} for row in sorted(headers, key=lambda r: r["place"])]
    return sorted(found, key=lambda row: row["place"])


def one(row: dict[str, Any]) -> dict[str, Any]:
    """The document of one row of a Parquet file."""
    (found,) = read(parquet([row]), "a.parquet")
    assert found["reason"] is None, found["detail"]
    return found


def shown(document: dict[str, Any]) -> list[str]:
    return [node["text"] if node["kind"] == "text" else node["image_url"] for node in document["nodes"]]


def text(words: str | None) -> dict[str, Any]:
    return {"kind": "text", "text": words, "image_url": None, "alt": None}


def image(url: str | None, **more: Any) -> dict[str, Any]:
    return {"kind": "image", "text": None, "image_url": url, "alt": None, **more}


def test_our_own_layout_is_taken_as_it_is() -> None:
    nodes = [
        {**text("Two  blanks\nand a line"), "tag": "pre", "separator": "\n"},
        {**image("http://site.test/a.jpg"), "tag": "img", "caption": "A caption", "rendered_width": 300},
        {**image("data:image/png;base64,AAAA"), "tag": "img", "alt": "logo.png"},
    ]
    given = {
        "document_id": "0123456789abcdef" * 2,
        "page_id": "0123456789abcdef" * 2,
        "url": URL,
        "title": "A title",
        "language": "en",
        "license": "http://site.test/license",
        "nodes": nodes,
        "dropped": [],
    }
    (found,) = read(parquet([given], pa.schema(list(DOCUMENT))), "a.parquet")
    for name in ("document_id", "url", "title", "language", "license"):
        assert found[name] == given[name]
    assert shown(found) == ["Two  blanks\nand a line", "http://site.test/a.jpg", "data:image/png;base64,AAAA"]
    assert [node["tag"] for node in found["nodes"]] == ["pre", "img", "img"]
    assert found["nodes"][0]["separator"] == "\n" and found["nodes"][2]["alt"] == "logo.png"
    assert found["nodes"][1]["caption"] == "A caption" and found["nodes"][1]["rendered_width"] == 300
    assert found["nodes"][1]["image_id"] == url_id("http://site.test/a.jpg")
    assert found["text_hash"] == text_hash("Two  blanks\nand a line") and not found["images"] and not found["dropped"]


def test_our_own_layout_needs_no_more_than_url_and_nodes() -> None:
    rows = [{"url": URL, "nodes": [{"kind": "text", "text": "a"}]}, {"url": URL, "nodes": []}]
    for data, name in (
        (parquet(rows), "a.parquet"),
        (lines(rows), "a.jsonl"),
        (gzip.compress(lines(rows)), "a.jsonl.gz"),
    ):
        first, second = read(data, name)
        assert shown(first) == ["a"] and first["nodes"][0]["separator"] == "\n\n" and first["nodes"][0]["tag"] == "p"
        assert second["nodes"] == [] and second["text_hash"] is None and second["reason"] is None
        assert first["document_id"] != second["document_id"]


def test_nodes_that_are_none_are_left_out_by_a_rule() -> None:
    nodes = [text("a"), {**text("v"), "kind": "video"}, text(None), image(None), image("ftp://x/y"), text("b")]
    found = one({"url": URL, "nodes": nodes})
    assert shown(found) == ["a", "b"]
    assert {(each["kind"], each["rule"], each["detail"]) for each in found["dropped"]} == {
        ("text", "unknown_kind", "video: v"),
        ("text", "empty_text", None),
        ("image", "no_source", None),
        ("image", "bad_url", "ftp://x/y"),
    }


def test_ids_are_kept_or_hashed() -> None:
    rows = [{"document_id": each, "url": URL, "nodes": []} for each in ("ab" * 16, "doc-1", None)]
    first, second, third = read(parquet(rows), "a.parquet")
    assert first["document_id"] == "ab" * 16 and second["document_id"] == digest("doc-1")
    assert len(third["document_id"]) == 32
    (elsewhere,) = read(parquet(rows[2:]), "b.parquet")
    assert elsewhere["document_id"] != third["document_id"]


def test_obelics_in_reading_order() -> None:
    row = {
        "images": ["http://site.test/1.jpg", None, "/2.png", None],
        "texts": [None, "One  two\n\n\n\n three \u00a0 four", None, "END_OF_DOCUMENT_TOKEN_TO_BE_REPLACED\n\nfive"],
        "metadata": json.dumps(
            [
                {"src": "x", "alt_text": " An  alt ", "rendered_width": 300, "rendered_height": 200, "format": "jpeg"},
                None,
                {"alt_text": "2.png"},
                None,
            ]
        ),
        "general_metadata": json.dumps({"url": "HTTP://Site.test/page#part", "warc_filename": "w"}),
    }
    for found in (one(row), *read(lines([row]), "a.jsonl"), *read(zipped({"a": lines([row])}), "a.jsonl.zip")):
        assert found["url"] == URL
        assert shown(found) == [
            "http://site.test/1.jpg", "One two", "three four", "http://site.test/2.png", "five"
        ]  # fmt: skip
        first, second = found["nodes"][0], found["nodes"][3]
        assert (first["alt"], first["rendered_width"], first["rendered_height"]) == ("An alt", 300, 200)
        assert second["alt"] is None and second["rendered_width"] is None
        assert [each["rule"] for each in found["dropped"]] == ["end_of_document"]


@pytest.mark.parametrize("size", [300, 300.0, "300", "300.7"])
def test_obelics_sizes_however_they_are_written(size: object) -> None:
    row = obelics(URL, [image("http://site.test/1.jpg"), text("a")])
    sizes = [{"rendered_width": size, "rendered_height": "100%"}, None]
    found = one(row | {"metadata": json.dumps(sizes)})
    assert (found["nodes"][0]["rendered_width"], found["nodes"][0]["rendered_height"]) == (300, None)


@pytest.mark.parametrize("metadata", ["nonsense", "[null]", "{}", '[{"alt_text": 3}, null]'])
def test_obelics_metadata_that_fits_no_places_is_left_out(metadata: str) -> None:
    row = obelics(URL, [image("http://site.test/1.jpg"), text("a")]) | {"metadata": metadata}
    good = obelics(URL, [image("http://site.test/1.jpg", alt="an alt"), text("a")])
    found, other = read(parquet([row, good]), "a.parquet")
    assert shown(found) == shown(other) == ["http://site.test/1.jpg", "a"]
    assert found["dropped"] == [{"kind": "text", "rule": "bad_metadata", "detail": metadata}]
    assert other["dropped"] == [] and other["nodes"][0]["alt"] == "an alt"
    (missing,) = read(parquet([good | {"metadata": None}]), "a.parquet", "obelics")
    assert missing["dropped"] == [] and missing["nodes"][0]["alt"] is None


def test_obelics_with_bytes() -> None:
    """By the address that the metadata tells, the path, or else their content; equal addresses do not mix bytes up."""
    row = {
        "images": [
            {"bytes": b"first", "path": "1.jpg"},
            {"bytes": b"second", "path": "http://site.test/2.jpg"},
            None,
            {"bytes": b"third", "path": "3.jpg"},
            {"bytes": b"fourth", "path": None},
            {"bytes": None, "path": "5.jpg"},
        ],
        "texts": [None, None, "words", None, None, None],
        "metadata": json.dumps([{"src": URL}, None, None, None, {"src": URL}, None]),
        "general_metadata": json.dumps({"url": URL}),
    }
    found = one(row)
    assert [node["image_url"] and node["image_url"][:22] for node in found["nodes"]] == [
        URL[:22], "http://site.test/2.jpg", None, "urn:xxh3:" + shown(found)[3][9:22], URL[:22]
    ]  # fmt: skip
    assert [each["bytes"] for each in found["images"]] == [b"first", b"second", b"third", b"fourth"]
    ids = [node["image_id"] for node in found["nodes"] if node["kind"] == "image"]
    assert ids == [each["image_id"] for each in found["images"]] and len(set(ids)) == 4
    assert [(each["kind"], each["rule"]) for each in found["dropped"]] == [("image", "no_source")]


def test_mmc4_pictures_stand_before_their_sentences() -> None:
    images = [(f"http://site.test/{n}.jpg", index) for n, index in enumerate([2, 0, 2, 3, -1])]
    rows = [mmc4(URL, ["One.", "Two.", "Three."], images), mmc4(URL, [], []), mmc4(URL, ["Four."], [])]
    for data, name in ((lines(rows), "a.jsonl"), (zipped({"b.jsonl": lines(rows)}), "a.jsonl.zip")):
        first, second, third = read(data, name)
        assert [each.removeprefix("http://site.test/") for each in shown(first)] == [
            "1.jpg", "One.", "Two.", "0.jpg", "2.jpg", "Three."
        ]  # fmt: skip
        assert [node["separator"] for node in first["nodes"] if node["kind"] == "text"] == [" "] * 3
        assert [(each["rule"], each["detail"][-5:]) for each in first["dropped"]] == [
            ("matched_text_index", "3.jpg"), ("matched_text_index", "4.jpg")
        ]  # fmt: skip
        assert shown(second) == [] and shown(third) == ["Four."]


def test_rows_that_are_no_documents_say_why_and_cost_no_other() -> None:
    good = obelics(URL, [image("http://site.test/1.jpg"), text("a")])
    rows = [
        good,
        good | {"texts": [None]},
        good | {"texts": None},
        good | {"general_metadata": "{}"},
        good | {"general_metadata": None},
        good | {"general_metadata": json.dumps({"url": "ftp://x"})},
        good,
    ]
    found = read(parquet(rows), "a.parquet")
    assert [row["reason"] for row in found] == [None, "bad_row", "bad_row", "no_url", "no_url", "bad_url", None]
    assert found[1]["detail"] == "2 images and 1 texts: they must be as many"
    assert found[3]["url"] == "a.parquet#3" and found[5]["url"] == "ftp://x"
    assert shown(found[6]) == shown(found[0]) and len({row["document_id"] for row in found}) == 7


def test_lines_that_are_not_json() -> None:
    good = mmc4(URL, ["One."], [])
    bad = [
        b"nonsense",
        b"[1]",
        b'{"url": 1}',
        b'{"url": "http://site.test/", "text_list": [1], "image_info": []}',
        b'{"url": "http://site.test/\xff", "text_list": [], "image_info": []}',
        b'{"url": "\\ud800", "text_list": [], "image_info": []}',
        b"{}{}",
        b"[" * 100_000,
        b'{"url": "http://site.test/"}',
    ]
    data = b"\n".join([lines([good]).strip(), b"", *bad, b"  ", lines([good]).strip()])
    found = read(data, "a.jsonl")
    bad_rows = ("no_url", "bad_row", "not_json", "no_url", "not_json", "not_json", "bad_row")
    assert tuple(row["reason"] for row in found) == (None, "not_json", "not_json", *bad_rows, None)
    assert found[4]["detail"].startswith("text_list: ") and found[4]["url"] == "http://site.test/"
    for row in found:
        assert data[row["place"] : row["place"] + 1] in (b"n", b"[", b"{")
        assert row["detail"] is None or "\n" not in row["detail"]


def test_damaged_files_say_so_and_keep_what_can_be_read() -> None:
    chance = random.Random(0)
    rows = [obelics(f"{URL}/{n}", [text(" ".join(f"{chance.random()}" for _ in range(200)))]) for n in range(9)]
    data = bytearray(parquet(rows, row_group_size=3, compression="zstd"))
    group = pq.ParquetFile(io.BytesIO(bytes(data))).metadata.row_group(1)
    texts = next(group.column(n) for n in range(group.num_columns) if group.column(n).path_in_schema.startswith("text"))
    start = texts.dictionary_page_offset or texts.data_page_offset
    for at in range(start, start + texts.total_compressed_size):
        data[at] ^= 0xFF
    found = list(read_documents(io.BytesIO(bytes(data)), Piece("a.parquet"), "obelics", Sample()))
    told = [row for table in found for row in table.to_pylist()]
    reasons = [row["reason"] for row in told]
    assert reasons.count("damaged_file") == 1 and reasons.count(None) == 6
    (damage,) = (row for row in told if row["reason"])
    assert "row group 1, rows 3 to 5: " in damage["detail"]
    for broken in (b"", b"PAR1", bytes(data[:-100])):
        (row,) = read(broken, "a.parquet")
        assert row["reason"] == "damaged_file" and row["url"] == "a.parquet#0"
    packed = gzip.compress(lines([mmc4(URL, [f"{random.Random(n).random()}"], []) for n in range(3000)]))
    cut = read(packed[: len(packed) // 2], "a.jsonl.gz", "mmc4")
    assert [row["reason"] for row in cut].count("damaged_file") == 1
    (row,) = read(b"no archive", "a.jsonl.zip")
    assert row["reason"] == "damaged_file" and "zip" in row["detail"]


def test_a_file_without_the_column_that_says_of_which_page() -> None:
    row = obelics(URL, [text("a")])
    del row["general_metadata"]
    for data, name in ((parquet([row, row]), "a.parquet"), (lines([row, row]), "a.jsonl")):
        assert [found["reason"] for found in read(data, name)] == ["no_url", "no_url"]


def test_a_file_of_no_layout() -> None:
    (row,) = read(parquet([{"caption": "a", "image": "b"}]), "a.parquet")
    assert row["reason"] == "unknown_layout"
    assert row["detail"] == (
        "its columns are caption, image, and of the layouts interloom has nodes; obelics has images, texts; "
        "mmc4 has image_info, text_list"
    )
    (other,) = read(parquet([{"url": URL, "nodes": []}]), "a.parquet", "mmc4")
    assert other["detail"] == "its columns are url, nodes, and of the layouts mmc4 has image_info, text_list"
    (typed,) = read(parquet([{"url": URL, "nodes": "text"}]), "a.parquet")
    assert typed["reason"] == "unknown_layout"
    assert typed["detail"] == "column nodes is string, which does not fit layout interloom"
    assert read(b"", "a.jsonl") == [] and find_layout(io.BytesIO(b"\n"), "a.jsonl") is None


def test_types_of_other_writers_are_read() -> None:
    kinds = [
        (pa.large_list(pa.large_string()), pa.large_string()),
        (pa.list_(pa.string_view()), pa.dictionary(pa.int32(), pa.string())),
    ]
    row = obelics(URL, [image("http://site.test/1.jpg"), text("a")])
    for many, single in kinds:
        schema = pa.schema(
            [("images", many), ("texts", many), ("metadata", single), ("general_metadata", single), ("more", pa.int8())]
        )
        (found,) = read(parquet([row], schema), "a.parquet")
        assert shown(found) == ["http://site.test/1.jpg", "a"]


@pytest.mark.slow
def test_pieces_are_the_file_however_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of lines of all lengths, blank, broken and endless ones among them."""
    monkeypatch.setattr(document_blocks, "_STEP", 64)
    monkeypatch.setattr(document_blocks, "MAX_LINE", 400)
    schema = pa.schema([("url", pa.string())])
    chance = random.Random(1)
    for _ in range(60):
        data, wanted = b"", []
        for _ in range(chance.randint(0, 25)):
            kind = chance.choices(["ok", "not_json", "too_large", ""], [8, 1, 1, 1])[0]
            line = {"not_json": b"z" * 30, "too_large": b"z" * chance.randint(500, 900)}.get(kind, b"")
            line = b'{"url":"%s"}' % (b"a" * chance.randint(0, 200)) if kind == "ok" else line
            wanted += [(len(data), kind)] if kind else []
            data += line + chance.choice([b"\n", b"\r\n"])
        data = data.rstrip() if chance.random() < 0.5 else data
        for pieces in (1, 2, 3, 7):
            found = []
            for index in range(pieces):
                for part in read_blocks(io.BytesIO(data), "a.jsonl", schema, index, pieces):
                    if isinstance(part, Block):
                        found += [(int(place), "ok") for place in part.places]
                    else:
                        found.append((part.place, part.reason))
            assert sorted(found) == wanted
    rows = [{"url": f"{URL}/{n}", "nodes": []} for n in range(10)]
    whole = read(parquet(rows, row_group_size=2), "a.parquet")
    assert whole == read(parquet(rows, row_group_size=2), "a.parquet", pieces=3) and len(whole) == 10


def test_a_sample_is_the_same_at_every_look_and_grows() -> None:
    rows = [{"url": f"{URL}/{n}", "nodes": []} for n in range(2000)]
    found = {
        share: {row["url"] for row in read(lines(rows), "a.jsonl", sample=share)} for share in (0.01, 0.02, 0.5, 1.0)
    }
    assert found[0.01] < found[0.02] < found[0.5] < found[1.0] and len(found[1.0]) == 2000
    assert abs(len(found[0.5]) - 1000) < 150  # seven standard deviations
    assert found[0.5] == {row["url"] for row in rows if in_sample(row["url"], 0.5)}
    sample = Sample(0.5)
    list(read_headers(io.BytesIO(lines(rows)), Piece("a.jsonl"), "auto", sample))
    assert sample.left_out == 2000 - len(found[0.5])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
def test_memory_does_not_grow_with_the_file(name: str) -> None:
    """What Arrow holds at its peak, of a file and of one five times as long."""

    def peak(count: int) -> int:
        rows = [{"url": f"{URL}/{n}", "nodes": [text(f"{n} " + "words " * 300)]} for n in range(count)]
        data = parquet(rows, row_group_size=500) if name == "a.parquet" else lines(rows)
        del rows
        pool = pa.system_memory_pool()
        pa.set_memory_pool(pool)
        tracemalloc.start()
        before, most = pool.bytes_allocated(), 0
        for table in read_documents(io.BytesIO(data), Piece(name), "auto", Sample()):
            most = max(most, pool.bytes_allocated() - before + tracemalloc.get_traced_memory()[0])
            del table
        tracemalloc.stop()
        return most

    default = pa.default_memory_pool()
    try:
        assert peak(30_000) < 1.5 * peak(12_000)
    finally:
        pa.set_memory_pool(default)
