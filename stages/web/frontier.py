"""The order of a crawl: breadth-first levels, each sorted, so that a cap gives the same pages every time.

A level is fetched by whoever the runner chooses, in any order; the next level depends on the set of links
found alone. The crawl is then a pure function of what the servers answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from stages.web.links import in_scope
from stages.web.settings import CrawlSettings
from stages.web.traps import Traps, is_download
from stages.web.urls import canonicalize


@dataclass(frozen=True)
class Uncrawled:
    """A page that is not asked for, for a decision row."""

    url: str
    rule: str
    """"not_a_page", "sitemap", or the setting that left it out: "max_pages", "max_depth", or one of traps.RULES."""
    detail: str
    """One line for people."""
    retryable: bool = False
    """A later run may do better."""


@dataclass(frozen=True)
class Frontier:
    """One level of a crawl."""

    depth: int
    """Links from the nearest seed."""
    urls: list[str]
    """Canonical, distinct, sorted, on no level before."""
    left_out: list[Uncrawled] = field(default_factory=list)
    """In scope but not asked for, sorted by URL; each on one level only."""


class Order:
    """The levels of one crawl, each made from what the pages of the one before link to."""

    def __init__(self, seeds: Iterable[str], settings: CrawlSettings) -> None:
        """ValueError for a seed that is no http(s) URL."""
        dropped = settings.drop_parameters
        self.seeds = tuple(sorted({canonicalize(seed, drop_parameters=dropped) for seed in seeds}))
        """Canonical, distinct."""
        self._settings = settings
        self._traps = Traps(settings)
        self._seen: set[str] = set()
        self._depth = -1
        self._num_taken = 0

    def first(self) -> Frontier:
        """The seeds, whatever they look like, cut at the page cap."""
        self._traps.keep(self.seeds, 0)
        return self._level(list(self.seeds), [])

    def next(self, found: Iterable[str], final_urls: Iterable[str] = ()) -> Frontier:
        """The level below, of the canonical links `found` on the last one, whose pages were at `final_urls`."""
        self._seen.update(final_urls)
        settings, depth = self._settings, self._depth + 1
        new = sorted(set(found).difference(self._seen))
        left_out: list[Uncrawled] = []
        urls: list[str] = []
        for url in new:
            if not in_scope(url, self.seeds, settings):
                continue
            if is_download(url, settings.skip_extensions):
                left_out.append(Uncrawled(url, "not_a_page", "its name is that of a file which is no page"))
            elif settings.max_depth is not None and depth > settings.max_depth:
                left_out.append(_beyond(url, "max_depth", settings.max_depth, depth))
            elif (trap := self._traps.take(url, depth)) is not None:
                left_out.append(Uncrawled(url, *trap))
            else:
                urls.append(url)
        return self._level(urls, left_out)

    def _level(self, urls: list[str], left_out: list[Uncrawled]) -> Frontier:
        """Cut at the page cap, which counts pages whether or not they can be fetched."""
        self._depth += 1
        most = self._settings.max_pages
        room = max(0, most - self._num_taken)
        over = enumerate(urls[room:], start=self._num_taken + room + 1)
        left_out += [_beyond(url, "max_pages", most, number) for number, url in over]
        level = Frontier(self._depth, urls[:room], sorted(left_out, key=lambda each: each.url))
        self._num_taken += len(level.urls)
        self._seen.update(level.urls)
        self._seen.update(each.url for each in level.left_out)
        return level


def _beyond(url: str, rule: str, high: int, value: int) -> Uncrawled:
    return Uncrawled(url, rule, f"{rule} is {high}, this would be {value}")
