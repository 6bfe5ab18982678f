"""What documents share: a URL, a text, nearly a text, a paragraph. Which copy stays is chosen later (choice)."""

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
from schemas.tables import CANDIDATE_PAIR, CLUSTER, EDGE, REPEATED, SIGNATURE, SIMILARITY
from stages.dedup.banding import BAND, BAND_KEYS, TEXT, URL, band_keys, candidate_edges, distinct, kinds_of, shared_keys
from stages.dedup.document_keys import DOCUMENT_KEY, hex_digits, ids_of, keys_of
from stages.dedup.near import MinHashSignatures
from stages.dedup.paragraphs import occurrences, repeated
from stages.dedup.similarity import members, sketches
from stages.dedup.similarity import similarities as similarities_of
from stages.text.normal_form import text_hash


def _occurrences(part: Part, _: Any) -> pa.Table:
    """Every paragraph that is left of documents, by domain and text."""
    rows = occurrences(part.read("scores"), part.read("text").select(["document_id", "positions"]))
    pairs = zip(rows.column("domain").to_pylist(), rows.column("paragraph_hash").to_pylist(), strict=True)
    return rows.add_column(0, "key", pa.array([digest(*pair) for pair in pairs], pa.string())).select(REPEATED.names)


def paragraphs(spec: Spec) -> Phase:
    """scores + text -> paragraphs: what more documents of a domain hold than may."""
    most = spec.dedup.paragraph_max_documents

    def run(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        return repeated(rows, most)

    return Phase(
        name="paragraphs",
        schema=REPEATED,
        run=run,
        inputs=("scores", "text"),
        settings={"paragraph_max_documents": most},
        modules=("stages.dedup.paragraphs",),
        libraries=("ada-url", "w3lib"),
        exchange=Exchange(
            key="key",
            order=("key", "document_id", "position"),
            schema=pa.schema(list(REPEATED)),
            emit=_occurrences,
        ),
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
                "text_hash": rows.column("text_hash"),
                "url_key": rows.column("url_key"),
            }
        )

    return Phase(name="signatures", schema=SIGNATURE, run=run, inputs=("text",), steps=(sign,))


_BAND = pa.schema([pa.field("key", pa.string()), *BAND_KEYS])


def edges(spec: Spec) -> Phase:
    """signatures -> edges: documents that share a band, a text or a URL."""
    settings = spec.dedup

    def emit(part: Part, _: Any) -> pa.Table:
        rows = part.read("signatures")
        ids = keys_of(rows.column("document_id"))
        found = [
            band_keys(pa.table({"id": ids, "signature": rows.column("signature")}), settings),
            shared_keys(ids, rows.column("text_hash"), TEXT),
            shared_keys(ids, rows.column("url_key"), URL),
        ]
        keys = pa.concat_tables(found)
        return keys.add_column(0, "key", hex_digits(keys.column("band_key").to_numpy()))

    def run(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        found, hot = candidate_edges(rows.drop_columns(["key"]), settings.max_bucket)
        part.add("hot_buckets", hot.num_rows)
        keys = found.column("band_key").to_numpy()
        found = found.append_column("kind", pa.array(kinds_of(keys)))
        return found.drop_columns(["band_key"]).add_column(0, "key", hex_digits(keys))

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
    pairs = distinct(part.read("edges").select(["a", "b", "kind"]))
    return pa.table({"document_id": ids_of(pairs.column("b")), "a": pairs.column("a"), "kind": pairs.column("kind")})


def candidate_pairs(spec: Spec) -> Phase:
    """edges -> candidate_pairs: each pair once, however many bands it shares, where its larger document lies."""

    def run(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        pairs = rows.group_by(rows.column_names, use_threads=False).aggregate([])
        part.add("pairs", pairs.num_rows)
        return pairs.sort_by([(name, "ascending") for name in CANDIDATE_PAIR.names])

    return Phase(
        name="candidate_pairs",
        schema=CANDIDATE_PAIR,
        run=run,
        inputs=("edges",),
        modules=("stages.dedup.banding",),
        exchange=Exchange(
            key="document_id",
            order=tuple(CANDIDATE_PAIR.names),
            schema=pa.schema(list(CANDIDATE_PAIR)),
            emit=_beside_larger,
        ),
    )


# A pair on its way to its smaller document, with what is compared of the larger one.
_LARGER = pa.schema(
    [
        pa.field("document_id", pa.string()),
        pa.field("b", DOCUMENT_KEY),
        pa.field("kind", pa.uint8()),
        pa.field("sketch", pa.large_binary()),
    ]
)


def similarities(spec: Spec) -> Phase:
    """candidate_pairs -> similarities: pairs compared; of one document of each its sketch travels to the other's."""
    settings = spec.dedup

    def sketched(part: Part, ids: pa.ChunkedArray, kinds: pa.ChunkedArray) -> pa.ChunkedArray:
        """Sketches of documents of this range, one an id; null where it shares no band."""
        ids = pc.if_else(pc.equal(kinds, BAND), ids, None)
        rows = part.read("signatures")
        rows = rows.filter(pc.is_in(rows.column("document_id"), pc.unique(ids).drop_null()))
        column = rows.column("signature")
        if settings.verify == "jaccard":
            texts = part.read("text")
            at = pc.index_in(rows.column("document_id"), texts.column("document_id").combine_chunks())
            column = texts.column("text").take(at)
        known = pa.chunked_array([sketches(column, settings)])
        return known.take(pc.index_in(ids, rows.column("document_id").combine_chunks(), skip_nulls=True))

    def emit(part: Part, _: Any) -> pa.Table:
        pairs = part.read("candidate_pairs")
        larger, kinds = pairs.column("document_id"), pairs.column("kind")
        columns = [ids_of(pairs.column("a")), keys_of(larger), kinds, sketched(part, larger, kinds)]
        return pa.table(columns, schema=_LARGER)

    def run(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        near = np.flatnonzero(np.asarray(rows.column("kind")) == BAND)
        one, other = sketched(part, rows.column("document_id"), rows.column("kind")), rows.column("sketch")
        similarity = np.full(rows.num_rows, np.nan)
        for start in range(0, len(near), _AT_ONCE):
            at = near[start : start + _AT_ONCE]
            similarity[at] = similarities_of(one.take(pa.array(at)), other.take(pa.array(at)), settings)
        return rows.drop_columns(["sketch"]).append_column(
            "similarity", pa.array(similarity, pa.float64(), from_pandas=True)
        )

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
        exchange=Exchange(key="document_id", order=("document_id", "b", "kind"), schema=_LARGER, emit=emit),
    )


# Pairs that are compared at a time: sketches of both lie beside each other.
_AT_ONCE = 1 << 14


def clusters(spec: Spec) -> Phase:
    """similarities -> clusters: documents that share a URL, a text, or nearly a text, connected.

    One process, in which only such documents meet.
    """
    threshold = spec.dedup.threshold

    def compared(part: Part) -> Iterator[pa.Table]:
        for rows in part.read_all("similarities"):
            ids = rows.column("document_id")
            yield rows.drop_columns(["document_id"]).add_column(0, "a", keys_of(ids))

    def run(part: Part, _: pa.Table | None) -> pa.Table:
        found, tied = members(compared(part), threshold)
        part.add("verified_pairs", tied)
        sizes = found.group_by("cluster_id").aggregate([([], "count_all")]).column("count_all")
        part.add("clusters", int(pc.sum(pc.greater(sizes, 1)).as_py() or 0))
        return found

    return Phase(
        name="clusters",
        schema=CLUSTER,
        run=run,
        inputs=("similarities",),
        settings={"dedup.threshold": threshold},
        modules=("stages.dedup.similarity",),
        libraries=("numba",),
        whole=True,
    )
