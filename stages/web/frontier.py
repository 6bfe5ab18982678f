"""The order of a crawl: breadth-first levels, each sorted, so that a cap gives the same pages every time.

A level is fetched by whoever the runner chooses, in any order; the next level depends on the set of links
found alone. The crawl is then a pure function of what the servers answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field

from stages.web.links import in_scope
from stages.web.settings import CrawlSettings
from stages.web.urls import canonicalize


@dataclass(frozen=True)
class Uncrawled:
    """A page left out by a cap, for a decision row: rule, measured value, upper bound."""

    url: str
    rule: str  # "max_pages" | "max_depth"
    value: float
    high: float


@dataclass(frozen=True)
class Frontier:
    """One level of a crawl."""

    depth: int
    """Links from the nearest seed."""
    urls: list[str]
    """Canonical, distinct, sorted, none of them seen before."""
    left_out: list[Uncrawled] = field(default_factory=list)
    """In scope but over a cap, sorted by URL."""
    num_out_of_scope: int = 0
    """Distinct new URLs that the scope leaves out."""


def first_frontier(seeds: Iterable[str], settings: CrawlSettings) -> Frontier:
    """Level 0: the seeds, cut at the page cap. ValueError for a seed that is no http(s) URL."""
    urls = sorted({canonicalize(seed, drop_parameters=settings.drop_parameters) for seed in seeds})
    return _capped(urls, 0, settings, num_taken=0)


def next_frontier(
    found: Iterable[str],
    seen: Set[str],
    *,
    seeds: Iterable[str],
    depth: int,
    num_taken: int,
    settings: CrawlSettings,
) -> Frontier:
    """The level at `depth`, from the canonical links `found` on the level before.

    `seen`: URLs of all levels so far, and the final URLs that their redirects led to. `num_taken`: URLs of all
    levels so far, which the page cap counts whether or not they could be fetched.
    """
    new = sorted(set(found).difference(seen))
    seeds = tuple(seeds)
    urls = [url for url in new if in_scope(url, seeds, settings)]
    num_out_of_scope = len(new) - len(urls)
    if settings.max_depth is not None and depth > settings.max_depth:
        left_out = [Uncrawled(url, "max_depth", depth, settings.max_depth) for url in urls]
        return Frontier(depth, [], left_out, num_out_of_scope)
    return _capped(urls, depth, settings, num_taken, num_out_of_scope)


def _capped(
    urls: list[str], depth: int, settings: CrawlSettings, num_taken: int, num_out_of_scope: int = 0
) -> Frontier:
    room = max(0, settings.max_pages - num_taken)
    position = num_taken + room
    left_out = [
        Uncrawled(url, "max_pages", number, settings.max_pages)
        for number, url in enumerate(urls[room:], start=position + 1)
    ]
    return Frontier(depth, urls[:room], left_out, num_out_of_scope)
