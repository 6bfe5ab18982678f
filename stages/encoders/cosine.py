"""Cosines of stored vectors, bit for bit the same on every processor, batch shape and thread count.

Stored vectors are float16 and of unit norm. A float16 is a multiple of 2^-24, so a product of two is a multiple
of 2^-48, and every partial sum of a scalar product is at most |a| |b| (Cauchy-Schwarz). Below 2^5 such a sum fits
the 53 bits of a float64 exactly: float64 scalar products of stored vectors have no rounding at all, in any order
of summation, with or without fused multiply-add. They are rounded once, to float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Half = npt.NDArray[np.float16]
Single = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# A unit vector rounded to float16 is off by .05%; below this bound partial sums stay under 2, far below 2^5.
LARGEST_NORM = 1.4


def stack(vectors: Sequence[npt.ArrayLike | None]) -> tuple[Half, Mask]:
    """Vectors or nulls to ((n, dim) float16, (n,) usable); unusable rows are zero.

    Unusable: null, or not finite. ValueError when dimensions differ or a norm exceeds LARGEST_NORM.
    """
    arrays = [None if vector is None else np.asarray(vector, dtype=np.float16) for vector in vectors]
    dims = {array.shape for array in arrays if array is not None}
    if len(dims) > 1:
        raise ValueError(f"vectors of different shapes: {sorted(dims)}")
    dim = next(iter(dims))[0] if dims else 0
    matrix = np.zeros((len(arrays), dim), dtype=np.float16)
    for row, array in enumerate(arrays):
        if array is not None:
            matrix[row] = array
    return _usable(matrix, np.array([array is not None for array in arrays], dtype=np.bool_))


def from_column(column: Any) -> tuple[Half, Mask]:
    """A list<halffloat> column (pyarrow array or chunked array) to the same as `stack`."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    valid = np.asarray(array.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)
    flat = array.flatten().to_numpy(zero_copy_only=False).astype(np.float16, copy=False)
    present = int(valid.sum())
    if present == 0:
        return np.zeros((len(array), 0), dtype=np.float16), valid
    dim = len(flat) // present
    lengths = array.value_lengths().drop_null()
    if dim * present != len(flat) or lengths.unique().to_pylist() != [dim]:
        raise ValueError(f"vectors of different lengths: {sorted(set(lengths.to_pylist()))}")
    matrix = np.zeros((len(array), dim), dtype=np.float16)
    matrix[valid] = flat.reshape(present, dim)
    return _usable(matrix, valid)


def cosines(a: Half, b: Half) -> Single:
    """(n, dim) and (m, dim) unit rows to the (n, m) float32 matrix of exact scalar products, rounded once."""
    return (a.astype(np.float64) @ b.astype(np.float64).T).astype(np.float32)


def row_cosines(a: Half | Single, b: Half | Single) -> Single:
    """(n, dim) and (n, dim) to (n,) float32: row i of a with row i of b, the same numbers as `cosines`.

    float32 rows hold float16 values: their products are exact in float32 too (22 bits), only sums need float64.
    """
    products = a.astype(np.float32, copy=False) * b.astype(np.float32, copy=False)
    sums: npt.NDArray[np.float64] = products.sum(axis=1, dtype=np.float64)
    return sums.astype(np.float32)


def pair_cosines(
    a: Half | Single,
    rows: npt.NDArray[np.int64],
    b: Half | Single,
    columns: npt.NDArray[np.int64],
    at_a_time: int = 8192,
) -> Single:
    """(pairs,) float32: a[rows[i]] with b[columns[i]], never holding more than `at_a_time` gathered vectors."""
    out = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), at_a_time):
        pairs = slice(start, start + at_a_time)
        out[pairs] = row_cosines(a[rows[pairs]], b[columns[pairs]])
    return out


def _usable(matrix: Half, valid: Mask) -> tuple[Half, Mask]:
    finite = np.isfinite(matrix).all(axis=1)
    matrix[~finite] = 0
    squares = np.einsum("nd,nd->n", matrix, matrix, dtype=np.float64) if matrix.size else np.zeros(len(matrix))
    if squares.max(initial=0.0) > LARGEST_NORM**2:
        raise ValueError(f"a vector has norm {squares.max() ** 0.5:.2f}; stored vectors are unit vectors")
    return matrix, valid & finite
