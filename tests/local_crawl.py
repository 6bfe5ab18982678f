"""A whole crawl in this process: what the crawl on a cluster must give."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from stages.web.client import fetch
from stages.web.fetched import FETCHED
from stages.web.frontier import Order, Uncrawled
from stages.web.links import in_scope, links
from stages.web.politeness import PROCESS_MEMORY, HostMemory
from stages.web.settings import CrawlSettings

CRAWLED = FETCHED.append(pa.field("depth", pa.int32(), nullable=False))


def crawl_locally(
    seeds: Iterable[str], settings: CrawlSettings, *, memory: HostMemory = PROCESS_MEMORY
) -> tuple[pa.Table, list[Uncrawled]]:
    """Crawl in this process: FETCHED rows with `depth`, by level and URL, and the pages that a cap left out."""
    order = Order(seeds, settings)
    frontier = order.first()
    levels: list[pa.Table] = []
    left_out = list(frontier.left_out)
    while frontier.urls:
        batches = list(fetch(frontier.urls, settings, kind="page", max_bytes=settings.max_page_bytes, memory=memory))
        level = pa.concat_tables(batches).sort_by("url")
        levels.append(level.append_column(CRAWLED.field("depth"), pa.array([frontier.depth] * len(level), pa.int32())))
        found: set[str] = set()
        for row in level.select(["status", "final_url", "body", "content_type"]).to_pylist():
            if row["status"] == "ok" and in_scope(row["final_url"], order.seeds, settings):
                found.update(links(row["body"], row["content_type"], row["final_url"], settings))
        frontier = order.next(found, (url for url in level.column("final_url").to_pylist() if url is not None))
        left_out += frontier.left_out
    return (pa.concat_tables(levels) if levels else CRAWLED.empty_table()), left_out
