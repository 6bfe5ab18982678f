"""The text side: scores, and what the filters make of them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.keys import digest_json
from pipeline.engine.phase import Exchange, Part, Phase, Step
from pipeline.phases.documents import failed
from pipeline.spec.loading import Spec
from schemas.tables import SCORED, SELECTED
from stages.filter.text_rules import decide_text
from stages.text.scores import ScoreText

_CUT = pa.schema([pa.field("document_id", pa.string()), pa.field("position", pa.int32())])


def _cuts(part: Part, _: Any) -> pa.Table:
    """Repeated paragraphs, back to their documents."""
    return part.read("paragraphs").select(_CUT.names)


def _to_score(part: Part) -> pa.Table:
    """Documents that are no copies, with what their nodes are known by."""
    alive = part.read("unique").column("document_id").combine_chunks()
    documents = part.read("documents").select(["document_id", "url", "nodes", "language"])
    documents = documents.filter(pc.is_in(documents.column("document_id"), value_set=alive))
    keys = [digest_json(nodes) for nodes in documents.column("nodes").to_pylist()]
    return documents.append_column("nodes_key", pa.array(keys, pa.string()))


def scores(spec: Spec) -> Phase:
    """documents + unique -> scores: the words of every document measured; no rule has been applied yet."""
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
        inputs=("documents", "unique"),
        steps=(score,),
    )


def text(spec: Spec) -> Phase:
    """documents + scores + paragraphs -> text: documents whose words passed, and the nodes that are left of them."""

    def run(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        cut: dict[str, set[int]] = {}
        for row in rows.to_pylist():
            cut.setdefault(row["document_id"], set()).add(row["position"])
        scores = part.read("scores")
        documents = part.read("documents")
        documents = documents.filter(
            pc.is_in(documents.column("document_id"), value_set=scores.column("document_id").combine_chunks())
        )
        selected, decisions = decide_text(documents, _without(scores, cut), spec.filter)
        part.decide(decisions)
        part.add("documents", selected.num_rows)
        return _selected(documents, scores, selected)

    return Phase(
        name="text",
        schema=SELECTED,
        run=run,
        inputs=("documents", "scores", "paragraphs"),
        settings={"filter": spec.filter},
        modules=("stages.filter.text_rules",),
        exchange=Exchange(key="document_id", order=("document_id", "position"), schema=_CUT, emit=_cuts),
    )


def _without(scores: pa.Table, cut: dict[str, set[int]]) -> pa.Table:
    """Scores less those of paragraphs that were cut as repetitions: nothing keeps what has no score."""
    ids = scores.column("document_id").to_pylist()
    paragraphs = scores.column("paragraphs").to_pylist()
    left = [
        [each for each in found or () if each["position"] not in cut.get(document_id, ())]
        for document_id, found in zip(ids, paragraphs, strict=True)
    ]
    index = scores.schema.get_field_index("paragraphs")
    return scores.set_column(index, "paragraphs", pa.array(left, scores.schema.field(index).type))


def _selected(documents: pa.Table, scores: pa.Table, selected: pa.Table) -> pa.Table:
    """Kept documents with their kept nodes joined as text, for the near-duplicate search."""
    of = {row["document_id"]: row for row in selected.to_pylist()}
    language = dict(zip(*(scores.column(name).to_pylist() for name in ("document_id", "language")), strict=True))
    made: list[dict[str, Any]] = []
    for document in documents.select(["document_id", "modified", "nodes"]).to_pylist():
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
                "modified": document["modified"],
            }
        )
    return pa.Table.from_pylist(made, schema=SELECTED)
