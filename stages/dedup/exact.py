"""Exact duplicates: one document a URL, one document a text.

Newest first (`modified`: WARC-Date or Last-Modified, never our fetch time; a document without a date is older
than any with one), then the smallest document id. Both functions want whole groups: partition by the key.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from stages.filter.verdicts import decision_table


def url_key(url: str, canonical_url: str | None) -> str:
    """The URL a document is grouped by: its rel=canonical, unless that is a site's common mistake.

    A canonical URL on another host, or the site's front page given by every page of the site, is not believed.
    """
    if not canonical_url:
        return url
    page, canonical = urlsplit(url), urlsplit(canonical_url)
    if canonical.netloc != page.netloc:
        return url
    if canonical.path in ("", "/") and not canonical.query and page.path not in ("", "/"):
        return url
    return canonical_url


def choose_by_url(rows: pa.Table) -> tuple[pa.Array, pa.Table]:
    """(document ids kept, sorted; DECISION rows naming the kept copy), rule "same_url".

    `rows`: columns document_id, url, canonical_url, modified; all documents of every `url_key` group.
    """
    keys = [
        url_key(url, canonical)
        for url, canonical in zip(rows.column("url").to_pylist(), rows.column("canonical_url").to_pylist(), strict=True)
    ]
    return _choose(rows, pa.array(keys, pa.string()), "same_url")


def choose_by_text(rows: pa.Table) -> tuple[pa.Array, pa.Table]:
    """(document ids kept, sorted; DECISION rows naming the kept copy), rule "same_text".

    `rows`: columns document_id, url, text_hash, modified; all documents of every text_hash. A null text_hash (no
    text) is no duplicate of anything.
    """
    return _choose(rows, rows.column("text_hash").combine_chunks(), "same_text")


def _choose(rows: pa.Table, keys: pa.Array, rule: str) -> tuple[pa.Array, pa.Table]:
    ids = rows.column("document_id").combine_chunks()
    keys = pc.if_else(pc.is_null(keys), pc.binary_join_element_wise("\0", ids, ""), keys)
    order = pc.sort_indices(
        pa.table({"key": keys, "modified": rows.column("modified"), "id": ids}),
        sort_keys=[("key", "ascending", "at_end"), ("modified", "descending", "at_end"), ("id", "ascending", "at_end")],
    )
    kept: dict[str, str] = {}
    dropped: list[str] = []
    copies: list[str] = []
    urls: list[str] = []
    page_urls = rows.column("url").to_pylist()
    all_ids, all_keys = ids.to_pylist(), keys.to_pylist()
    for row in order.to_pylist():
        copy = kept.setdefault(all_keys[row], all_ids[row])
        if copy != all_ids[row]:
            dropped.append(all_ids[row])
            copies.append(copy)
            urls.append(page_urls[row])
    decisions = decision_table(
        "document",
        "drop",
        dropped,
        document_id=dropped,
        url=urls,
        rule=[rule] * len(dropped),
        detail=[f"kept {copy}" for copy in copies],
    )
    return pa.array(sorted(kept.values()), pa.string()), decisions.sort_by("subject_id")
