"""Text-side decisions: which paragraphs, images and documents go on, from scores and the page alone.

Order: language of the document; paragraph rules; image rules that need no bytes; document rules over what is
left. A document keeps the upper bound on images for later: image filters may still bring it under.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.decision import DECISION
from stages.filter.settings import Bounds, DocumentRules, FilterSettings, ImageRules, ParagraphRules
from stages.filter.verdicts import Rule, Verdicts, decision_table, float_values, judge, ratio

KEPT_NODES = pa.schema(
    [
        pa.field("document_id", pa.string(), nullable=False),
        pa.field("positions", pa.list_(pa.int32()), nullable=False),  # node indexes, ascending
    ]
)
_EXTENSION = re.compile(r"\.([A-Za-z0-9]{2,5})$")
# File name endings that name an image format; others say nothing.
EXTENSIONS = {
    **{name: name for name in ("png", "webp", "gif", "bmp", "tiff", "svg", "ico", "avif", "heic", "jxl")},
    **dict.fromkeys(("jpg", "jpeg", "jpe", "jfif"), "jpeg"),
    "tif": "tiff",
    "svgz": "svg",
}
_DETAIL = 120  # characters of a paragraph shown in its decision
_FORBIDDEN = Bounds(max=0.0)  # for rules that are a yes or no: 1.0 is a yes


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes of several documents one after the other."""

    owner: NDArray[np.int64]  # row of the document
    position: NDArray[np.int64]  # index in its nodes
    fields: pa.StructArray

    def column(self, name: str) -> pa.Array:
        """One field of all nodes."""
        return pc.struct_field(self.fields, name)


def flatten(lists: pa.Array | pa.ChunkedArray) -> Nodes:
    """A list<struct> column as one struct array with owner rows and positions; null lists are empty."""
    array = lists.combine_chunks() if isinstance(lists, pa.ChunkedArray) else lists
    lengths = np.asarray(pc.fill_null(pc.list_value_length(array), 0), np.int64)
    starts = np.cumsum(lengths) - lengths
    owner = np.repeat(np.arange(len(lengths)), lengths)
    return Nodes(owner, np.arange(len(owner)) - np.repeat(starts, lengths), array.flatten())


def decide_text(documents: pa.Table, scores: pa.Table, settings: FilterSettings) -> tuple[pa.Table, pa.Table]:
    """(KEPT_NODES: surviving documents with the node positions they keep, DECISION rows for all else).

    `documents`: columns document_id, url, nodes of schemas.document. `scores`: the rows of `ScoreText` for them,
    in the same order. ValueError when the row counts differ.
    """
    if documents.num_rows != scores.num_rows:
        raise ValueError(f"{documents.num_rows} documents but {scores.num_rows} rows of scores")
    ids = documents.column("document_id").to_pylist()
    urls = documents.column("url").to_pylist()
    rules = settings.document

    by_language = judge(_language_rules(scores, rules), len(ids))
    decisions = [_document_decisions(ids, urls, by_language, scores.column("language").to_pylist())]
    alive = by_language.passed

    nodes = flatten(documents.column("nodes"))
    paragraphs = flatten(scores.column("paragraphs"))
    texts, image_urls = nodes.column("text"), nodes.column("image_url")
    node_starts = np.searchsorted(nodes.owner, np.arange(len(ids)))

    text_verdicts = judge(paragraph_rules(paragraphs, settings.paragraph), len(paragraphs.owner))
    in_alive = alive[paragraphs.owner]
    paragraph_position = float_values(paragraphs.column("position")).astype(np.int64)
    rows = np.flatnonzero(in_alive & ~text_verdicts.passed)
    owners = [ids[i] for i in paragraphs.owner[rows].tolist()]
    node_rows = node_starts[paragraphs.owner[rows]] + paragraph_position[rows]
    decisions.append(
        decision_table(
            "paragraph",
            "drop",
            owners,
            document_id=owners,
            position=paragraph_position[rows],
            detail=[(text or "")[:_DETAIL] for text in texts.take(pa.array(node_rows)).to_pylist()],
            **text_verdicts.columns(rows),
        )
    )
    kept_texts = in_alive & text_verdicts.passed

    image_rows = np.flatnonzero(np.asarray(pc.equal(nodes.column("kind"), "image")) & alive[nodes.owner])
    image_urls_here = image_urls.take(pa.array(image_rows)).to_pylist()
    image_ids = nodes.column("image_id").take(pa.array(image_rows)).to_pylist()
    image_rules = _image_rules(nodes, image_rows, image_urls_here, settings.image)
    # What another rule drops, as a thumbnail, takes none of its copies with it.
    passed = judge(image_rules, len(image_rows)).passed
    image_rules.append(Rule("repeated_in_document", repeats(nodes.owner[image_rows], image_ids, passed), _FORBIDDEN))
    image_verdicts = judge(image_rules, len(image_rows))
    rows = np.flatnonzero(~image_verdicts.passed)
    decisions.append(
        decision_table(
            "image",
            "drop",
            [image_ids[i] for i in rows.tolist()],
            document_id=[ids[i] for i in nodes.owner[image_rows[rows]].tolist()],
            url=[image_urls_here[i][:2048] for i in rows.tolist()],
            position=nodes.position[image_rows[rows]],
            **image_verdicts.columns(rows),
        )
    )
    kept_images = image_rows[image_verdicts.passed]

    num_images = np.bincount(nodes.owner[kept_images], minlength=len(ids)).astype(np.float64)
    final = judge(
        [
            Rule("num_images", num_images, Bounds(min=rules.num_images.min)),
            *document_rules(paragraphs, kept_texts, scores, rules),
        ],
        len(ids),
    )
    final = Verdicts(final.rules, np.where(alive, final.first, -1))
    decisions.append(_document_decisions(ids, urls, final))
    survivors = alive & final.passed

    keep = np.zeros(len(nodes.owner), np.bool_)
    keep[(node_starts[paragraphs.owner] + paragraph_position)[kept_texts]] = True
    keep[kept_images] = True
    return kept_table(ids, nodes, keep, survivors), pa.concat_tables(decisions).cast(DECISION)


def paragraph_rules(paragraphs: Nodes, rules: ParagraphRules) -> list[Rule]:
    """Rules over the scored paragraphs, in the declared order."""
    counts = {name: float_values(paragraphs.column(name)) for name in _COUNTS}
    num_words = counts["words"]
    marks = ratio(counts["punctuation"], num_words + counts["punctuation"])
    marks[num_words < rules.punctuation_min_words] = np.nan
    return [
        Rule("num_words", num_words, rules.num_words),
        Rule("special_characters", ratio(counts["special_characters"], counts["characters"]), rules.special_characters),
        Rule("stop_words", ratio(counts["stop_words"], num_words), rules.stop_words),
        Rule("flagged_words", ratio(counts["flagged_words"], num_words), rules.flagged_words),
        Rule("punctuation", marks, rules.punctuation),
        Rule("spam_words", ratio(counts["spam_words"], num_words), rules.spam_words),
        Rule(
            "character_repetition", float_values(paragraphs.column("character_repetition")), rules.character_repetition
        ),
        Rule("word_repetition", float_values(paragraphs.column("word_repetition")), rules.word_repetition),
    ]


_COUNTS = ("characters", "words", "special_characters", "punctuation", "stop_words", "flagged_words", "spam_words")


def kept_words(paragraphs: Nodes, kept: NDArray[np.bool_], num_documents: int) -> NDArray[np.float64]:
    """Words of each document in its kept paragraphs."""
    return _sums(paragraphs, "words", kept, num_documents)


def _sums(paragraphs: Nodes, name: str, kept: NDArray[np.bool_], num_documents: int) -> NDArray[np.float64]:
    """A count summed over the kept paragraphs of each document; NaN where a kept paragraph has none."""
    weights = float_values(paragraphs.column(name))[kept]
    return np.bincount(paragraphs.owner[kept], weights=weights, minlength=num_documents).astype(np.float64)


def document_rules(paragraphs: Nodes, kept: NDArray[np.bool_], scores: pa.Table, rules: DocumentRules) -> list[Rule]:
    """Rules over what is left of each document's text, in the declared order; `kept` masks its paragraphs."""
    sums = {name: _sums(paragraphs, name, kept, scores.num_rows) for name in _COUNTS}
    num_words = sums["words"]
    return [
        Rule("num_words", num_words, rules.num_words),
        Rule("character_repetition", float_values(scores.column("character_repetition")), rules.character_repetition),
        Rule("word_repetition", float_values(scores.column("word_repetition")), rules.word_repetition),
        Rule("special_characters", ratio(sums["special_characters"], sums["characters"]), rules.special_characters),
        Rule("stop_words", ratio(sums["stop_words"], num_words), rules.stop_words),
        Rule("flagged_words", ratio(sums["flagged_words"], num_words), rules.flagged_words),
        Rule("punctuation", ratio(sums["punctuation"], num_words + sums["punctuation"]), rules.punctuation),
    ]


def _language_rules(scores: pa.Table, rules: DocumentRules) -> list[Rule]:
    probability = np.nan_to_num(float_values(scores.column("language_probability")))
    listed = [
        float(rules.languages is not None and language is not None and language not in rules.languages)
        for language in scores.column("language").to_pylist()
    ]
    return [
        Rule("languages", np.array(listed, np.float64), _FORBIDDEN),
        Rule("language", probability, rules.language),
    ]


def repeats(owner: NDArray[np.int64], names: Sequence[str | None], passed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """1 for every row that has passed after another one of its owner that has, and has its name; else 0."""
    seen: set[tuple[int, str]] = set()
    repeated = np.zeros(len(owner))
    for i, (row, name) in enumerate(zip(owner.tolist(), names, strict=True)):
        if name is not None and passed[i]:
            repeated[i] = (row, name) in seen
            seen.add((row, name))
    return repeated


def _image_rules(nodes: Nodes, rows: NDArray[np.int64], urls: Sequence[str], rules: ImageRules) -> list[Rule]:
    furniture, forbidden = (np.zeros(len(rows)) for _ in range(2))
    for i, url in enumerate(urls):
        path = "" if url.startswith("data:") else urlsplit(url).path.lower()
        furniture[i] = any(word in path for word in rules.url_words)
        extension = _EXTENSION.search(path)
        known = EXTENSIONS.get(extension.group(1)) if extension else None
        forbidden[i] = known is not None and known not in rules.formats
    taken = pa.array(rows)
    return [
        Rule("url_words", furniture, _FORBIDDEN),
        Rule("format", forbidden, _FORBIDDEN),
        Rule("rendered_width", float_values(nodes.column("rendered_width").take(taken)), rules.rendered_width),
        Rule("rendered_height", float_values(nodes.column("rendered_height").take(taken)), rules.rendered_height),
    ]


def _document_decisions(
    ids: Sequence[str], urls: Sequence[str], verdicts: Verdicts, details: Sequence[str | None] | None = None
) -> pa.Table:
    rows = np.flatnonzero(~verdicts.passed)
    subjects = [ids[i] for i in rows.tolist()]
    return decision_table(
        "document",
        "drop",
        subjects,
        document_id=subjects,
        url=[urls[i] for i in rows.tolist()],
        detail=[details[i] if details is not None else None for i in rows.tolist()],
        **verdicts.columns(rows),
    )


def kept_table(ids: Sequence[str], nodes: Nodes, keep: NDArray[np.bool_], survivors: NDArray[np.bool_]) -> pa.Table:
    """KEPT_NODES rows of the surviving documents, in order, from a mask over all nodes."""
    keep = keep & survivors[nodes.owner]
    lengths = np.bincount(nodes.owner[keep], minlength=len(ids))[survivors]
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    positions = pa.ListArray.from_arrays(pa.array(offsets), pa.array(nodes.position[keep].astype(np.int32)))
    kept_ids = pa.array([ids[i] for i in np.flatnonzero(survivors).tolist()], pa.string())
    return pa.Table.from_arrays([kept_ids, positions.cast(KEPT_NODES.field("positions").type)], schema=KEPT_NODES)
