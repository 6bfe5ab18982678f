"""Pages: one row a fetched, read or refused URL."""

import pyarrow as pa

from schemas.consent import CONSENT
from schemas.contract import CARRIED, contract

# Where bytes lie in a pack file of a row store: they are read by range, never shuffled, and checked by their hash.
LOCATOR = pa.struct(
    [
        pa.field("pack", pa.string()),  # path relative to the corpus root
        pa.field("offset", pa.int64()),  # bytes
        pa.field("length", pa.int64()),  # bytes
        pa.field("hash", pa.uint64()),  # xxh3-64 of the bytes
    ]
)

PROVENANCE = pa.struct(
    [
        pa.field("kind", pa.string()),  # site | urls | html | warc | documents
        pa.field("snapshot", pa.string(), metadata=CARRIED),
        pa.field("file", pa.string(), metadata=CARRIED),  # local path, WARC file or file of documents, null for a crawl
        # of the WARC record or JSON line, bytes; of a row of a Parquet file its number from 0; else null
        pa.field("offset", pa.int64(), metadata=CARRIED),
        pa.field("length", pa.int64(), metadata=CARRIED),  # of the WARC record, bytes, else null
    ]
)

PAGE = contract(
    "page",
    2,
    [
        pa.field("page_id", pa.string(), nullable=False),  # xxh3-128 hex of the canonical URL (WARC: and file, offset)
        pa.field("url", pa.string(), nullable=False),  # canonical form of the URL asked for
        pa.field("final_url", pa.string()),  # after redirects
        pa.field("status", pa.string(), nullable=False),  # "ok" | "error" | "refused" | "quarantined"
        pa.field("reason", pa.string()),  # rule name when not ok, e.g. "robots", "http_status", "timeout"
        pa.field("detail", pa.string(), metadata=CARRIED),  # one line for people
        pa.field("retryable", pa.bool_(), metadata=CARRIED),  # a later run may do better
        pa.field("http_status", pa.int32()),
        pa.field("content_type", pa.string()),  # header as sent
        pa.field("content_hash", pa.string()),  # xxh3-128 hex of the body
        pa.field("body", LOCATOR, metadata=CARRIED),
        pa.field("modified", pa.timestamp("s", tz="UTC")),  # Last-Modified or WARC-Date, never our fetch time
        # of the sitemap that lists it, as written there (W3C Datetime, or as RSS has it), null where none does
        pa.field("lastmod", pa.string(), metadata=CARRIED),
        pa.field("depth", pa.int32()),  # link distance from the seeds, 0 for a seed
        pa.field("consent", CONSENT),
        pa.field("provenance", PROVENANCE),
    ],
    key="page_id",
)
