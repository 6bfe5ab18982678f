"""Fetching: URLs in, rows out, as a polite and safe client of the open web.

Order of the checks for each hop of an item: canonical http(s) URL, public address, robots.txt and the files beside it,
the host's turn, status, what headers say of use, type; only then is a body read. Whatever a server does becomes a row.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field, replace
from threading import Thread
from typing import Any, Literal, Protocol, TypeVar

import aiohttp
import pyarrow as pa
from multidict import CIMultiDictProxy

from stages.web import robots
from stages.web.consent.excluded import is_excluded
from stages.web.consent.headers import HeaderConsent, header_consent
from stages.web.consent.origin import Asked, OriginAnswers, OriginRules, origin_files, origin_rules, rules_variant
from stages.web.fetched import (
    FETCHED,
    HTML_TYPES,
    Consent,
    Failed,
    Failure,
    Fetched,
    Kind,
    fetched_table,
    http_date,
    looks_like_html,
    media_type,
    one_line,
)
from stages.web.politeness import PROCESS_MEMORY, HostMemory, Turns
from stages.web.request import REDIRECTS, Answer, address_of, open_session, request, retry_after
from stages.web.settings import CrawlSettings
from stages.web.sites import site_of
from stages.web.urls import MAX_URL_LENGTH, canonicalize, host_of, origin_of
from stages.web.validators import NOT_MODIFIED, Earlier, Kept, Validators, no_earlier

__all__ = ["FETCHED", "Client", "CrawlSettings", "fetch"]

_ACCEPT = {
    "page": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.1",
    "image": "image/webp,image/png,image/jpeg,image/*;q=0.8,*/*;q=0.1",
    "sitemap": "application/xml,text/xml,text/plain;q=0.8,*/*;q=0.1",
}
_T = TypeVar("_T")
# Hosts that one call works on at a time: enough that waiting ones leave no slot idle, few enough for flat memory.
_ACTIVE_HOSTS = 8192
# A batch is handed over early at this many bytes or seconds, so that what is fetched is soon persisted.
_BATCH_BYTES = 64_000_000
_BATCH_SECONDS = 2.0
# What may be fetched and not yet taken by a consumer, over all calls; and what a row counts for beside its body.
_AHEAD_BYTES = 128_000_000
_ROW_BYTES = 1000
# Failures in which a host gave no answer at all.
_SILENT = ("dns", "connection", "timeout")


def fetch(
    urls: Sequence[str],
    settings: CrawlSettings,
    *,
    kind: Kind,
    max_bytes: int,
    batch_rows: int = 64,
    memory: HostMemory = PROCESS_MEMORY,
    method: Literal["GET", "HEAD"] = "GET",
) -> Iterator[pa.Table]:
    """`Client.fetch` of a client of its own."""
    client = Client(settings, memory=memory)
    try:
        yield from client.fetch(urls, kind=kind, max_bytes=max_bytes, batch_rows=batch_rows, method=method)
    finally:
        client.close()


class Origins(Protocol):
    """What origins said of themselves, as another process may know it."""

    def known(self, origin: str) -> OriginAnswers | None:
        """How an origin answered, None where it was not asked."""

    def learnt(self, origin: str, answers: OriginAnswers) -> None:
        """Remember it."""


class Client:
    """A polite and safe client of the open web: an event loop in a thread, one pool of connections, and what is known
    of hosts. Any number of threads may fetch through it at once; slow hosts of one hold up no other."""

    def __init__(
        self, settings: CrawlSettings, *, concurrency: int | None = None, memory: HostMemory = PROCESS_MEMORY
    ) -> None:
        """`concurrency`: requests in flight at a time; the settings' where it is not given. `memory`: robots.txt and
        pauses already known."""
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="fetch", daemon=True)
        self._thread.start()
        self._shared: _Shared = self._on(_shared(settings, concurrency or settings.concurrency, memory))

    def fetch(
        self,
        urls: Sequence[str],
        *,
        kind: Kind,
        max_bytes: int,
        batch_rows: int = 64,
        method: Literal["GET", "HEAD"] = "GET",
        earlier: Earlier = no_earlier,
        origins: Origins | None = None,
    ) -> Iterator[pa.Table]:
        """Fetch every distinct canonical URL once; yields FETCHED tables of up to `batch_rows` rows as they complete.

        Rows come in no order and depend on nothing but their URL and what its servers answer. A given URL that has
        no canonical form is a row "bad_url" under the URL as given. `max_bytes`: of one body, decoded. `method`: HEAD
        for what headers say alone; bodies are empty then. `earlier`: of a canonical URL, the answer to the same
        question; the server is asked whether it holds, and what does is a row as if it had been sent again, under what
        the server says of its use now. `origins`: where what origins said of themselves is remembered beyond this
        process. Nothing that a server does raises.

        Reasons: bad_url, excluded, robots, ai_txt, tdmrep, content_signal, rsl, private_address, dns, tls, connection,
        protocol, timeout, host_down, http_status, bad_redirect, too_many_redirects, x_robots_tag, not_html (pages),
        too_large, content_encoding, unexpected.
        """
        run = _Run(self._shared, kind, max_bytes, method, earlier, origins)
        try:
            self._on(run.begin(urls))
            while rows := self._on(run.next_batch(batch_rows)):
                yield fetched_table(rows)
        finally:
            self._on(run.close())

    def sitemaps(self, origins: Sequence[str], remembered: Origins | None = None) -> list[str]:
        """Canonical URLs of the sitemaps that the robots.txt of these origins names, sorted."""
        run = _Run(self._shared, "sitemap", 0, "GET", no_earlier, remembered)
        return sorted(set().union(*(self._on(run.sitemaps(origin)) for origin in origins)))

    def close(self) -> None:
        """Give up what is going on, and the connections."""
        self._on(self._shared.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _on(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Result of a coroutine that runs on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


@dataclass
class _Seen:
    """What is known of an item so far; becomes its row."""

    url: str
    budget: float  # seconds left on the network
    final_url: str | None = None
    http_status: int | None = None
    headers: CIMultiDictProxy[str] | None = None
    consent: Consent = field(default_factory=Consent)

    def row(self, body: bytes | None, failure: Failure | None) -> Fetched:
        headers = self.headers
        known = Validators() if headers is None or failure is not None else Validators.of(headers)
        return Fetched(
            url=self.url,
            final_url=self.final_url,
            http_status=self.http_status,
            content_type=headers.get("Content-Type") if headers is not None else None,
            modified=http_date(headers.get("Last-Modified")) if headers is not None else None,
            consent=self.consent,
            body=body,
            failure=failure,
            etag=known.etag,
            last_modified=known.last_modified,
            use_headers=known.use,
        )


@dataclass
class _Shared:
    """What all calls of a client have together, on its event loop."""

    settings: CrawlSettings
    memory: HostMemory
    session: aiohttp.ClientSession
    turns: Turns
    asked: dict[str, asyncio.Task[OriginRules]] = field(default_factory=dict)
    ahead: int = 0  # bytes of rows that no consumer has taken
    taken: asyncio.Event = field(default_factory=asyncio.Event)

    async def close(self) -> None:
        for task in list(self.asked.values()):
            task.cancel()
        await asyncio.gather(*self.asked.values(), return_exceptions=True)
        await self.session.close()
        await asyncio.get_running_loop().shutdown_default_executor()

    @contextlib.asynccontextmanager
    async def turn(self, url: str, delay: float) -> AsyncIterator[None]:
        """The turn of a URL's host; Failed when that is down. What is raised within says how the host fares."""
        host = host_of(url)
        async with self.turns.turn(await self._owed(url), delay):
            if self.memory.is_down(host):
                detail = f"{host} gave no answer {self.settings.max_host_failures} times in a row"
                raise Failed(Failure("host_down", detail, retryable=True, final=True))
            try:
                yield
            except Failed as error:
                if error.failure.reason in _SILENT:
                    self.memory.failed(host, self.settings.max_host_failures)
                else:
                    self.memory.answered(host)
                raise
            self.memory.answered(host)

    async def pause(self, url: str, seconds: float) -> None:
        """Leave the URL's host alone, as it asked."""
        self.turns.pause(await self._owed(url), min(seconds, self.settings.max_retry_wait))

    async def _owed(self, url: str) -> str:
        """Whom the politeness is owed to."""
        host = host_of(url)
        if self.settings.per_host == "domain":
            return site_of(host)
        if self.settings.per_host == "address":
            return await address_of(self.session, url) or host
        return host


async def _shared(settings: CrawlSettings, concurrency: int, memory: HostMemory) -> _Shared:
    turns = Turns(concurrency, settings.per_host_concurrency, memory)
    return _Shared(settings, memory, open_session(settings), turns)


class _Run:
    """One call of `Client.fetch`, on the client's event loop."""

    def __init__(
        self,
        shared: _Shared,
        kind: Kind,
        max_bytes: int,
        method: Literal["GET", "HEAD"],
        earlier: Earlier,
        origins: Origins | None,
    ) -> None:
        self.shared = shared
        self.settings = shared.settings
        self.method = method
        self.kind = kind
        self.max_bytes = max_bytes
        self.earlier = earlier if method == "GET" else no_earlier
        self.origins = origins
        self.done: asyncio.Queue[Fetched | None] = asyncio.Queue()  # null: there will be no more
        self.waiting = 0  # bytes of the rows there
        self.work: asyncio.Task[None] | None = None

    async def begin(self, urls: Sequence[str]) -> None:
        """Start on all URLs."""
        self.work = asyncio.create_task(self._all(urls))

    async def next_batch(self, rows: int) -> list[Fetched]:
        """The next rows to be done; empty when there are no more."""
        batch: list[Fetched] = []
        num_bytes = 0
        until = None
        while len(batch) < rows and num_bytes < _BATCH_BYTES:
            try:
                async with asyncio.timeout_at(until):
                    row = await self.done.get()
            except TimeoutError:
                break
            if row is None:
                self.done.put_nowait(None)
                assert self.work is not None
                await self.work  # an error of ours surfaces here
                break
            self._count(-_size(row))
            batch.append(row)
            num_bytes += len(row.body or b"")
            until = until or asyncio.get_running_loop().time() + _BATCH_SECONDS
        return batch

    async def close(self) -> None:
        """Stop whatever of this call is still going on."""
        if self.work is not None:
            self.work.cancel()
            await asyncio.gather(self.work, return_exceptions=True)
        self._count(-self.waiting)

    def _count(self, num_bytes: int) -> None:
        self.waiting += num_bytes
        self.shared.ahead += num_bytes
        if num_bytes < 0:
            self.shared.taken.set()

    async def _put(self, row: Fetched) -> None:
        # What waits is another's too: who has nothing waiting himself may always add a row, or nobody would go on.
        while self.waiting and self.shared.ahead > _AHEAD_BYTES:
            self.shared.taken.clear()
            await self.shared.taken.wait()
        self._count(_size(row))
        self.done.put_nowait(row)

    async def _all(self, urls: Sequence[str]) -> None:
        try:
            hosts: dict[str, dict[str, None]] = {}
            bad: dict[str, Failure] = {}
            for given in urls:
                try:
                    url = canonicalize(given)
                    host = host_of(url)
                    of = site_of(host) if self.settings.per_host == "domain" else host
                    hosts.setdefault(of, {})[url] = None
                except ValueError as error:
                    bad[one_line(given, MAX_URL_LENGTH)] = Failure("bad_url", str(error))
            for given, failure in bad.items():
                await self._put(Fetched(given, Consent(agent=self.settings.user_agent), failure=failure))
            active = asyncio.Semaphore(_ACTIVE_HOSTS)
            async with asyncio.TaskGroup() as group:
                for pending in hosts.values():
                    await active.acquire()
                    task = group.create_task(self._host(deque(pending)))
                    task.add_done_callback(lambda _: active.release())
        finally:
            self.done.put_nowait(None)

    async def _host(self, pending: deque[str]) -> None:
        async def lane() -> None:
            while pending:
                await self._put(await self._item(pending.popleft()))

        if self.settings.per_host_concurrency == 1 or len(pending) == 1:
            await lane()
            return
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self.settings.per_host_concurrency, len(pending))):
                group.create_task(lane())

    async def _item(self, url: str) -> Fetched:
        """One URL to its row, with further attempts where they may help."""
        budget = self.settings.total_timeout
        for attempt in range(self.settings.retries + 1):
            seen = _Seen(url, budget, consent=Consent(agent=self.settings.user_agent))
            try:
                return seen.row(await self._follow(seen), None)
            except Failed as error:
                failure = error.failure
            except Exception as error:  # a fault of ours or a library's on hostile input costs one row, named
                return seen.row(None, Failure("unexpected", f"{type(error).__name__}: {error}"))
            budget = seen.budget
            if not failure.retryable or failure.final or attempt == self.settings.retries or budget <= 0:
                break
            await self._back_off(attempt, failure)
        return seen.row(None, failure)

    async def _back_off(self, attempt: int, failure: Failure) -> None:
        wait = max(self.settings.retry_backoff * 2.0**attempt, failure.retry_after or 0.0)
        await asyncio.sleep(min(wait, self.settings.max_retry_wait))

    async def _follow(self, seen: _Seen) -> bytes:
        """The body at the end of an item's redirects."""
        url = seen.url
        chain = [url]
        kept = self.earlier(url)
        while True:
            rules = await self._allowed(seen, url)
            if kept is not None and kept.final_url == url:
                answer = await self._ask(seen, url, rules, kept)
                if answer.http_status == NOT_MODIFIED:
                    if kept.holds(answer.headers) and (body := await asyncio.to_thread(kept.body)) is not None:
                        return body
                    # There is nothing here that it speaks of: asked for in full.
                    kept, seen.consent = None, Consent(agent=self.settings.user_agent)
                    continue
            else:
                answer = await self._ask(seen, url, rules)
            if answer.http_status not in REDIRECTS:
                return self._typed(answer)
            url = _target(url, answer)
            if url in chain:
                raise Failed(Failure("too_many_redirects", f"redirects in a circle at {url}"))
            chain.append(url)
            if len(chain) > self.settings.max_redirects + 1:
                raise Failed(Failure("too_many_redirects", f"more than {self.settings.max_redirects} redirects"))

    async def _allowed(self, seen: _Seen, url: str) -> OriginRules | None:
        """Rules of the origin, which allow this URL; null when they are not to be asked."""
        if is_excluded(url, self.settings.excluded):
            raise Failed(Failure("excluded", "it is not to be asked for (crawl.excluded)", status="refused"))
        if not self.settings.obey_robots:
            return None
        rules = await self._rules(origin_of(url))
        if rules.host_failure is not None:
            raise Failed(replace(rules.host_failure, final=True))
        # A sitemap is read and not kept: what is said of use concerns what it lists, as that of a page does.
        verdict = rules.allow(url, "image" if self.kind == "image" else "page", self.settings.product)
        seen.consent = Consent(
            verdict.robots_allowed, rules.robots.source, None, self.settings.user_agent, verdict.signals
        ).decided(verdict.by, verdict.source)
        if not verdict.allowed:
            raise Failed(verdict.failure(url))
        return rules

    async def _ask(self, seen: _Seen, url: str, rules: OriginRules | None, kept: Kept | None = None) -> Answer:
        """One hop: the host's turn, the request, and what its headers say about use; whether `kept` still holds, where
        it is there."""

        def examine(http_status: int, headers: CIMultiDictProxy[str]) -> bool:
            unchanged = kept is not None and http_status == NOT_MODIFIED
            if unchanged and kept is not None:
                if not kept.holds(headers):
                    return False
                http_status, headers = kept.http_status, kept.freshened(headers)
            seen.final_url, seen.http_status, seen.headers = url, http_status, headers
            if http_status in REDIRECTS:
                return False
            self._examine(seen, url, http_status, headers)
            return not unchanged

        async with self.shared.turn(url, self._delay(None if rules is None else rules.robots)):
            start = time.monotonic()
            try:
                return await request(
                    self.shared.session,
                    url,
                    self.settings,
                    accept=_ACCEPT[self.kind],
                    max_bytes=self.max_bytes,
                    examine=examine,
                    timeout=seen.budget,
                    method=self.method,
                    conditions=None if kept is None else kept.conditions(),
                )
            except Failed as error:
                if (asked := error.failure.retry_after) is not None:
                    await self.shared.pause(url, asked)
                raise
            finally:
                seen.budget -= time.monotonic() - start

    def _delay(self, rules: robots.Rules | None) -> float:
        """Seconds between requests to a site whose robots.txt says this; None where it is not known."""
        asked = 0.0 if rules is None else rules.crawl_delay(self.settings.product)
        return max(self.settings.per_host_delay, min(asked, self.settings.max_crawl_delay))

    def _examine(self, seen: _Seen, url: str, http_status: int, headers: CIMultiDictProxy[str]) -> None:
        """Raise Failed when status or headers say that the body is not to be read."""
        settings = self.settings
        said = HeaderConsent(None)
        if self.kind != "sitemap":  # which says noindex of itself as a rule
            said = header_consent(lambda name: headers.getall(name, []), url, self.kind, settings)
            seen.consent = said.added_to(seen.consent)
        if not 200 <= http_status < 300 or http_status == 206:
            again = http_status in settings.retryable_statuses
            detail = f"HTTP status {http_status}"
            wait = retry_after(headers) if again else None
            later = again or http_status >= 500
            raise Failed(Failure("http_status", detail, retryable=later, final=not again, retry_after=wait))
        if said.refused_by is not None:
            raise Failed(said.failure())
        content_type = media_type(headers.get("Content-Type"))
        if self.kind == "page" and content_type not in (None, *HTML_TYPES):
            raise Failed(Failure("not_html", f"content type {content_type}", status="refused"))

    def _typed(self, answer: Answer) -> bytes:
        """The body, of a page without a type only when it looks like HTML."""
        untyped = media_type(answer.headers.get("Content-Type")) is None
        if self.kind == "page" and self.method == "GET" and untyped and not looks_like_html(answer.body):
            raise Failed(Failure("not_html", "no content type, and it does not look like HTML", status="refused"))
        return answer.body

    async def sitemaps(self, origin: str) -> set[str]:
        """Canonical URLs of the sitemaps that an origin names."""
        groups = (await self._rules(origin)).robots.groups
        found: set[str] = set()
        for url in () if groups is None else groups.sitemaps:
            with contextlib.suppress(ValueError):
                found.add(canonicalize(url))
        return found

    async def _rules(self, origin: str) -> OriginRules:
        """Rules of an origin, asked for once however many items wait for them."""
        variant = rules_variant(self.settings)
        if (known := self.shared.memory.rules(origin, variant)) is not None:
            return known
        if self.origins is not None and (answers := self.origins.known(origin)) is not None:
            rules, age = answers.rules(origin, self.settings), max(0.0, time.time() - answers.asked)
            if age < rules.lifetime:
                self.shared.memory.keep_rules(origin, variant, rules, age)
                return rules
        asked = self.shared.asked.get(origin)
        if asked is None:
            asked = self.shared.asked[origin] = asyncio.create_task(self._ask_rules(origin, variant))
            asked.add_done_callback(lambda _: self.shared.asked.pop(origin, None))
        return await asyncio.shield(asked)

    async def _ask_rules(self, origin: str, variant: str) -> OriginRules:
        began, said = time.time(), None
        for attempt in range(self.settings.retries + 1):
            try:
                said = await self._file(robots.robots_url(origin), self._delay(None))
                found = robots.rules_from_answer(origin, said.http_status, said.body)
                failure = Failure("http_status", found.source, retryable=not found.reachable)
            except Failed as error:
                failure, said = error.failure, None
                found = robots.rules_from_failure(origin, failure)
            if not failure.retryable or attempt == self.settings.retries:
                break
            await self._back_off(attempt, failure)
        beside: dict[str, Asked | None] = {}
        for url in origin_files(found, origin, self.settings):
            try:
                beside[url] = await self._file(url, self._delay(found))
            except Failed:
                beside[url] = None
        rules = origin_rules(found, origin, beside, self.settings)
        self.shared.memory.keep_rules(origin, variant, rules)
        if self.origins is not None and said is not None and found.reachable and not rules.may_change:
            there = {url: asked for url, asked in beside.items() if asked is not None}
            self.origins.learnt(origin, OriginAnswers(began, said, there))
        return rules

    async def _file(self, url: str, delay: float) -> Asked:
        """A file that speaks for its origin, as the last of its redirects answers it."""
        budget = self.settings.total_timeout
        for _ in range(robots.MAX_REDIRECTS + 1):
            async with self.shared.turn(url, delay):
                start = time.monotonic()
                answer = await request(
                    self.shared.session,
                    url,
                    self.settings,
                    accept="text/plain,*/*;q=0.1",
                    max_bytes=robots.MAX_BYTES,
                    examine=lambda status, _: 200 <= status < 300,
                    timeout=budget,
                    cut=True,
                )
            budget -= time.monotonic() - start
            if answer.http_status not in REDIRECTS:
                break
            try:
                url = _target(url, answer)
            except Failed:
                break  # nowhere to go on: the redirect's own status decides
        return Asked(answer.http_status, answer.body)


def _size(row: Fetched) -> int:
    return _ROW_BYTES + len(row.body or b"")


def _target(url: str, answer: Answer) -> str:
    """Where a redirect leads; Failed when it leads nowhere we may go."""
    locations = set(answer.headers.getall("Location", []))
    if len(locations) != 1:  # two are what an injected header looks like
        said = "several Locations" if locations else "without a Location"
        raise Failed(Failure("bad_redirect", f"HTTP status {answer.http_status}, {said}"))
    try:
        return canonicalize(_as_sent(locations.pop()), url)
    except ValueError as error:
        raise Failed(Failure("bad_redirect", str(error))) from None


def _as_sent(location: str) -> str:
    """A Location whose bytes are no UTF-8 with these escaped, as browsers do."""
    if location.isascii():
        return location
    sent = location.encode("utf-8", "surrogateescape")
    try:
        return sent.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(chr(byte) if byte < 0x80 else f"%{byte:02X}" for byte in sent)
