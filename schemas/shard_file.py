"""One shard as it lies on disk: opened, checked, and its rows in today's layout whatever version wrote them."""

from __future__ import annotations

import pyarrow as pa

from schemas.contract import ContractError, identity
from schemas.shard import SHARD
from schemas.shard_check import Widths, check_rows
from schemas.shard_v1 import SHARD_V1, upgraded

# By version: what such a file's schema must be, to the last field.
READABLE = {identity(schema)[1]: schema for schema in (SHARD_V1, SHARD)}

# What Arrow raises over bytes that are no table; some damage asks for more memory than there is.
_UNREADABLE = (pa.ArrowException, ValueError, TypeError, KeyError, OSError, OverflowError, MemoryError)


class NotAShard(ValueError):
    """A file is not a shard that this program reads; the message, one line, says why, but not which file."""


class ShardFile:
    """A shard behind an Arrow source (a memory map, or a buffer's reader), batch by batch.

    Opening compares the schema with the contract of the version that the file names and reads no rows; `check` looks at
    all of them. Batches of a file that was not checked may be anything. Raises NotAShard.
    """

    def __init__(self, source: pa.NativeFile) -> None:
        try:
            self._reader = pa.ipc.open_file(source)
            name, self.version = identity(self._reader.schema)
        except ContractError as error:
            raise NotAShard(str(error)) from None
        except _UNREADABLE as error:
            raise NotAShard(_line(error)) from None
        expected = READABLE.get(self.version) if name == identity(SHARD)[0] else None
        if expected is None:
            versions = " and ".join(map(str, READABLE))
            raise NotAShard(f"it is {name[:80]!a} version {self.version}; this program reads shard versions {versions}")
        if difference := _difference(self._reader.schema, expected):
            raise NotAShard(f"it says shard version {self.version}, but {difference}")

    @property
    def num_batches(self) -> int:
        """Record batches in the file."""
        return int(self._reader.num_record_batches)

    def num_rows(self, index: int) -> int:
        """Rows of one batch."""
        return int(self._read(index).num_rows)

    def batch(self, index: int, start: int = 0, rows: int | None = None) -> pa.RecordBatch:
        """One batch in the layout of SHARD, or `rows` of it from `start` on."""
        found = self._read(index).slice(start, rows)
        if self.version == identity(SHARD)[1]:
            return found
        try:
            return upgraded(found)
        except _UNREADABLE as error:
            raise NotAShard(_line(error)) from None

    def table(self) -> pa.Table:
        """All rows in the layout of SHARD."""
        return pa.Table.from_batches(map(self.batch, range(self.num_batches)), schema=SHARD)

    def check(self) -> Widths:
        """Look at every row: that buffers are inside the file and offsets in order, that lists are of one length and
        indices in range (schemas.shard_check); the widths of its vectors."""
        widths: Widths = {}
        for index in range(self.num_batches):
            try:
                found = self._read(index)
                found.validate()
                for field in READABLE[self.version]:
                    _check_column(found.column(field.name), field)
                widths = same_widths(widths, check_rows(self.batch(index)))
            except _UNREADABLE as error:
                raise NotAShard(_line(error)) from None
        return widths

    def _read(self, index: int) -> pa.RecordBatch:
        try:
            return self._reader.get_batch(index)
        except _UNREADABLE as error:
            raise NotAShard(_line(error)) from None


def _check_column(column: pa.Array, field: pa.Field) -> None:
    """That offsets and texts are sound, and nothing is null that may not be."""
    try:
        column.validate(full=True)
    except _UNREADABLE as error:
        raise NotAShard(f"column {field.name!r}: {_line(error)}") from None
    # Version 2 declares pictures nullable for other readers alone.
    if (not field.nullable or field.name == "images") and column.null_count:
        raise NotAShard(f"column {field.name!r} holds a null")


def same_widths(one: Widths, other: Widths) -> Widths:
    """The widths of both; NotAShard where both have vectors of different widths."""
    for name, width in other.items():
        if width and one.get(name, 0) not in (0, width):
            raise NotAShard(f"it has {name} vectors of {width} numbers, and others have {one[name]}")
    return {name: max(width, one.get(name, 0)) for name, width in other.items()} or one


def _difference(found: pa.Schema, expected: pa.Schema) -> str | None:
    """The first way in which a schema is not the contract's."""
    for field in expected:
        if field.name not in found.names:
            return f"column {field.name!r} is missing"
        if len(found.get_all_field_indices(field.name)) > 1:
            return f"column {field.name!r} is there twice"
        if found.field(field.name) != field:
            return f"column {field.name!r} is not of its type: {_line(found.field(field.name))[:120]}"
    for name in found.names:
        if name not in expected.names:
            return f"column {name[:80]!a} is not in the contract"
    return None if found.names == expected.names else "its columns are in another order"


def _line(said: object) -> str:
    """One line of what Arrow says, which may repeat names out of the file."""
    line = " ".join(str(said).split())[:300] or type(said).__name__
    return "".join(character if character.isprintable() else "?" for character in line)
