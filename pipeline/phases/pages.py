"""The first phase: pages, from a crawl, a list of URLs, a folder or WARC files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa

from pipeline.engine.phase import Exchange, Part, Phase, Scout
from pipeline.phases.crawling import HostPages, by_host, crawl, fetch_host
from pipeline.phases.fetching import FETCH_LIBRARIES
from pipeline.phases.sources import Chunk, chunks, fingerprint, read_chunk
from pipeline.spec.loading import Spec
from pipeline.spec.sections import HtmlSource, SiteSource, UrlsSource, WarcSource
from schemas.page import PAGE
from stages.web.urls import read_url_list, url_id


def _page_rows(fetched: pa.Table, depth: int, kind: str, snapshot: str) -> pa.Table:
    """FETCHED rows with locators as PAGE rows."""
    count = fetched.num_rows
    urls = fetched.column("url").to_pylist()
    provenance = {"kind": kind, "snapshot": snapshot, "file": None, "offset": None, "length": None}
    columns: dict[str, Any] = {name: fetched.column(name) for name in PAGE.names if name in fetched.column_names}
    columns["page_id"] = pa.array([url_id(url) for url in urls], pa.string())
    columns["depth"] = pa.array([depth] * count, pa.int32())
    columns["provenance"] = pa.array([provenance] * count, PAGE.field("provenance").type)
    return pa.table({name: columns[name] for name in PAGE.names}).cast(PAGE)


def _left_out(unit: HostPages, snapshot: str) -> pa.Table:
    """Pages that a cap left unfetched: rows too, so that the log can say why they are not there."""
    return pa.Table.from_pylist(
        [
            {
                "page_id": url_id(each.url),
                "url": each.url,
                "status": "refused",
                "reason": each.rule,
                "detail": f"{each.rule} is {each.high:g}, this would be {each.value:g}",
                "retryable": False,
                "depth": unit.depth,
                "provenance": {"kind": "site", "snapshot": snapshot},
            }
            for each in unit.left_out
        ],
        schema=PAGE,
    )


def pages(spec: Spec, generation: int) -> Phase:
    """The source -> pages, one row for each URL or record, fetched or not."""
    source, settings = spec.source, spec.crawl

    def units(scout: Scout) -> list[Any]:
        if isinstance(source, SiteSource):
            return list(crawl(scout, source, settings, generation))
        if isinstance(source, UrlsSource):
            return list(by_host(read_url_list(source.path), 0))
        return list(chunks(source))

    def emit(part: Part, unit: Any) -> pa.Table:
        if isinstance(unit, Chunk):
            assert isinstance(source, HtmlSource | WarcSource)
            return read_chunk(part, source, unit, settings)
        left_out = _left_out(unit, source.snapshot)
        if not unit.urls:
            return left_out
        # What a crawl fetched it has counted already.
        quiet = replace(part, tell=lambda looked_up, computed: None) if isinstance(source, SiteSource) else part
        fetched = fetch_host(quiet, unit, settings, source.snapshot, generation)
        return pa.concat_tables([_page_rows(fetched, unit.depth, source.kind, source.snapshot), left_out])

    def run(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        ids = rows.column("page_id").to_pylist()
        # A URL may be asked for twice (a list, a redirect): the first row stands for it.
        first = [index for index, each in enumerate(ids) if index == 0 or ids[index - 1] != each]
        made = rows.take(pa.array(first, pa.int64()))
        part.add("pages", made.num_rows)
        part.add_true("retryable", made.column("retryable"))
        return made

    return Phase(
        name="pages",
        schema=PAGE,
        run=run,
        settings={
            "source": source,
            "crawl": settings.at_any_pace(),
            "fingerprint": fingerprint(source),
            "generation": generation,
        },
        modules=("pipeline.phases.crawling", "pipeline.phases.fetching", "pipeline.phases.sources"),
        libraries=(*FETCH_LIBRARIES, "chardetng-py", "fastwarc", "selectolax"),
        units=units,
        exchange=Exchange(key="page_id", order=("page_id", "depth", "url"), schema=PAGE, emit=emit),
    )
