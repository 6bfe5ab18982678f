"""The card's facts, gathered from a finished corpus a part at a time."""

from __future__ import annotations

from collections import Counter
from urllib.parse import urlsplit

import yaml

from pipeline.corpus.card import CardSummary
from pipeline.corpus.funnel import SAMPLED_OUT, Funnel
from pipeline.corpus.version import Corpus
from pipeline.corpus.words import sample_words
from pipeline.engine.table import side_by_side


def summary(corpus: Corpus) -> CardSummary:
    """What the card says of a version."""
    languages: Counter[str | None] = Counter()
    licenses: Counter[str | None] = Counter()
    hosts: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    image_bytes = 0
    funnel = Funnel()
    funnel.add_sampled_out(corpus.manifest.counts.get(SAMPLED_OUT, 0))
    for decisions in corpus.decisions():
        funnel.add(decisions)
    for kept, rows in side_by_side(corpus.table("kept"), corpus.table("shards")):
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
    share = sample_words(spec["source"])
    ingredients = corpus.table("embeddings").record.ingredients["functions"]
    encoders = {
        f"{vector} {modality}": f"{name} (weights {function['weights']})"
        for function_name, modality in (("embed_image", "image"), ("embed_sentence", "sentence"))
        for function in [ingredients[function_name]]
        for vector, name in (("primary", function["settings"]["primary"]), ("shared", function["settings"]["shared"]))
    }
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
        funnel=[
            {"phase": row.phase, "rule": row.rule, "kind": row.kind, "dropped": row.dropped} for row in funnel.rows()
        ],
        encoders=encoders,
        libraries=corpus.libraries(),
        limits=[f"It is made of a sample, {share} of the pages of its source."] if share else [],
        robots_checked=spec["source"]["kind"] in ("site", "urls") and spec["crawl"]["obey_robots"],
    )
