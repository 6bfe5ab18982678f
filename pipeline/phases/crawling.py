"""The crawl on the cluster: level by level, each site on one actor, which is on many sites at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pyarrow as pa

from pipeline.engine import memo
from pipeline.engine.key_range import KeyRange, evenly, places
from pipeline.engine.phase import Crew, Part, Scout
from pipeline.phases.fetching import Desk, Fetching, site_key
from pipeline.spec.sections import SiteSource
from stages.sources.sample import Sample
from stages.web.client import Client
from stages.web.frontier import Order, Uncrawled
from stages.web.links import LINKED, Links, in_scope

# URLs of one unit of the exchange, about; and pages whose links are read at a time.
_UNIT_URLS = 4096
_PAGES_AT_A_TIME = 64


@dataclass(frozen=True)
class Visited:
    """Pages of a range of sites, asked for as far as the source's sample takes them: a unit of the exchange."""

    within: KeyRange
    urls: list[str]
    depths: list[int]
    left_out: list[tuple[Uncrawled, int]] = field(default_factory=list)  # by a cap, with the depth of its level


def visit_all(scout: Scout, fetching: Fetching, urls: Sequence[str], sample: Sample) -> list[Visited]:
    """Have those of a list of canonical URLs fetched that the sample takes; all of them, as units."""
    listed = sorted(set(urls))
    sites = len(set(map(site_key, listed)))
    with scout.crew(_member(fetching, None), fetching.settings.concurrency, max(1, sites)) as crew:
        _ask(crew, [url for url in listed if sample.takes(url)])
        _finish(crew)
    return _units(dict.fromkeys(listed, 0), [])


def crawl(scout: Scout, source: SiteSource, fetching: Fetching) -> list[Visited]:
    """Have every page of a crawl fetched; what a cap left out is in the units' `left_out`."""
    settings = fetching.settings
    order = Order(source.seeds, settings)
    frontier = order.first()
    depths: dict[str, int] = {}
    left_out: list[tuple[Uncrawled, int]] = []
    # Other scopes may lead anywhere.
    sites = len(set(map(site_key, order.seeds))) if settings.scope in ("host", "prefix") else None
    with scout.crew(_member(fetching, order.seeds), settings.concurrency, sites) as crew:
        while frontier.urls or frontier.left_out:
            left_out += [(each, frontier.depth) for each in frontier.left_out]
            if not frontier.urls:
                break
            depths.update(dict.fromkeys(frontier.urls, frontier.depth))
            answers = _ask(crew, frontier.urls)
            frontier = order.next(
                {url for answer in answers for url in answer["links"]},
                (url for answer in answers for url in answer["final_urls"]),
            )
        _finish(crew)
    return _units(depths, left_out)


def _ask(crew: Crew, urls: Sequence[str]) -> list[dict[str, list[str]]]:
    """Every member about its share of the URLs."""
    at = places(pa.array([site_key(url) for url in urls], pa.string()), crew.ranges)
    order = np.argsort(at, kind="stable")
    ends = np.searchsorted(at[order], np.arange(len(crew.ranges) + 1))
    shares = {
        index: [urls[each] for each in order[first:end]] for index, (first, end) in enumerate(pairwise(ends.tolist()))
    }
    return crew.ask({index: share for index, share in shares.items() if share})


def _finish(crew: Crew) -> None:
    """Everything that members hold is stored."""
    crew.ask(dict.fromkeys(range(len(crew.ranges))))


def _units(depths: Mapping[str, int], left_out: Sequence[tuple[Uncrawled, int]]) -> list[Visited]:
    """What was visited, by ranges of sites."""
    ranges = evenly(max(8, len(depths) // _UNIT_URLS))
    urls = list(depths)
    units = [Visited(each, [], []) for each in ranges]
    for url, index in zip(urls, places(pa.array(map(site_key, urls), pa.string()), ranges), strict=True):
        units[index].urls.append(url)
        units[index].depths.append(depths[url])
    units[0].left_out.extend(left_out)
    return [unit for unit in units if unit.urls or unit.left_out]


def _member(
    fetching: Fetching, seeds: tuple[str, ...] | None
) -> Callable[[Part, int], Callable[[list[str] | None], dict[str, list[str]]]]:
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
        self._known = self._desk.known()
        self._places = {url: place for place, url in enumerate(self._known.column("url").to_pylist())}
        self._links = Links(fetching.settings)

    def __call__(self, urls: list[str] | None) -> dict[str, list[str]]:
        """{final_urls, links} of URLs of this actor's sites; None: what it holds is to be stored."""
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
