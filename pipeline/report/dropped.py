"""What was dropped: how much by each rule, and a few of each to look at."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from pipeline.corpus.funnel import RULE, FunnelRow
from pipeline.engine.aggregates import Aggregate
from pipeline.report.data import Picture, RuleSamples, Sample

DOCUMENT_ID = re.compile(r"\b[0-9a-f]{32}\b")
# Samples of a rule lie by their draw; what differs although its draw does not lies by what it says.
_DRAW = "draw"
_ORDER = (*RULE, _DRAW, "url", "value", "low", "high", "detail")


@dataclass(frozen=True)
class Wanted:
    """Documents, images and paragraphs that samples speak of."""

    documents: set[str]
    images: set[str]
    paragraphs: set[tuple[str, int]]  # document_id, node


def examples(most: int) -> Aggregate:
    """Of each rule the decisions (schemas.decision.DECISION) whose subjects have the smallest hashes, by these."""
    return Aggregate(partial(_drawn, most), partial(_lowest, most))


def _drawn(most: int, decisions: pa.Table) -> pa.Table:
    subject = [decisions.column(name).cast(pa.string()) for name in ("subject_id", "document_id", "position")]
    names = pc.binary_join_element_wise(*subject, "/", null_handling="replace", null_replacement="")
    draws = [xxhash.xxh3_64_intdigest(name.encode()) for name in names.to_pylist()]
    return _lowest(most, decisions.append_column(_DRAW, pa.array(draws, pa.uint64())))


def _lowest(most: int, drawn: pa.Table) -> pa.Table:
    if not most:
        return drawn.slice(0, 0)
    draws = drawn.column(_DRAW).to_numpy()
    ruled = pc.binary_join_element_wise(*(drawn.column(name) for name in RULE), "/")
    of = np.asarray(ruled.combine_chunks().dictionary_encode().indices, np.int64)
    # A bound of each rule's draws, so that few rows have to be put in order.
    order = np.lexsort((draws, of))
    place = _place_within(of[order])
    bound = np.zeros(int(of.max(initial=-1)) + 1, np.uint64)
    near = order[place < most]
    np.maximum.at(bound, of[near], draws[near])
    few = drawn.filter(pa.array(draws <= bound[of])).sort_by([(name, "ascending") for name in _ORDER])
    ruled = pc.binary_join_element_wise(*(few.column(name) for name in RULE), "/")
    place = _place_within(np.asarray(ruled.combine_chunks().dictionary_encode().indices, np.int64))
    return few.filter(pa.array(place < most))


def _place_within(groups: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Place of each item in its group, whose items lie together."""
    at = np.arange(len(groups))
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    return at - np.repeat(starts, np.diff(starts, append=len(groups)))


class Dropped:
    """The funnel, and what `examples` found."""

    def __init__(self, funnel: Sequence[FunnelRow], found: pa.Table) -> None:
        self.funnel = funnel
        self._samples = found.to_pylist()

    def wanted(self) -> Wanted:
        """What has to be looked up to show the samples."""
        rows = self._samples
        documents = {row["document_id"] for row in rows if row["document_id"] and not row["url"]}
        documents |= {name for row in rows for name in DOCUMENT_ID.findall(row["detail"] or "")}
        images = {row["subject_id"] for row in rows if row["kind"] == "image"}
        places = [(row["document_id"], row["position"]) for row in rows if row["kind"] == "paragraph"]
        return Wanted(documents, images, {place for place in places if None not in place})

    def samples(
        self,
        urls: Mapping[str, str],
        pictures: Mapping[str, Picture | None],
        paragraphs: Mapping[tuple[str, int], str],
    ) -> list[RuleSamples]:
        """Samples in the order of the funnel; urls by document, thumbnails by image, texts by document and node."""
        by_rule: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
        for each in self._samples:
            by_rule.setdefault(tuple(each[name] for name in RULE), []).append(each)
        found = []
        for row in self.funnel:
            held = by_rule.get((row.phase, row.kind, row.rule, row.action))
            if not held:
                continue
            samples = [_sample(item, urls, pictures, paragraphs) for item in held]
            bounds = held[0]["low"], held[0]["high"]
            found.append(RuleSamples(row.phase, row.rule, row.kind, row.dropped, *bounds, samples))
        return found


def _sample(
    row: Mapping[str, Any],
    urls: Mapping[str, str],
    pictures: Mapping[str, Picture | None],
    paragraphs: Mapping[tuple[str, int], str],
) -> Sample:
    subject = row["url"] or urls.get(row["document_id"] or "", "")
    # Ids of other documents are for programs; people read addresses.
    detail = DOCUMENT_ID.sub(lambda found: urls.get(found.group(), found.group()), row["detail"] or "")
    detail = paragraphs.get((row["document_id"], row["position"]), detail)
    # A yes-or-no rule (at most 0) has nothing to tell by its value.
    value = None if row["high"] == 0 else row["value"]
    return Sample(subject[:500], "" if detail == subject else detail[:300], value, pictures.get(row["subject_id"]))
