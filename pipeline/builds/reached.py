"""A source that gave nothing: said at once and with its cause, before anything is made of no pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.words import rule_words

_ALLOW = "crawl.allow_private_networks: true lets interloom in"


def out_of_reach(pages: Iterable[pa.Table], again: str) -> str | None:
    """Why not one of the pages (schemas.page.PAGE, a part at a time) was got, in one line; None when one was.

    `again` is the command that asks again for what may pass.
    """
    reasons: Counter[tuple[str, bool]] = Counter()
    example: tuple[str, str] | None = None
    for part in pages:
        if pc.any(pc.equal(part.column("status"), "ok")).as_py():
            return None
        for row in part.select(["url", "reason", "detail", "retryable"]).to_pylist():
            reasons[row["reason"] or "error", bool(row["retryable"])] += 1
            example = min(example or (row["url"], row["detail"] or ""), (row["url"], row["detail"] or ""))
    if example is None:
        return None
    causes = ", ".join(f"{rule_words('page', rule)} ({number:,})" for (rule, _), number in reasons.most_common(3))
    remedies = []
    if any(retryable for _, retryable in reasons):
        remedies.append(f"ask again with {again}")
    if any(rule == "private_address" for rule, _ in reasons):
        remedies.append(_ALLOW)
    remedy = f"; {'; '.join(remedies)}" if remedies else ""
    detail = f": {example[1]}" if example[1] else ""
    return f"not one page could be read: {causes}; the first is {example[0]}{detail}{remedy}"
