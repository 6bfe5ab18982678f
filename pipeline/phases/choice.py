"""What is chosen once, when every other rule has spoken: the copy that stays, and the side of the split."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.engine.damage import Damaged
from pipeline.engine.phase import Exchange, Part, Phase
from pipeline.engine.storage import Storage
from pipeline.spec.loading import Spec
from schemas.keys import digest
from schemas.shard import SPLITS
from schemas.tables import BORDER, CHOICE, KEPT, REACHED
from stages.dedup.choose import PASSED as COPIES
from stages.dedup.choose import choose_documents
from stages.dedup.near import DedupSettings
from stages.dedup.paragraphs import REPEATED, choose_paragraphs
from stages.dedup.split import SHOWN, Border, cluster_positions, picture_keys, positions, reached, sides
from stages.filter.verdicts import float_values
from stages.shards.rows import ShardSettings

# Where borders are remembered: <hash of what they depend on>.json
_BORDERS = "splits"
_CHOSEN_BY = ["document_id", "url", "num_images", "num_words", "modified", "pictures", "captions"]


def choose(spec: Spec) -> Phase:
    """passed + clusters + paragraphs -> choose: which documents and which of their paragraphs stay.

    One process, in which only documents meet that may be copies or hold a repeated paragraph.
    """
    dedup, salt = spec.dedup, spec.shard.split_salt
    fewest = spec.filter.document.num_words.min or 0.0

    def run(part: Part, _: pa.Table | None) -> pa.Table:
        clusters = pa.concat_tables(part.read_all("clusters"))
        known = clusters.column("document_id").combine_chunks()
        rows = _rows(part, [known, _repeating(part), _alike(part, dedup)])
        at = pc.index_in(rows.column("document_id"), known)
        for name in ("cluster_id", "text_id", "url_id", "similarity"):
            rows = rows.append_column(name, clusters.column(name).take(at))
        repeated = _repeated(part, rows.column("document_id").combine_chunks())
        left = np.ones(rows.num_rows, np.bool_)
        falls = []
        # What falls for want of text is out, and a copy of it may stay instead: until nothing falls.
        while True:
            places = np.flatnonzero(left)
            kept, copies = choose_documents(rows.select(COPIES.names).take(pa.array(places)), dedup)
            chosen = places[kept]
            stays, cut, cuts, fell = choose_paragraphs(
                _of(repeated, chosen), rows.take(pa.array(chosen)), dedup.paragraph_max_documents, fewest
            )
            if stays.all():
                break
            left[chosen[~stays]] = False
            falls.append(fell)
        for said in (copies, cuts, *falls):
            part.decide(said)
        for rule in ("same_url", "same_text", "near_duplicate", "same_pictures"):
            part.add(rule, int(pc.sum(pc.equal(copies.column("rule"), rule)).as_py() or 0))
        part.add("copies_kept", _with_copies(rows, copies))
        part.add("cut_paragraphs", cut.num_rows)
        left[:] = False
        left[chosen] = True
        of = np.asarray(cut.column("document"), np.int64)
        lengths = np.zeros(rows.num_rows, np.int64)
        lengths[chosen] = np.bincount(of, minlength=len(chosen))
        ends = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
        near = pc.coalesce(rows.column("cluster_id"), rows.column("document_id"))
        p = cluster_positions(known, clusters.column("cluster_id").combine_chunks(), salt)
        alone = positions(rows.column("document_id").to_pylist(), salt)
        taken = pc.fill_null(pa.array(p, pa.float64()).take(at.combine_chunks()), -1.0)
        return pa.table(
            {
                "document_id": rows.column("document_id"),
                "cluster_id": near,
                "kept": pa.array(left),
                "cut": pa.ListArray.from_arrays(pa.array(ends), cut.column("position").combine_chunks()),
                "position": np.maximum(alone, np.asarray(taken)),
            }
        )

    return Phase(
        name="choose",
        schema=CHOICE,
        run=run,
        inputs=("passed", "clusters", "paragraphs"),
        settings={
            "dedup.threshold": dedup.threshold,
            "dedup.copies_by_text": dedup.copies_by_text,
            "dedup.copies_by_pictures": dedup.copies_by_pictures,
            "dedup.paragraph_max_documents": dedup.paragraph_max_documents,
            "filter.document.num_words.min": fewest,
            "shard.split_salt": salt,
        },
        modules=("stages.dedup.choose", "stages.dedup.paragraphs", "stages.dedup.split"),
        libraries=("numba",),
        whole=True,
    )


def _with_copies(rows: pa.Table, decisions: pa.Table) -> int:
    """How many documents are kept in the stead of others."""
    named = pc.utf8_slice_codeunits(decisions.column("detail"), len("kept "))
    return int(pc.sum(pc.is_in(rows.column("document_id"), pc.unique(named))).as_py() or 0)


def _repeating(part: Part) -> pa.Array:
    """Documents that hold a paragraph that may be cut."""
    tables = part.read_all("paragraphs", ["key", "document_id"])
    return _strings(pc.unique(table.column("document_id")) for table in tables)


def _alike(part: Part, settings: DedupSettings) -> pa.Array:
    """Documents that show the same pictures as others, where that makes them copies."""
    if settings.copies_by_pictures == "never":
        return pa.array([], pa.string())
    shown = pa.concat_tables(part.read_all("passed", ["document_id", "pictures"]))
    counts = shown.group_by("pictures").aggregate([([], "count_all")])
    shared = counts.filter(pc.greater(counts.column("count_all"), 1)).column("pictures").combine_chunks().drop_null()
    return shown.filter(pc.is_in(shown.column("pictures"), shared)).column("document_id").combine_chunks()


def _of(repeated: pa.Table, chosen: NDArray[np.int64]) -> pa.Table:
    """Of REPEATED rows those of the chosen documents, which are named by their place among these."""
    place = pa.array(chosen, pa.int64())
    at = pc.index_in(repeated.column("document"), place)
    rows = repeated.set_column(1, "document", at.cast(pa.int64()))
    return rows.filter(pc.is_valid(at))


def _strings(arrays: Iterator[pa.Array]) -> pa.Array:
    return pc.unique(pa.chunked_array(list(arrays), pa.string()))


def _rows(part: Part, documents: list[pa.Array]) -> pa.Table:
    """What is known of those of these documents that passed, by id."""
    wanted = _strings(iter(documents))
    found = [
        table.filter(pc.is_in(table.column("document_id"), wanted)) for table in part.read_all("passed", _CHOSEN_BY)
    ]
    return pa.concat_tables(found)


def _repeated(part: Part, documents: pa.Array) -> pa.Table:
    """REPEATED rows of paragraphs of these documents, the first named 0."""
    found = [REPEATED.empty_table()]
    last, number = None, -1
    for table in part.read_all("paragraphs"):
        keys = np.asarray(table.column("key").combine_chunks().dictionary_encode().indices, np.int64)
        first = table.column("key")[0].as_py() if len(table) else last
        # Keys lie in order, also from file to file.
        groups = keys + number + (first != last)
        if len(table):
            last, number = table.column("key")[-1].as_py(), int(groups[-1])
        at = pc.index_in(table.column("document_id"), documents)
        columns = [pa.array(groups), at.cast(pa.int64()), table.column("position"), table.column("words")]
        found.append(pa.table(columns, schema=REPEATED).filter(pc.is_valid(at)))
    return pa.concat_tables(found)


def _chosen(passed: pa.Table, choice: pa.Table, salt: str) -> tuple[pa.Table, NDArray[np.float64]]:
    """(Documents that are chosen of those that passed, their p.)"""
    gone = choice.filter(pc.invert(choice.column("kept"))).column("document_id").combine_chunks()
    rows = passed.filter(pc.invert(pc.is_in(passed.column("document_id"), gone)))
    at = pc.index_in(rows.column("document_id"), choice.column("document_id").combine_chunks())
    own = positions(rows.column("document_id").to_pylist(), salt)
    known = float_values(choice.column("position").take(at))
    return rows, np.where(np.isnan(known), own, known)


def shared_pictures(spec: Spec) -> Phase:
    """passed + choose -> shared_pictures: the largest position that a document meets through a picture."""
    salt, distance = spec.shard.split_salt, spec.shard.split_phash_distance

    def emit(part: Part, _: Any) -> pa.Table:
        rows, p = _chosen(part.read("passed"), part.read("choose"), salt)
        found: list[tuple[str, int, str, float]] = []
        for document, position in zip(rows.select(["document_id", "images"]).to_pylist(), p.tolist(), strict=True):
            keys = {
                key for image in document["images"] for key in picture_keys(image["sha256"], image["phash"], distance)
            }
            found += [(key, picture, document["document_id"], position) for key, picture in sorted(keys)]
        columns = zip(*found, strict=True) if found else [[]] * len(SHOWN)
        return pa.table([pa.array(each, field.type) for each, field in zip(columns, SHOWN, strict=True)], schema=SHOWN)

    def run(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        return reached(rows, distance)

    return Phase(
        name="shared_pictures",
        schema=REACHED,
        run=run,
        inputs=("passed", "choose"),
        settings={"shard.split_salt": salt, "shard.split_phash_distance": distance},
        modules=("stages.dedup.split",),
        exchange=Exchange(key="key", order=("key", "document_id", "picture"), schema=SHOWN, emit=emit),
    )


def border(spec: Spec) -> Phase:
    """passed + choose + shared_pictures -> border: where trained on and held out part.

    One process, which counts positions. What a corpus was split by once it is always split by: the border is
    remembered in `splits/` under the salt, the wanted share and the distance.
    """
    settings = spec.shard
    salt = settings.split_salt

    def run(part: Part, _: pa.Table | None) -> pa.Table:
        choice = pa.concat_tables(part.read_all("choose"))
        met = _largest(pa.concat_tables(part.read_all("shared_pictures", ["key", "document_id", "position"])))
        found = Border()
        for table in part.read_all("passed", ["document_id"]):
            rows, p = _chosen(table, choice, salt)
            found.add(p, _reach(rows, p, met))
        inherited = _inherited(part.storage, settings)
        t = found.find(settings.held_out_fraction) if inherited is None else inherited
        if inherited is None:
            part.storage.write(_place(settings), json.dumps({"border": t}).encode())
        return pa.table({"key": ["0" * 32], "border": [t]}, schema=BORDER)

    return Phase(
        name="border",
        schema=BORDER,
        run=run,
        inputs=("passed", "choose", "shared_pictures"),
        settings={
            "shard.held_out_fraction": settings.held_out_fraction,
            "shard.split_salt": salt,
            "shard.split_phash_distance": settings.split_phash_distance,
        },
        modules=("stages.dedup.split",),
        whole=True,
    )


def _place(settings: ShardSettings) -> str:
    """Where the border is remembered, from the corpus root."""
    of = (settings.split_salt, str(settings.held_out_fraction), str(settings.split_phash_distance))
    return f"{_BORDERS}/{digest(*of)}.json"


def _inherited(storage: Storage, settings: ShardSettings) -> float | None:
    name = _place(settings)
    try:
        return float(json.loads(storage.read(name))["border"])
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError):
        raise Damaged(
            f"{name} is damaged: it does not say where the corpus was split: put it back from a copy, or delete it to "
            "split the corpus anew",
            name,
        ) from None


def _largest(rows: pa.Table) -> pa.Table:
    """The largest position of each document: columns document_id, position_max."""
    return rows.group_by("document_id", use_threads=False).aggregate([("position", "max")])


def _reach(rows: pa.Table, p: NDArray[np.float64], met: pa.Table) -> NDArray[np.float64]:
    """q of documents from their p and `_largest`."""
    at = pc.index_in(rows.column("document_id"), met.column("document_id").combine_chunks())
    return np.fmax(p, float_values(met.column("position_max").take(at)))


_REACHED_BY = pa.schema([pa.field("document_id", pa.string()), pa.field("position", pa.float64())])


def _back(part: Part, _: Any) -> pa.Table:
    """Positions that documents meet through pictures, back to them."""
    return part.read("shared_pictures").select(_REACHED_BY.names)


def kept(spec: Spec) -> Phase:
    """documents + passed + choose + shared_pictures + border -> kept: what is in the corpus, each on its side."""
    salt = spec.shard.split_salt

    def run(part: Part, rows: pa.Table | None) -> pa.Table:
        assert rows is not None
        choice = part.read("choose")
        (t,) = pa.concat_tables(part.read_all("border")).column("border").to_pylist()
        passed, p = _chosen(part.read("passed"), choice, salt)
        placed = sides(p, _reach(passed, p, _largest(rows)), t)
        chosen = {row["document_id"]: row for row in choice.select(["document_id", "cluster_id", "cut"]).to_pylist()}
        wanted = passed.column("document_id").combine_chunks()
        documents = part.read("documents")
        documents = documents.filter(pc.is_in(documents.column("document_id"), wanted))
        made: list[dict[str, Any]] = []
        for document, row, side in zip(documents.to_pylist(), passed.to_pylist(), placed, strict=True):
            document_id = document["document_id"]
            if side is None:
                part.decide([_leak(document_id, document["url"])])
                continue
            choice_of = chosen.get(document_id, {"cluster_id": document_id, "cut": []})
            cut = set(choice_of["cut"])
            left = [position for position in row["positions"] if position not in cut]
            made.append(
                {
                    **{name: document[name] for name in ("document_id", "url", "title", "license", "consent")},
                    "provenance": document["provenance"],
                    "language": row["language"],
                    "cluster_id": choice_of["cluster_id"],
                    "split": side,
                    "positions": left,
                    "nodes": [document["nodes"][position] for position in left],
                    "images": row["images"],
                }
            )
        part.add("documents", len(made))
        part.add("leaking", sum(side is None for side in placed))
        for name in SPLITS:
            part.add(name, placed.count(name))
        return pa.Table.from_pylist(made, schema=KEPT)

    return Phase(
        name="kept",
        schema=KEPT,
        run=run,
        inputs=("documents", "passed", "choose", "shared_pictures", "border"),
        settings={"shard.split_salt": salt},
        modules=("stages.dedup.split",),
        exchange=Exchange(key="document_id", order=("document_id", "position"), schema=_REACHED_BY, emit=_back),
    )


def _leak(document_id: str, url: str) -> dict[str, Any]:
    return {
        "kind": "document",
        "action": "drop",
        "subject_id": document_id,
        "document_id": document_id,
        "url": url,
        "rule": "leaks",
        "detail": "would be held out, and shows a picture of a document that is trained on",
    }
