"""Fetching with memory: a URL is fetched once a snapshot; failures are rows too, tried again when asked to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.keys import digest, digest_json
from pipeline.partition import KeyRange
from pipeline.phase import Part
from pipeline.row_store import GENERATION, ROW_KEY, RowStore
from stages.http import FETCHED, CrawlSettings, fetch
from stages.urls import host_of, url_id

Kind = Literal["page", "image"]
# Settings under which a refused or failed row was made: it holds only under the same ones.
POLICY = pa.field("policy", pa.string())
_OUTPUT = pa.schema([*FETCHED, POLICY])
_POLICY_FIELDS = frozenset(
    {
        "allow_private_networks",
        "image_directives",
        "max_redirects",
        "obey_robots",
        "page_directives",
        "user_agent",
    }
)


def host_key(host: str) -> str:
    """Leading 32 bits under which everything of a host is kept together."""
    return digest(host)[:8]


def fetch_key(url: str) -> str:
    """Row key of a URL: its host's bits, then its own."""
    return host_key(host_of(url)) + url_id(url)[:24]


def policy_key(settings: CrawlSettings, max_bytes: int) -> str:
    fields = {k: v for k, v in settings.model_dump(mode="json").items() if k in _POLICY_FIELDS}
    return digest_json({**fields, "max_bytes": max_bytes})


def fetch_remembered(
    part: Part,
    urls: Sequence[str],
    settings: CrawlSettings,
    *,
    kind: Kind,
    max_bytes: int,
    snapshot: str,
    generation: int,
) -> pa.Table:
    """FETCHED rows of distinct URLs of one host, in the order given; bodies as locators.

    What an earlier build fetched for this snapshot is taken from the store; a failure that may pass is tried again
    when `generation` is above the one it was made in.
    """
    if not urls:
        return RowStore(part.storage, "none", "none", _OUTPUT).schema.empty_table()
    first = int(host_key(host_of(urls[0])), 16)
    within = KeyRange(first, first)
    store = RowStore(part.storage, f"fetch_{kind}", digest(snapshot), _OUTPUT)
    policy = policy_key(settings, max_bytes)
    known = store.read(within)
    holds = pc.or_(
        pc.equal(known.column("status"), "ok"),
        pc.and_(
            pc.equal(known.column("policy"), policy),
            pc.or_(
                pc.invert(pc.fill_null(known.column("retryable"), False)),
                pc.greater_equal(known.column(GENERATION), generation),
            ),
        ),
    )
    known = known.filter(holds)
    keys = [fetch_key(url) for url in urls]
    there = set(known.column(ROW_KEY).to_pylist())
    missing = [url for url, key in zip(urls, keys, strict=True) if key not in there]
    part.tell(len(urls) - len(missing), 0)
    found = [known]
    for table in fetch(missing, settings, kind=kind, max_bytes=max_bytes) if missing else ():
        rows = table.append_column(POLICY, pa.array([policy] * table.num_rows, pa.string()))
        row_keys = pa.array([fetch_key(url) for url in table.column("url").to_pylist()], pa.string())
        rows = rows.append_column(ROW_KEY, row_keys)
        rows = rows.append_column(GENERATION, pa.array([generation] * table.num_rows, pa.int32()))
        found.append(store.append(rows, within))
        part.tell(0, table.num_rows)
    everything = pa.concat_tables(found).combine_chunks()
    place = {key: index for index, key in enumerate(everything.column(ROW_KEY).to_pylist())}
    return everything.take(pa.array([place[key] for key in keys], pa.int64()))
