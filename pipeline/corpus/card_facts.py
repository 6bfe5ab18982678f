"""The card's facts, gathered from a finished corpus."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from pipeline.corpus.card import MOST_NAMES, CardSummary, Frequent
from pipeline.corpus.funnel import SAMPLED_OUT, by_rule, funnel
from pipeline.corpus.matches import by_distance, by_kind, own_captions
from pipeline.corpus.version import Corpus
from pipeline.corpus.words import sample_words, signal_words
from pipeline.engine.aggregates import Ranking, Rows, counts, totals
from pipeline.engine.storage import Storage
from pipeline.engine.table import Beside, Table, read_beside, side_by_side

# What the card counts of each document of the shards.
FACTS = pa.schema(
    [
        pa.field("split", pa.string()),
        pa.field("language", pa.string()),
        pa.field("license", pa.string()),
        pa.field("host", pa.string()),
        pa.field("image_bytes", pa.int64()),
    ]
)


def summary(corpus: Corpus) -> CardSummary:
    """What the card says of a version."""
    splits, languages, licenses, hosts, sizes = documents(corpus.table("kept"), corpus.table("shards")).aggregate(
        counts("split"),
        counts("language"),
        Ranking("license", MOST_NAMES),
        Ranking("host", MOST_NAMES),
        totals("image_bytes"),
    )
    (ruled,) = corpus.decided().aggregate(by_rule())
    made = corpus.manifest.counts
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
        documents=made.get("shards.documents", 0),
        images=made.get("shards.images", 0),
        sentences=made.get("shards.sentences", 0),
        matches=by_kind(made),
        distances=by_distance(made),
        own_captions=own_captions(made),
        negatives=made.get("shards.negatives", 0),
        image_bytes=sizes.column("image_bytes")[0].as_py(),
        shards=len(corpus.manifest.shards),
        shard_bytes=sum(part.bytes for part in corpus.manifest.shards),
        splits=_by_name(splits),
        languages=_by_name(languages),
        licenses=Frequent.of(licenses),
        hosts=Frequent.of(hosts),
        funnel=funnel(ruled, corpus.phases, made.get(SAMPLED_OUT, 0)),
        encoders=encoders,
        libraries=corpus.libraries(),
        limits=[f"It is made of a sample, {share} of the pages of its source."] if share else [],
        robots_checked=spec["source"]["kind"] in ("site", "urls") and spec["crawl"]["obey_robots"],
        signals=signal_words(spec),
    )


def documents(kept: Table, shards: Table) -> Rows:
    """The documents of the shards, with FACTS."""
    size = sum(part.bytes for part in (*kept.parts, *shards.parts))
    return Rows(partial(_facts, kept.storage), side_by_side(kept, shards), FACTS, size)


def _facts(storage: Storage, beside: Beside) -> pa.Table:
    about = ["document_id", "url", "language", "license", "images"]
    kept, rows = read_beside(storage, beside, about, ["document_id", "split"])
    place = pc.index_in(kept.column("document_id"), value_set=rows.column("document_id").combine_chunks())
    alive = pc.is_valid(place)
    kept = kept.filter(alive)
    return pa.table(
        [
            rows.column("split").take(place.filter(alive)),
            kept.column("language"),
            kept.column("license"),
            pa.array([urlsplit(url).netloc for url in kept.column("url").to_pylist()], pa.string()),
            _image_bytes(kept.column("images")),
        ],
        schema=FACTS,
    )


def _image_bytes(images: pa.ChunkedArray) -> pa.Array:
    """Bytes of each document's stored pictures."""
    lists = images.combine_chunks()
    lengths = pc.fill_null(pc.struct_field(lists.flatten(), ["body", "length"]), 0)
    ends = np.concatenate([[0], np.cumsum(np.asarray(lengths, np.int64))])
    last = np.cumsum(np.asarray(pc.fill_null(pc.list_value_length(lists), 0), np.int64))
    return pa.array(np.diff(ends[last], prepend=0))


def _by_name(counted: pa.Table) -> dict[Any, int]:
    name, n = counted.columns
    return dict(zip(name.to_pylist(), n.to_pylist(), strict=True))
