"""The crawl on the cluster: level by level, each site on one actor, which is on many sites at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine import memo
from pipeline.engine.key_range import KeyRange, evenly, places
from pipeline.engine.phase import Crew, Part, Scout
from pipeline.phases.fetching import Desk, Fetching
from pipeline.spec.sections import ROBOTS_TXT, SiteSource
from stages.sources.sample import Sample
from stages.web.client import Client
from stages.web.frontier import Order, Uncrawled
from stages.web.links import LINKED, Links, in_scope
from stages.web.settings import CrawlSettings
from stages.web.sitemaps import MAX_BYTES, read_sitemap
from stages.web.sites import site_key
from stages.web.urls import canonicalize, origin_of

# URLs of one unit of the exchange, about; and pages whose links are read at a time.
_UNIT_URLS = 4096
_PAGES_AT_A_TIME = 64
# Sitemaps that are asked for before it is looked whether they list enough; and indexes that lie in each other.
_SITEMAPS_AT_A_TIME = 64
_NESTED = 3


@dataclass(frozen=True)
class Visited:
    """Pages of a range of sites, asked for as far as the source's sample takes them: a unit of the exchange."""

    within: KeyRange
    urls: list[str]
    depths: list[int]
    # By a cap, with the depth of its level, and sitemaps, which are on none.
    left_out: list[tuple[Uncrawled, int | None]] = field(default_factory=list)
    lastmods: dict[str, str] = field(default_factory=dict)  # of those that a sitemap lists with one, as written


def visit_all(scout: Scout, fetching: Fetching, urls: Sequence[str], sample: Sample) -> list[Visited]:
    """Have those of a list of canonical URLs fetched that the sample takes; all of them, as units."""
    listed = sorted(set(urls))
    sites = len(set(map(site_key, listed)))
    with scout.crew(_member(fetching, None), fetching.settings.concurrency, max(1, sites)) as crew:
        _ask(crew, [url for url in listed if sample.takes(url)])
        _finish(crew)
    return _units(dict.fromkeys(listed, 0), [])


def crawl(scout: Scout, source: SiteSource, fetching: Fetching) -> list[Visited]:
    """Have every page of a crawl fetched; what a cap left out is in the units' `left_out`.

    Pages that sitemaps list are on the level below the seeds, as if a seed led to them.
    """
    settings = fetching.settings
    order = Order(source.seeds, settings)
    frontier = order.first()
    depths: dict[str, int] = {}
    left_out: list[tuple[Uncrawled, int | None]] = []
    # Other scopes may lead anywhere.
    sites = len(set(map(site_key, order.seeds))) if settings.scope in ("host", "prefix") else None
    with scout.crew(_member(fetching, order.seeds), settings.concurrency, sites) as crew:
        listed = _listed(crew, source.sitemaps, order.seeds, settings)
        left_out += [(each, None) for each in listed.left_out]
        more: Iterable[str] = listed.pages
        while frontier.urls or frontier.left_out or more:
            left_out += [(each, frontier.depth) for each in frontier.left_out]
            if not frontier.urls and not more:
                break
            depths.update(dict.fromkeys(frontier.urls, frontier.depth))
            answers = _ask(crew, frontier.urls)
            frontier = order.next(
                {*more, *(url for answer in answers for url in answer["links"])},
                (url for answer in answers for url in answer["final_urls"]),
            )
            more = ()
        _finish(crew)
    return _units(depths, left_out, listed.pages)


@dataclass
class _Listed:
    """What sitemaps come to."""

    pages: dict[str, str | None] = field(default_factory=dict)  # canonical URL in scope -> lastmod
    sitemaps: list[str] = field(default_factory=list)  # canonical URLs
    left_out: list[Uncrawled] = field(default_factory=list)

    def add(self, other: _Listed) -> None:
        """What another knows too; of two dates of one page the later stands, as text."""
        for url, lastmod in other.pages.items():
            self.pages[url] = max(self.pages.get(url) or "", lastmod or "") or None
        self.sitemaps += other.sitemaps
        self.left_out += other.left_out


def _listed(crew: Crew, named: Sequence[str], seeds: Sequence[str], settings: CrawlSettings) -> _Listed:
    """The pages in scope that sitemaps list, those named and those that robots.txt names, with all below an index.

    Sitemaps are read level by level, each sorted, so that what is left out is always the same.
    """
    found = _Listed()
    wanted = {canonicalize(url) for url in named if url != ROBOTS_TXT}
    if ROBOTS_TXT in named:
        origins = sorted({origin_of(seed) for seed in seeds})
        for answer in _shared_out(crew, origins, _Origins):
            wanted.update(answer.sitemaps)
    seen: set[str] = set()
    for depth in range(_NESTED + 2):
        level = sorted(wanted - seen)
        seen.update(level)
        wanted = set()
        for start in range(0, len(level), _SITEMAPS_AT_A_TIME):
            urls = level[start : start + _SITEMAPS_AT_A_TIME]
            if depth > _NESTED:
                said = f"indexes lie in each other more than {_NESTED} deep"
                found.left_out += [Uncrawled(url, "sitemap", said) for url in urls]
            elif len(found.pages) >= settings.max_pages:
                said = f"the sitemaps before it list max_pages, {settings.max_pages}"
                found.left_out += [Uncrawled(url, "sitemap", said) for url in urls]
            else:
                for answer in _shared_out(crew, urls, _Sitemaps):
                    found.add(answer)
                    wanted.update(answer.sitemaps)
    return found


@dataclass(frozen=True)
class _Origins:
    """The question which sitemaps the robots.txt of some origins names."""

    urls: list[str]


@dataclass(frozen=True)
class _Sitemaps:
    """The question what some sitemaps list."""

    urls: list[str]


def _ask(crew: Crew, urls: Sequence[str]) -> list[dict[str, list[str]]]:
    """Every member about its share of the pages."""
    return _shared_out(crew, urls, list)


def _shared_out(crew: Crew, urls: Sequence[str], question: Callable[[list[str]], Any]) -> list[Any]:
    """Every member's answer to a question about its share of the URLs."""
    at = places(pa.array([site_key(url) for url in urls], pa.string()), crew.ranges)
    order = np.argsort(at, kind="stable")
    ends = np.searchsorted(at[order], np.arange(len(crew.ranges) + 1))
    shares = {
        index: [urls[each] for each in order[first:end]] for index, (first, end) in enumerate(pairwise(ends.tolist()))
    }
    return crew.ask({index: question(share) for index, share in shares.items() if share})


def _finish(crew: Crew) -> None:
    """Everything that members hold is stored."""
    crew.ask(dict.fromkeys(range(len(crew.ranges))))


def _units(
    depths: Mapping[str, int],
    left_out: Sequence[tuple[Uncrawled, int | None]],
    lastmods: Mapping[str, str | None] = MappingProxyType({}),
) -> list[Visited]:
    """What was visited, by ranges of sites."""
    ranges = evenly(max(8, len(depths) // _UNIT_URLS))
    urls = list(depths)
    units = [Visited(each, [], []) for each in ranges]
    for url, index in zip(urls, places(pa.array(map(site_key, urls), pa.string()), ranges), strict=True):
        units[index].urls.append(url)
        units[index].depths.append(depths[url])
        if (lastmod := lastmods.get(url)) is not None:
            units[index].lastmods[url] = lastmod
    units[0].left_out.extend(left_out)
    return [unit for unit in units if unit.urls or unit.left_out]


def _member(fetching: Fetching, seeds: tuple[str, ...] | None) -> Callable[[Part, int], Callable[[Any], Any]]:
    return lambda part, members: _Visitor(part, fetching, seeds, max(1, fetching.settings.concurrency // members))


class _Visitor:
    """One of the crawl's actors: fetches what it is asked for, once a snapshot, and reads where the pages lead.

    `seeds`: the crawl's, for its scope; None follows no link.
    """

    def __init__(self, part: Part, fetching: Fetching, seeds: tuple[str, ...] | None, concurrency: int) -> None:
        self._part = part
        self._settings = fetching.settings
        self._seeds = seeds
        self._client = Client(fetching.settings, concurrency=concurrency)
        self._desk = Desk(fetching, part)
        # What lists pages is read as large as the protocol has it, and remembered beside them.
        self._sitemaps = replace(fetching, kind="sitemap", max_bytes=MAX_BYTES)
        self._known = self._desk.known()
        self._places = {url: place for place, url in enumerate(self._known.column("url").to_pylist())}
        self._links = Links(fetching.settings)

    def __call__(self, urls: list[str] | _Origins | _Sitemaps | None) -> dict[str, list[str]] | _Listed:
        """{final_urls, links} of URLs of this actor's sites; None: what it holds is to be stored."""
        if isinstance(urls, _Origins):
            return _Listed(sitemaps=self._client.sitemaps(urls.urls, self._desk.origins))
        if isinstance(urls, _Sitemaps):
            return self._read_sitemaps(urls.urls)
        if urls is None:
            self._desk.flush()
            self._client.close()
            return {}
        final_urls: set[str] = set()
        found: set[str] = set()
        for pages in self._pages(urls):
            if self._seeds is None:
                continue
            final_urls.update(url for url in pages.column("final_url").to_pylist() if url is not None)
            found.update(self._followed(pages, self._seeds))
        return {"final_urls": sorted(final_urls), "links": sorted(found)}

    def _read_sitemaps(self, urls: Sequence[str]) -> _Listed:
        """What sitemaps of this actor's sites list."""
        assert self._seeds is not None
        desk = Desk(self._sitemaps, self._part)
        known = desk.known()
        known = known.filter(pc.is_in(known.column("url"), value_set=pa.array(urls, pa.string())))
        there = set(known.column("url").to_pylist())
        found = _Listed()
        for start in range(known.num_rows):
            self._take(memo.load_blobs(self._part.storage, known.slice(start, 1)), found)
        for table in desk.fetched(self._client, [url for url in urls if url not in there]):
            self._take(table, found)
        desk.flush()
        return found

    def _take(self, fetched: pa.Table, found: _Listed) -> None:
        """What fetched sitemaps list, or why they were not read."""
        assert self._seeds is not None
        for row in fetched.select(["url", "status", "reason", "detail", "retryable", "body"]).to_pylist():
            if row["status"] != "ok":
                said = f"{row['reason']}: {row['detail']}"
                found.left_out.append(Uncrawled(row["url"], "sitemap", said, row["retryable"]))
                continue
            read = read_sitemap(row["body"])
            bad = outside = 0
            for url, lastmod in read.pages:
                try:
                    canonical = canonicalize(url, drop_parameters=self._settings.drop_parameters)
                except ValueError:
                    bad += 1
                    continue
                if in_scope(canonical, self._seeds, self._settings):
                    found.add(_Listed({canonical: lastmod}))
                else:
                    outside += 1
            for url, _ in read.sitemaps:
                try:
                    found.sitemaps.append(canonicalize(url))
                except ValueError:
                    bad += 1
            parts = [f"{bad} addresses are not valid URLs"] if bad else []
            parts += [f"{outside} of {len(read.pages)} pages are out of scope"] if outside else []
            if read.fault or parts:
                said = "; ".join([*([read.fault] if read.fault else []), *parts])
                found.left_out.append(Uncrawled(row["url"], "sitemap", said))

    def _pages(self, urls: Sequence[str]) -> Iterator[pa.Table]:
        """FETCHED rows with their bodies, remembered ones first."""
        known = [self._places[url] for url in urls if url in self._places]
        missing = [url for url in urls if url not in self._places]
        self._part.tell(len(known), 0)
        for start in range(0, len(known) if self._seeds is not None else 0, _PAGES_AT_A_TIME):
            rows = self._known.take(pa.array(known[start : start + _PAGES_AT_A_TIME], pa.int64()))
            yield memo.load_blobs(self._part.storage, rows)
        yield from self._desk.fetched(self._client, missing)

    def _followed(self, pages: pa.Table, seeds: tuple[str, ...]) -> Iterator[str]:
        """Where pages that are in scope lead, as far as it is in scope too."""
        settings = self._settings
        facts = zip(pages.column("status").to_pylist(), pages.column("final_url").to_pylist(), strict=True)
        mask = [status == "ok" and in_scope(url, seeds, settings) for status, url in facts]
        rows = pages.filter(pa.array(mask, pa.bool_())).select(["body", "content_type", "final_url"])
        for start in range(0, rows.num_rows, _PAGES_AT_A_TIME):
            made = memo.compute_isolated(self._links, rows.slice(start, _PAGES_AT_A_TIME))
            for url in made.column(LINKED.name).combine_chunks().flatten().to_pylist():
                if settings.scope == "any" or in_scope(url, seeds, settings):
                    yield url
