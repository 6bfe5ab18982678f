"""Shingles of texts, their hashes, and MinHash signatures (Broder, 1997), from Arrow's buffers.

A text is folded (letters lower-cased, each by itself; typographic apostrophes straight) and cut into words as
stages.text.normal_form does: in scripts without spaces a character is a word, so that a shingle is an n-gram of
characters there, decided character by character and not document by document. Signatures are those of datasketch 2.0,
`MinHash(num_perm=..., seed=..., hashfunc=shingle_hash, scheme="affine32")`, so that anyone can check or extend them.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.text.normal_form import ALONE, BETWEEN, JOINT, PART, character_kinds, words

# Folded, a text has at most two bytes for each of its own, and one word in two of those.
_MOST_BYTES = 1 << 30


def folded(text: str) -> str:
    """A text as shingles see it."""
    return text.replace("\u03a3", "\u03c3").replace("\u2019", "'").lower()


def shingles(text: str, num_words: int) -> list[bytes]:
    """Distinct runs of `num_words` folded words, in order of first appearance, as UTF-8 joined by spaces.

    A text of fewer words is one shingle; a text without words has none.
    """
    found = words(folded(text))
    if not found:
        return []
    if len(found) < num_words:
        return [" ".join(found).encode()]
    distinct = dict.fromkeys(" ".join(found[i : i + num_words]) for i in range(len(found) - num_words + 1))
    return [shingle.encode() for shingle in distinct]


def shingle_hash(shingle: bytes) -> int:
    """The 32-bit hash that datasketch is given: the low half of the 64 bits that the compiled code makes of a shingle.

    Its words lie apart by single spaces. A word is hashed eight bytes at a time, sixteen at least, and the hashes are
    the coefficients of a polynomial, so that a shingle's hash follows from that of the one before it.
    """
    return _shingle_hash(shingle) & 0xFFFFFFFF


_GOLDEN, _MURMUR, _MIXER = 0x9E3779B97F4A7C15, 0xFF51AFD7ED558CCD, 0x9FB21C651E98DF25
_BITS = (1 << 64) - 1


def _shingle_hash(shingle: bytes) -> int:
    rolled = 0
    for word in shingle.split(b" "):
        rolled = (rolled * _GOLDEN + _word_hash(word)) & _BITS
    mixed = ((rolled ^ rolled >> 32) * _MIXER) & _BITS
    return mixed ^ mixed >> 32


def _word_hash(word: bytes) -> int:
    mixed = _GOLDEN ^ len(word)
    padded = word.ljust(max(16, -(-len(word) // 8) * 8), b"\0")
    for at in range(0, len(padded), 8):
        mixed = ((mixed ^ int.from_bytes(padded[at : at + 8], "little")) * _MURMUR) & _BITS
        mixed ^= mixed >> 32
    mixed = (mixed * _MIXER) & _BITS
    return mixed ^ mixed >> 29


def permutations(num_perm: int, seed: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """(a, b), uint32 (num_perm,) each, of datasketch's scheme "affine32": a value v goes to a v + b modulo 2^32."""
    chance = np.random.RandomState(seed)
    a = chance.randint(0, 1 << 31, num_perm, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return a, chance.randint(0, 1 << 32, num_perm, dtype=np.uint32)


def signatures(
    texts: pa.Array | pa.ChunkedArray, num_words: int, num_perm: int, seed: int
) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """(uint32 (texts, num_perm), whether a text has a word at all) of texts; a null has none.

    Without a word every value is 2^32 - 1. ValueError for a text of more than 2^30 bytes.
    """
    from stages.dedup.shingle_kernel import sign

    data, offsets = _buffers(texts)
    longest = _longest(offsets)
    scratch = _scratch(longest)
    mixed = np.empty(len(scratch[-1]), np.uint32)
    found = np.empty((len(offsets) - 1, num_perm), np.uint32)
    sign(data, offsets, num_words, *permutations(num_perm, seed), _tables(), scratch, mixed, found)
    return found, ~(found == 0xFFFFFFFF).all(axis=1)


def hash_sets(texts: pa.Array | pa.ChunkedArray, num_words: int) -> list[NDArray[np.uint64]]:
    """Distinct hashes, uint64 and ascending, of the shingles of each text: what exact Jaccard compares.

    ValueError as `signatures`.
    """
    from stages.dedup.shingle_kernel import hash_text

    data, offsets = _buffers(texts)
    scratch, tables = _scratch(_longest(offsets)), _tables()
    ends = offsets.tolist()
    return [
        np.unique(hash_text(data[start:end], num_words, tables, scratch)) for start, end in itertools.pairwise(ends)
    ]


def _buffers(texts: pa.Array | pa.ChunkedArray) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(bytes, int64 (texts + 1,) where texts begin and end); a null has no bytes."""
    column = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    column = column.cast(pa.large_string()).fill_null("")
    if not len(column):
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    return np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8), ends


def _longest(offsets: NDArray[np.int64]) -> int:
    longest = int(np.diff(offsets).max(initial=0))
    if longest > _MOST_BYTES:
        raise ValueError(f"a text of {longest:,} bytes: shingles are made of 2^30 at most")
    return longest


def _scratch(longest: int) -> tuple[Any, ...]:
    """Arrays that the kernel works in, for texts of up to `longest` bytes."""
    size = 2 * longest + 32
    text, flags, inside = (np.zeros(size, np.uint8) for _ in range(3))
    # The eight bytes from each place on as a number; the arrays overlap.
    windows = np.ndarray((size - 7,), "<u8", text, 0, (1,))
    edges, found, hashes = np.empty(size, np.uint32), np.empty(size // 2, np.uint64), np.empty(size // 2, np.uint64)
    return text, windows, flags, inside, edges, found, hashes


@functools.cache
def _tables() -> tuple[Any, ...]:
    """What the kernel looks up: kinds and folded forms of code points, masks of short words."""
    from stages.dedup import shingle_kernel as kernel

    characters = "".join(map(chr, range(0x110000)))
    # The one character that `lower` makes two of; the kernel knows it.
    lowered = folded(characters.replace("\u0130", "i")).encode("utf-32-le", "surrogatepass")
    folds = np.frombuffer(lowered, np.uint32)
    flags = np.zeros(4, np.uint8)
    flags[[BETWEEN, PART, JOINT, ALONE]] = kernel.BETWEEN, kernel.PART, kernel.JOINT, kernel.ALONE
    kinds = flags[character_kinds()]
    return kinds[folds], folds, kernel.FIRST_BYTES, kernel.SECOND_BYTES
