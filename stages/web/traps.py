"""Where a crawl would never end or never find a page: calendars, endless queries, paths that grow, downloads."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from urllib.parse import urlsplit

from stages.web.settings import CrawlSettings

# The settings that bound a trap; what they leave out is named after them.
RULES = ("max_path_segments", "max_repeated_segments", "max_queries_of_path", "max_levels_alike")

_EXTENSION = re.compile(r"\.([a-z0-9]{1,8})$", re.IGNORECASE)
_NUMBER = re.compile(r"\d+")
# What a server makes up for a reader or an item is a long run of letters and digits mixed.
_RUN = re.compile(r"[A-Za-z0-9]{16,}")


def is_download(url: str, extensions: Collection[str]) -> bool:
    """Whether a canonical URL's last segment ends in one of these extensions, without looking at its query.

    A name with a colon is a wiki's page about a file ("File:Map.png").
    """
    name = urlsplit(url).path.rpartition("/")[2]
    found = _EXTENSION.search(name)
    return found is not None and ":" not in name and found[1].lower() in extensions


def shape_of(url: str) -> str:
    """What a canonical URL has in common with others of its kind: numbers as N, made-up names as *, names of query
    parameters without their values ("http://h/cal/2031/3?day=4" -> "http://h/cal/N/N?day=")."""
    parts = urlsplit(url)
    path = _NUMBER.sub("N", _RUN.sub(lambda run: run[0] if run[0].isalpha() else "*", parts.path))
    names = sorted({_NUMBER.sub("N", each.partition("=")[0]) for each in parts.query.split("&") if each})
    return f"{parts.scheme}://{parts.netloc}{path}" + ("?" + "&".join(f"{name}=" for name in names) if names else "")


class Traps:
    """What one crawl has seen of each kind of URL; asked once for each URL, level by level, in their order."""

    def __init__(self, settings: CrawlSettings) -> None:
        self._settings = settings
        self._queries: Counter[str] = Counter()  # by address without query
        self._levels: dict[str, tuple[int, int]] = {}  # by shape: how many, and the last of them

    def keep(self, urls: Iterable[str], depth: int) -> None:
        """Count URLs that are taken whatever they look like."""
        for url in urls:
            self.take(url, depth)

    def take(self, url: str, depth: int) -> tuple[str, str] | None:
        """Count a new canonical URL of a level; rule and detail where it is not to be asked for."""
        settings = self._settings
        address, mark, _ = url.partition("?")
        segments = [each for each in urlsplit(url).path.split("/") if each]
        if len(segments) > settings.max_path_segments:
            return self._over("max_path_segments", len(segments), "of it")
        often = max(Counter(segments).values(), default=0)
        if often > settings.max_repeated_segments:
            return self._over("max_repeated_segments", often, "of one name")
        if mark:
            self._queries[address] += 1
            if self._queries[address] > settings.max_queries_of_path:
                return self._over("max_queries_of_path", self._queries[address], f"of {address}")
        shape = shape_of(url)
        levels, last = self._levels.get(shape, (0, -1))
        if last != depth:
            if levels >= settings.max_levels_alike:
                return self._over("max_levels_alike", levels + 1, f"of pages like {shape}")
            self._levels[shape] = levels + 1, depth
        return None

    def _over(self, rule: str, value: int, what: str) -> tuple[str, str]:
        return rule, f"{rule} is {getattr(self._settings, rule)}, this would be {value} {what}"
