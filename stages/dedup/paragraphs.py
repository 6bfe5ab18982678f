"""Paragraphs that a site repeats: one copy stays.

OBELICS removes every copy of a paragraph seen twice in a domain, the original among them; here one copy stays, in the
first document by id that is kept with it.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.filter.text_rules import flatten
from stages.filter.verdicts import decision_table, float_values
from stages.web.urls import host_of

OCCURRENCES = pa.schema(
    [
        pa.field("domain", pa.string()),  # host of the document's URL, with a port where it is not the scheme's own
        pa.field("paragraph_hash", pa.string()),
        pa.field("document_id", pa.string()),
        pa.field("position", pa.int32()),
        pa.field("words", pa.int32()),
    ]
)


def occurrences(scores: pa.Table, kept: pa.Table) -> pa.Table:
    """OCCURRENCES of all paragraphs that are kept, by document and position.

    `scores`: columns document_id, url and the paragraphs of `ScoreText`; `kept`: KEPT_NODES of some of these documents.
    """
    index = pc.index_in(kept.column("document_id"), scores.column("document_id").combine_chunks())
    scores = scores.take(index)
    paragraphs = flatten(scores.column("paragraphs"))
    positions = flatten(kept.column("positions"))
    place = float_values(paragraphs.column("position")).astype(np.int64)
    wide = 1 + max(place.max(initial=0), float_values(positions.fields).max(initial=0))
    stays = np.isin(
        paragraphs.owner * wide + place, positions.owner * wide + float_values(positions.fields).astype(np.int64)
    )
    owners = pa.array(paragraphs.owner[stays])
    domains = pa.array([host_of(url) for url in scores.column("url").to_pylist()], pa.string())
    columns = [paragraphs.column(name).filter(pa.array(stays)) for name in ("paragraph_hash", "position", "words")]
    return pa.table(
        [
            domains.take(owners),
            columns[0],
            scores.column("document_id").combine_chunks().take(owners),
            columns[1],
            columns[2].cast(pa.int32()),
        ],
        schema=OCCURRENCES,
    )


def repeated(rows: pa.Table, max_documents: int) -> pa.Table:
    """Of rows with columns key and document_id, all of every key, those whose key more than so many documents share."""
    counts = rows.group_by("key").aggregate([("document_id", "count_distinct")])
    frequent = counts.filter(pc.greater(counts.column("document_id_count_distinct"), max_documents))
    return rows.filter(pc.is_in(rows.column("key"), frequent.column("key").combine_chunks()))


# What `choose_paragraphs` reads: of documents by their place among those that are chosen.
REPEATED = pa.schema(
    [
        pa.field("group", pa.int64()),  # number of the domain and the paragraph
        pa.field("document", pa.int64()),
        pa.field("position", pa.int32()),
        pa.field("words", pa.int32()),
    ]
)


def choose_paragraphs(
    rows: pa.Table, documents: pa.Table, max_documents: int, fewest: float
) -> tuple[NDArray[np.bool_], pa.Table, pa.Table, pa.Table]:
    """(Whether each document stays; REPEATED rows of those that stay which are cut; DECISION rows of these, and of the
    documents that fall.)

    `rows`: REPEATED. `documents`: columns document_id, url, num_words of the documents that are chosen among their
    copies, by id. A paragraph of more than `max_documents` of them is kept by the first that stays, and cut from the
    others and where it stands there again (rule "paragraph_documents"). Documents go one after the other, by id: one
    that would be left with fewer than `fewest` words falls (rule "num_words") and takes nothing from those after it. So
    a repeated paragraph of a document that would stay with it stands in exactly one.
    """
    from stages.dedup.choice_kernel import cut_repeated

    rows = rows.sort_by([(name, "ascending") for name in ("document", "position")])
    owner, group = (np.asarray(rows.column(name), np.int64) for name in ("document", "group"))
    words = np.asarray(rows.column("words"), np.float64)
    pairs = np.unique(np.stack([group, owner], 1), axis=0)[:, 0]
    there = np.bincount(pairs, minlength=int(group.max(initial=-1)) + 1)
    count = documents.num_rows
    starts = np.searchsorted(owner, np.arange(count + 1))
    keeper = np.empty(len(there), np.int64)
    cut, lost = np.zeros(len(group), np.bool_), np.empty(count)
    left = float_values(documents.column("num_words"))
    cut_repeated(starts, np.where(there[group] > max_documents, group, -1), words, left, fewest, keeper, cut, lost)

    ids, urls = (documents.column(name).to_pylist() for name in ("document_id", "url"))
    gone = rows.filter(pa.array(cut))
    places = np.flatnonzero(cut)
    subjects = [ids[row] for row in owner[places].tolist()]
    cuts = decision_table(
        "paragraph",
        "drop",
        subjects,
        document_id=subjects,
        position=gone.column("position").to_pylist(),
        rule=["paragraph_documents"] * len(subjects),
        value=there[group[places]].astype(np.float64),
        high=[float(max_documents)] * len(subjects),
        detail=[f"kept {ids[row]}" for row in keeper[group[places]].tolist()],
    )
    fell = np.flatnonzero(lost < 0)
    subjects = [ids[row] for row in fell.tolist()]
    falls = decision_table(
        "document",
        "drop",
        subjects,
        document_id=subjects,
        url=[urls[row] for row in fell.tolist()],
        rule=["num_words"] * len(subjects),
        value=left[fell] + lost[fell],
        low=[fewest] * len(subjects),
        detail=["the rest of its paragraphs stands in documents that are kept"] * len(subjects),
    )
    return lost >= 0, gone, cuts, falls
