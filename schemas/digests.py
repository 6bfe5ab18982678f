"""Digests of tables: equal when two tables say the same, however their rows are cut into files.

A row is written out by what it says and not by how it lies in Arrow: a tag and a value or a length for each column,
then the bodies of those whose length varies. Null is not empty, there is one NaN, -0 is 0; a dictionary is its values,
a large list a list. Rows whose keys share their leading 16 bits are a bucket; its digest is over its rows in the
table's order, and a table's is over its schema and its buckets, so that parts made apart are digested apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.contract import identity, identity_schema, key_of

BUCKETS = 1 << 16
DIGEST_BYTES = 16
# Of one column in a row: null or not, then a number, or how long its body is.
_CELL_BYTES = 9


def bucket_digests(table: pa.Table) -> dict[int, bytes]:
    """Bucket -> blake2b-128 over how many rows it has and their encodings, of a part sorted by its contract's key.

    Carried columns are not seen. ContractError for a table that follows no contract with a key, ValueError for rows
    that are not sorted by it.
    """
    if not table.num_rows:
        return {}
    keys = table.column(key_of(table.schema)).cast(pa.large_string())
    if not pc.all(pc.less_equal(keys[:-1], keys[1:]), min_count=0).as_py():
        raise ValueError(f"{identity(table.schema)[0]}: rows are not sorted by {key_of(table.schema)}")
    prefixes = pc.utf8_slice_codeunits(keys, 0, 4).to_pylist()
    buckets = np.fromiter((int(prefix, 16) for prefix in prefixes), np.int64, len(prefixes))
    said = identity_schema(table.schema)
    rows = encoded([_plain(table.column(field.name), field.type) for field in said])
    ends = np.frombuffer(rows.buffers()[1], np.int64)[rows.offset : rows.offset + len(rows) + 1]
    data = memoryview(rows.buffers()[2])
    first = np.flatnonzero(np.r_[True, buckets[1:] != buckets[:-1]])
    found: dict[int, bytes] = {}
    for start, stop in zip(first.tolist(), [*first[1:].tolist(), len(buckets)], strict=True):
        state = hashlib.blake2b((stop - start).to_bytes(8, "little"), digest_size=DIGEST_BYTES)
        state.update(data[ends[start] : ends[stop]])
        found[int(buckets[start])] = state.digest()
    return found


def table_digest(schema: pa.Schema, parts: Iterable[Mapping[int, bytes]]) -> str:
    """Hex digest, 128 bits, of a table of this contract whose parts have these buckets; empty buckets are not seen.

    Parts of one table share no bucket, unless they are told apart otherwise and always cut alike (shards).
    """
    names = repr([(field.name, logical(field.type)) for field in identity_schema(schema)])
    state = hashlib.blake2b(f"{identity(schema)} {names}".encode(), digest_size=DIGEST_BYTES)
    for bucket, digest in sorted(pair for part in parts for pair in part.items()):
        state.update(bucket.to_bytes(8, "little") + digest)
    return state.hexdigest()


def logical(kind: pa.DataType) -> str:
    """A type's name without its layout: large and dictionary types are called like their plain ones."""
    if pa.types.is_dictionary(kind):
        return logical(kind.value_type)
    if pa.types.is_struct(kind):
        return f"struct<{', '.join(f'{field.name}: {logical(field.type)}' for field in kind)}>"
    if _is_list(kind):
        return f"list<{logical(kind.value_type)}>"
    return str(kind).removeprefix("large_")


def encoded(columns: list[pa.Array]) -> pa.LargeBinaryArray:
    """Rows of equally long columns as bytes, by what they say: injective for columns of given logical types."""
    count = len(columns[0]) if columns else 0
    cells = np.zeros((count, _CELL_BYTES * len(columns)), np.uint8)
    bodies: list[pa.Array] = []
    for place, column in enumerate(columns):
        valid = np.asarray(column.is_valid())
        numbers, body = _cell(column)
        if body is not None:
            bodies.append(body)
        at = place * _CELL_BYTES
        cells[:, at] = valid
        cells[:, at + 1 : at + _CELL_BYTES] = (numbers * valid).astype("<u8").view(np.uint8).reshape(count, 8)
    ends = np.arange(count + 1, dtype=np.int64) * cells.shape[1]
    head = _binary(ends, pa.py_buffer(np.ascontiguousarray(cells)))
    return pc.binary_join_element_wise(head, *bodies, pa.scalar(b"", pa.large_binary())) if bodies else head


def _cell(column: pa.Array) -> tuple[np.ndarray[tuple[int], np.dtype[np.uint64]], pa.Array | None]:
    """(numbers or lengths uint64 (n,), bodies large_binary (n,) or None) of a column; both 0 and empty for a null."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_struct(kind):
        inner = encoded([pc.struct_field(column, [index]) for index in range(kind.num_fields)])
        body = pc.if_else(column.is_valid(), inner, pa.scalar(b"", pa.large_binary()))
        return _lengths(body), body
    if _is_list(kind):
        counts = np.asarray(pc.fill_null(pc.list_value_length(column), 0)).astype(np.int64)
        inner = encoded([pc.list_flatten(column)])  # what a null list hides is left out
        at = np.frombuffer(inner.buffers()[1], np.int64)[inner.offset : inner.offset + len(inner) + 1]
        ends = np.ascontiguousarray(at[np.concatenate([[0], np.cumsum(counts)])])
        return counts.view(np.uint64), _binary(ends, inner.buffers()[2])
    if any(is_kind(kind) for is_kind in _TEXT):
        body = pc.fill_null(column.cast(pa.large_binary()), b"")
        return _lengths(body), body
    return _bits(column), None


_TEXT = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
)


def _bits(column: pa.Array) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """A column of numbers, truth values or times as 64 bits each."""
    kind = column.type
    if pa.types.is_null(kind):
        return np.zeros(len(column), np.uint64)
    if pa.types.is_floating(kind):
        values = np.asarray(pc.fill_null(column.cast(pa.float64()), 0.0)) + 0.0  # -0.0 + 0.0 is 0.0
        return np.where(np.isnan(values), np.nan, values).view(np.uint64)
    if pa.types.is_temporal(kind):
        column = column.cast(pa.int64() if kind.bit_width == 64 else pa.int32())
    if pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    values = np.asarray(pc.fill_null(column, 0))
    return values.astype(np.uint64) if values.dtype.kind == "u" else values.astype(np.int64).view(np.uint64)


def _lengths(body: pa.Array) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.asarray(pc.binary_length(body)).astype(np.uint64)


def _binary(ends: np.ndarray[tuple[int], np.dtype[np.int64]], data: pa.Buffer | None) -> pa.LargeBinaryArray:
    buffers = [None, pa.py_buffer(ends), data or pa.py_buffer(b"")]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(ends) - 1, buffers)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _plain(column: pa.ChunkedArray | pa.Array, kind: pa.DataType) -> pa.Array:
    """A column as one array, cut down to the fields that `kind` (of an identity schema) has."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if pa.types.is_struct(kind):
        fields = [_plain(pc.struct_field(array, [field.name]), field.type) for field in kind]
        return pa.StructArray.from_arrays(fields, names=[field.name for field in kind], mask=array.is_null())
    if _is_list(kind) and _holds_structs(kind):
        inner = _plain(pc.list_flatten(array), kind.value_type)
        counts = np.asarray(pc.fill_null(pc.list_value_length(array), 0)).astype(np.int64)
        ends = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int64())
        return pa.LargeListArray.from_arrays(ends, inner, mask=array.is_null())
    return array


def _holds_structs(kind: pa.DataType) -> bool:
    while _is_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_struct(kind))
