"""Pages become documents: extraction, and the pages that are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.engine.phase import Part, Phase, Step
from pipeline.engine.resident import QUARANTINED
from pipeline.phases.consent import judged, refused_page
from pipeline.spec.loading import Spec
from schemas.document import DOCUMENT
from stages.extract import Extract
from stages.web.consent.page import PageConsent

_PAGE_ACTIONS = {"refused": "refuse", "quarantined": "quarantine"}


def page_decisions(pages: pa.Table) -> list[dict[str, Any]]:
    """Decisions about pages that could not be had."""
    return [
        {
            "kind": "page",
            "action": _PAGE_ACTIONS.get(page["status"], "drop"),
            "subject_id": page["page_id"],
            "url": page["url"],
            "rule": page["reason"] or "error",
            "value": page["http_status"],
            "detail": page["detail"],
        }
        for page in pages.select(["page_id", "url", "status", "reason", "detail", "http_status"]).to_pylist()
        if page["status"] != "ok"
    ]


def failed(kind: str, rule: str, error: str, **row: Any) -> dict[str, Any]:
    """Decision of a row whose function failed: quarantined when it had killed its worker."""
    action = "quarantine" if error.startswith(QUARANTINED) else "drop"
    rule = "quarantine" if action == "quarantine" else rule
    return {"kind": kind, "action": action, "rule": rule, "detail": error.removeprefix(QUARANTINED), **row}


def node_decisions(document_id: str, url: str, dropped: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Decisions about what was left out of a document (schemas.document.DROPPED)."""
    return [
        {
            "kind": "paragraph" if each["kind"] == "text" else "image",
            "action": "drop",
            "subject_id": document_id,
            "document_id": document_id,
            "url": each["detail"] if each["kind"] == "image" else url,
            "rule": each["rule"],
            "detail": each["detail"],
        }
        for each in dropped
    ]


def _usable(part: Part) -> pa.Table:
    """Pages that were had."""
    pages = part.read("pages")
    return pages.filter(pa.compute.equal(pages.column("status"), "ok"))


def _to_extract(part: Part) -> pa.Table:
    usable = _usable(part)
    columns = {name: usable.column(name) for name in ("page_id", "content_type", "content_hash", "body")}
    return pa.table({**columns, "url": usable.column("final_url")})


def documents(spec: Spec) -> Phase:
    """pages -> documents, one a page."""
    extract = Step(
        Extract(spec.extract),
        _to_extract,
        owner="page_id",
        key=("url", "content_type", "content_hash"),
        table="pages",
    )
    consent = PageConsent.of(spec.crawl)

    def run(part: Part, _: pa.Table | None) -> pa.Table:
        pages = part.read("pages")
        part.add("pages", pages.num_rows)
        part.decide(page_decisions(pages))
        usable = _usable(part)
        part.add("pages_fetched", usable.num_rows)
        _, results = part.answers(extract)
        kept: list[int] = []
        decided: list[dict[str, Any]] = []
        facts = usable.select(["page_id", "url"]).to_pylist()
        outcomes = results.select(["error", "meta_robots", "meta_tdm", "dropped"]).to_pylist()
        for index, (page, result) in enumerate(zip(facts, outcomes, strict=True)):
            if result["error"] is not None:
                decided.append(failed("page", "extract", result["error"], subject_id=page["page_id"], url=page["url"]))
            elif (refused := refused_page(result, page, consent)) is not None:
                decided.append(refused)
            else:
                kept.append(index)
                decided.extend(node_decisions(page["page_id"], page["url"], result["dropped"]))
        part.decide(decided)
        chosen = pa.array(kept, pa.int64())
        page_ids = usable.column("page_id").take(chosen)
        result = results.take(chosen)
        columns = {
            "document_id": page_ids,
            "page_id": page_ids,
            "modified": usable.column("modified").take(chosen),
            "image_bodies": pa.nulls(len(kept), DOCUMENT.field("image_bodies").type),
            "consent": usable.column("consent").take(chosen),
            "provenance": usable.column("provenance").take(chosen),
            **{name: result.column(name) for name in DOCUMENT.names if name in result.column_names},
        }
        # What a page itself declares comes before its server's word.
        linked = pa.compute.struct_field(columns["consent"], "license")
        columns["license"] = pa.compute.coalesce(columns["license"], linked)
        part.add("documents", len(kept))
        made, kept_back = judged(pa.table({name: columns[name] for name in DOCUMENT.names}), consent)
        part.decide(kept_back)
        return made

    return Phase(
        name="documents",
        schema=DOCUMENT,
        run=run,
        inputs=("pages",),
        settings={"consent": consent},
        modules=("pipeline.phases.consent",),
        steps=(extract,),
    )
