"""python -m pipeline.warc: the files it writes, what they leave out, and that it goes on where it was stopped."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import xxhash
from fastwarc.warc import ArchiveIterator

from pipeline.builds.archive import archive
from pipeline.corpus.version import Corpus
from pipeline.engine.key_range import WHOLE
from pipeline.engine.memo import Unanswered, load_blobs
from pipeline.engine.mistake import UserMistake
from pipeline.engine.packs import write_pack
from pipeline.engine.storage import Storage
from pipeline.engine.table import described, read_listed
from pipeline.phases.fetching import Fetching
from pipeline.phases.sources import chunks, read_chunk
from pipeline.phases.takedowns import Takedowns, write_entries
from pipeline.spec.loading import Spec
from pipeline.spec.sections import WarcSource
from schemas.contract import table_from_rows
from schemas.page import PAGE
from schemas.tables import FETCHED_IMAGE
from schemas.takedown import Entry
from stages.sources.sample import Sample
from stages.sources.warc import read_warc
from stages.web.consent.excluded import hashed
from tests.pipeline import small_corpus
from tests.pipeline.small_corpus import CONSENT, SITE

PAGES = {f"{SITE}/{name}": f"<!doctype html><p>{name} stands in the reeds".encode() for name in "abcdef"}
PAGES[f"{SITE}/copy"] = PAGES[f"{SITE}/a"]
PICTURES = {f"{SITE}/{name}.png": b"\x89PNG" + name.encode() * 99 for name in "ab"}


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """A small corpus whose pages and pictures have bodies."""
    opened = small_corpus.write(str(tmp_path / "out"))
    pages = [
        {**small_corpus.page(url.removeprefix(SITE)), **had}
        for url, had in zip(PAGES, _stored(opened.storage, list(PAGES.values())), strict=True)
    ]
    pages.append(small_corpus.page("/refused", "refused", reason="robots", detail="Disallow: /refused"))
    pictures = [
        {"site_key": "0" * 32, "image_id": f"{number:032x}", "url": url, "status": "ok", "documents": ["x"]}
        | {"retryable": False, "content_type": "image/png", "consent": CONSENT}
        | had
        for number, (url, had) in enumerate(
            zip(PICTURES, _stored(opened.storage, list(PICTURES.values())), strict=True)
        )
    ]
    data_uri = {**pictures[0], "image_id": "f" * 32, "url": "data:image/png;base64,iVBORw0KGgo="}
    _put(opened, "pages", PAGE, pages)
    _put(opened, "fetched_images", FETCHED_IMAGE, [*pictures, data_uri])
    return opened


def _stored(storage: Storage, bodies: list[bytes]) -> Iterator[dict[str, Any]]:
    for body, locator in zip(bodies, write_pack(storage, "rows", bodies), strict=True):
        yield {"body": locator, "content_hash": xxhash.xxh3_128_hexdigest(body)}


def _put(opened: Corpus, phase: str, schema: pa.Schema, rows: list[dict[str, Any]]) -> None:
    """Have a phase's table hold these rows, in two parts."""
    sink = [io.BytesIO(), io.BytesIO()]
    parts = []
    for number, half in enumerate((rows[: len(rows) // 2], rows[len(rows) // 2 :])):
        pq.write_table(table_from_rows(half, schema), sink[number])
        data = sink[number].getvalue()
        parts.append(described(f"tables/{phase}/{number}.parquet", data, len(half)))
        opened.storage.write(parts[-1].name, data)
    opened.manifest.phases.setdefault(phase, "")
    opened._tables[phase] = mock.Mock(parts=parts)


def spec_of(corpus: Corpus, **source: Any) -> Spec:
    resolved = corpus.manifest.spec
    return Spec.model_validate(
        {**resolved, "output": {"url": corpus.storage.url}, "source": {**resolved["source"], **source}}
    )


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted(folder.glob("*.warc.gz")):
        with path.open("rb") as stream:
            for table in read_warc(stream, path.name, max_image_bytes=10_000):
                found |= {row["url"]: row for row in table.to_pylist()}
    return found


def test_all_that_was_fetched_is_there_and_is_read_again(corpus: Corpus, tmp_path: Path) -> None:
    done = archive(corpus, spec_of(corpus), str(tmp_path / "warc"), 1 << 20)
    found = rows(tmp_path / "warc")
    assert {url: row["body"] for url, row in found.items()} == PAGES | PICTURES
    assert found[f"{SITE}/a"]["consent"]["robots_source"] == f"{SITE}/robots.txt 200"
    assert found[f"{SITE}/a"]["page_id"] == small_corpus.page("/a")["page_id"]
    assert {row["kind"] for url, row in found.items() if url.endswith(".png")} == {"image"}
    # Of what was refused there is what is known of it; of what came with its page there is nothing to be had.
    assert (done.captures, done.files, done.kept) == (len(PAGES) + 1 + len(PICTURES), 4, 0)
    assert sorted(name for name in files(tmp_path / "warc") if name.endswith(".gz")) == [
        *("images-00000-00000.warc.gz", "images-00001-00000.warc.gz"),
        *("pages-00000-00000.warc.gz", "pages-00001-00000.warc.gz"),
    ]


def test_a_build_from_it_has_the_same_pages_and_asks_for_no_picture(corpus: Corpus, tmp_path: Path) -> None:
    spec = spec_of(corpus)
    archive(corpus, spec, str(tmp_path / "warc"), 2500)
    source = WarcSource(kind="warc", paths=[f"{tmp_path}/warc/*.warc.gz"])
    part = mock.Mock(storage=Storage(str(tmp_path / "again")))
    crawl = spec.crawl.model_copy(update={"user_agent": CONSENT["agent"]})
    pictures = Fetching(crawl, "image", spec.images.max_bytes, "default")
    made = pa.concat_tables(
        read_chunk(part, source, chunk, crawl, Sample(), Takedowns(), pictures) for chunk in chunks(source)
    )
    before = pa.concat_tables(read_listed(corpus.storage, each) for each in corpus.table("pages").parts)
    before = before.filter(pc.equal(before.column("status"), "ok"))
    # Where they come from is another place, and links are not followed.
    same = [name for name in PAGE.names if name not in ("body", "provenance", "depth", "consent")]
    assert made.select(same).sort_by("page_id").to_pylist() == before.select(same).sort_by("page_id").to_pylist()
    bodies = load_blobs(part.storage, made).sort_by("page_id").column("body")
    assert bodies.equals(load_blobs(corpus.storage, before).sort_by("page_id").column("body"))
    told = [row["consent"] for row in made.to_pylist()]
    assert all({name: each[name] for name in CONSENT} == CONSENT for each in told)
    # They are remembered as fetched: asked of nobody.
    found = pictures.answers(part.storage, sorted(PICTURES), WHOLE, 0)
    assert load_blobs(part.storage, found).column("body").to_pylist() == [PICTURES[url] for url in sorted(PICTURES)]
    # By another reader they are not: its consent is another.
    other = Fetching(spec.crawl, "image", spec.images.max_bytes, "default")
    for each in chunks(source):
        read_chunk(part, source, each, spec.crawl, Sample(), Takedowns(), other)
    with pytest.raises(Unanswered):
        other.answers(part.storage, sorted(PICTURES), WHOLE, 0)


def test_files_end_at_the_target_and_each_stands_by_itself(corpus: Corpus, tmp_path: Path) -> None:
    done = archive(corpus, spec_of(corpus), str(tmp_path / "warc"), 2500)
    assert done.files > 5
    for name, data in files(tmp_path / "warc").items():
        if name.endswith(".gz"):
            kinds = [record.headers["WARC-Type"] for record in ArchiveIterator(io.BytesIO(data), parse_http=False)]
            assert kinds[0] == "warcinfo" and "revisit" not in kinds[:3]
    assert {url: row["body"] for url, row in rows(tmp_path / "warc").items()} == PAGES | PICTURES


def test_a_run_that_was_stopped_goes_on_and_ends_in_the_same_bytes(corpus: Corpus, tmp_path: Path) -> None:
    spec = spec_of(corpus)
    archive(corpus, spec, str(tmp_path / "whole"), 2500)
    written: list[str] = []
    write = Storage.write

    def stops(self: Storage, name: str, data: bytes) -> None:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(name)
        write(self, name, data)

    with mock.patch.object(Storage, "write", stops), pytest.raises(KeyboardInterrupt):
        archive(corpus, spec, str(tmp_path / "parts"), 2500)
    done = archive(corpus, spec, str(tmp_path / "parts"), 2500)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    assert 0 < done.kept < done.files
    # A file that has gone or was cut short is made again.
    (tmp_path / "parts" / "pages-00000-00000.warc.gz").write_bytes(b"")
    archive(corpus, spec, str(tmp_path / "parts"), 2500)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_what_was_forgotten_is_not_written(corpus: Corpus, tmp_path: Path) -> None:
    write_entries(corpus.storage, [Entry("url", hashed(f"{SITE}/b"), "forgotten", "asked for")])
    archive(corpus, spec_of(corpus), str(tmp_path / "warc"), 1 << 20)
    found = rows(tmp_path / "warc")
    assert set(found) == {*PAGES, *PICTURES} - {f"{SITE}/b"}
    held = b"".join(
        record.reader.read()
        for data in files(tmp_path / "warc").values()
        for record in (ArchiveIterator(io.BytesIO(data), parse_http=False) if data[:1] == b"\x1f" else ())
    )
    assert PAGES[f"{SITE}/b"] not in held and PAGES[f"{SITE}/c"] in held


def test_a_folders_pages_and_pictures_did_not_come_over_the_network(corpus: Corpus, tmp_path: Path) -> None:
    spec = spec_of(corpus)
    for base_url, expected in ((f"{SITE}/", 0), ("http://elsewhere.test/", len(PICTURES))):
        source = {"kind": "html", "path": str(tmp_path), "base_url": base_url}
        local = Spec.model_validate({**spec.model_dump(), "source": source})
        done = archive(corpus, local, str(tmp_path / f"warc-{expected}"), 1 << 20)
        assert done.captures == expected


def test_a_folder_that_holds_something_else_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    spec = spec_of(corpus)
    archive(corpus, spec, str(tmp_path / "warc"), 2500)
    for to, target, said in (
        (tmp_path / "warc", 2501, "another version, --target-bytes or release"),
        (Path(corpus.storage.url), 2500, "is a corpus"),
    ):
        with pytest.raises(UserMistake, match=said):
            archive(corpus, spec, str(to), target)
