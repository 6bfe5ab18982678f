"""Paragraphs that a site repeats: one copy stays.

OBELICS removes every copy of a paragraph seen twice in a domain, the original among them; here the copy in the
document with the smallest id stays.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from stages.filter.text_rules import flatten
from stages.filter.verdicts import decision_table, float_values
from stages.web.urls import host_of

OCCURRENCES = pa.schema(
    [
        pa.field("domain", pa.string()),  # host of the document's URL, with a port where it is not the scheme's own
        pa.field("paragraph_hash", pa.string()),
        pa.field("document_id", pa.string()),
        pa.field("position", pa.int32()),
    ]
)


def occurrences(scores: pa.Table) -> pa.Table:
    """OCCURRENCES of all paragraphs, by document and position.

    `scores`: columns document_id, url and the paragraphs of `ScoreText`.
    """
    paragraphs = flatten(scores.column("paragraphs"))
    owners = pa.array(paragraphs.owner)
    domains = pa.array([host_of(url) for url in scores.column("url").to_pylist()], pa.string())
    ids = scores.column("document_id").combine_chunks()
    return pa.table(
        [
            domains.take(owners),
            paragraphs.column("paragraph_hash"),
            ids.take(owners),
            paragraphs.column("position"),
        ],
        schema=OCCURRENCES,
    )


def choose_paragraphs(rows: pa.Table, max_documents: int) -> pa.Table:
    """DECISION rows (rule "paragraph_documents") for paragraphs of more than `max_documents` documents of a domain.

    `rows`: OCCURRENCES, all of every (domain, paragraph_hash). The kept copy is the first in the document with the
    smallest id; copies inside that document go too.
    """
    counts = rows.group_by(["domain", "paragraph_hash"]).aggregate([("document_id", "count_distinct")])
    frequent = counts.filter(pc.greater(counts.column("document_id_count_distinct"), max_documents))
    found = rows.join(frequent, ["domain", "paragraph_hash"], join_type="inner").sort_by(
        [(name, "ascending") for name in ("domain", "paragraph_hash", "document_id", "position")]
    )
    hashes = found.column("paragraph_hash").to_pylist()
    domains = found.column("domain").to_pylist()
    ids = found.column("document_id").to_pylist()
    dropped: list[int] = []
    first = 0
    details: list[str] = []
    for row in range(len(hashes)):
        if hashes[row] != hashes[first] or domains[row] != domains[first]:
            first = row
        elif row != first:
            dropped.append(row)
            details.append(f"kept {ids[first]} of {domains[first]}")
    gone = found.take(pa.array(dropped, pa.int64()))
    subjects = gone.column("document_id").to_pylist()
    decisions = decision_table(
        "paragraph",
        "drop",
        subjects,
        document_id=subjects,
        position=gone.column("position").to_pylist(),
        rule=["paragraph_documents"] * len(subjects),
        value=float_values(gone.column("document_id_count_distinct")),
        high=[float(max_documents)] * len(subjects),
        detail=details,
    )
    return decisions.sort_by([("subject_id", "ascending"), ("position", "ascending")])
