"""What a contract is: a named, versioned Arrow schema, and the one way to make a table follow it.

A column is *identity* or *carried*. Identity is what a table says, and what a digest of it sees; carried is where bytes
lie, whether a failure may pass, how a snapshot was called: it travels with the rows and makes no row another one.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from schemas.arrow_threads import let_threads_finish

# Whoever makes tables has threads of Arrow's.
atexit.register(let_threads_finish)

NAME_KEY = b"interloom.schema"
VERSION_KEY = b"interloom.version"
KEY_KEY = b"interloom.key"
ROLE_KEY = b"interloom.role"

# Metadata of a carried field, at the top or inside structs; an unmarked field is identity: a column that is digested
# for nothing costs a run, one that is wrongly left out a wrong result.
CARRIED = {ROLE_KEY: b"carried"}


class ContractError(ValueError):
    """A table does not follow its contract; the message names the table and the column."""


def contract(
    name: str,
    version: int,
    fields: Iterable[pa.Field],
    metadata: Mapping[bytes, bytes] | None = None,
    *,
    key: str | None = None,
) -> pa.Schema:
    """A versioned schema; name, version and further metadata travel in the schema into every file.

    `key` is the column by which the rows of a table lie in order and are cut into ranges: hex text whose leading
    digits are those of a hash. A change that an old reader would misread takes a new version.
    """
    own = {NAME_KEY: name.encode(), VERSION_KEY: str(version).encode()}
    if key is not None:
        own[KEY_KEY] = key.encode()
    return pa.schema(list(fields), metadata={**own, **(metadata or {})})


def key_of(schema: pa.Schema) -> str:
    """The key column of a table's contract; ContractError for one that is no table's."""
    try:
        return str(schema.metadata[KEY_KEY].decode())
    except (KeyError, TypeError):
        raise ContractError(f"{identity(schema)[0]}: a contract without a key column") from None


def identity(schema: pa.Schema) -> tuple[str, int]:
    """(name, version) of a contract; ContractError for a schema that carries none."""
    metadata = schema.metadata or {}
    try:
        return metadata[NAME_KEY].decode(), int(metadata[VERSION_KEY])
    except KeyError as missing:
        raise ContractError(f"not an interloom table: metadata {missing} is absent") from None


def carried(schema: pa.Schema) -> tuple[str, ...]:
    """Paths of the carried fields, in the schema's order: "body", or "images.body" for one inside a list of structs."""
    return tuple(_carried(schema, ""))


def identity_schema(schema: pa.Schema) -> pa.Schema:
    """The contract without its carried fields, inside structs too: what a digest of a table's meaning is over.

    A struct of nothing but carried fields is left out; name and version stay. ContractError as `identity`.
    """
    identity(schema)
    metadata = {key: schema.metadata[key] for key in (NAME_KEY, VERSION_KEY, KEY_KEY) if key in schema.metadata}
    return pa.schema([kept for field in schema if (kept := _identity_field(field)) is not None], metadata=metadata)


def _is_carried(field: pa.Field) -> bool:
    return bool((field.metadata or {}).get(ROLE_KEY) == CARRIED[ROLE_KEY])


def _inner(kind: pa.DataType) -> pa.DataType:
    """What a list, or a list of lists, is of."""
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return kind


def _carried(fields: Iterable[pa.Field], prefix: str) -> Iterator[str]:
    for field in fields:
        path = f"{prefix}{field.name}"
        if _is_carried(field):
            yield path
        elif pa.types.is_struct(inner := _inner(field.type)):
            yield from _carried(inner, f"{path}.")


def _identity_field(field: pa.Field) -> pa.Field | None:
    kind = None if _is_carried(field) else _identity_type(field.type)
    return None if kind is None else field.with_type(kind)


def _identity_type(kind: pa.DataType) -> pa.DataType | None:
    if pa.types.is_struct(kind):
        kept = [each for field in kind if (each := _identity_field(field)) is not None]
        return pa.struct(kept) if kept else None
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        value = _identity_type(kind.value_type)
        make = pa.list_ if pa.types.is_list(kind) else pa.large_list
        return None if value is None else make(kind.value_field.with_type(value))
    return kind


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with the contract's columns, order, types and metadata.

    Extra columns are refused rather than dropped; a missing column is an error too.
    Raises ContractError naming table and column.
    """
    name, _ = identity(schema)
    if extra := sorted(set(table.column_names) - set(schema.names)):
        raise ContractError(f"{name}: unexpected column {extra[0]!r}")
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            raise ContractError(f"{name}: column {field.name!r} is missing")
        column = table.column(field.name)
        if column.type != field.type:
            try:
                column = column.cast(field.type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise ContractError(f"{name}: column {field.name!r}: {error}") from None
        if not field.nullable and column.null_count:
            raise ContractError(f"{name}: column {field.name!r} holds a null")
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)


def table_from_rows(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as dicts to a table of the contract; absent keys become nulls."""
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)


def empty(schema: pa.Schema) -> pa.Table:
    """The contract with no rows."""
    return schema.empty_table()
