"""Politeness: how many requests a host gets at a time, how far apart, and what is remembered about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from stages.web.robots import Rules

# Hosts remembered by one process before the oldest are forgotten.
MAX_REMEMBERED = 20_000


@dataclass
class HostMemory:
    """What one process remembers about hosts between fetches: their robots.txt and when they may be asked next.

    Entries are replaced whole, so threads may share it.
    """

    clock: Callable[[], float] = time.monotonic
    """Seconds."""
    _rules: dict[tuple[str, str], tuple[Rules, float]] = field(default_factory=dict)
    _next_start: dict[str, float] = field(default_factory=dict)

    def rules(self, origin: str, variant: str) -> Rules | None:
        """Rules of an origin that have not expired; `variant` names what else shaped the answer."""
        entry = self._rules.get((origin, variant))
        return entry[0] if entry is not None and entry[1] > self.clock() else None

    def keep_rules(self, origin: str, variant: str, rules: Rules) -> None:
        """Keep rules for as long as they say."""
        _make_room(self._rules)
        self._rules[origin, variant] = (rules, self.clock() + rules.lifetime)

    def wait(self, host: str) -> float:
        """Seconds until a host may be asked again."""
        return max(0.0, self._next_start.get(host, 0.0) - self.clock())

    def ask_again_in(self, host: str, seconds: float) -> None:
        """Leave a host alone for some seconds from now; a longer pause already set stays."""
        _make_room(self._next_start)
        self._next_start[host] = max(self._next_start.get(host, 0.0), self.clock() + seconds)


def _make_room(entries: dict[Any, Any]) -> None:
    while len(entries) >= MAX_REMEMBERED:
        entries.pop(next(iter(entries)), None)


# Fetches of one process share what they know, so that the next level of a crawl asks no robots.txt again.
PROCESS_MEMORY = HostMemory()


class Turns:
    """Hands out turns to ask: bounded in all, bounded per host, and spaced in time per host."""

    def __init__(self, concurrency: int, per_host_concurrency: int, memory: HostMemory) -> None:
        self._all = asyncio.Semaphore(concurrency)
        self._per_host_concurrency = per_host_concurrency
        self._hosts: dict[str, tuple[asyncio.Semaphore, asyncio.Lock]] = {}
        self._memory = memory

    @asynccontextmanager
    async def turn(self, host: str, delay: float) -> AsyncIterator[None]:
        """Wait for one's turn and hold it while the request runs; `delay`: seconds to the next start.

        The shared slot is taken last and held by requests only, so hosts that wait hold up no other host.
        """
        if host not in self._hosts:
            self._hosts[host] = (asyncio.Semaphore(self._per_host_concurrency), asyncio.Lock())
        places, line = self._hosts[host]
        async with places:
            async with line:
                while (wait := self._memory.wait(host)) > 0:
                    await asyncio.sleep(wait)
                await self._all.acquire()
                self._memory.ask_again_in(host, delay)
            try:
                yield
            finally:
                self._all.release()

    def pause(self, host: str, seconds: float) -> None:
        """Leave a host alone for a while, as it asked (Retry-After)."""
        self._memory.ask_again_in(host, seconds)
