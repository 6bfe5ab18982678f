"""A source that gave nothing, or fails too often: said at once and with its cause, before anything is made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.words import rule_words
from schemas.manifest import PhaseRecord

# Phases that ask servers, and what for.
_KINDS = {"pages": "page", "fetched_images": "image"}
# Things asked for below which a share says little.
_FEWEST = 100
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
    return f"not one page could be read: {_causes(reasons, 'page')}{_remedies(reasons, example, again)}"


def fails_too_often(record: PhaseRecord, most: float) -> bool:
    """Whether more than the share `most` of what a phase asked servers for failed; of few things no share is taken."""
    fetched, failed = (record.counts.get(name, 0) for name in ("fetched", "failed"))
    return fetched + failed >= _FEWEST and failed > most * (fetched + failed)


def failing(record: PhaseRecord, rows: Iterable[pa.Table], most: float, again: str) -> str | None:
    """Why more than the share `most` of what a phase asked servers for failed, in one line; None when it did not.

    `rows`: of its table, a part at a time; `again` as above.
    """
    if not fails_too_often(record, most):
        return None
    kind = _KINDS[record.phase]
    reasons: Counter[tuple[str, bool]] = Counter()
    examples: list[tuple[str, str]] = []
    for part in rows:
        failed = part.filter(pc.equal(part.column("status"), "error"))
        for row in failed.select(["url", "reason", "detail", "retryable"]).to_pylist():
            reasons[row["reason"] or "error", bool(row["retryable"])] += 1
            examples = sorted({*examples, (row["url"], row["detail"] or "")})[:1]
    failures, fetched = record.counts["failed"], record.counts["fetched"]
    return (
        f"{failures:,} of {failures + fetched:,} {kind}s could not be fetched, a share above crawl.max_failed "
        f"({most:g}): {_causes(reasons, kind)}{_remedies(reasons, examples[0], again)}; or raise the bound"
    )


def _causes(reasons: Counter[tuple[str, bool]], kind: str) -> str:
    return ", ".join(f"{rule_words(kind, rule)} ({number:,})" for (rule, _), number in reasons.most_common(3))


def _remedies(reasons: Counter[tuple[str, bool]], example: tuple[str, str], again: str) -> str:
    remedies = []
    if any(retryable for _, retryable in reasons):
        remedies.append(f"ask again with {again}")
    if any(rule == "private_address" for rule, _ in reasons):
        remedies.append(_ALLOW)
    remedy = f"; {'; '.join(remedies)}" if remedies else ""
    detail = f": {example[1]}" if example[1] else ""
    return f"; the first is {example[0]}{detail}{remedy}"
