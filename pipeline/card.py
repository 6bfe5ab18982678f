"""The card's facts, gathered from a finished corpus a part at a time."""

from __future__ import annotations

from collections import Counter
from urllib.parse import urlsplit

import yaml

from pipeline.corpus import Corpus
from stages.card import CardSummary


def funnel(corpus: Corpus) -> list[dict[str, object]]:
    """Dropped items by phase, rule and kind, in build order, then by number."""
    rows: list[dict[str, object]] = []
    for phase in corpus.phases:
        counts: Counter[tuple[str, str]] = Counter()
        for decisions in corpus.table(phase).decisions():
            counts.update(zip(decisions.column("rule").to_pylist(), decisions.column("kind").to_pylist(), strict=True))
        rows += [
            {"phase": phase, "rule": rule, "kind": kind, "dropped": number}
            for (rule, kind), number in sorted(counts.items(), key=lambda each: (-each[1], each[0]))
        ]
    return rows


def summary(corpus: Corpus) -> CardSummary:
    """What the card says of a version."""
    languages: Counter[str | None] = Counter()
    licenses: Counter[str | None] = Counter()
    hosts: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    image_bytes = 0
    for rows, kept in zip(corpus.table("shards").read_all(), corpus.table("kept").read_all(), strict=True):
        splits.update(rows.column("split").to_pylist())
        alive = set(rows.column("document_id").to_pylist())
        for document in kept.select(["document_id", "url", "language", "license", "images"]).to_pylist():
            if document["document_id"] in alive:
                languages[document["language"]] += 1
                licenses[document["license"]] += 1
                hosts[urlsplit(document["url"]).netloc] += 1
                image_bytes += sum(image["body"]["length"] for image in document["images"] if image["body"])
    counts = corpus.manifest.counts
    spec = corpus.manifest.spec
    ingredients = corpus.phase_manifest("embeddings").ingredients["functions"]
    encoders = {
        f"{vector} {modality}": f"{name} (weights {function['weights']})"
        for function_name, modality in (("embed_image", "image"), ("embed_sentence", "sentence"))
        for function in [ingredients[function_name]]
        for vector, name in (("primary", function["settings"]["primary"]), ("shared", function["settings"]["shared"]))
    }
    libraries: dict[str, str] = {}
    for phase in corpus.phases:
        libraries |= corpus.phase_manifest(phase).ingredients["libraries"]
        for function in corpus.phase_manifest(phase).ingredients["functions"].values():
            libraries |= function["libraries"]
    return CardSummary(
        name=corpus.manifest.name,
        version=corpus.version,
        spec=yaml.safe_dump(spec, sort_keys=False, allow_unicode=True),
        documents=counts.get("shards.documents", 0),
        images=counts.get("shards.images", 0),
        sentences=counts.get("shards.sentences", 0),
        matched_images=counts.get("shards.matched_images", 0),
        negatives=counts.get("shards.negatives", 0),
        image_bytes=image_bytes,
        shards=len(corpus.manifest.shards),
        shard_bytes=sum(part.bytes for part in corpus.manifest.shards),
        splits=dict(sorted(splits.items())),
        languages=languages,
        licenses=licenses,
        hosts=hosts,
        funnel=funnel(corpus),
        encoders=encoders,
        libraries=libraries,
        robots_checked=spec["source"]["kind"] in ("site", "urls") and spec["crawl"]["obey_robots"],
    )
