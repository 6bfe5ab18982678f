"""The text side: scores, and what the filters make of them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.keys import digest_json
from pipeline.engine.phase import Part, Phase, Step
from pipeline.phases.documents import failed
from pipeline.spec.loading import Spec
from schemas.tables import SCORED, SELECTED
from stages.dedup.exact import url_key
from stages.filter.text_rules import decide_text
from stages.text.scores import ScoreText
from stages.web.urls import url_id


def _to_score(part: Part) -> pa.Table:
    """Documents, with what their nodes are known by."""
    documents = part.read("documents").select(["document_id", "url", "nodes", "language"])
    keys = [digest_json(nodes) for nodes in documents.column("nodes").to_pylist()]
    return documents.append_column("nodes_key", pa.array(keys, pa.string()))


def scores(spec: Spec) -> Phase:
    """documents -> scores: the words of every document measured; no rule has been applied yet."""
    score = Step(ScoreText(spec.filter.scores), _to_score, owner="document_id", key=("nodes_key",), table="documents")

    def run(part: Part, _: pa.Table | None) -> pa.Table:
        documents, found = part.answers(score)
        errors = found.column("error").to_pylist()
        subjects = zip(*(documents.column(name).to_pylist() for name in ("document_id", "url")), errors, strict=True)
        part.decide(
            [
                failed("document", "score_text", error, subject_id=document_id, document_id=document_id, url=url)
                for document_id, url, error in subjects
                if error is not None
            ]
        )
        columns = {name: (documents if name in documents.column_names else found).column(name) for name in SCORED.names}
        columns["language"] = found.column("language")
        return pa.table(columns).filter(pc.is_null(found.column("error")))

    return Phase(
        name="scores",
        schema=SCORED,
        run=run,
        inputs=("documents",),
        steps=(score,),
    )


def text(spec: Spec) -> Phase:
    """documents + scores -> text: documents whose words passed, and the nodes that are left of them."""

    def run(part: Part, _: pa.Table | None) -> pa.Table:
        scores = part.read("scores")
        documents = part.read("documents")
        documents = documents.filter(
            pc.is_in(documents.column("document_id"), value_set=scores.column("document_id").combine_chunks())
        )
        selected, decisions = decide_text(documents, scores, spec.filter)
        part.decide(decisions)
        part.add("documents", selected.num_rows)
        return _selected(documents, scores, selected)

    return Phase(
        name="text",
        schema=SELECTED,
        run=run,
        inputs=("documents", "scores"),
        settings={"filter": spec.filter},
        modules=("stages.dedup.exact", "stages.filter.text_rules"),
        libraries=("ada-url", "w3lib"),
    )


def _selected(documents: pa.Table, scores: pa.Table, selected: pa.Table) -> pa.Table:
    """Kept documents with what their copies are found by: their kept nodes joined as text, and the URL."""
    of = {row["document_id"]: row for row in selected.to_pylist()}
    language = dict(zip(*(scores.column(name).to_pylist() for name in ("document_id", "language")), strict=True))
    made: list[dict[str, Any]] = []
    for document in documents.select(["document_id", "url", "canonical_url", "text_hash", "nodes"]).to_pylist():
        if (row := of.get(document["document_id"])) is None:
            continue
        nodes = [document["nodes"][position] for position in row["positions"]]
        made.append(
            {
                "document_id": document["document_id"],
                "language": language[document["document_id"]],
                "positions": row["positions"],
                "num_images": sum(node["kind"] == "image" for node in nodes),
                "text": "\n\n".join(node["text"] for node in nodes if node["kind"] == "text"),
                "text_hash": document["text_hash"],
                "url_key": url_id(url_key(document["url"], document["canonical_url"])),
            }
        )
    return pa.Table.from_pylist(made, schema=SELECTED)
