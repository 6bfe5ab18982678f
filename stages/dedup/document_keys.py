"""Document ids as the 16 bytes that their 32 hex digits stand for: what pairs of documents are exchanged as.

Their order as bytes is that of the digits as text.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

BYTES = 16
DOCUMENT_KEY = pa.binary(BYTES)

_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
_NONE = 255
_VALUES = np.full(256, _NONE, np.uint8)
_VALUES[_DIGITS] = np.arange(16, dtype=np.uint8)


def keys_of(ids: pa.Array | pa.ChunkedArray) -> pa.FixedSizeBinaryArray:
    """DOCUMENT_KEY of document ids (string, no nulls); ValueError for one that is not 32 lower-case hex digits."""
    digits = _joined(ids)
    _, offsets, data = digits.buffers()
    ends = np.frombuffer(offsets, np.int64)[digits.offset : digits.offset + len(digits) + 1]
    if (wrong := np.flatnonzero(np.diff(ends) != 2 * BYTES)).size:
        raise ValueError(f"document id {digits[int(wrong[0])].as_py()!r}: not 32 hex digits")
    nothing = np.zeros(0, np.uint8)
    values = _VALUES[np.frombuffer(data, np.uint8)[ends[0] : ends[-1]] if len(digits) else nothing]
    if (wrong := np.flatnonzero(values == _NONE)).size:
        raise ValueError(f"document id {digits[int(wrong[0]) // (2 * BYTES)].as_py()!r}: not 32 hex digits")
    return _keys((values[0::2] << 4 | values[1::2]).astype(np.uint8))


def _joined(ids: pa.Array | pa.ChunkedArray) -> pa.LargeStringArray:
    column = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    return column.cast(pa.large_string())


def _keys(data: NDArray[np.uint8]) -> pa.FixedSizeBinaryArray:
    count = data.size // BYTES
    return pa.FixedSizeBinaryArray.from_buffers(DOCUMENT_KEY, count, [None, pa.py_buffer(np.ascontiguousarray(data))])


def ids_of(keys: pa.Array | pa.ChunkedArray) -> pa.StringArray:
    """Document ids of DOCUMENT_KEY, or hex digits of any other fixed number of bytes; string."""
    data = _bytes(keys)
    digits = np.empty((data.shape[0], data.shape[1] * 2), np.uint8)
    digits[:, 0::2] = _DIGITS[data >> 4]
    digits[:, 1::2] = _DIGITS[data & 15]
    ends = np.arange(data.shape[0] + 1, dtype=np.int64) * digits.shape[1]
    made = pa.LargeStringArray.from_buffers(len(ends) - 1, pa.py_buffer(ends), pa.py_buffer(digits))
    return made.cast(pa.string())


def hex_digits(numbers: NDArray[np.uint64]) -> pa.StringArray:
    """16 hex digits a number."""
    data = numbers.astype(">u8").view(np.uint8)
    return ids_of(pa.FixedSizeBinaryArray.from_buffers(pa.binary(8), len(numbers), [None, pa.py_buffer(data)]))


def halves(keys: pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    """The two halves of DOCUMENT_KEY as numbers, uint64 (n, 2): their order is that of the keys."""
    return np.ascontiguousarray(_bytes(keys)).view(">u8").astype(np.uint64)


def from_halves(numbers: NDArray[np.uint64]) -> pa.FixedSizeBinaryArray:
    """DOCUMENT_KEY of `halves`."""
    return _keys(numbers.astype(">u8").view(np.uint8).ravel())


def _bytes(keys: pa.Array | pa.ChunkedArray) -> NDArray[np.uint8]:
    """uint8 (n, bytes of a key)."""
    column = keys.combine_chunks() if isinstance(keys, pa.ChunkedArray) else keys
    width = column.type.byte_width
    if not len(column):
        return np.zeros((0, width), np.uint8)
    data = np.frombuffer(column.buffers()[1], np.uint8)
    return data[column.offset * width : (column.offset + len(column)) * width].reshape(-1, width)
