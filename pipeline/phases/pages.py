"""The first phase: pages, from a crawl, a list of URLs, a folder, WARC files, or files of documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.phase import Exchange, Part, Phase, Scout
from pipeline.phases.crawling import Visited, crawl, visit_all
from pipeline.phases.fetching import FETCH_LIBRARIES, Fetching
from pipeline.phases.given_files import GivenPiece, given_pieces, read_pages
from pipeline.phases.sources import Chunk, RowsChunk, chunks, fingerprint, read_captures, read_chunk
from pipeline.phases.takedowns import crawl_without, takedowns_of
from pipeline.spec.loading import Spec
from pipeline.spec.sections import DocumentsSource, HtmlSource, SiteSource, UrlsSource, WarcSource
from schemas.keys import digest
from schemas.page import PAGE
from stages.sources.sample import Sample
from stages.web.urls import read_url_list, url_id

# Rows on their way: where each comes from, which orders those of one id, and how many pages a row of no page tells that
# the sample left out.
_LEFT_OUT = pa.field("left_out", pa.int64())
_ORDER = ("page_id", "depth", "url", "file", "offset")
_EMITTED = pa.schema([*PAGE, pa.field("file", pa.string()), pa.field("offset", pa.int64()), _LEFT_OUT])


def _page_rows(
    fetched: pa.Table, depths: Sequence[int], lastmods: Mapping[str, str], kind: str, snapshot: str
) -> pa.Table:
    """FETCHED rows with locators as PAGE rows; `lastmods` by URL."""
    count = fetched.num_rows
    urls = fetched.column("url").to_pylist()
    provenance = {"kind": kind, "snapshot": snapshot, "file": None, "offset": None, "length": None}
    columns: dict[str, Any] = {name: fetched.column(name) for name in PAGE.names if name in fetched.column_names}
    columns["page_id"] = pa.array([url_id(url) for url in urls], pa.string())
    columns["lastmod"] = pa.array(map(lastmods.get, urls), pa.string())
    columns["depth"] = pa.array(depths, pa.int32())
    columns["provenance"] = pa.array([provenance] * count, PAGE.field("provenance").type)
    return pa.table({name: columns[name] for name in PAGE.names}).cast(PAGE)


def _left_out(unit: Visited, snapshot: str) -> pa.Table:
    """Pages that a cap left unfetched, and sitemaps that were not read: rows too, so that the log can say why."""
    return pa.Table.from_pylist(
        [
            {
                "page_id": url_id(each.url),
                "url": each.url,
                "status": "refused",
                "reason": each.rule,
                "detail": each.detail,
                "retryable": each.retryable,
                "depth": depth,
                "provenance": {"kind": "site", "snapshot": snapshot},
            }
            for each, depth in unit.left_out
        ],
        schema=PAGE,
    )


def _rows_of_unit(unit: Visited) -> int:
    return len(unit.urls) + len(unit.left_out)


def _emitted(pages: pa.Table, sample: Sample) -> pa.Table:
    """PAGE rows on their way, with one more where the sample left some out."""
    provenance = pages.column("provenance")
    rows = pages.append_column("file", pc.struct_field(provenance, "file"))
    rows = rows.append_column("offset", pc.struct_field(provenance, "offset"))
    rows = rows.append_column(_LEFT_OUT, pa.nulls(rows.num_rows, pa.int64())).cast(_EMITTED)
    if not sample.left_out:
        return rows
    told = {"page_id": digest("left out"), "url": "", "status": "", "retryable": False, "left_out": sample.left_out}
    return pa.concat_tables([rows, pa.Table.from_pylist([told], schema=_EMITTED)])


def _duplicates(rows: pa.Table, again: Sequence[bool]) -> list[dict[str, Any]]:
    """Decisions about rows whose id another row before them has."""
    found: list[dict[str, Any]] = []
    kept = ""
    for row, copy in zip(rows.select(["page_id", "url", "file", "offset"]).to_pylist(), again, strict=True):
        place = f"{row['file']}, {row['offset']}"
        if copy:
            found.append(
                {
                    "kind": "page",
                    "action": "drop",
                    "subject_id": digest(row["page_id"], place),
                    "url": row["url"],
                    "rule": "duplicate_id",
                    "detail": f"{row['page_id']} at {place}; kept is the one at {kept}",
                }
            )
        else:
            kept = place
    return found


def pages(spec: Spec) -> Phase:
    """The source -> pages, one row for each URL or record, fetched or not."""
    source, taken = spec.source, takedowns_of(spec)
    settings = crawl_without(spec.crawl, taken)

    fetching = Fetching(settings, "page", settings.max_page_bytes, source.snapshot)
    pictures = Fetching(settings, "image", spec.images.max_bytes, source.snapshot)

    def units(scout: Scout) -> Sequence[Any]:
        if isinstance(source, SiteSource):
            return crawl(scout, source, fetching)
        if isinstance(source, UrlsSource):
            return visit_all(scout, fetching, read_url_list(source.path), Sample(source.sample))
        if isinstance(source, DocumentsSource):
            return list(given_pieces(source))
        return list(chunks(source))

    def rows_of(part: Part, unit: Any, sample: Sample) -> pa.Table:
        if isinstance(unit, GivenPiece):
            assert isinstance(source, DocumentsSource)
            return read_pages(source, unit, sample)
        if isinstance(unit, RowsChunk):
            assert isinstance(source, WarcSource)
            return read_captures(part, source, unit, settings, sample, taken)
        if isinstance(unit, Chunk):
            assert isinstance(source, HtmlSource | WarcSource)
            return read_chunk(part, source, unit, settings, sample, taken, pictures)
        wanted = [index for index, url in enumerate(unit.urls) if sample.takes(url)]
        urls, depths = [unit.urls[index] for index in wanted], [unit.depths[index] for index in wanted]
        left_out = _left_out(unit, source.snapshot)
        if not urls:
            return left_out
        fetched = fetching.answers(part.storage, urls, unit.within, part.generation)
        return pa.concat_tables([_page_rows(fetched, depths, unit.lastmods, source.kind, source.snapshot), left_out])

    def emit(part: Part, unit: Any) -> pa.Table:
        sample = Sample(source.sample)
        return _emitted(rows_of(part, unit, sample), sample)

    def run(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        part.add("sampled_out", int(pc.sum(rows.column("left_out")).as_py() or 0))
        rows = rows.filter(pc.is_null(rows.column("left_out")))
        ids = rows.column("page_id").to_pylist()
        # A URL may be asked for twice (a list, a redirect): the first row stands for it.
        again = [index > 0 and ids[index - 1] == each for index, each in enumerate(ids)]
        if isinstance(source, DocumentsSource | WarcSource):
            part.decide(_duplicates(rows, again))
        made = taken.refused(rows.filter(pc.invert(pa.array(again, pa.bool_()))).select(PAGE.names))
        part.add("pages", made.num_rows)
        if isinstance(source, SiteSource | UrlsSource):
            part.add_true("fetched", pc.equal(made.column("status"), "ok"))
            part.add_true("failed", pc.equal(made.column("status"), "error"))
        part.add_true("retryable", made.column("retryable"))
        return made

    modules = (
        *("pipeline.phases.crawling", "pipeline.phases.fetching"),
        *("pipeline.phases.sources", "pipeline.phases.takedowns"),
    )
    given = ("pipeline.phases.given_files",) if isinstance(source, DocumentsSource) else ()
    return Phase(
        name="pages",
        schema=PAGE,
        run=run,
        settings={
            "source": source,
            "crawl": settings.at_any_pace(),
            "fingerprint": fingerprint(source),
            "takedowns": taken.digest,
        },
        modules=(*modules, *given),
        libraries=(*FETCH_LIBRARIES, "chardetng-py", "fastwarc", "selectolax"),
        units=units,
        rows_of_unit=_rows_of_unit if isinstance(source, SiteSource | UrlsSource) else None,
        network=isinstance(source, SiteSource | UrlsSource),
        exchange=Exchange(key="page_id", order=_ORDER, schema=_EMITTED, emit=emit),
    )
