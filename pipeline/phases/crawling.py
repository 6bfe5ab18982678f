"""The crawl on the cluster: level by level, each host's share of a level on one worker at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.engine.memo import load_blobs
from pipeline.engine.phase import Part, Scout
from pipeline.phases.fetching import fetch_remembered
from pipeline.spec.sections import SiteSource
from stages.web.frontier import Uncrawled, first_frontier, next_frontier
from stages.web.links import in_scope, links
from stages.web.settings import CrawlSettings
from stages.web.urls import host_of


@dataclass(frozen=True)
class HostPages:
    """Pages of one host on one level: a unit of work and of the exchange that follows."""

    urls: list[str]
    depth: int
    left_out: list[Uncrawled] = field(default_factory=list)


def by_host(urls: Sequence[str], depth: int) -> list[HostPages]:
    """A level's URLs in one unit a host, in order of hosts and URLs."""
    hosts: dict[str, list[str]] = {}
    for url in sorted(urls):
        hosts.setdefault(host_of(url), []).append(url)
    return [HostPages(hosts[host], depth) for host in sorted(hosts)]


def fetch_host(part: Part, unit: HostPages, settings: CrawlSettings, snapshot: str) -> pa.Table:
    """FETCHED rows of a unit, from memory or the network; bodies as locators."""
    return fetch_remembered(
        part,
        unit.urls,
        settings,
        kind="page",
        max_bytes=settings.max_page_bytes,
        snapshot=snapshot,
    )


def crawl(scout: Scout, source: SiteSource, settings: CrawlSettings) -> list[HostPages]:
    """Every page of a crawl, fetched and remembered, as units; what a cap left out is in the units' `left_out`."""
    frontier = first_frontier(source.seeds, settings)
    seeds = tuple(sorted({*frontier.urls, *(each.url for each in frontier.left_out)}))

    def visit(part: Part, unit: HostPages) -> dict[str, Any]:
        return follow(part, unit, seeds, source.snapshot, settings)

    seen: set[str] = set()
    units: list[HostPages] = []
    taken = 0
    while frontier.urls or frontier.left_out:
        level = by_host(frontier.urls, frontier.depth)
        units += level
        if frontier.left_out:
            units.append(HostPages([], frontier.depth, frontier.left_out))
        if not level:
            break
        taken += len(frontier.urls)
        seen.update(frontier.urls)
        found: set[str] = set()
        for answer in scout.each(level, visit):
            seen.update(answer["final_urls"])
            found.update(answer["links"])
        frontier = next_frontier(found, seen, seeds=seeds, depth=frontier.depth + 1, num_taken=taken, settings=settings)
    return units


def follow(
    part: Part,
    unit: HostPages,
    seeds: tuple[str, ...],
    snapshot: str,
    settings: CrawlSettings,
) -> dict[str, Any]:
    """Fetch a unit and read its links: {final_urls, links}, both lists of URLs."""
    pages = fetch_host(part, unit, settings, snapshot)
    found: set[str] = set()
    final_urls: set[str] = set()
    for start in range(0, pages.num_rows, 64):
        rows = load_blobs(part.storage, pages.slice(start, 64).select(["status", "final_url", "content_type", "body"]))
        for row in rows.to_pylist():
            if row["final_url"] is not None:
                final_urls.add(row["final_url"])
            if row["status"] == "ok" and in_scope(row["final_url"], seeds, settings):
                found.update(
                    url
                    for url in links(row["body"], row["content_type"], row["final_url"], settings)
                    if settings.scope == "any" or in_scope(url, seeds, settings)
                )
    return {"final_urls": sorted(final_urls), "links": sorted(found)}
