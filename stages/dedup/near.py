"""Near-duplicate text: settings, and MinHash signatures as rows.

How pairs are found is in stages.dedup.banding, how they are compared and joined in stages.dedup.similarity, and which
copy stays in stages.dedup.choose.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from stages.dedup.shingles import signatures
from stages.row_function import ERROR, Settings

# bands x rows values, uint32 little-endian.
SIGNATURE = pa.binary()
OUTPUT = pa.schema([pa.field("signature", SIGNATURE), ERROR])


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
    values), exact Jaccard of the shingles' 64-bit hashes (looks at the texts again), or not at all (as datatrove).
    Default: ours, a check that costs no second look at the texts."""
    threshold: float = Field(default=0.7, ge=0.0, le=1.0)
    """Similarity, Jaccard 0..1, from which a checked pair is a duplicate. Default: ours, a little under the banding's
    own .72; text-dedup's too."""
    max_bucket: int = Field(default=10_000, ge=2)
    """Documents of one band key above which the bucket is reported as hot; it keeps its edges, which are at most twice
    as many as its documents. Default: ours, more copies of one text are boilerplate to be looked at."""
    copies_by_text: Literal["always", "same_pictures"] = "always"
    """Which documents of the same or nearly the same text are copies of each other: all, or those that also show the
    same pictures (by perceptual hash), so that a text stands once with each set of pictures. Default: ours, all, as in
    datatrove and text-dedup."""
    copies_by_pictures: Literal["never", "same_captions", "always"] = "never"
    """Whether documents that show the same set of pictures (by perceptual hash) are copies of each other though their
    texts differ: never, where all captions are the same too, or always. Default: ours, never, as two articles may share
    a press photograph (OBELICS: always, within a domain)."""
    paragraph_max_documents: int = Field(default=2, ge=1)
    """Documents of a domain that may share a paragraph before all copies but one go. Default: ours, twice may be a
    quotation (OBELICS: 1, and it removes every copy)."""

    @property
    def num_perm(self) -> int:
        """Values of a signature."""
        return self.bands * self.rows


class MinHashSignatures:
    """Texts to signatures: column text (string or large_string). A text without words has a null signature."""

    name = "sign_text"
    libraries = ("numba", "numpy")
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
        found, there = signatures(
            rows.column("text"), settings.shingle_words, settings.bands * settings.rows, settings.seed
        )
        return pa.table([signature_array(found, there), pa.nulls(len(found), pa.string())], schema=OUTPUT)


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


def signature_array(values: NDArray[np.uint32], there: NDArray[np.bool_]) -> pa.BinaryArray:
    """Rows of uint32 (n, num_perm) as SIGNATURE, null where there is none."""
    ends = np.concatenate([[0], np.cumsum(there, dtype=np.int64)]) * values.shape[1] * 4
    valid = pa.array(there).buffers()[1]
    data = pa.py_buffer(np.ascontiguousarray(values[there], "<u4"))
    return pa.BinaryArray.from_buffers(SIGNATURE, len(there), [valid, pa.py_buffer(ends.astype(np.int32)), data])


def signature_matrix(column: pa.ChunkedArray, num_perm: int) -> NDArray[np.uint32]:
    """Signatures, those that are null left out, as (rows, num_perm); ValueError when they have another length."""
    found = [numbers_in(chunk, "<u4") for chunk in column.chunks]
    count = len(column) - column.null_count
    flat = np.concatenate(found) if found else np.zeros(0, "<u4")
    if len(flat) != count * num_perm:
        raise ValueError(f"signatures of {len(flat) / max(1, count):g} values, expected {num_perm}")
    return flat.reshape(count, num_perm)


def numbers_in(column: pa.Array, kind: str) -> NDArray[Any]:
    """The bytes of a binary or large_binary array as numbers, one value after the other; a null has none."""
    if not len(column):
        return np.zeros(0, kind)
    ends = value_ends(column)
    data = column.buffers()[2]
    return np.frombuffer(b"" if data is None else memoryview(data)[ends[0] : ends[-1]], kind)


def value_ends(column: pa.Array) -> NDArray[Any]:
    """Where the values of a binary or large_binary array, one at least, begin and end among its bytes."""
    kind = np.int64 if pa.types.is_large_binary(column.type) else np.int32
    return np.frombuffer(column.buffers()[1], kind)[column.offset : column.offset + len(column) + 1]
