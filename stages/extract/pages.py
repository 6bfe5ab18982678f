"""The row function: a batch of pages in, as many documents out."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from schemas.document import DOCUMENT
from stages.extract.document import extract_document
from stages.extract.settings import ExtractSettings
from stages.extract.source import NotAPage
from stages.row_function import ERROR

# What the runner adds: ids and the date come from the page's row, not from its bytes. Pages carry no pictures.
_ADDED = ("document_id", "page_id", "modified", "image_bodies", "consent", "provenance")
OUTPUT = pa.schema([*(pa.field(f.name, f.type) for f in DOCUMENT if f.name not in _ADDED), ERROR])


class Extract:
    """Pages to documents: columns url (final, absolute), content_type (may be null), body (large_binary)."""

    name = "extract"
    libraries = ("selectolax", "w3lib", "chardetng-py", "ada-url", "xxhash")
    weights: str | None = None
    output = OUTPUT
    batch_size = 64

    def __init__(self, settings: ExtractSettings) -> None:
        self.settings = settings

    def __call__(self, rows: pa.Table) -> pa.Table:
        """One row a page; `error` says why a page gave no document, and then nodes and dropped are empty."""
        documents = [
            self._row(url.as_py(), content_type.as_py(), body)
            for url, content_type, body in zip(
                rows.column("url"), rows.column("content_type"), rows.column("body"), strict=True
            )
        ]
        return pa.Table.from_pylist(documents, schema=OUTPUT)

    def _row(self, url: str | None, content_type: str | None, body: pa.Scalar) -> dict[str, Any]:
        row: dict[str, Any] = {"url": url, "nodes": [], "dropped": [], "error": None}
        if not body.is_valid or not url:
            return row | {"error": "no body" if url else "no url"}
        try:
            return row | extract_document(body.as_buffer().to_pybytes(), url, content_type, self.settings)
        except NotAPage as reason:
            return row | {"error": str(reason)}
        except (ValueError, LookupError, TypeError, RuntimeError, MemoryError) as failure:
            # a page that our own code fails on is one row, named; the batch goes on
            return row | {"error": f"extract: {type(failure).__name__}: {failure}".replace("\n", " ")[:500]}
