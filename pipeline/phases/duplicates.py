"""Duplicates: the same URL, the same text, the same paragraph, nearly the same text."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.phase import Exchange, Part, Phase, Step
from pipeline.phases.documents import failed
from pipeline.spec.loading import Spec
from schemas.keys import digest
from schemas.tables import CANDIDATE, CLUSTER, CUT, EDGE, SIGNATURE, UNIQUE
from stages.dedup.components import components
from stages.dedup.exact import choose_by_text, choose_by_url, url_key
from stages.dedup.near import MinHashSignatures, band_keys, candidate_edges, choose_kept, nearest, verify
from stages.dedup.paragraphs import OCCURRENCES, choose_paragraphs, occurrences
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
    minhash = Step(MinHashSignatures(spec.dedup), _to_sign, owner="document_id", key=("hash",), table="text")

    def run(part: Part, _: pa.Table | None) -> pa.Table:
        rows = part.read("text")
        _, result = part.answers(minhash)
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

    return Phase(name="signatures", schema=SIGNATURE, run=run, inputs=("text",), steps=(minhash,))


_BAND = pa.schema([pa.field("key", pa.string()), pa.field("band_key", pa.uint64()), pa.field("id", pa.string())])


def edges(spec: Spec) -> Phase:
    """signatures -> edges: documents that share a band."""
    settings = spec.dedup

    def emit(part: Part, _: Any) -> pa.Table:
        rows = part.read("signatures").select(["document_id", "signature"]).rename_columns(["id", "signature"])
        bands = band_keys(rows, settings)
        keys = [f"{key:016x}" for key in bands.column("band_key").to_pylist()]
        return bands.add_column(0, "key", pa.array(keys, pa.string()))

    def run(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        found, hot = candidate_edges(rows.drop_columns(["key"]), settings.max_bucket)
        part.add("hot_buckets", hot.num_rows)
        keys = [f"{key:016x}" for key in found.column("band_key").to_pylist()]
        return found.drop_columns(["band_key"]).add_column(0, "key", pa.array(keys, pa.string()))

    return Phase(
        name="edges",
        schema=EDGE,
        run=run,
        inputs=("signatures",),
        settings={"bands": settings.bands, "rows": settings.rows, "max_bucket": settings.max_bucket},
        modules=("stages.dedup.near",),
        exchange=Exchange(key="key", order=("key", "id"), schema=_BAND, emit=emit),
    )


def _texts(part: Part, ids: pa.Array) -> pa.Table:
    """Columns id and text of some documents."""
    tables = [text.select(["document_id", "text"]) for text in part.read_all("text")]
    found = [text.filter(pc.is_in(text.column("document_id"), value_set=ids)) for text in tables]
    return pa.concat_tables(found).rename_columns(["id", "text"])


def clusters(spec: Spec) -> Phase:
    """edges -> clusters: verified pairs, connected; of each cluster one document is kept."""

    def run(part: Part, _: pa.Table | None) -> pa.Table:
        pairs = pa.concat_tables(part.read_all("edges"))
        pairs = pairs.group_by(["a", "b"]).aggregate([]).sort_by([("a", "ascending"), ("b", "ascending")])
        involved = pa.array(sorted({*pairs.column("a").to_pylist(), *pairs.column("b").to_pylist()}), pa.string())
        facts, sketches = [], []
        for signed in part.read_all("signatures"):
            facts.append(signed.drop_columns(["signature"]))
            mine = pc.is_in(signed.column("document_id"), value_set=involved)
            sketches.append(signed.select(["document_id", "signature"]).filter(mine))
        known = pa.concat_tables(facts).sort_by([("document_id", "ascending")])
        same, similarity = verify(
            pairs,
            pa.concat_tables(sketches).rename_columns(["id", "signature"]),
            spec.dedup,
            _texts(part, involved) if spec.dedup.verify == "jaccard" else None,
        )
        verified = pairs.filter(pa.array(same))
        roots = components(verified)
        root_of = dict(zip(roots.column("id").to_pylist(), roots.column("root").to_pylist(), strict=True))
        ids = known.column("document_id").to_pylist()
        cluster_ids = [root_of.get(document_id, document_id) for document_id in ids]
        members = pa.table(
            {
                "id": known.column("document_id"),
                "cluster": pa.array(cluster_ids, pa.string()),
                "num_images": known.column("num_images"),
                "modified": known.column("modified"),
                "similarity": nearest(verified, similarity[same], known.column("document_id")),
            }
        )
        kept, decisions = choose_kept(members, spec.dedup.threshold)
        part.decide(decisions)
        part.add("candidate_pairs", pairs.num_rows)
        part.add("verified_pairs", int(same.sum()))
        part.add("near_duplicates", decisions.num_rows)
        part.add("clusters", len(set(root_of.values())))
        return pa.table(
            {
                "document_id": known.column("document_id"),
                "cluster_id": pa.array(cluster_ids, pa.string()),
                "kept": pc.is_in(known.column("document_id"), value_set=kept),
            }
        )

    return Phase(
        name="clusters",
        schema=CLUSTER,
        run=run,
        inputs=("edges", "signatures", "text"),
        settings={"dedup": spec.dedup},
        modules=("stages.dedup.near", "stages.dedup.components"),
        libraries=("numba",),
        whole=True,
    )
