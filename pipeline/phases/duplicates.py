"""Duplicates: the same URL, the same text, the same paragraph, nearly the same text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.phase import Exchange, Part, Phase, Step
from pipeline.phases.documents import failed
from pipeline.spec.loading import Spec
from schemas.keys import digest
from schemas.tables import CANDIDATE, CANDIDATE_PAIR, CLUSTER, CUT, EDGE, SIGNATURE, SIMILARITY, UNIQUE
from stages.dedup.banding import BAND_KEYS, EDGES, band_keys, candidate_edges, distinct
from stages.dedup.document_keys import DOCUMENT_KEY, hex_digits, ids_of, keys_of
from stages.dedup.exact import choose_by_text, choose_by_url, url_key
from stages.dedup.near import MinHashSignatures, choose_kept
from stages.dedup.paragraphs import OCCURRENCES, choose_paragraphs, occurrences
from stages.dedup.similarity import members, sketches
from stages.dedup.similarity import similarities as similarities_of
from stages.text.normal_form import text_hash
from stages.web.urls import url_id

_CANDIDATE_COLUMNS = ["document_id", "url", "canonical_url", "text_hash", "modified"]
_CANDIDATE = pa.schema(list(CANDIDATE))


def _by_url(part: Part, _: Any) -> pa.Table:
    rows = part.read("documents").select(_CANDIDATE_COLUMNS)
    urls, canonical = rows.column("url").to_pylist(), rows.column("canonical_url").to_pylist()
    keys = [url_id(url_key(url, other)) for url, other in zip(urls, canonical, strict=True)]
    return rows.add_column(0, "key", pa.array(keys, pa.string()))


def unique_urls(spec: Spec) -> Phase:
    """documents -> unique_urls: one document a canonical URL."""

    def run(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        return _chosen(part, rows, *choose_by_url(rows))

    return Phase(
        name="unique_urls",
        schema=CANDIDATE,
        run=run,
        inputs=("documents",),
        modules=("stages.dedup.exact",),
        libraries=("ada-url", "w3lib"),
        exchange=Exchange(key="key", order=("key", "document_id"), schema=_CANDIDATE, emit=_by_url),
    )


def _by_text(part: Part, _: Any) -> pa.Table:
    rows = part.read("unique_urls").drop_columns(["key"])
    # A document without text is no copy of anything: it stays by itself.
    keys = pc.coalesce(rows.column("text_hash"), rows.column("document_id"))
    return rows.add_column(0, "key", keys)


def unique_texts(spec: Spec) -> Phase:
    """unique_urls -> unique_texts: one document a text."""

    def run(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        return _chosen(part, rows, *choose_by_text(rows))

    return Phase(
        name="unique_texts",
        schema=CANDIDATE,
        run=run,
        inputs=("unique_urls",),
        modules=("stages.dedup.exact",),
        exchange=Exchange(key="key", order=("key", "document_id"), schema=_CANDIDATE, emit=_by_text),
    )


def _chosen(part: Part, rows: pa.Table, kept: pa.Array, decisions: pa.Table) -> pa.Table:
    part.decide(decisions)
    part.add("dropped", decisions.num_rows)
    return rows.filter(pc.is_in(rows.column("document_id"), value_set=kept))


def unique(spec: Spec) -> Phase:
    """unique_texts -> unique: the survivors' ids, back beside their documents."""

    def emit(part: Part, _: Any) -> pa.Table:
        return part.read("unique_texts").select(["document_id"])

    def run(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        part.add("documents", rows.num_rows)
        return rows

    return Phase(
        name="unique",
        schema=UNIQUE,
        run=run,
        inputs=("unique_texts",),
        exchange=Exchange(key="document_id", order=("document_id",), schema=pa.schema(list(UNIQUE)), emit=emit),
    )


def _occurrences(part: Part, _: Any) -> pa.Table:
    """Every paragraph of the unique documents, by domain and text."""
    rows = occurrences(part.read("scores"))
    pairs = zip(rows.column("domain").to_pylist(), rows.column("paragraph_hash").to_pylist(), strict=True)
    return rows.add_column(0, "key", pa.array([digest(*pair) for pair in pairs], pa.string()))


_OCCURRENCE = pa.schema([pa.field("key", pa.string()), *OCCURRENCES])


def paragraphs(spec: Spec) -> Phase:
    """scores -> paragraphs: copies of what a domain repeats, to be cut."""
    most = spec.dedup.paragraph_max_documents

    def run(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        decisions = choose_paragraphs(rows.drop_columns(["key"]), most)
        part.decide(decisions)
        # What is cut, under the key by which it was found.
        found = zip(*(rows.column(name).to_pylist() for name in ("document_id", "position", "key")), strict=True)
        key_of = {(document_id, position): key for document_id, position, key in found}
        places = zip(*(decisions.column(name).to_pylist() for name in ("document_id", "position")), strict=True)
        keys = pa.array([key_of[place] for place in places], pa.string())
        return decisions.select(["document_id", "position"]).add_column(0, "key", keys)

    return Phase(
        name="paragraphs",
        schema=CUT,
        run=run,
        inputs=("scores",),
        settings={"paragraph_max_documents": most},
        modules=("stages.dedup.paragraphs",),
        libraries=("ada-url", "w3lib"),
        exchange=Exchange(key="key", order=("key", "document_id", "position"), schema=_OCCURRENCE, emit=_occurrences),
    )


def _to_sign(part: Part) -> pa.Table:
    rows = part.read("text").select(["document_id", "text"])
    hashes = [text_hash(text) for text in rows.column("text").to_pylist()]
    return rows.append_column("hash", pa.array(hashes, pa.string()))


def signatures(spec: Spec) -> Phase:
    """text -> signatures: MinHash of each document's kept text."""
    sign = Step(MinHashSignatures(spec.dedup), _to_sign, owner="document_id", key=("hash",), table="text")

    def run(part: Part, _: pa.Table | None) -> pa.Table:
        rows = part.read("text")
        _, result = part.answers(sign)
        part.decide(
            [
                failed("document", "minhash", error, subject_id=document_id, document_id=document_id)
                for document_id, error in zip(
                    rows.column("document_id").to_pylist(), result.column("error").to_pylist(), strict=True
                )
                if error is not None
            ]
        )
        return pa.table(
            {
                "document_id": rows.column("document_id"),
                "signature": result.column("signature"),
                "num_images": rows.column("num_images"),
                "modified": rows.column("modified"),
            }
        )

    return Phase(name="signatures", schema=SIGNATURE, run=run, inputs=("text",), steps=(sign,))


_BAND = pa.schema([pa.field("key", pa.string()), *BAND_KEYS])


def edges(spec: Spec) -> Phase:
    """signatures -> edges: documents that share a band."""
    settings = spec.dedup

    def emit(part: Part, _: Any) -> pa.Table:
        rows = part.read("signatures")
        ids = keys_of(rows.column("document_id"))
        bands = band_keys(pa.table({"id": ids, "signature": rows.column("signature")}), settings)
        return bands.add_column(0, "key", hex_digits(bands.column("band_key").to_numpy()))

    def run(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        found, hot = candidate_edges(rows.drop_columns(["key"]), settings.max_bucket)
        part.add("hot_buckets", hot.num_rows)
        keys = hex_digits(found.column("band_key").to_numpy())
        return found.drop_columns(["band_key"]).add_column(0, "key", keys)

    return Phase(
        name="edges",
        schema=EDGE,
        run=run,
        inputs=("signatures",),
        settings={"bands": settings.bands, "rows": settings.rows, "max_bucket": settings.max_bucket},
        modules=("stages.dedup.banding",),
        libraries=("numba",),
        exchange=Exchange(key="key", order=("key", "id"), schema=_BAND, emit=emit),
    )


def _beside_larger(part: Part, _: Any) -> pa.Table:
    pairs = distinct(part.read("edges").select(EDGES.names))
    return pa.table({"document_id": ids_of(pairs.column("b")), "a": pairs.column("a")})


def candidate_pairs(spec: Spec) -> Phase:
    """edges -> candidate_pairs: each pair once, however many bands it shares, where its larger document lies."""

    def run(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        pairs = rows.group_by(rows.column_names, use_threads=False).aggregate([])
        part.add("pairs", pairs.num_rows)
        return pairs.sort_by([("document_id", "ascending"), ("a", "ascending")])

    return Phase(
        name="candidate_pairs",
        schema=CANDIDATE_PAIR,
        run=run,
        inputs=("edges",),
        modules=("stages.dedup.banding",),
        exchange=Exchange(
            key="document_id",
            order=("document_id", "a"),
            schema=pa.schema(list(CANDIDATE_PAIR)),
            emit=_beside_larger,
        ),
    )


_FACTS = ["num_images", "modified"]
# A pair on its way to its smaller document, with what is compared of the larger one.
_LARGER = pa.schema(
    [
        pa.field("document_id", pa.string()),
        pa.field("b", DOCUMENT_KEY),
        pa.field("sketch", pa.large_binary()),
        *(SIGNATURE.field(name) for name in _FACTS),
    ]
)


def similarities(spec: Spec) -> Phase:
    """candidate_pairs -> similarities: pairs compared; of one document of each its sketch travels to the other's."""
    settings = spec.dedup

    def sketched(part: Part, ids: pa.ChunkedArray) -> pa.Table:
        """Some documents of this range, by id: document_id, sketch, and what is carried along."""
        rows = part.read("signatures")
        rows = rows.filter(pc.is_in(rows.column("document_id"), pc.unique(ids)))
        column = rows.column("signature")
        if settings.verify == "jaccard":
            texts = part.read("text")
            at = pc.index_in(rows.column("document_id"), texts.column("document_id").combine_chunks())
            column = texts.column("text").take(at)
        return rows.select(["document_id", *_FACTS]).append_column("sketch", sketches(column, settings))

    def emit(part: Part, _: Any) -> pa.Table:
        pairs = part.read("candidate_pairs")
        larger = pairs.column("document_id")
        known = sketched(part, larger)
        rows = known.take(pc.index_in(larger, known.column("document_id").combine_chunks()))
        rows = rows.set_column(0, "document_id", ids_of(pairs.column("a")))
        return rows.append_column("b", keys_of(larger)).select(_LARGER.names)

    def run(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        smaller = rows.column("document_id")
        known = sketched(part, smaller)
        at = pc.index_in(smaller, known.column("document_id").combine_chunks())
        shares = [
            similarities_of(
                known.column("sketch").take(at.slice(start, _AT_ONCE)),
                rows.column("sketch").slice(start, _AT_ONCE),
                settings,
            )
            for start in range(0, rows.num_rows, _AT_ONCE)
        ]
        similarity = pa.array(np.concatenate(shares) if shares else [], pa.float64(), from_pandas=True)
        facts = {f"a_{name}": known.column(name).take(at) for name in _FACTS}
        facts |= {f"b_{name}": rows.column(name) for name in _FACTS}
        return pa.table({"document_id": smaller, "b": rows.column("b"), "similarity": similarity, **facts})

    return Phase(
        name="similarities",
        schema=SIMILARITY,
        run=run,
        inputs=("candidate_pairs", "signatures", *(("text",) if settings.verify == "jaccard" else ())),
        settings={
            "dedup.verify": settings.verify,
            "num_perm": settings.num_perm,
            "dedup.shingle_words": settings.shingle_words if settings.verify == "jaccard" else None,
        },
        modules=("stages.dedup.similarity",),
        libraries=("numba",),
        exchange=Exchange(key="document_id", order=("document_id", "b"), schema=_LARGER, emit=emit),
    )


# Pairs that are compared at a time: sketches of both lie beside each other.
_AT_ONCE = 1 << 14


def clusters(spec: Spec) -> Phase:
    """similarities -> clusters: similar pairs, connected; of each cluster one document is kept.

    One process, in which only documents with a near-duplicate meet.
    """
    threshold = spec.dedup.threshold

    def compared(part: Part) -> Iterator[pa.Table]:
        for rows in part.read_all("similarities"):
            ids = rows.column("document_id")
            yield rows.drop_columns(["document_id"]).add_column(0, "a", keys_of(ids))

    def run(part: Part, _: pa.Table | None) -> pa.Table:
        found, tied = members(compared(part), threshold)
        kept, decisions = choose_kept(found, threshold)
        part.decide(decisions)
        part.add("verified_pairs", tied)
        part.add("near_duplicates", decisions.num_rows)
        part.add("clusters", len(kept))
        return pa.table(
            {
                "document_id": found.column("id"),
                "cluster_id": found.column("cluster"),
                "kept": pc.is_in(found.column("id"), value_set=kept),
            }
        )

    return Phase(
        name="clusters",
        schema=CLUSTER,
        run=run,
        inputs=("similarities",),
        settings={"dedup.threshold": threshold},
        modules=("stages.dedup.near", "stages.dedup.similarity"),
        libraries=("numba",),
        whole=True,
    )
