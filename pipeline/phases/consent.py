"""What pages say of their use in their tags, as phases apply it: pages refused, pictures kept back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.web.consent.page import PageConsent, Refusal, page_refusal, pictures_refusal

# Rules of signals, and the columns of documents that hold what was said.
_TAGS = (("meta_robots", "meta_robots"), ("tdmrep", "meta_tdm"))


def refused_page(row: Mapping[str, Any], page: Mapping[str, Any], settings: PageConsent) -> dict[str, Any] | None:
    """The decision about a page whose meta tags (`row`: meta_robots, meta_tdm) forbid its use, None where none does."""
    refusal = page_refusal(row["meta_robots"], row["meta_tdm"], settings)
    if refusal is None:
        return None
    return {
        "kind": "page",
        "action": "refuse",
        "subject_id": page["page_id"],
        "url": page["url"],
        "rule": refusal.rule,
        "detail": refusal.said,
    }


def judged(documents: pa.Table, settings: PageConsent) -> tuple[pa.Table, list[dict[str, Any]]]:
    """(Documents as their pages allow their use, decisions about what is left out); most rows are as they were.

    The pictures that a page keeps back go, and what its tags say enters its consent record.
    """
    header = pc.struct_field(documents.column("consent").combine_chunks(), "x_robots_tag")
    told = pc.or_(pc.is_valid(documents.column("meta_robots")), pc.is_valid(documents.column("meta_tdm")))
    said = pa.array(np.flatnonzero(np.asarray(told) | np.asarray(pc.is_valid(header))), pa.int64())
    about = documents.select(["document_id", "meta_robots", "meta_tdm", "consent"]).take(said).to_pylist()
    consents: dict[int, Any] = {}
    words: dict[int, Any] = {}
    decisions: list[dict[str, Any]] = []
    for index, row in zip(said.to_pylist(), about, strict=True):
        consent = row["consent"]
        refusal = pictures_refusal(row["meta_robots"], consent["x_robots_tag"], settings)
        if refusal is not None:
            nodes = documents.column("nodes")[index].as_py()
            words[index] = [node for node in nodes if node["kind"] != "image"]
            kept_back = [node["image_url"] for node in nodes if node["kind"] == "image"]
            decisions += [_kept_back(row["document_id"], url, refusal) for url in kept_back]
        tags = [{"signal": rule, "said": f"{name}: {row[name]}"} for rule, name in _TAGS if row[name] is not None]
        if tags:
            consents[index] = consent | {"signals": [*(consent["signals"] or ()), *tags]}
    return _replaced(_replaced(documents, "consent", consents), "nodes", words), decisions


def _kept_back(document_id: str, url: str, refusal: Refusal) -> dict[str, Any]:
    return {
        "kind": "image",
        "action": "refuse",
        "subject_id": document_id,
        "document_id": document_id,
        "url": url,
        "rule": "kept_back",
        "detail": f"{refusal.rule}: {refusal.said}",
    }


def _replaced(table: pa.Table, name: str, values: Mapping[int, Any]) -> pa.Table:
    """The table with some values of a column replaced, by their rows."""
    if not values:
        return table
    column = table.column(name)
    places = np.arange(table.num_rows)
    places[sorted(values)] = table.num_rows + np.arange(len(values))
    made = pa.array([values[index] for index in sorted(values)], column.type)
    together = pa.chunked_array([*column.chunks, made], column.type)
    return table.set_column(table.column_names.index(name), table.field(name), together.take(pa.array(places)))
