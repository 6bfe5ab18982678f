"""Fetching with memory: a URL is fetched once a snapshot; failures are rows too, tried again when asked to."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.key_range import KeyRange
from pipeline.engine.phase import Part
from pipeline.engine.row_store import GENERATION, ROW_KEY, RowStore
from schemas.keys import digest
from stages.web.client import fetch
from stages.web.fetched import FETCHED, Kind
from stages.web.settings import CrawlSettings
from stages.web.urls import host_of, url_id

# What decides whether a URL may be fetched and its answer used, as JSON: a row holds where none stricter is asked for.
POLICY = pa.field("policy", pa.string())
_OUTPUT = pa.schema([*FETCHED, POLICY])
# Distributions that shape what a fetch returns.
FETCH_LIBRARIES = ("ada-url", "aiohttp", "brotli", "protego", "w3lib", "yarl")


def host_key(host: str) -> str:
    """Leading 32 bits under which everything of a host is kept together."""
    return digest(host)[:8]


def fetch_key(url: str, policy: str) -> str:
    """Row key of a URL under a policy: its host's bits, then their own."""
    return host_key(host_of(url)) + digest(url_id(url), policy)[:24]


def policy_of(settings: CrawlSettings, kind: Kind, max_bytes: int) -> str:
    """The policy of a fetch, as it is stored with its row."""
    directives = settings.page_directives if kind == "page" else settings.image_directives
    policy = {
        "allow_private_networks": settings.allow_private_networks,
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
        new["user_agent"] == old["user_agent"]
        and new["allow_private_networks"] >= old["allow_private_networks"]
        and new["obey_robots"] <= old["obey_robots"]
        and set(new["directives"]) <= set(old["directives"])
        and new["max_bytes"] >= old["max_bytes"]
        and new["max_redirects"] >= old["max_redirects"]
    )


def fetch_remembered(
    part: Part,
    urls: Sequence[str],
    settings: CrawlSettings,
    *,
    kind: Kind,
    max_bytes: int,
    snapshot: str,
) -> pa.Table:
    """FETCHED rows of distinct URLs, in the order given; bodies as locators that tables may have.

    Hosts are fetched one after the other, and nobody else may be at those between them in the order of their keys.

    What an earlier build fetched for this snapshot is taken from the store, unless the policy has become stricter
    since. A failure or a refusal holds under its own policy alone; one that may pass is tried again when the part's
    generation is above the one it was made in.
    """
    if not urls:
        return RowStore(part.storage, "none", "none", _OUTPUT).schema.empty_table()
    bits = {host: int(host_key(host), 16) for host in map(host_of, urls)}
    within = KeyRange(min(bits.values()), max(bits.values()))
    store = RowStore(part.storage, f"fetch_{kind}", digest(snapshot), _OUTPUT)
    policy = policy_of(settings, kind, max_bytes)
    known = store.read(within)
    there = set(known.filter(_holds(known, policy, part.generation)).column("url").to_pylist())
    missing = [url for url in urls if url not in there]
    part.tell(len(urls) - len(missing), 0)
    whole: pa.Table | None = None
    for host in sorted(bits):
        ours = [url for url in missing if host_of(url) == host]
        for table in fetch(ours, settings, kind=kind, max_bytes=max_bytes) if ours else ():
            rows = table.append_column(POLICY, pa.array([policy] * table.num_rows, pa.string()))
            row_keys = pa.array([fetch_key(url, policy) for url in table.column("url").to_pylist()], pa.string())
            rows = rows.append_column(ROW_KEY, row_keys)
            rows = rows.append_column(GENERATION, pa.array([part.generation] * table.num_rows, pa.int32()))
            if rows.num_rows == len(missing):
                whole = rows  # goes straight to where it stays
            else:
                store.append(rows, within)
            part.tell(0, table.num_rows)
    everything = store.compact(within, whole)
    everything = everything.filter(_holds(everything, policy, part.generation))
    everything = everything.filter(pc.is_in(everything.column("url"), value_set=pa.array(urls, pa.string())))
    # Of rows that hold, the policy's own is taken before others', which stand in the order of their policies.
    facts = zip(everything.column("url").to_pylist(), everything.column("policy").to_pylist(), strict=True)
    place: dict[str, tuple[bool, str, int]] = {}
    for index, (url, made) in enumerate(facts):
        candidate = made != policy, made, index
        place[url] = min(place.get(url, candidate), candidate)
    return everything.take(pa.array([place[url][2] for url in urls], pa.int64()))


def _holds(known: pa.Table, policy: str, generation: int) -> pa.Array:
    """Mask of the rows that need no new fetch."""
    policies = pc.unique(known.column("policy")).to_pylist()
    allowed = pa.array([made for made in policies if allows(policy, made)], pa.string())
    fetched = pc.and_(pc.equal(known.column("status"), "ok"), pc.is_in(known.column("policy"), value_set=allowed))
    final = pc.or_(
        pc.invert(pc.fill_null(known.column("retryable"), False)),
        pc.greater_equal(known.column(GENERATION), generation),
    )
    failed = pc.and_(pc.not_equal(known.column("status"), "ok"), pc.equal(known.column("policy"), policy))
    return pc.or_(fetched, pc.and_(failed, final))
