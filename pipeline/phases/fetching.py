"""Fetching with memory: a URL is fetched once a snapshot; failures are rows too, tried again when asked to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from pipeline.engine.damage import Damaged
from pipeline.engine.key_range import KeyRange
from pipeline.engine.memo import Unanswered
from pipeline.engine.moment import now
from pipeline.engine.packs import read_packed
from pipeline.engine.phase import Part
from pipeline.engine.row_store import GENERATION, ROW_KEY, RowStore, stored_schema
from pipeline.engine.storage import Storage
from pipeline.phases.origins import RememberedOrigins
from schemas.keys import digest
from schemas.page import LOCATOR
from stages.web.client import Client
from stages.web.consent.policy import consent_policy, consents
from stages.web.fetched import FETCHED, Kind
from stages.web.settings import CrawlSettings
from stages.web.sites import site_key
from stages.web.urls import url_id
from stages.web.validators import Earlier, Kept, Validators, no_earlier

# What decides whether a URL may be fetched and its answer used, as JSON: a row holds where none stricter is asked for.
POLICY = pa.field("policy", pa.string())
_OUTPUT = pa.schema([*FETCHED, POLICY])
# Distributions that shape what a fetch returns.
FETCH_LIBRARIES = ("ada-url", "aiohttp", "brotli", "publicsuffixlist", "w3lib", "yarl")
# A killed worker loses what it fetched in this time; and rows that it keeps in memory at most.
_FLUSH_SECONDS = 2.0
_FLUSH_ROWS = 4096
_FLUSH_BYTES = 64_000_000
# Of a snapshot: its name, and when it was first fetched. Snapshots that are looked at for what may still hold.
_BEGUN = "begun.json"
_SNAPSHOTS = 2
_OF_KEPT = (
    *("url", "final_url", "status", "http_status", "content_type", "content_hash"),
    *("etag", "last_modified", "use_headers", "body", POLICY.name),
)


def fetch_key(url: str, policy: str) -> str:
    """Row key of a canonical URL under a policy: its site's bits, then their own."""
    return site_key(url) + digest(url_id(url), policy)[:24]


def policy_of(settings: CrawlSettings, kind: Kind, max_bytes: int) -> str:
    """The policy of a fetch, as it is stored with its row."""
    directives = {"page": settings.page_directives, "image": settings.image_directives}.get(kind, ())
    policy = {
        "allow_private_networks": settings.allow_private_networks,
        **consent_policy(settings),
        "directives": sorted(directives),
        "max_bytes": max_bytes,
        "max_redirects": settings.max_redirects,
        "obey_robots": settings.obey_robots,
        "user_agent": settings.user_agent,
    }
    return json.dumps(policy, sort_keys=True)


def allows(asked: str, made: str) -> bool:
    """Whether what was fetched under the policy `made` would have been under `asked` too: no rule of it is stricter.

    Another user agent is another reader: its rules in robots.txt and the answers it gets may differ. A row that does
    not say its policy, as older stores have them, holds for nobody.
    """
    try:
        new, old = json.loads(asked), json.loads(made)
    except ValueError:
        return False
    return bool(
        new["user_agent"] == old.get("user_agent")
        and new["allow_private_networks"] >= old["allow_private_networks"]
        and new["obey_robots"] <= old["obey_robots"]
        and set(new["directives"]) <= set(old["directives"])
        and new["max_bytes"] >= old["max_bytes"]
        and new["max_redirects"] >= old["max_redirects"]
        and consents(new, old)
    )


def _begun(storage: Storage, folder: str) -> str | None:
    """When the snapshot of a store was first fetched; None where that is not known."""
    try:
        return str(json.loads(storage.read(f"{folder}/{_BEGUN}"))["begun"])
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def _kept(storage: Storage, row: dict[str, Any]) -> Kept:
    """A stored row as its server may be asked about it."""
    locator, content_hash = row["body"], row["content_hash"]

    def body() -> bytes | None:
        try:
            (found,) = read_packed(storage, pa.array([locator], LOCATOR))
        except Damaged:
            return None
        return found if found is not None and xxhash.xxh3_128_hexdigest(found) == content_hash else None

    validators = Validators(row["etag"], row["last_modified"], tuple(row["use_headers"] or ()))
    return Kept(row["final_url"], row["http_status"], row["content_type"], validators, body)


@dataclass(frozen=True)
class Fetching:
    """What is fetched for a snapshot, and how it is remembered.

    What an earlier build fetched for the snapshot holds, unless the policy has become stricter since. A failure or a
    refusal holds under its own policy alone; one that may pass is tried again in a generation above its own. That a
    URL, or one that it leads to, was excluded holds for as long as the same things are.
    """

    settings: CrawlSettings
    kind: Kind
    max_bytes: int
    snapshot: str

    @property
    def name(self) -> str:
        return f"fetch_{self.kind}"

    @property
    def policy(self) -> str:
        return policy_of(self.settings, self.kind, self.max_bytes)

    @property
    def _not_asked(self) -> str:
        """The policy of rows that say `excluded`."""
        return json.dumps({"excluded": digest(*sorted(self.settings.excluded))})

    def store(self, storage: Storage) -> RowStore:
        return RowStore(storage, self.name, digest(self.snapshot), _OUTPUT)

    def begin(self, storage: Storage) -> None:
        """Write down when the snapshot was first fetched, unless that is done."""
        name = f"{self.store(storage).folder}/{_BEGUN}"
        if not storage.exists(name):
            storage.write(name, json.dumps({"snapshot": self.snapshot, "begun": now()}).encode())

    def earlier(self, storage: Storage, within: KeyRange) -> Earlier:
        """What snapshots before this one have of a range of sites under this policy and may be asked about.

        Of the newest snapshots, as many as are worth a look; what is lost of them is as if it had never been.
        """
        mine = digest(self.snapshot)
        begun = {key: _begun(storage, f"rows/{self.name}/{key}") for key in storage.names(f"rows/{self.name}")}
        before = sorted((moment, key) for key, moment in begun.items() if moment is not None and key != mine)
        stores = (RowStore(storage, self.name, key, _OUTPUT, needed=False) for _, key in before[-_SNAPSHOTS:])
        tables = [stored_schema(_OUTPUT).empty_table().select(_OF_KEPT)]
        for rows in (store.read(within).select(_OF_KEPT) for store in stores):
            fit = pc.or_(pc.is_valid(rows.column("etag")), pc.is_valid(rows.column("last_modified")))
            fit = pc.and_(fit, pc.equal(rows.column("status"), "ok"))
            tables.append(rows.filter(pc.and_(fit, pc.equal(rows.column(POLICY.name), self.policy))))
        there = pa.concat_tables(tables)
        places = {url: place for place, url in enumerate(there.column("url").to_pylist())}  # the newest one's

        def earlier(url: str) -> Kept | None:
            place = places.get(url)
            return None if place is None else _kept(storage, there.slice(place, 1).to_pylist()[0])

        return earlier

    def kept(self, fetched: pa.Table, generation: int) -> pa.Table:
        """FETCHED rows as they are stored."""
        policy, not_asked = self.policy, self._not_asked
        policies = [not_asked if each == "excluded" else policy for each in fetched.column("reason").to_pylist()]
        keys = list(map(fetch_key, fetched.column("url").to_pylist(), policies))
        rows = fetched.append_column(POLICY, pa.array(policies, pa.string()))
        rows = rows.append_column(ROW_KEY, pa.array(keys, pa.string()))
        return rows.append_column(GENERATION, pa.array([generation] * rows.num_rows, pa.int32()))

    def standing(self, stored: pa.Table, generation: int) -> pa.Table:
        """Of stored rows those that need no new fetch, one a URL: this policy's own before another's."""
        rows = stored.filter(self._holds(stored, generation))
        place: dict[str, tuple[bool, str, int]] = {}
        facts = zip(rows.column("url").to_pylist(), rows.column(POLICY.name).to_pylist(), strict=True)
        for index, (url, made) in enumerate(facts):
            candidate = made != self.policy, made, index
            place[url] = min(place.get(url, candidate), candidate)
        return rows.take(pa.array(sorted(index for _, _, index in place.values()), pa.int64()))

    def _holds(self, known: pa.Table, generation: int) -> pa.Array:
        """Mask of the rows that need no new fetch."""
        policy = self.policy
        policies = pc.unique(known.column("policy")).to_pylist()
        allowed = pa.array([made for made in policies if allows(policy, made)], pa.string())
        fetched = pc.and_(pc.equal(known.column("status"), "ok"), pc.is_in(known.column("policy"), value_set=allowed))
        final = pc.or_(
            pc.invert(pc.fill_null(known.column("retryable"), False)),
            pc.greater_equal(known.column(GENERATION), generation),
        )
        mine = pc.is_in(known.column("policy"), value_set=pa.array([policy, self._not_asked], pa.string()))
        return pc.or_(fetched, pc.and_(pc.and_(pc.not_equal(known.column("status"), "ok"), mine), final))

    def answers(self, storage: Storage, urls: Sequence[str], within: KeyRange, generation: int) -> pa.Table:
        """FETCHED rows of distinct URLs of a range of sites, in the order given; Unanswered when one is not fetched.

        Bodies are locators that tables may have: the range is compacted for it.
        """
        if not urls:
            return self.store(storage).schema.empty_table()
        rows = self.standing(self.store(storage).compact(within), generation)
        places = pc.index_in(pa.array(urls, pa.string()), value_set=rows.column("url").combine_chunks())
        if places.null_count:
            raise Unanswered(f"{self.name}: {places.null_count} of {len(urls)} URLs are not fetched")
        return rows.take(places)


class Desk:
    """What is fetched for a part's sites: the rows that there are, and new ones, which wait to be stored for a time
    that a kill may cost."""

    def __init__(self, fetching: Fetching, part: Part) -> None:
        self._fetching = fetching
        self._part = part
        self._store = fetching.store(part.storage)
        self._waiting: list[pa.Table] = []
        self._flushed = time.monotonic()

    @cached_property
    def origins(self) -> RememberedOrigins:
        """What is known of the sites' origins."""
        return RememberedOrigins(self._part.storage, self._fetching.settings, self._part.keys)

    @cached_property
    def _earlier(self) -> Earlier:
        self._fetching.begin(self._part.storage)
        if not self._fetching.settings.conditional_requests:
            return no_earlier
        return self._fetching.earlier(self._part.storage, self._part.keys)

    def known(self) -> pa.Table:
        """Stored rows that need no new fetch, one a URL."""
        return self._fetching.standing(self._store.read(self._part.keys), self._part.generation)

    def fetched(self, client: Client, urls: Sequence[str]) -> Iterator[pa.Table]:
        """FETCHED rows of URLs, as they come and are kept."""
        most, earlier, origins = self._fetching.max_bytes, self._earlier, self.origins
        for table in client.fetch(
            urls, kind=self._fetching.kind, max_bytes=most, batch_rows=_FLUSH_ROWS, earlier=earlier, origins=origins
        ):
            self._take(table)
            self._part.tell(0, table.num_rows)
            yield table

    def _take(self, fetched: pa.Table) -> None:
        self._waiting.append(fetched)
        late = time.monotonic() - self._flushed > _FLUSH_SECONDS
        rows = sum(table.num_rows for table in self._waiting)
        if late or rows >= _FLUSH_ROWS or sum(table.nbytes for table in self._waiting) >= _FLUSH_BYTES:
            self._append()

    def flush(self) -> None:
        """Have all of it stored."""
        self._append()
        if "origins" in vars(self):
            self.origins.store()

    def _append(self) -> None:
        if self._waiting:
            rows = self._fetching.kept(pa.concat_tables(self._waiting), self._part.generation)
            self._store.append(rows, self._part.keys)
            self._waiting.clear()
        self._flushed = time.monotonic()


@dataclass(frozen=True)
class FetchErrand:
    """The errand of a phase whose parts ask for URLs (pipeline.engine.phase.Errand)."""

    fetching: Fetching
    urls: Callable[[Part], Sequence[str]]

    @property
    def name(self) -> str:
        return self.fetching.name

    @property
    def concurrency(self) -> int:
        return self.fetching.settings.concurrency

    def open(self, concurrency: int) -> Fetcher:
        """A client with so many requests in flight at a time."""
        return Fetcher(self, concurrency)


class Fetcher:
    """What an actor holds of a FetchErrand."""

    def __init__(self, errand: FetchErrand, concurrency: int) -> None:
        self._errand = errand
        self._client = Client(errand.fetching.settings, concurrency=concurrency)

    def __call__(self, part: Part) -> int:
        """Fetch those of a part's URLs that no store has, and store them; how many they were."""
        urls = self._errand.urls(part)
        if not urls:
            return 0
        desk = Desk(self._errand.fetching, part)
        there = set(desk.known().column("url").to_pylist())
        missing = [url for url in urls if url not in there]
        part.tell(len(urls) - len(missing), 0)
        for _ in desk.fetched(self._client, missing):
            pass
        desk.flush()
        return len(missing)

    def close(self) -> None:
        """End its connections and its thread."""
        self._client.close()
