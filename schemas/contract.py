"""What a contract is: a named, versioned Arrow schema, and the one way to make a table follow it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

NAME_KEY = b"interloom.schema"
VERSION_KEY = b"interloom.version"


class ContractError(ValueError):
    """A table does not follow its contract; the message names the table and the column."""


def contract(name: str, version: int, fields: Iterable[pa.Field]) -> pa.Schema:
    """A versioned schema; name and version travel in the schema's metadata into every file.

    A change that an old reader would misread takes a new version.
    """
    return pa.schema(list(fields), metadata={NAME_KEY: name.encode(), VERSION_KEY: str(version).encode()})


def identity(schema: pa.Schema) -> tuple[str, int]:
    """(name, version) of a contract; ContractError for a schema that carries none."""
    metadata = schema.metadata or {}
    try:
        return metadata[NAME_KEY].decode(), int(metadata[VERSION_KEY])
    except KeyError as missing:
        raise ContractError(f"not an interloom table: metadata {missing} is absent") from None


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
