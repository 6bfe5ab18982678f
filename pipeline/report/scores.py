"""Score histograms, counted in fine bins while tables and decisions stream by, drawn in coarse ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.aggregates import Aggregate, summed
from pipeline.report.data import Histogram
from stages.filter.settings import FilterSettings
from stages.filter.text_rules import document_rules, flatten, paragraph_rules
from stages.filter.verdicts import float_values

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Bars that a chart of 360 pixels can hold.
BARS = 44
# Fine bins: (edges, logarithmic). Values beyond the ends count in the last bins.
SCALES: dict[str, tuple[Floats, bool]] = {
    "cosine": (np.linspace(-1, 1, 2001), False),
    "share": (np.linspace(0, 1, 1001), False),
    "number": (np.arange(-0.5, 1001), False),
    "size": (np.geomspace(1, 100_000, 1001), True),
    "ratio": (np.geomspace(0.02, 50, 1001), True),
}
# Fine bins that a chart spans at least, so that few equal values do not fill it.
NARROWEST = {"cosine": 300, "share": 200, "number": 10, "size": 200, "ratio": 160}
# Rules over shares of a text: what is counted, the share of what it is, a note.
SHARES = {
    "special_characters": ("Digits, marks and blanks", "share of its characters", ""),
    "stop_words": ("Function words", "share of its words", "in languages with a list of them"),
    "flagged_words": ("Flagged words", "share of its words", "in languages with a list of them"),
    "punctuation": ("Punctuation", "share of its words and marks", ""),
    "spam_words": ("Words like share, cookie, subscribe", "share of its words", "in languages with a list of them"),
    "character_repetition": ("Repeated characters", "share of its runs of characters", ""),
    "word_repetition": ("Repeated words", "share of its runs of words", ""),
}


@dataclass
class Score:
    """One score: where its kept values come from is the business of `Scores.add_shard` and `add_text`."""

    title: str
    unit: str
    scale: str
    rule: tuple[str, str] | None = None  # (kind, rule) of the decisions that dropped by it
    bounds: tuple[str, ...] = ()  # place of {min, max} in the spec
    note: str = ""
    kept: Ints = field(init=False)
    dropped: Ints = field(init=False)

    def __post_init__(self) -> None:
        bins = len(SCALES[self.scale][0]) - 1
        self.kept, self.dropped = np.zeros(bins, np.int64), np.zeros(bins, np.int64)


# Counts of the fine bins that are not empty, as one part has them.
COUNTED = pa.schema(
    [
        pa.field("score", pa.string()),
        pa.field("dropped", pa.bool_()),
        pa.field("bin", pa.int32()),
        pa.field("n", pa.int64()),
    ]
)
_together = partial(summed, COUNTED.names[:-1])


def of_shards() -> Aggregate:
    """The scores of shards (schemas.shard.SHARD)."""
    return Aggregate(_of_shard, _together)


def of_decisions() -> Aggregate:
    """The scores that rules dropped by (schemas.decision.DECISION)."""
    return Aggregate(_of_decisions, _together)


def of_counts() -> Aggregate:
    """What was counted already (`counted_text`)."""
    return Aggregate(_together, _together)


def counted_text(kept: pa.Table, scores: pa.Table, rules: FilterSettings) -> pa.Table:
    """COUNTED of the text scores of what is left (schemas.tables.KEPT) of one key range's documents (SCORED)."""
    found = Scores()
    found.add_text(kept, scores, rules)
    return found.counted()


def _of_shard(shard: pa.Table) -> pa.Table:
    found = Scores()
    found.add_shard(shard)
    return found.counted()


def _of_decisions(decisions: pa.Table) -> pa.Table:
    found = Scores()
    found.add_decisions(decisions)
    return found.counted()


class Scores:
    """All scores of a corpus, or of a part of it."""

    def __init__(self) -> None:
        image, document, paragraph = (("filter", kind) for kind in ("image", "document", "paragraph"))
        self._scores: dict[str, Score] = {
            "pair": Score("An image and its sentence", "cosine", "cosine", ("image", "similarity")),
            "other": Score("An image and the other sentences", "cosine", "cosine", note="of the same document"),
            "image_to_sentence": Score("An image and its mined sentences", "cosine", "cosine"),
            "sentence_to_image": Score("A sentence and its mined images", "cosine", "cosine"),
            "guard": Score("A negative and the true match", "cosine within a modality", "cosine"),
            "num_images": Score(
                "Images of a document", "", "number", ("document", "num_images"), (*document, "num_images")
            ),
            "document.language": Score(
                "Language of a document", "probability", "share", ("document", "language"), (*document, "language")
            ),
            "document.num_words": Score(
                "Words of a document", "", "size", ("document", "num_words"), (*document, "num_words")
            ),
            "paragraph.num_words": Score(
                "Words of a paragraph", "", "size", ("paragraph", "num_words"), (*paragraph, "num_words")
            ),
            "near_duplicate": Score(
                "A dropped document and the nearest to it",
                "similarity of their texts (Jaccard)",
                "share",
                ("document", "near_duplicate"),
                note="near-duplicates; of each cluster one document stays",
            ),
            "num_sentences": Score("Sentences of a document", "", "size"),
            "width": Score(
                "Width of an image", "pixels", "size", ("image", "original_width"), (*image, "original_width")
            ),
            "height": Score(
                "Height of an image", "pixels", "size", ("image", "original_height"), (*image, "original_height")
            ),
            "aspect": Score(
                "Shape of an image", "width over height", "ratio", ("image", "aspect_ratio"), (*image, "aspect_ratio")
            ),
        }  # fmt: skip
        for kind in ("paragraph", "document"):
            for rule, (what, unit, note) in SHARES.items():
                if (kind, rule) == ("paragraph", "punctuation"):
                    note = "not asked of short paragraphs"
                self._scores[f"{kind}.{rule}"] = Score(
                    f"{what} in a {kind}", unit, "share", (kind, rule), ("filter", kind, rule), note
                )
        self._by_rule = {score.rule: score for score in self._scores.values() if score.rule}

    def add_shard(self, shard: pa.Table) -> None:
        """Count the values of the documents of one shard (schemas.shard.SHARD)."""
        slices, owner = _flat(shard, "slices")
        kinds = _strings(slices, "kind")
        similarity = _floats(slices, "similarity")
        is_image = kinds == "image"
        self._keep("pair", similarity[is_image])
        self._keep_others(shard, similarity[is_image & ~np.isnan(similarity)])
        count = np.bincount(owner[~is_image], minlength=len(shard))
        self._keep("num_sentences", count.astype(np.float64))
        self._keep("num_images", np.bincount(owner[is_image], minlength=len(shard)).astype(np.float64))

        images, _ = _flat(shard, "image_info")
        width, height = _floats(images, "original_width"), _floats(images, "original_height")
        self._keep("width", width)
        self._keep("height", height)
        self._keep("aspect", width / np.where(height > 0, height, np.nan))

        negatives, _ = _flat(shard, "negatives")
        mined = _strings(negatives, "kind") == "mined"
        directions, score = _strings(negatives, "direction"), _floats(negatives, "score")
        for direction in ("image_to_sentence", "sentence_to_image"):
            self._keep(direction, score[mined & (directions == direction)])
        self._keep("guard", _floats(negatives, "guard")[mined])

    def add_text(self, kept: pa.Table, scores: pa.Table, rules: FilterSettings) -> None:
        """Count the text scores of what is left (schemas.tables.KEPT) of one key range's documents (SCORED)."""
        rows = pc.index_in(kept.column("document_id"), value_set=scores.column("document_id").combine_chunks())
        scores = scores.take(rows)
        paragraphs = flatten(scores.column("paragraphs"))
        positions, owner = _flat(kept, "positions")
        # One number a node of any document: positions are 32-bit.
        places = paragraphs.owner << 32 | np.asarray(paragraphs.column("position"), np.int64)
        stays = np.isin(places, owner << 32 | np.asarray(positions, np.int64))
        for rule in paragraph_rules(paragraphs, rules.paragraph):
            self._keep(f"paragraph.{rule.name}", rule.values[stays])
        for rule in document_rules(paragraphs, stays, scores, rules.document):
            self._keep(f"document.{rule.name}", rule.values)
        self._keep("document.language", float_values(scores.column("language_probability")))

    def add_decisions(self, decisions: pa.Table) -> None:
        """Count the values that rules dropped (schemas.decision.DECISION)."""
        rows = decisions.select(["kind", "rule", "value"]).filter(pc.is_valid(decisions.column("value")))
        place = {rule: index for index, rule in enumerate(self._by_rule)}
        pairs = zip(rows.column("kind").to_pylist(), rows.column("rule").to_pylist(), strict=True)
        places = np.array([place.get(pair, -1) for pair in pairs], np.int64)
        values = np.asarray(rows.column("value").to_numpy(), np.float64)
        for index, score in enumerate(self._by_rule.values()):
            score.dropped += _counted(values[places == index], score.scale)

    def counted(self) -> pa.Table:
        """COUNTED, of what was added."""
        names = [(name, dropped) for name in self._scores for dropped in (False, True)]
        bins = [
            score.dropped if dropped else score.kept for score in self._scores.values() for dropped in (False, True)
        ]
        filled = [np.flatnonzero(each) for each in bins]
        of = pa.array(np.repeat(np.arange(len(names)), [len(each) for each in filled]))
        columns = [
            pa.array([name for name, _ in names]).take(of),
            pa.array([dropped for _, dropped in names]).take(of),
            pa.array(np.concatenate(filled), pa.int32()),
            pa.array(np.concatenate([each[places] for each, places in zip(bins, filled, strict=True)])),
        ]
        return pa.table(columns, schema=COUNTED)

    def add_counted(self, counted: pa.Table) -> None:
        """Add what was counted elsewhere, COUNTED."""
        for row in counted.to_pylist():
            score = self._scores[row["score"]]
            bins = score.dropped if row["dropped"] else score.kept
            bins[row["bin"]] += row["n"]

    def histograms(self, spec: Mapping[str, Any]) -> list[Histogram]:
        """Charts of every score that has values; bounds come from the resolved spec."""
        found = []
        for name, score in self._scores.items():
            low, high = _bounds(name, score, spec)
            if drawn := draw(score, low, high):
                found.append(drawn)
        return found

    def _keep(self, name: str, values: Floats) -> None:
        score = self._scores[name]
        score.kept += _counted(values, score.scale)

    def _keep_others(self, shard: pa.Table, matched: Floats) -> None:
        """All cosines of the matrices but those of the pairs, which are among them."""
        rows, _ = _flat(shard, "similarity_matrix")
        values = np.asarray(pc.fill_null(rows.flatten(), np.nan), np.float64)
        score = self._scores["other"]
        score.kept += np.maximum(_counted(values, score.scale) - _counted(matched, score.scale), 0)


def draw(score: Score, low: float | None, high: float | None) -> Histogram | None:
    """Fine bins to a chart: the range that holds nearly everything, bins that end at a bound; None without values."""
    edges, log = SCALES[score.scale]
    whole = score.scale == "number"
    total = score.kept + score.dropped
    if not total.sum():
        return None
    share = np.cumsum(total) / total.sum()
    first = int(np.searchsorted(share, 0.001))
    last = int(np.searchsorted(share, 0.999)) + 1
    # Of whole numbers a bound itself passes: the bin before it ends half a number below.
    places = [int(np.searchsorted(edges, low - whole / 2))] if low is not None else []
    places += [int(np.searchsorted(edges, high + whole / 2))] if high is not None else []
    short = max(NARROWEST[score.scale] - (last - first), 0)
    first, last = max(first - short // 2, 0), last + short - short // 2
    reach = last - first
    for place in places:  # a bound that is not far off belongs into the picture
        if first - reach <= place <= last + reach:
            first, last = min(first, place - reach // 12), max(last, place + reach // 12)
    step = max(-(-(last - first) // BARS), 1)
    anchor = places[0] if places else first
    first -= (first - anchor) % step
    last += -(last - first) % step
    first, last = max(first, 0), min(last, len(edges) - 1)
    cuts = [*range(first, last, step), last]

    def coarse(fine: Ints) -> list[int]:
        inner = [int(fine[a:b].sum()) for a, b in pairwise(cuts)]
        # What lies beyond the picture stands in its outermost bars.
        inner[0] += int(fine[:first].sum())
        inner[-1] += int(fine[last:].sum())
        return inner

    return Histogram(
        score.title,
        score.unit,
        [float(edges[place]) for place in cuts],
        coarse(score.kept),
        coarse(score.dropped),
        low,
        high,
        score.note,
        kept_label="kept" if score.rule else "values",
        log_x=log,
        whole=whole,
    )


def _bounds(name: str, score: Score, spec: Mapping[str, Any]) -> tuple[float | None, float | None]:
    if name == "pair":
        return spec.get("pair", {}).get("min_similarity"), None
    if name == "guard":
        return None, spec.get("mine", {}).get("max_same_modality_similarity")
    if name == "near_duplicate":
        return None, spec.get("dedup", {}).get("threshold")
    place: Any = spec
    for key in score.bounds:
        place = place.get(key, {}) if isinstance(place, Mapping) else {}
    return (place.get("min"), place.get("max")) if score.bounds and isinstance(place, Mapping) else (None, None)


def _counted(values: Floats, scale: str) -> Ints:
    edges, _ = SCALES[scale]
    good = values[np.isfinite(values)]
    places = np.clip(np.searchsorted(edges, good, side="right") - 1, 0, len(edges) - 2)
    counts: Ints = np.bincount(places, minlength=len(edges) - 1)
    return counts


def _flat(table: pa.Table, name: str) -> tuple[Any, Ints]:
    """The items of a list column, and the row each belongs to."""
    column = table.column(name).combine_chunks()
    return column.flatten(), np.asarray(pc.list_parent_indices(column).to_numpy(zero_copy_only=False), np.int64)


def _strings(items: Any, name: str) -> npt.NDArray[np.object_]:
    return np.array(pc.struct_field(items, name).to_pylist(), dtype=object)


def _floats(items: Any, name: str) -> Floats:
    return np.asarray(pc.cast(pc.struct_field(items, name), pa.float64()).to_numpy(zero_copy_only=False), np.float64)
