"""Near-duplicates: signatures a second, quality on planted pairs, and whole corpora, beside datasketch's MinHashLSH.

python -m benchmarks.near_duplicates                       # everything, 100,000 documents beside datasketch
python -m benchmarks.near_duplicates --only quality
python -m benchmarks.near_duplicates --only scale --documents 1000000

Documents are synthetic: about 3 kB of words by Zipf's law; every eleventh is a copy of the one before it, with words
replaced. Both libraries make 112 values of word 5-grams, find pairs by 14 bands of 8 rows, compare them by signature
and join what is similar enough; datasketch is given xxh32, which is faster than its own sha1, and the same union-find.
datatrove and text-dedup stand beside us in `benchmarks.near_duplicates_peers`.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Iterator
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer
import xxhash
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

from stages.dedup.banding import BAND, EDGES, band_keys, candidate_edges, distinct
from stages.dedup.choose import PASSED, choose_documents
from stages.dedup.components import component_roots
from stages.dedup.document_keys import DOCUMENT_KEY, halves
from stages.dedup.near import DedupSettings, MinHashSignatures
from stages.dedup.shingles import shingles
from stages.dedup.similarity import COMPARED, members, similarities, sketches

SETTINGS = DedupSettings()
_EVERY = 11  # a copy among as many documents
_BATCH = 10_000
_RANGES = 16  # of band keys, as a build works on them one after the other
_WORDS = 510  # of a document
_VOCABULARY = 50_000
_LEVELS = np.array([0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])


def _vocabulary() -> list[str]:
    chance = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    weight = 1 / np.arange(1, 27)
    lengths = np.clip(chance.normal(5, 2.5, _VOCABULARY), 1, 16).astype(int)
    return ["".join(chance.choice(letters, length, p=weight / weight.sum())) for length in lengths]


def _replaced(words: NDArray[np.int64], similarity: float, chance: np.random.Generator) -> NDArray[np.int64]:
    """A copy with as many words replaced, each five shingles apart, as leave about this Jaccard similarity."""
    count = round((len(words) - 4) * (1 - similarity) / (5 * (1 + similarity)))
    made = words.copy()
    made[chance.choice(len(words) // 5, count, replace=False) * 5 + 2] = chance.integers(0, _VOCABULARY, count)
    return made


def texts(documents: int, seed: int = 1) -> Iterator[pa.Array]:
    """The documents in batches, each drawn by itself: how many there are changes none."""
    vocabulary = _vocabulary()
    share = np.cumsum(1 / np.arange(1, _VOCABULARY + 1))
    for start in range(0, documents, _BATCH):
        chance = np.random.default_rng([seed, start])
        count = min(_BATCH, documents - start)
        words = np.searchsorted(share, chance.random((count, _WORDS)) * share[-1])
        for copy in range(_EVERY, count, _EVERY):
            words[copy] = _replaced(words[copy - 1], chance.choice(_LEVELS), chance)
        yield pa.array([" ".join([vocabulary[word] for word in row]) for row in words.tolist()], pa.large_string())


def _ids(first: int, count: int) -> pa.Array:
    numbers = np.zeros((count, 2), ">u8")
    numbers[:, 1] = np.arange(first, first + count)
    return pa.FixedSizeBinaryArray.from_buffers(DOCUMENT_KEY, count, [None, pa.py_buffer(numbers)])


def _numbers(keys: pa.ChunkedArray) -> NDArray[np.int64]:
    return halves(keys)[:, 1].astype(np.int64)


def sign(batch: pa.Array) -> pa.ChunkedArray:
    """Signatures of texts, 1,024 at a time, as a build asks for them."""
    function = MinHashSignatures(SETTINGS)
    pieces = [batch.slice(start, function.batch_size) for start in range(0, len(batch), function.batch_size)]
    return pa.chunked_array([c for p in pieces for c in function(pa.table({"text": p})).column("signature").chunks])


def ours(signed: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(pairs that are near-duplicates (n, 2), root of every document) of the signatures of documents 0, 1, ..."""
    bands = band_keys(pa.table({"id": _ids(0, len(signed)), "signature": signed}), SETTINGS)
    places = np.asarray(bands.column("band_key")) >> np.uint64(60)
    found = [
        candidate_edges(bands.filter(pa.array(places == place)), SETTINGS.max_bucket)[0].select(EDGES.names)
        for place in range(_RANGES)
    ]
    pairs = distinct(pa.concat_tables(found))
    known = pa.chunked_array([sketches(signed, SETTINGS)])
    a, b = (_numbers(pairs.column(name)) for name in EDGES.names)
    similarity = similarities(known.take(pa.array(a)), known.take(pa.array(b)), SETTINGS)
    columns = [pairs.column("a"), pairs.column("b"), pa.repeat(pa.scalar(BAND, pa.uint8()), len(a)), similarity]
    tied, _ = members([pa.table(columns, schema=COMPARED)], SETTINGS.threshold)
    names, clusters = (
        [int(each, 16) for each in tied.column(name).to_pylist()] for name in ("document_id", "cluster_id")
    )
    known_of = {"num_images": pa.array(np.array(names, np.int64) % 7, pa.int32())}
    facts = [
        tied.column(field.name)
        if field.name in tied.column_names
        else known_of.get(field.name, pa.nulls(tied.num_rows, field.type))
        for field in PASSED
    ]
    choose_documents(pa.table(facts, schema=PASSED), SETTINGS)
    roots = np.arange(len(signed))
    roots[names] = clusters
    similar = similarity >= SETTINGS.threshold
    return np.stack([a[similar], b[similar]], 1), roots


def theirs(documents: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64], float]:
    """The same by datasketch; and the seconds that signatures took."""
    start = time.process_time()
    empty = MinHash(num_perm=SETTINGS.num_perm, seed=1, hashfunc=xxhash.xxh32_intdigest, scheme="affine32")
    signed = []
    for text in documents:
        words = text.lower().split()
        minhash = empty.copy()
        minhash.update_batch([" ".join(words[i : i + 5]).encode() for i in range(len(words) - 4)])
        signed.append(minhash)
    seconds = time.process_time() - start
    index = MinHashLSH(num_perm=SETTINGS.num_perm, params=(SETTINGS.bands, SETTINGS.rows))
    pairs = []
    for place, minhash in enumerate(signed):
        near = index.query(minhash)
        pairs += [(other, place) for other in near if minhash.jaccard(signed[other]) >= SETTINGS.threshold]
        index.insert(place, minhash, check_duplication=False)
    found = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    return found, component_roots(len(documents), found[:, 0].copy(), found[:, 1].copy()), seconds


def _jaccard(one: str, other: str) -> float:
    a, b = set(shingles(one, 5)), set(shingles(other, 5))
    return len(a & b) / len(a | b)


def _warm() -> None:
    ours(sign(next(texts(200))))


def quality(pairs: int) -> None:
    """Of planted pairs, how many are found, by their true similarity."""
    chance = np.random.default_rng(5)
    vocabulary = _vocabulary()
    written = []
    for place in range(pairs):
        words = chance.integers(0, _VOCABULARY, _WORDS)
        for each in (words, _replaced(words, _LEVELS[place % len(_LEVELS)], chance)):
            written.append(" ".join([vocabulary[word] for word in each]))
    truth = np.array([_jaccard(*written[2 * place : 2 * place + 2]) for place in range(pairs)])
    found = {}
    for name, edges in (("interloom", ours(sign(pa.array(written)))[0]), ("datasketch", theirs(written)[0])):
        hit = np.zeros(pairs, bool)
        planted = edges[:, 0] // 2 == edges[:, 1] // 2
        hit[edges[planted, 0] // 2] = True
        found[name] = hit
        right = truth >= SETTINGS.threshold
        precision = (hit & right).sum() / max(1, hit.sum() + (~planted).sum())
        print(f"{name}: recall {hit[right].mean():.3f}, precision {precision:.3f} of {right.sum()} pairs from .7 on")
    for level in _LEVELS:
        near = np.abs(truth - level) < 0.025
        curve = (1 - (1 - truth[near] ** SETTINGS.rows) ** SETTINGS.bands).mean()
        said = ", ".join(f"{name} {hit[near].mean():.2f}" for name, hit in found.items())
        print(f"  Jaccard {truth[near].mean():.2f} ({near.sum()} pairs): {said}; a band in common {curve:.2f}")


def beside(documents: int) -> None:
    """The same documents by both, on one core, in processor seconds."""
    batches = list(texts(documents))
    _warm()
    start = time.process_time()
    signed = pa.chunked_array([chunk for batch in batches for chunk in sign(batch).chunks])
    signing = time.process_time() - start
    start = time.process_time()
    pairs, roots = ours(signed)
    matching = time.process_time() - start
    print(f"interloom: {documents / signing:,.0f} signatures a second; {signing + matching:.1f} s, {matching:.2f} "
          f"of it for {len(pairs):,} pairs; {documents - len(np.unique(roots)):,} documents are copies")  # fmt: skip
    written = [text for batch in batches for text in batch.to_pylist()]
    start = time.process_time()
    pairs, others, signed_in = theirs(written)
    whole = time.process_time() - start
    print(f"datasketch: {documents / signed_in:,.0f} signatures a second; {whole:.1f} s, {whole - signed_in:.2f} of it "
          f"for {len(pairs):,} pairs; {documents - len(np.unique(others)):,} documents are copies")  # fmt: skip
    print(f"ratio: {signed_in / signing:.0f}x signatures, {(whole - signed_in) / matching:.0f}x pairs, "
          f"{whole / (signing + matching):.0f}x in all")  # fmt: skip


def _scaled(documents: int) -> tuple[float, float, int, float]:
    _warm()
    signing, made = 0.0, []
    for batch in texts(documents):
        start = time.process_time()
        made += sign(batch).chunks
        signing += time.process_time() - start
    start = time.process_time()
    pairs, _ = ours(pa.chunked_array(made))
    return signing, time.process_time() - start, len(pairs), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def scale(documents: int) -> None:
    """Ours on a tenth of the documents and on all, each in a process of its own."""
    each = []
    for count in (documents // 10, documents):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            signing, matching, pairs, peak = pool.apply(_scaled, (count,))
        each.append(1e6 * (signing + matching) / count)
        print(f"{count:,} documents: signatures {signing:.1f} s, pairs {matching:.1f} s ({pairs:,}); "
              f"peak {peak:.0f} MB, {each[-1]:.1f} µs a document")  # fmt: skip
    print(f"a document of the larger costs {each[1] / each[0]:.2f}x")


def main(
    only: Annotated[str, typer.Option(help="quality, beside or scale; all of them by default.")] = "",
    documents: Annotated[int, typer.Option(help="Documents beside datasketch, or of the larger corpus.")] = 0,
    pairs: Annotated[int, typer.Option(help="Planted pairs.")] = 2000,
) -> None:
    if only not in ("", "quality", "beside", "scale"):
        raise typer.BadParameter(f"{only!r}: quality, beside or scale", param_hint="--only")
    if only in ("", "quality"):
        quality(pairs)
    if only in ("", "beside"):
        beside(documents or 100_000)
    if only in ("", "scale"):
        scale(documents or 1_000_000)


if __name__ == "__main__":
    typer.run(main)
