"""Near-duplicate text: MinHash signatures, banding, candidate edges, verification, and the choice of the kept copy.

Signatures are those of datasketch 2.0, `MinHash(scheme="affine32", hashfunc=shingle_hash, seed=..., num_perm=...)`
over word shingles, so that anyone can check or extend them. Banding as in Leskovec, Rajaraman and Ullman, chapter 3:
b bands of r rows find a pair of Jaccard similarity s with probability 1 - (1 - s^r)^b.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray
from pydantic import Field

from stages.filter.verdicts import decision_table
from stages.row_function import ERROR, Settings
from stages.text.normal_form import words

# datasketch holds (shingles x num_perm) hashes at a time: about 30 MB at 112, whatever the length of a text.
_SHINGLES_AT_ONCE = 1 << 15
# Documents of one band key up to which every pair of them is a candidate.
SMALL_BUCKET = 8

SIGNATURE = pa.list_(pa.uint32())
OUTPUT = pa.schema([pa.field("signature", SIGNATURE), ERROR])
BAND_KEYS = pa.schema([pa.field("band_key", pa.uint64()), pa.field("id", pa.string())])
EDGES = pa.schema([pa.field("a", pa.string()), pa.field("b", pa.string())])
_BAND_EDGES = ["band_key", *EDGES.names]


class DedupSettings(Settings):
    """The `dedup:` section of a spec."""

    bands: int = Field(default=14, ge=1, le=256)
    """Bands, a number, of a signature (with 8 rows: half of the pairs of similarity .72 are found). Default:
    datatrove's 14."""
    rows: int = Field(default=8, ge=1, le=64)
    """Hash values, a number, of a band. Default: datatrove's 8."""
    shingle_words: int = Field(default=5, ge=1, le=32)
    """Words of a shingle. Default: datatrove's 5, as in GPT-3."""
    seed: int = Field(default=1, ge=0, lt=1 << 32)
    """Seed of the permutations, a number. Default: datasketch's 1."""
    verify: Literal["signature", "jaccard", "none"] = "signature"
    """How a candidate pair is checked: similarity estimated from the signatures (standard error about .04 at 112
    values), exact Jaccard of the shingle sets (needs the texts), or not at all (as datatrove). Default: ours, a check
    that costs no second look at the texts."""
    threshold: float = Field(default=0.7, ge=0.0, le=1.0)
    """Similarity, Jaccard 0..1, from which a checked pair is a duplicate. Default: ours, a little under the banding's
    own .72; text-dedup's too."""
    max_bucket: int = Field(default=10_000, ge=2)
    """Documents of one band key above which the bucket is reported as hot; it keeps its edges, which are at most twice
    as many as its documents. Default: ours, more copies of one text are boilerplate to be looked at."""
    paragraph_max_documents: int = Field(default=2, ge=1)
    """Documents of a domain that may share a paragraph before all but one copy go. Default: ours, twice may be a
    quotation (OBELICS: 1, and it removes every copy)."""

    @property
    def num_perm(self) -> int:
        """Values of a signature."""
        return self.bands * self.rows


def shingle_hash(shingle: bytes) -> int:
    """The 32-bit hash datasketch is given: low half of xxh3-64."""
    return xxhash.xxh3_64_intdigest(shingle) & 0xFFFFFFFF


def shingles(text: str, num_words: int) -> list[bytes]:
    """Distinct runs of `num_words` lower-case words, in order of first appearance, as UTF-8 joined by spaces.

    A text of fewer words is one shingle; a text without words has none. In scripts without spaces a word is a
    character (stages.text.normal_form), so a shingle is a character n-gram there.
    """
    found = words(text.lower())
    if not found:
        return []
    if len(found) < num_words:
        return [" ".join(found).encode("utf-8", "surrogatepass")]
    distinct = dict.fromkeys(" ".join(found[i : i + num_words]) for i in range(len(found) - num_words + 1))
    return [shingle.encode("utf-8", "surrogatepass") for shingle in distinct]


def minhash_signatures(shingle_sets: list[list[bytes]], num_perm: int, seed: int) -> list[NDArray[np.uint32]]:
    """One signature (num_perm, uint32) a set; all values 2^32-1 for an empty set."""
    # Costs a second to import, which workers of other phases need not pay.
    from datasketch import MinHash

    empty = MinHash(num_perm=num_perm, seed=seed, hashfunc=shingle_hash, scheme="affine32")
    signatures = []
    for found in shingle_sets:
        minhash = empty.copy()
        for start in range(0, len(found), _SHINGLES_AT_ONCE):
            minhash.update_batch(found[start : start + _SHINGLES_AT_ONCE])
        signatures.append(np.asarray(minhash.hashvalues, np.uint32))
    return signatures


class MinHashSignatures:
    """Texts to signatures: column text (string or large_string). A text without words has a null signature."""

    name = "minhash"
    libraries = ("datasketch", "numpy", "xxhash")
    weights: str | None = None
    output = OUTPUT
    batch_size = 1024

    def __init__(self, settings: DedupSettings) -> None:
        self.settings = _SignatureSettings(
            bands=settings.bands, rows=settings.rows, shingle_words=settings.shingle_words, seed=settings.seed
        )

    def __call__(self, rows: pa.Table) -> pa.Table:
        """One signature a row."""
        settings = self.settings
        sets = [shingles(text or "", settings.shingle_words) for text in rows.column("text").to_pylist()]
        signatures = minhash_signatures(sets, settings.bands * settings.rows, settings.seed)
        values = [signature if found else None for signature, found in zip(signatures, sets, strict=True)]
        return pa.table([pa.array(values, SIGNATURE), pa.nulls(len(values), pa.string())], schema=OUTPUT)


class _SignatureSettings(Settings):
    """What of `DedupSettings` shapes a signature: the rest must not recompute any."""

    bands: int
    """As in DedupSettings."""
    rows: int
    """As in DedupSettings."""
    shingle_words: int
    """As in DedupSettings."""
    seed: int
    """As in DedupSettings."""


def band_keys(signatures: pa.Table, settings: DedupSettings) -> pa.Table:
    """BAND_KEYS: `bands` rows for every signature; equal keys mean equal bands.

    `signatures`: columns id, signature; rows with a null signature give none. The key hashes band number and
    values to 64 bits: accidental equality is left to verification.
    """
    valid = signatures.filter(pc.is_valid(signatures.column("signature")))
    values = signature_matrix(valid.column("signature"), settings.num_perm)
    keys = np.empty((len(values), settings.bands), np.uint64)
    for band in range(settings.bands):
        key = np.full(len(values), (band + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF, np.uint64)
        for column in range(band * settings.rows, (band + 1) * settings.rows):
            key = (key ^ values[:, column]) * np.uint64(0xFF51AFD7ED558CCD)
            key ^= key >> np.uint64(32)
        keys[:, band] = key
    ids = valid.column("id").combine_chunks().cast(pa.string())
    repeated = ids.take(pa.array(np.repeat(np.arange(len(values)), settings.bands)))
    return pa.table([pa.array(keys.ravel()), repeated], schema=BAND_KEYS)


def signature_matrix(column: pa.ChunkedArray, num_perm: int) -> NDArray[np.uint32]:
    """Signatures without nulls as (rows, num_perm); ValueError when they have another length."""
    flat = np.asarray(column.combine_chunks().flatten(), np.uint32)
    if len(flat) != len(column) * num_perm:
        raise ValueError(f"signatures of {len(flat) / max(1, len(column)):g} values, expected {num_perm}")
    return flat.reshape(len(column), num_perm)


def candidate_edges(rows: pa.Table, max_bucket: int) -> tuple[pa.Table, pa.Table]:
    """(band_key and EDGES a < b, distinct within a bucket and sorted; hot buckets (band_key, documents)).

    `rows`: BAND_KEYS, all rows of every band_key. A bucket of up to SMALL_BUCKET documents gives all its pairs. A
    larger one gives a star from its smallest id and a chain through its ids, so that it costs no more than twice its
    size, and one document that resembles no other does not part the rest.
    """
    rows = rows.sort_by([("band_key", "ascending"), ("id", "ascending")])
    keys = np.asarray(rows.column("band_key"), np.uint64)
    ids = rows.column("id").combine_chunks()
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1]))) if len(keys) else np.zeros(0, np.int64)
    sizes = np.diff(np.append(starts, len(keys)))
    first, last = np.repeat(starts, sizes), np.repeat(starts + sizes, sizes)
    small = np.repeat(sizes <= SMALL_BUCKET, sizes)
    place = np.arange(len(keys))
    leaves = np.flatnonzero(place != first)
    pairs = [(first[leaves], leaves)]
    for distance in range(1, SMALL_BUCKET):
        lower = np.flatnonzero((place + distance < last) & (small | (distance == 1)))
        pairs.append((lower, lower + distance))
    lower, upper = (np.concatenate(ends) for ends in zip(*pairs, strict=True))
    edges = pa.table([keys[lower], ids.take(pa.array(lower)), ids.take(pa.array(upper))], names=_BAND_EDGES)
    edges = edges.filter(pc.not_equal(edges.column("a"), edges.column("b")))
    edges = edges.group_by(_BAND_EDGES).aggregate([]).sort_by([(name, "ascending") for name in _BAND_EDGES])
    hot = np.flatnonzero(sizes > max_bucket)
    return edges, pa.table({"band_key": keys[starts[hot]], "documents": sizes[hot].astype(np.int64)})


def verify(
    edges: pa.Table, signatures: pa.Table, settings: DedupSettings, texts: pa.Table | None = None
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """(which edges are duplicates, their similarity), by `settings.verify`.

    `signatures`: columns id, signature for every id of the edges; `texts`: columns id, text, for "jaccard".
    With "none" every edge passes with similarity NaN. ValueError for ids without a signature or text.
    """
    if settings.verify == "none":
        return np.ones(edges.num_rows, np.bool_), np.full(edges.num_rows, np.nan)
    if settings.verify == "jaccard":
        if texts is None:
            raise ValueError('dedup.verify "jaccard" needs the texts')
        by_id = {
            document_id: frozenset(shingles(text or "", settings.shingle_words))
            for document_id, text in zip(texts.column("id").to_pylist(), texts.column("text").to_pylist(), strict=True)
        }
        pairs = zip(edges.column("a").to_pylist(), edges.column("b").to_pylist(), strict=True)
        try:
            similarity = np.array([_jaccard(by_id[a], by_id[b]) for a, b in pairs], np.float64)
        except KeyError as missing:
            raise ValueError(f"no text for document {missing}") from None
    else:
        valid = signatures.filter(pc.is_valid(signatures.column("signature")))
        matrix = signature_matrix(valid.column("signature"), settings.num_perm)
        ids = valid.column("id").combine_chunks().cast(pa.string())
        a, b = (pc.index_in(edges.column(name), value_set=ids) for name in ("a", "b"))
        if a.null_count or b.null_count:
            raise ValueError("an edge names a document without a signature")
        left, right = np.asarray(a, np.int64), np.asarray(b, np.int64)
        similarity = np.empty(len(left), np.float64)
        for start in range(0, len(left), 1 << 16):  # bounded memory: 2 x 29 MB at 112 values
            part = slice(start, start + (1 << 16))
            similarity[part] = (matrix[left[part]] == matrix[right[part]]).mean(axis=1)
    return similarity >= settings.threshold, similarity


def _jaccard(a: frozenset[bytes], b: frozenset[bytes]) -> float:
    return len(a & b) / len(a | b) if a or b else 0.0


def nearest(pairs: pa.Table, similarity: NDArray[np.float64], ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Of each id the similarity (float64) of its most similar pair; null without a pair, or without a similarity.

    `pairs`: columns a, b; `similarity` of each pair, NaN where it was not measured.
    """
    ends = pa.chunked_array([*pairs.column("a").chunks, *pairs.column("b").chunks], pa.string())
    values = pa.array(np.concatenate([similarity, similarity]), from_pandas=True)
    most = pa.table({"id": ends, "similarity": values}).group_by("id").aggregate([("similarity", "max")])
    return most.column("similarity_max").take(pc.index_in(ids, value_set=most.column("id").combine_chunks()))


def choose_kept(members: pa.Table, threshold: float | None = None) -> tuple[pa.Array, pa.Table]:
    """(document ids kept, sorted; DECISION rows naming the kept copy), rule "near_duplicate".

    `members`: columns id, cluster, num_images, modified, and optionally url and similarity (`nearest`, the value of
    the decisions, whose bound is `threshold`); all members of every cluster. Kept is the one with most images, then
    the newest (no date is oldest), then the smallest id.
    """
    order = pc.sort_indices(
        members,
        sort_keys=[
            ("cluster", "ascending", "at_end"),
            ("num_images", "descending", "at_end"),
            ("modified", "descending", "at_end"),
            ("id", "ascending", "at_end"),
        ],
    )
    members = members.take(order)
    clusters = members.column("cluster").to_pylist()
    ids = members.column("id").to_pylist()
    urls, similarity = (
        members.column(name).to_pylist() if name in members.column_names else [None] * len(ids)
        for name in ("url", "similarity")
    )
    kept: dict[str, str] = {}
    dropped: list[int] = []
    for row, (cluster, document_id) in enumerate(zip(clusters, ids, strict=True)):
        if kept.setdefault(cluster, document_id) != document_id:
            dropped.append(row)
    subjects = [ids[row] for row in dropped]
    decisions = decision_table(
        "document",
        "drop",
        subjects,
        document_id=subjects,
        url=[urls[row] for row in dropped],
        rule=["near_duplicate"] * len(subjects),
        value=[similarity[row] for row in dropped],
        high=[threshold if similarity[row] is not None else None for row in dropped],
        detail=[f"kept {kept[clusters[row]]} of cluster {clusters[row]}" for row in dropped],
    )
    return pa.array(sorted(kept.values()), pa.string()), decisions.sort_by("subject_id")
