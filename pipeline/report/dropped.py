"""What was dropped: how much by each rule, and a few of each to look at."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from pipeline.corpus.funnel import Funnel, Rule
from pipeline.report.data import Picture, RuleSamples, Sample

RULE = ("phase", "kind", "rule", "action")
DOCUMENT_ID = re.compile(r"\b[0-9a-f]{32}\b")


@dataclass(frozen=True)
class Wanted:
    """Documents, images and paragraphs that samples speak of."""

    documents: set[str]
    images: set[str]
    paragraphs: set[tuple[str, int]]  # document_id, node


@dataclass
class Dropped:
    """The funnel, and the samples of each rule with the smallest hashes."""

    examples: int
    funnel: Funnel = field(default_factory=Funnel)
    _samples: dict[Rule, list[tuple[int, dict[str, Any]]]] = field(default_factory=dict)

    def add(self, decisions: pa.Table) -> None:
        """Take in one file of schemas.decision.DECISION."""
        self.funnel.add(decisions)
        if self.examples:
            self._consider(decisions)

    def _consider(self, decisions: pa.Table) -> None:
        subject = [decisions.column(name).cast(pa.string()) for name in ("subject_id", "document_id", "position")]
        names = pc.binary_join_element_wise(*subject, "/", null_handling="replace", null_replacement="")
        draws = np.array([xxhash.xxh3_64_intdigest(name.encode()) for name in names.to_pylist()], np.uint64)
        ruled = pc.binary_join_element_wise(*(decisions.column(name) for name in RULE), "/").dictionary_encode()
        of = np.asarray(ruled.combine_chunks().indices)
        for each in np.unique(of):
            mine = np.flatnonzero(of == each)
            lowest = mine[np.argsort(draws[mine], kind="stable")[: self.examples]]
            rows = decisions.take(pa.array(lowest)).to_pylist()
            phase, kind, rule, action = (rows[0][name] for name in RULE)
            held = self._samples.setdefault((phase, kind, rule, action), [])
            held += zip(draws[lowest].tolist(), rows, strict=True)
            held.sort(key=lambda item: item[0])
            del held[self.examples :]

    def wanted(self) -> Wanted:
        """What has to be looked up to show the samples."""
        rows = [row for held in self._samples.values() for _, row in held]
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
        found = []
        for row in self.funnel.rows():
            held = [item for _, item in self._samples.get((row.phase, row.kind, row.rule, row.action), [])]
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
