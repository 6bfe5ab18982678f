"""Politeness: how many requests a site gets at a time, how far apart, and what is remembered about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from stages.web.consent.origin import OriginRules

# Hosts remembered by one process before the oldest are forgotten.
MAX_REMEMBERED = 20_000
# How long a host that gave no answer many times in a row is left alone; then one more try decides.
DOWN_SECONDS = 600.0


@dataclass
class HostMemory:
    """What one process remembers between fetches: origins' robots.txt, when sites may be asked next, who is down.

    Entries are replaced whole, so threads may share it.
    """

    clock: Callable[[], float] = time.monotonic
    """Seconds."""
    _rules: dict[tuple[str, str], tuple[OriginRules, float]] = field(default_factory=dict)
    _next_start: dict[str, float] = field(default_factory=dict)
    _failures: dict[str, int] = field(default_factory=dict)
    _down_until: dict[str, float] = field(default_factory=dict)

    def rules(self, origin: str, variant: str) -> OriginRules | None:
        """Rules of an origin that have not expired; `variant` names what else shaped the answer."""
        entry = self._rules.get((origin, variant))
        return entry[0] if entry is not None and entry[1] > self.clock() else None

    def keep_rules(self, origin: str, variant: str, rules: OriginRules, age: float = 0.0) -> None:
        """Keep rules for as long as they say, less the seconds that they are old."""
        _make_room(self._rules)
        self._rules[origin, variant] = (rules, self.clock() + rules.lifetime - age)

    def wait(self, site: str) -> float:
        """Seconds until a site may be asked again."""
        return max(0.0, self._next_start.get(site, 0.0) - self.clock())

    def ask_again_in(self, site: str, seconds: float) -> None:
        """Leave a site alone for some seconds from now; a longer pause already set stays."""
        _make_room(self._next_start)
        self._next_start[site] = max(self._next_start.get(site, 0.0), self.clock() + seconds)

    def answered(self, host: str) -> None:
        """A host gave an answer, whatever it said."""
        self._failures.pop(host, None)
        self._down_until.pop(host, None)

    def failed(self, host: str, most: int) -> None:
        """A host gave no answer; after `most` times in a row it is down for a while."""
        _make_room(self._failures)
        self._failures[host] = self._failures.get(host, 0) + 1
        if most and self._failures[host] >= most:
            _make_room(self._down_until)
            self._down_until[host] = self.clock() + DOWN_SECONDS

    def is_down(self, host: str) -> bool:
        """Whether a host has failed so often in a row that it is not worth asking now."""
        return bool(self._down_until) and self._down_until.get(host, 0.0) > self.clock()


def _make_room(entries: dict[Any, Any]) -> None:
    while len(entries) >= MAX_REMEMBERED:
        entries.pop(next(iter(entries)), None)


# Fetches of one process share what they know, so that the next level of a crawl asks no robots.txt again.
PROCESS_MEMORY = HostMemory()


@dataclass
class _Queue:
    """Who asks of a site, or waits to."""

    places: asyncio.Semaphore
    line: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Turns:
    """Hands out turns to ask: bounded in all, bounded per site, and spaced in time per site."""

    def __init__(self, concurrency: int, per_host_concurrency: int, memory: HostMemory) -> None:
        self._all = asyncio.Semaphore(concurrency)
        self._per_host_concurrency = per_host_concurrency
        self._queues: dict[str, _Queue] = {}
        self._memory = memory

    @asynccontextmanager
    async def turn(self, site: str, delay: float) -> AsyncIterator[None]:
        """Wait for one's turn and hold it while the request runs; `delay`: seconds to the next start.

        The shared slot is taken last and held by requests only, so sites that wait hold up no other site.
        """
        queue = self._queues.get(site)
        if queue is None:
            queue = self._queues[site] = _Queue(asyncio.Semaphore(self._per_host_concurrency))
        queue.users += 1
        try:
            async with queue.places:
                async with queue.line:
                    while (wait := self._memory.wait(site)) > 0:
                        await asyncio.sleep(wait)
                    await self._all.acquire()
                    self._memory.ask_again_in(site, delay)
                try:
                    yield
                finally:
                    self._all.release()
        finally:
            queue.users -= 1
            if not queue.users:
                del self._queues[site]

    def pause(self, site: str, seconds: float) -> None:
        """Leave a site alone for a while, as it asked (Retry-After)."""
        self._memory.ask_again_in(site, seconds)
