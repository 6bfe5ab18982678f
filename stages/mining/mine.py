"""Hard negatives: for each slice, what resembles it most in other documents and is not its match.

Cosine of shared vectors finds candidates (`stages.mining.search`, exact); guards then take out what is probably a true
match that nobody wrote down. Scores are kept, so that a reader may set stricter bounds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from schemas.embedding import VECTOR
from schemas.negative import NEGATIVE
from schemas.tables import MINED
from stages.encoders.cosine import Half, Mask, Single, from_column, pair_cosines
from stages.mining.search import Entries, Hits, Ints, Names, Search, rank
from stages.row_function import Settings

if TYPE_CHECKING:
    import torch

# What `mine` reads: every slice of whole documents.
SLICES = pa.schema(
    [
        pa.field("document_id", pa.string(), nullable=False),
        pa.field("slice", pa.int32(), nullable=False),  # index in the document's slices
        pa.field("kind", pa.string(), nullable=False),  # "image" | "sentence"
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("cluster_id", pa.string(), nullable=False),  # of near-duplicates
        pa.field("split", pa.string(), nullable=False),
        pa.field("primary", VECTOR),  # unit norm or null
        pa.field("shared", VECTOR),  # unit norm or null: then neither anchor nor candidate
        pa.field("matched", pa.int32()),  # slice index of the match in the same document, or null
        pa.field("phash", pa.string()),  # images: 16 hex digits, or null
    ]
)

Kind = Literal["image_to_sentence", "sentence_to_image"]
ANCHOR: dict[Kind, tuple[str, str]] = {
    "image_to_sentence": ("image", "sentence"),
    "sentence_to_image": ("sentence", "image"),
}

# The first three say what is never compared at all; the others take a candidate out of a list.
GUARDS = ("document", "cluster", "split", "content", "phash", "similarity")


class MineSettings(Settings):
    """How hard negatives are mined (spec section `mine`)."""

    kinds: tuple[Kind, ...] = Field(default=("image_to_sentence", "sentence_to_image"), min_length=1, strict=False)
    """Directions to search, anchor first. Default: ours, both, as the trainer may ask from either side."""

    top_k: int = Field(default=8, ge=1, le=10_000)
    """Negatives kept for a slice and a kind. Default: ours, a global batch rarely holds more of them."""

    overfetch: int = Field(default=8, ge=1, le=10_000)
    """Candidates looked at for each that is kept: guards take theirs out of the top_k * overfetch nearest. Default:
    ours, lists stay full unless guards take seven of eight."""

    anchors: Literal["matched", "all"] = "matched"
    """Slices that get negatives. Default: ours, a slice without a match has nothing its negatives could be guarded
    by."""

    max_same_modality_similarity: float | None = Field(default=0.9, ge=-1, le=1)
    """Cosine of primary vectors of a candidate to the anchor's true match; above it the candidate is taken for another
    copy of the match, null takes none. Default: ours, near-copies and little else lie above; a cross-modal margin
    instead empties the lists of weak encoders (92% of images with conse)."""

    max_phash_distance: int | None = Field(default=6, ge=0, le=63)
    """Bits of 64 between the perceptual hashes of the images of both pairs; up to it the images count as the same, null
    leaves the guard out. Default: ours, just above findimagedupes' 5 of MMC4."""

    block_size: int = Field(default=4096, ge=1)
    """Rows of queries and of candidates compared at a time; steers memory (4 * block_size^2 bytes), no result. Default:
    ours, 64 MiB of scores, enough for a matrix product at full speed."""


@dataclass(frozen=True)
class Mined:
    """Negatives of the queries, and counts that may be added over partitions."""

    negatives: pa.Table  # MINED, one row a document of the queries, in their order
    guards: dict[tuple[Kind, str], int]  # (kind, guard): pairs of anchor and candidate
    lists: dict[tuple[Kind, str], int]  # (kind, "full" | "short" | "empty"): anchors by length of their list


def mine(
    queries: pa.Table, candidates: Iterable[pa.Table], settings: MineSettings, device: torch.device | str | None = None
) -> Mined:
    """Negatives for the slices of `queries` among those of `candidates`.

    Both hold tables of SLICES with whole documents; candidates normally include the queries. The result depends
    neither on how candidates are cut into tables or ordered, nor on block_size or the device (default: a GPU when
    there is one). A candidate lies in the anchor's split and in another cluster; equal contents count once, as
    their first copy. Guards, in this order, each counted for what those before it let pass:
    content (the candidate's content also stands in the anchor's document, or its match equals the anchor),
    phash (images of both pairs look the same), similarity (the candidate resembles the anchor's match).
    """
    import torch  # a second to import: other phases' workers load this module for its settings

    where = device if device is not None else ("cuda" if torch.cuda.is_available() else "cpu")
    loaded = {kind: _load(queries, *ANCHOR[kind]) for kind in settings.kinds}
    anchors = {kind: _anchors(side, settings.anchors) for kind, side in loaded.items()}
    depth = settings.top_k * settings.overfetch
    searches = {kind: Search(side.entries, depth, settings.block_size, where) for kind, side in anchors.items()}
    guards = {(kind, guard): 0 for kind in settings.kinds for guard in GUARDS}
    for table in candidates:
        for kind in settings.kinds:
            pool = _load(table, *reversed(ANCHOR[kind]))
            entries = pool.entries.take(np.flatnonzero(pool.searchable))
            _count_apart(guards, kind, anchors[kind].entries, entries)
            searches[kind].add(entries)

    own = set(zip(queries.column("document_id").to_pylist(), queries.column("content_id").to_pylist(), strict=True))
    lists = {(kind, state): 0 for kind in settings.kinds for state in ("full", "short", "empty")}
    rows = []
    for kind in settings.kinds:
        kept, resemblance = _guard(anchors[kind], searches[kind].hits(), own, settings, kind, guards)
        lengths = np.bincount(kept.query, minlength=len(anchors[kind].entries))
        lists[kind, "empty"] += int((lengths == 0).sum())
        lists[kind, "short"] += int(((lengths > 0) & (lengths < settings.top_k)).sum())
        lists[kind, "full"] += int((lengths == settings.top_k).sum())
        rows.append(_rows(kind, anchors[kind].entries, kept, resemblance))
    return Mined(_by_document(queries, pa.concat_tables(rows)), guards, lists)


@dataclass(frozen=True)
class _Side:
    """Slices of one kind, and the primary vectors of their matches."""

    entries: Entries
    searchable: Mask  # has a shared vector
    matched: Mask
    match_primary: Half  # (rows, dim of the other kind)
    has_match_primary: Mask


def _load(table: pa.Table, kind: str, other: str) -> _Side:
    """The slices of one kind of a table of SLICES; ValueError where `matched` names no slice of the other kind."""
    rows, others = (table.filter(pc.equal(table.column("kind"), value)) for value in (kind, other))
    match = _match_rows(rows, others)
    matched = match >= 0
    hashes = rows if kind == "image" else others
    phash, has_phash = _phashes(hashes.column("phash"))
    if kind != "image":
        phash, has_phash = _gather(phash, match), _gather(has_phash, match)
    shared, searchable = from_column(rows.column("shared"))
    primary, has_primary = from_column(rows.column("primary"))
    match_primary, has_match_primary = from_column(others.column("primary"))
    entries = Entries(
        document=_names(rows.column("document_id")),
        slice=np.asarray(rows.column("slice").to_numpy(), dtype=np.int32),
        content=_names(rows.column("content_id")),
        cluster=_names(rows.column("cluster_id")),
        split=_names(rows.column("split")),
        shared=shared,
        primary=primary,
        has_primary=has_primary,
        match_content=_gather(_names(others.column("content_id")), match),
        phash=phash,
        has_phash=has_phash,
    )
    return _Side(entries, searchable, matched, _gather(match_primary, match), _gather(has_match_primary, match))


def _anchors(side: _Side, which: str) -> _Side:
    """The slices that get negatives."""
    chosen = np.flatnonzero(side.searchable & side.matched if which == "matched" else side.searchable)
    return _Side(
        side.entries.take(chosen),
        side.searchable[chosen],
        side.matched[chosen],
        side.match_primary[chosen],
        side.has_match_primary[chosen],
    )


def _match_rows(rows: pa.Table, others: pa.Table) -> Ints:
    """For each row the row of its match among the others, -1 without one."""
    documents = np.concatenate([_names(each.column("document_id")) for each in (rows, others)])
    _, codes = np.unique(documents, return_inverse=True)
    wanted = rows.column("matched").fill_null(-1).to_numpy().astype(np.int64)
    keys = (codes[len(rows) :].astype(np.int64) << 32) + others.column("slice").to_numpy()
    order = np.argsort(keys, kind="stable")
    found: Ints = np.full(len(rows), -1, dtype=np.int64)
    has = np.flatnonzero(wanted >= 0)
    targets = (codes[has].astype(np.int64) << 32) + wanted[has]
    places = np.searchsorted(keys[order], targets)
    missing = np.append(keys[order], -1)[places] != targets
    if missing.any():
        row = int(has[missing][0])
        name, index = rows.column("document_id")[row].as_py(), rows.column("slice")[row].as_py()
        raise ValueError(f"document {name}: slice {index} is matched to {wanted[row]}, which is not there")
    found[has] = order[places]
    return found


def _count_apart(guards: dict[tuple[Kind, str], int], kind: Kind, anchors: Entries, pool: Entries) -> None:
    """Count the pairs that are never compared: same document, same cluster otherwise, other split."""
    same = {
        name: _equal_pairs(getattr(anchors, name), getattr(pool, name)) for name in ("document", "cluster", "split")
    }
    guards[kind, "document"] += same["document"]
    guards[kind, "cluster"] += same["cluster"] - same["document"]
    guards[kind, "split"] += len(anchors) * len(pool) - same["split"]


def _equal_pairs(left: Names, right: Names) -> int:
    """How many pairs (l, r) are equal."""
    values, counts = np.unique(right, return_counts=True)
    if not len(values):
        return 0
    places = np.minimum(np.searchsorted(values, left), len(values) - 1)
    return int(counts[places][values[places] == left].sum())


def _guard(
    anchors: _Side,
    hits: Hits,
    own: set[tuple[str, str]],
    settings: MineSettings,
    kind: Kind,
    guards: dict[tuple[Kind, str], int],
) -> tuple[Hits, Single]:
    """The first top_k hits of each query that pass; and their cosine to the anchor's match, NaN where unknown."""
    mine, theirs, query, candidate = anchors.entries, hits.entries, hits.query, hits.candidate
    documents = np.char.decode(mine.document, "utf-8")[query].tolist()
    contents = np.char.decode(theirs.content, "utf-8")[candidate].tolist()
    stands = np.array([pair in own for pair in zip(documents, contents, strict=True)], dtype=np.bool_)
    echo = theirs.match_content[candidate] == mine.content[query]
    both = mine.has_phash[query] & theirs.has_phash[candidate]
    distance = np.bitwise_count(mine.phash[query] ^ theirs.phash[candidate])
    resemblance = np.full(len(query), np.nan, dtype=np.float32)
    known = np.flatnonzero(anchors.has_match_primary[query] & theirs.has_primary[candidate])
    resemblance[known] = pair_cosines(anchors.match_primary, query[known], theirs.primary, candidate[known])

    nothing = np.zeros(len(query), dtype=np.bool_)
    phash, bound = settings.max_phash_distance, settings.max_same_modality_similarity
    verdicts = {
        "content": stands | echo,
        "phash": nothing if phash is None else both & (distance <= phash),
        "similarity": nothing if bound is None else resemblance.astype(np.float64) > bound,
    }
    passing = ~nothing
    for guard, hit in verdicts.items():
        guards[kind, guard] += int((passing & hit).sum())
        passing &= ~hit
    kept = np.flatnonzero(passing)
    kept = kept[rank(query[kept]) < settings.top_k]
    return Hits(query[kept], hits.score[kept], candidate[kept], theirs), resemblance[kept]


def _rows(kind: Kind, anchors: Entries, hits: Hits, resemblance: Single) -> pa.Table:
    """Hits as rows: `anchor` (document of the anchor), then the fields of a negative."""
    columns = {
        "anchor": _strings(anchors.document[hits.query]),
        "slice": pa.array(anchors.slice[hits.query], pa.int32()),
        "kind": pa.array(["mined"] * len(hits.query), pa.string()),
        "direction": pa.array([kind] * len(hits.query), pa.string()),
        "document_id": _strings(hits.entries.document[hits.candidate]),
        "candidate": pa.array(hits.entries.slice[hits.candidate], pa.int32()),
        "text": pa.nulls(len(hits.query), pa.string()),
        "score": pa.array(hits.score, pa.float32()),
        "guard": pa.array(resemblance, pa.float32(), from_pandas=True),
    }
    return pa.table(columns)


def _by_document(queries: pa.Table, rows: pa.Table) -> pa.Table:
    """One row a document of the queries, in the order of their first slices."""
    documents = queries.column("document_id").unique()
    place = pc.index_in(rows.column("anchor"), value_set=documents).to_numpy()
    # Stable, so that a list stays in the order of its scores; a slice has one kind of negatives.
    order = np.lexsort((rows.column("slice").to_numpy(), place))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(place, minlength=len(documents)))])
    sorted_rows = rows.take(pa.array(order, pa.int64())).combine_chunks()
    arrays = [_one(sorted_rows.column(field.name)) for field in NEGATIVE.fields]
    flat = pa.StructArray.from_arrays(arrays, fields=list(NEGATIVE.fields))
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat, type=pa.list_(NEGATIVE))
    return pa.table([documents, lists], schema=MINED)


def _one(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _names(column: pa.ChunkedArray | pa.Array) -> Names:
    return np.array([value.encode() for value in column.to_pylist()] or [b""], dtype=np.bytes_)[: len(column)]


def _strings(names: Names) -> pa.Array:
    return pa.array(np.char.decode(names, "utf-8").tolist(), pa.string())


def _phashes(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.uint64], Mask]:
    values = column.to_pylist()
    present = np.array([value is not None for value in values], dtype=np.bool_)
    return np.array([int(value, 16) if value is not None else 0 for value in values], dtype=np.uint64), present


def _gather(values: npt.NDArray[Any], rows: Ints) -> npt.NDArray[Any]:
    """values[rows], and nothing (zero, False, b"") where a row is -1."""
    padded = np.concatenate([values, np.zeros((1, *values.shape[1:]), dtype=values.dtype)])
    gathered: npt.NDArray[Any] = padded[rows]
    return gathered
