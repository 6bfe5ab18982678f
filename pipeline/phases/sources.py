"""Sources on disk or in object storage: folders of HTML and WARC files, as units of work; checks of any source."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.credentials import refuse_credentials, refuse_in_list
from pipeline.engine.keys import digest_json
from pipeline.engine.mistake import UserMistake
from pipeline.engine.phase import Part
from pipeline.engine.row_store import GENERATION, ROW_KEY, RowStore
from pipeline.engine.storage import StorageError, is_local, said
from pipeline.phases.fetching import Fetching, policy_of
from pipeline.phases.files import file_state
from pipeline.phases.given_files import check_given, given_fingerprint
from pipeline.phases.takedowns import Takedowns
from pipeline.spec.loading import Spec
from pipeline.spec.sections import (
    ROBOTS_TXT,
    DocumentsSource,
    HtmlSource,
    SiteSource,
    Source,
    UrlsSource,
    WarcSource,
)
from schemas.page import PAGE
from stages.sources.byte_ranges import BadRange
from stages.sources.folder import HTML_PATTERNS, list_files, local_url, read_folder, read_local
from stages.sources.folder import fingerprint as folder_fingerprint
from stages.sources.sample import Sample
from stages.sources.warc import read_warc
from stages.sources.warc_rows import IndexRow, count_groups, fetch_rows, read_rows, taken_rows
from stages.web.fetched import FETCHED
from stages.web.settings import CrawlSettings
from stages.web.urls import canonicalize, read_url_list, url_id

# Captures that are read and stored at a time: what a kill costs, and files that a build leaves.
_ROWS_AT_A_TIME = 1024


@dataclass(frozen=True)
class Chunk:
    """A unit of an offline source: one WARC file, or a folder."""

    path: str


@dataclass(frozen=True)
class RowsChunk:
    """A unit of rows that name captures: a row group of a Parquet file, or a file of lines."""

    path: str
    group: int


def check_source(spec: Spec) -> None:
    """Mistakes of the source that show before anything runs; UserMistake names field and remedy."""
    source = spec.source
    refuse_credentials("output.url", spec.output.url)
    if isinstance(source, SiteSource):
        for seed in source.seeds:
            _check_url("source.seeds", seed)
        for url in source.sitemaps:
            if url != ROBOTS_TXT:
                _check_url("source.sitemaps", url)
    elif isinstance(source, UrlsSource):
        refuse_credentials("source.path", source.path)
        _require_file("source.path", source.path)
        refuse_in_list("source.path", source.path)
        try:
            if not read_url_list(source.path):
                raise UserMistake(f"source.path: {source.path} holds no URL")
        except (OSError, ValueError) as error:
            raise UserMistake(f"source.path: {error}") from None
    elif isinstance(source, HtmlSource):
        _check_url("source.base_url", source.base_url)
        refuse_credentials("source.path", source.path)
        if not os.path.isdir(source.path):
            raise UserMistake(f"source.path: {source.path} is not a folder")
        _refuse_itself(spec.output.url, source.path)
        try:
            files = list_files(source.path, HTML_PATTERNS)
        except ValueError as error:
            raise UserMistake(f"source.path: {error}") from None
        if not files:
            raise UserMistake(f"source.path: {source.path} holds no .html, .htm or .xhtml file")
    elif isinstance(source, DocumentsSource):
        refuse_credentials("source.path", source.path)
        _refuse_itself(spec.output.url, source.path)
        check_given(source)
    else:
        refuse_credentials("source.base", source.base)
        for path in (*source.paths, *source.rows):
            refuse_credentials(_field(source), path)
        for path in warc_files(source):
            if not is_local(path):
                file_state(_field(source), path)  # asks for the object's state alone


def _check_url(field: str, url: str) -> None:
    refuse_credentials(field, url)
    try:
        canonicalize(url)
    except ValueError as error:
        raise UserMistake(f"{field}: {error}") from None


def _refuse_itself(output: str, path: str) -> None:
    if is_local(output) and is_local(path) and _within(output, path):
        raise UserMistake(f"output: {output} lies in source.path {path}: a corpus is no source of itself")


def _within(path: str, folder: str) -> bool:
    return Path(path.removeprefix("file://")).resolve().is_relative_to(Path(folder.removeprefix("file://")).resolve())


def _require_file(field: str, path: str) -> None:
    if not os.path.isfile(path):  # pathlib raises for a name that is too long
        raise UserMistake(f"{field}: {path}: no such file")


def _field(source: WarcSource) -> str:
    return "source.rows" if source.rows else "source.paths"


def warc_files(source: WarcSource) -> list[str]:
    """Files behind the paths or rows, sorted, each once; UserMistake for a path that stands for none."""
    found: set[str] = set()
    for path in source.rows or source.paths:
        if is_local(path):
            matches = glob.glob(path.removeprefix("file://"), recursive=True)
            files = [match for match in matches if Path(match).is_file()]
            if not files:
                raise UserMistake(f"{_field(source)}: {path}: no such file")
            found.update(files)
        else:
            found.add(path)
    return sorted(found)


def chunks(source: HtmlSource | WarcSource) -> list[Chunk | RowsChunk]:
    """Units of work, in order; UserMistake for a file of rows that is none."""
    if isinstance(source, WarcSource) and source.rows:
        return [RowsChunk(path, group) for path in warc_files(source) for group in range(_groups(path))]
    if isinstance(source, WarcSource):
        return [Chunk(file) for file in warc_files(source)]
    return [Chunk(source.path)]


def fingerprint(source: Source) -> str | None:
    """What a source on disk holds, as it enters keys: its content, not its dates. None for the network."""
    if isinstance(source, HtmlSource):
        return folder_fingerprint(source.path)
    if isinstance(source, UrlsSource):
        return digest_json(read_url_list(source.path))
    if isinstance(source, WarcSource):
        return digest_json([[name, file_state(_field(source), name)] for name in warc_files(source)])
    if isinstance(source, DocumentsSource):
        return given_fingerprint(source)
    return None


def read_chunk(
    part: Part,
    source: HtmlSource | WarcSource,
    chunk: Chunk,
    crawl: CrawlSettings,
    sample: Sample,
    taken: Takedowns,
    pictures: Fetching,
) -> pa.Table:
    """PAGE rows of a unit; bodies are put into the row stores, where fetched bodies lie too.

    Pictures that a build has archived are put where `pictures` would put them, as if they had been fetched.
    """
    tables: list[pa.Table] = []
    if isinstance(source, WarcSource):
        with fsspec.open(chunk.path, "rb") as stream:
            read = read_warc(stream, chunk.path, crawl, sample=sample, max_image_bytes=pictures.max_bytes)
            for table in map(taken.refused, read):
                of_pages = pc.equal(table.column("kind"), "page")
                _take_as_fetched(part, pictures, table.filter(pc.invert(of_pages)))
                table = table.filter(of_pages)
                tables.append(_as_pages(part, table, source, table.column("page_id").to_pylist()))
    else:
        read = read_folder(chunk.path, source.base_url, max_bytes=crawl.max_page_bytes, sample=sample)
        for table in map(taken.refused, read):
            tables.append(_as_pages(part, table, source, [url_id(url) for url in table.column("url").to_pylist()]))
    return pa.concat_tables(tables) if tables else PAGE.empty_table()


def _groups(path: str) -> int:
    try:
        return count_groups(path)
    except (OSError, ValueError) as error:
        raise UserMistake(f"source.rows: {path}: {said(error)}") from None


def read_captures(
    part: Part, source: WarcSource, chunk: RowsChunk, crawl: CrawlSettings, sample: Sample, taken: Takedowns
) -> pa.Table:
    """PAGE rows of the captures that rows name; what an earlier run has read, under the same settings, is not asked
    for again. StorageError when their files do not answer ranges as they should."""
    key = digest_json(["rows", source.base, policy_of(crawl, "page", crawl.max_page_bytes)])
    store = RowStore(part.storage, "read_source", key, FETCHED)
    # Where a row tells of another place than it has been read from, its id is another.
    tables: list[pa.Table] = []
    for rows in read_rows(chunk.path, chunk.group):
        wanted = taken_rows(rows, sample)
        for start in range(0, len(wanted), _ROWS_AT_A_TIME):
            some = wanted[start : start + _ROWS_AT_A_TIME]
            ids = [row.page_id for row in some]
            known = set(store.read(wanted=ids).column(ROW_KEY).to_pylist())
            try:
                made = fetch_rows(source.base, [row for row in some if row.page_id not in known], crawl)
            except BadRange as error:
                raise StorageError(str(error)) from None
            part.tell(len(known), made.num_rows)
            if made.num_rows:
                store.keep(_keyed(made, made.column("page_id").to_pylist()))
            tables.append(_stored_pages(store.read(wanted=ids), some, source))
    return taken.refused(pa.concat_tables(tables)) if tables else PAGE.empty_table()


def _stored_pages(stored: pa.Table, rows: Sequence[IndexRow], source: WarcSource) -> pa.Table:
    """PAGE rows of captures that a store holds."""
    place = {row.page_id: row.range for row in rows}
    ids = stored.column(ROW_KEY).to_pylist()
    ranges = [place[each] for each in ids]
    return _page_rows(stored, ids, source, [(at.file, at.offset, at.length) for at in ranges])


def _page_rows(
    stored: pa.Table,
    page_ids: Sequence[str],
    source: HtmlSource | WarcSource,
    places: Sequence[tuple[str | None, int | None, int | None]],
) -> pa.Table:
    """PAGE rows of stored ones; `places`: file, offset and length of each."""
    provenance = [
        {"kind": source.kind, "snapshot": source.snapshot, "file": file, "offset": offset, "length": length}
        for file, offset, length in places
    ]
    columns: dict[str, Any] = {name: stored.column(name) for name in PAGE.names if name in stored.column_names}
    columns["page_id"] = pa.array(page_ids, pa.string())
    columns["lastmod"] = pa.nulls(stored.num_rows, pa.string())
    columns["depth"] = pa.nulls(stored.num_rows, pa.int32())
    columns["provenance"] = pa.array(provenance, PAGE.field("provenance").type)
    return pa.table({name: columns[name] for name in PAGE.names}).cast(PAGE)


def _keyed(table: pa.Table, row_keys: Sequence[str]) -> pa.Table:
    """FETCHED rows with the keys of a row store."""
    rows = table.select(FETCHED.names)
    rows = rows.append_column(ROW_KEY, pa.array(row_keys, pa.string()))
    return rows.append_column(GENERATION, pa.array([0] * table.num_rows, pa.int32()))


def _take_as_fetched(part: Part, pictures: Fetching, table: pa.Table) -> None:
    """Keep archived pictures that were fetched as ours would be; of the others their sites are asked."""
    settings = pictures.settings
    mask = [
        status == "ok"
        and consent["agent"] == settings.user_agent
        and (consent["robots_allowed"] is True or not settings.obey_robots)
        for status, consent in zip(table.column("status").to_pylist(), table.column("consent").to_pylist(), strict=True)
    ]
    rows = table.filter(pa.array(mask, pa.bool_())).select(FETCHED.names)
    if rows.num_rows:
        pictures.store(part.storage).keep(pictures.kept(rows, 0))


def _remember(part: Part, kind: str, table: pa.Table, row_keys: Sequence[str]) -> pa.Table:
    """FETCHED rows as a row store keeps them, bodies as locators. Reading again writes the same files again."""
    part.tell(0, table.num_rows)
    return RowStore(part.storage, "read_source", kind, FETCHED).keep(_keyed(table, row_keys))


def _as_pages(part: Part, table: pa.Table, source: HtmlSource | WarcSource, page_ids: Sequence[str]) -> pa.Table:
    count = table.num_rows
    stored = _remember(part, source.kind, table, page_ids)

    def column(name: str) -> list[Any]:
        return table.column(name).to_pylist() if name in table.column_names else [None] * count

    places = list(zip(column("file"), column("offset"), column("length"), strict=True))
    return _page_rows(stored, page_ids, source, places)


def local_images(part: Part, source: Source, urls: Sequence[str], max_bytes: int, taken: Takedowns) -> pa.Table:
    """FETCHED rows of images that lie in the folder of an html source, bodies as locators."""
    assert isinstance(source, HtmlSource)
    table = taken.refused(read_local(urls, source.path, source.base_url, max_bytes=max_bytes))
    return _remember(part, source.kind, table, [url_id(url) for url in urls])


def lies_in_folder(source: Source, url: str) -> bool:
    """Whether an image URL is read from the source's folder rather than fetched."""
    return isinstance(source, HtmlSource) and url.startswith(local_url("", source.base_url))
