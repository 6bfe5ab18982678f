"""Archives put together from records, and the rows that are read from them."""

from __future__ import annotations

import gzip
import io
from typing import Any

from stages.sources.warc import WARC_FETCHED, read_warc
from stages.web.settings import CrawlSettings


def members(*records: bytes) -> bytes:
    """A gzip member a record."""
    return b"".join(gzip.compress(each, mtime=0) for each in records)


def rows_of(data: bytes, file: str, settings: CrawlSettings | None = None, **options: Any) -> list[dict[str, Any]]:
    """Rows of a file of this name, each under an id of its own."""
    tables = list(read_warc(io.BytesIO(data), file, settings, **options))
    assert all(table.schema.equals(WARC_FETCHED) for table in tables)
    rows = [row for table in tables for row in table.to_pylist()]
    assert len({row["page_id"] for row in rows}) == len(rows)
    return rows
