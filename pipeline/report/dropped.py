"""What was dropped: how much by each rule, and a few of each to look at."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import xxhash

from pipeline.corpus.funnel import Funnel, Rule
from pipeline.report.data import Picture, RuleSamples, Sample

# Rows of one rule in one file of decisions that are considered as samples: files are partitions by hash, so this
# many are as good as all.
CONSIDERED = 400
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
    _samples: dict[Rule, list[tuple[str, dict[str, Any]]]] = field(default_factory=dict)

    def add(self, decisions: pa.Table) -> None:
        """Take in one file of schemas.decision.DECISION."""
        self.funnel.add(decisions)
        if self.examples:
            self._consider(decisions)

    def _consider(self, decisions: pa.Table) -> None:
        seen: Counter[Rule] = Counter()
        for row in decisions.to_pylist():
            rule = (row["phase"], row["kind"], row["rule"], row["action"])
            seen[rule] += 1
            if seen[rule] > CONSIDERED:
                continue
            name = f"{row['subject_id']}/{row['document_id']}/{row['position']}"
            held = self._samples.setdefault(rule, [])
            held.append((xxhash.xxh3_64_hexdigest(name.encode()), row))
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
