"""Files of rows, Parquet and JSON Lines, as Arrow blocks: read piece by piece, and damage costs what it lies in.

Rows are known by where they stand: in Parquet by their number, in JSON Lines by the byte at which their line begins
(in the text as it is unpacked), both from 0.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.web.fetched import one_line

# What is read of a file at a time, before it is parsed; bytes.
_STEP = 8 << 20
# A longer line is no document of ours.
MAX_LINE = 64 << 20
_PARQUET_ROWS = 4096
_NEWLINE, _RETURN, _OPEN, _CLOSE = b"\n\r{}"
# RuntimeError: a member of an archive that is encrypted, or compressed in a way that is not known here.
_UNPACKING = (EOFError, OSError, zlib.error, zipfile.BadZipFile, RuntimeError)
# Parquet has no error of its own: damage shows as whatever the reader stumbles over.
_PARQUET = (pa.ArrowException, OSError, ValueError, EOFError)


@dataclass(frozen=True)
class Block:
    """Rows, where each stands, int64 (n,), and what could not be read of them: (index, why); those values are null."""

    table: pa.Table
    places: NDArray[np.int64]
    faults: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Unreadable:
    """A row, or all rows from here to the next block, of which nothing could be read."""

    place: int
    reason: str  # damaged_file | not_json | too_large
    detail: str


Read = Block | Unreadable


class DamagedFile(ValueError):
    """A file of which nothing can be read; the message is one line."""


def is_parquet(name: str) -> bool:
    return name.lower().endswith(".parquet")


def is_packed(name: str) -> bool:
    """Whether a file of JSON Lines can be read from its start alone."""
    return name.lower().endswith((".gz", ".zip"))


def column_names(stream: BinaryIO, name: str) -> list[str]:
    """Columns of a Parquet file; keys of the first object of a JSON Lines file, [] where there is none.

    Raises DamagedFile for a file that cannot be read so far.
    """
    if is_parquet(name):
        try:
            return list(pq.ParquetFile(stream).schema_arrow.names)
        except _PARQUET as error:
            raise DamagedFile(f"not a Parquet file, or a damaged one: {one_line(str(error), 200)}") from None
    try:
        for text, _ in _texts(stream, name):
            for lines in _lines(text, 0, None):
                for line in lines.data.split(b"\n"):
                    with contextlib.suppress(ValueError, RecursionError):
                        if isinstance(found := json.loads(line), dict):
                            return list(found)
    except _UNPACKING as error:
        raise DamagedFile(f"cannot be unpacked: {one_line(str(error), 200)}") from None
    return []


def misfit(stream: BinaryIO, name: str, schema: pa.Schema) -> str | None:
    """Which column of a Parquet file can never be of the type asked for."""
    if not is_parquet(name):
        return None
    table = pq.ParquetFile(stream).schema_arrow.empty_table()
    for field in schema:
        if field.name in table.column_names:
            try:
                table.column(field.name).cast(field.type)
            except (pa.ArrowException, ValueError):
                return f"column {field.name} is {one_line(str(table.schema.field(field.name).type), 200)}"
    return None


def read_blocks(stream: BinaryIO, name: str, schema: pa.Schema, piece: int = 0, pieces: int = 1) -> Iterator[Read]:
    """Piece `piece` of `pieces` of a file: its rows with the columns of `schema`, nulls where the file has none.

    Pieces are disjoint and together are the file; what is packed (.gz, .zip) is one piece. Memory is bounded by a batch
    of rows, whatever the file's size. A Parquet file must have no `misfit`.
    """
    if is_parquet(name):
        yield from _parquet(stream, schema, piece, pieces)
        return
    if is_packed(name):
        try:
            for text, first in _texts(stream, name):
                for read in _json_lines(text, schema, 0, None):
                    yield (
                        replace(read, place=read.place + first)
                        if isinstance(read, Unreadable)
                        else (replace(read, places=read.places + first))
                    )
        except _UNPACKING as error:
            yield Unreadable(0, "damaged_file", f"cannot be unpacked: {one_line(str(error), 200)}")
        return
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    yield from _json_lines(stream, schema, size * piece // pieces, size * (piece + 1) // pieces)


def _parquet(stream: BinaryIO, schema: pa.Schema, piece: int, pieces: int) -> Iterator[Read]:
    try:
        file = pq.ParquetFile(stream, buffer_size=1 << 20)
        there = [field.name for field in schema if field.name in file.schema_arrow.names]
        groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
        sizes = [(group.num_rows, group.total_byte_size) for group in groups]
    except _PARQUET as error:
        if piece == 0:
            yield Unreadable(0, "damaged_file", f"not a Parquet file, or a damaged one: {one_line(str(error), 200)}")
        return
    first = 0
    mine = range(len(sizes) * piece // pieces, len(sizes) * (piece + 1) // pieces)
    for index, (num_rows, num_bytes) in enumerate(sizes):
        if index in mine and num_rows:
            batch_rows = max(1, min(_PARQUET_ROWS, num_rows * 4 * _STEP // max(num_bytes, 1)))
            done = 0
            try:
                for batch in file.iter_batches(batch_rows, row_groups=[index], columns=there):
                    places = np.arange(first + done, first + done + batch.num_rows)
                    yield _checked(pa.Table.from_batches([batch]), schema, places)
                    done += batch.num_rows
            except _PARQUET as error:
                where = f"row group {index}, rows {first + done} to {first + num_rows - 1}"
                yield Unreadable(first + done, "damaged_file", f"{where}: {one_line(str(error), 200)}")
        first += num_rows


def _checked(table: pa.Table, schema: pa.Schema, places: NDArray[np.int64]) -> Block:
    """Rows in the types asked for; where that fails, row by row."""
    try:
        return Block(_typed(table, schema), places)
    except (pa.ArrowException, ValueError):
        rows = [_checked_row(table.slice(index, 1), schema) for index in range(table.num_rows)]
    faults = tuple((index, fault) for index, (_, fault) in enumerate(rows) if fault)
    return Block(pa.concat_tables([row for row, _ in rows]).combine_chunks(), places, faults)


def _checked_row(row: pa.Table, schema: pa.Schema) -> tuple[pa.Table, str]:
    """A row in the types asked for, null where that fails, and what failed."""
    fault = ""
    columns = []
    for field in schema:
        one = pa.schema([field])
        try:
            columns.append(_typed(row.select([name for name in row.column_names if name == field.name]), one).column(0))
        except (pa.ArrowException, ValueError) as error:
            fault = fault or f"{field.name}: {one_line(str(error), 200)}"
            columns.append(pa.nulls(1, field.type))
    return pa.Table.from_arrays(columns, schema=schema), fault


def _typed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns in the types asked for, null where there are none; ArrowException or ValueError where that fails."""
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    made = pa.Table.from_arrays(columns, schema=schema).combine_chunks()
    made.validate(full=True)  # text that is no UTF-8, offsets that lead out of their buffers
    return made


@dataclass(frozen=True)
class _Lines:
    """Whole lines without their last line break, and where the first begins."""

    data: bytes
    start: int
    too_long: bool = False


def _texts(stream: BinaryIO, name: str) -> Iterator[tuple[BinaryIO, int]]:
    """The texts inside a file of JSON Lines, and at which byte of all of them each begins."""
    if name.lower().endswith(".gz"):
        with gzip.open(stream, "rb") as text:
            yield text, 0  # type: ignore[misc]  # reads as a binary file does
    elif name.lower().endswith(".zip"):
        with zipfile.ZipFile(stream) as archive:
            first = 0
            for member in sorted(archive.infolist(), key=lambda each: each.filename):
                if not member.is_dir():
                    with archive.open(member) as text:
                        yield text, first  # type: ignore[misc]
                    first += member.file_size
    else:
        yield stream, 0


def _lines(text: BinaryIO, start: int, end: int | None) -> Iterator[_Lines]:
    """Lines that begin at a byte of start..end, some megabytes at a time; a line of more than MAX_LINE is marked."""
    if start:
        text.seek(start - 1)
        start += _skip_line(text) - 1
    held = b""
    while end is None or start < end:
        step = text.read(_STEP)
        held += step
        if end is not None and start + len(held) > end:
            # The last line of this piece is read to its end, and no further.
            last = held.find(b"\n", max(0, end - start - 1))
            if last >= 0:
                if last:
                    yield _Lines(held[:last], start)
                return
        cut = held.rfind(b"\n") if step else len(held)
        if cut < 0 and len(held) > MAX_LINE:
            yield _Lines(b"", start, too_long=True)
            start += len(held) + _skip_line(text)
            held = b""
        elif cut >= 0:
            if held[:cut]:
                yield _Lines(held[:cut], start)
            start += cut + 1
            held = held[cut + 1 :]
        if not step:
            return


def _skip_line(text: BinaryIO) -> int:
    """Read to the end of a line; its number of bytes from here."""
    skipped = 0
    while part := text.readline(_STEP):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def _json_lines(text: BinaryIO, schema: pa.Schema, start: int, end: int | None) -> Iterator[Read]:
    place = start
    try:
        for lines in _lines(text, start, end):
            place = lines.start
            if lines.too_long:
                yield Unreadable(place, "too_large", f"a line of more than {MAX_LINE} bytes")
            else:
                yield from _parsed(lines, schema)
            place += len(lines.data) + 1
    except _UNPACKING as error:
        yield Unreadable(place, "damaged_file", f"from byte {place} on: {one_line(str(error), 200)}")


def _parsed(lines: _Lines, schema: pa.Schema) -> Iterator[Read]:
    """Lines as a block: all at once, and one by one where that fails."""
    places = _object_places(lines)
    if places is not None:
        try:
            table = _parse(lines.data, schema)
            if table.num_rows == len(places):
                yield Block(table, places)
                return
        except (pa.ArrowException, ValueError):
            pass  # one line of them, said below
    yield from _one_by_one(lines, schema)


def _object_places(lines: _Lines) -> NDArray[np.int64] | None:
    """Where each line begins, blank ones left out; None unless every line begins and ends as an object does.

    An object over several lines, and several on one line, cannot then make up for each other.
    """
    data = np.frombuffer(lines.data, np.uint8)
    ends = np.append(np.flatnonzero(data == _NEWLINE), len(data))
    starts = np.concatenate(([0], ends[:-1] + 1))
    ends = np.where((ends > starts) & (data[np.maximum(ends - 1, 0)] == _RETURN), ends - 1, ends)
    there = ends > starts
    starts, ends = starts[there], ends[there]
    if not len(starts) or not ((data[starts] == _OPEN) & (data[ends - 1] == _CLOSE)).all():
        return None
    places: NDArray[np.int64] = starts.astype(np.int64) + lines.start
    return places


def _parse(data: bytes, schema: pa.Schema) -> pa.Table:
    found = pj.read_json(
        pa.BufferReader(data),
        read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
        parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )
    return _typed(found, schema)


def _one_by_one(lines: _Lines, schema: pa.Schema) -> Iterator[Read]:
    """Lines each by itself."""
    good: list[pa.Table] = []
    places: list[int] = []
    faults: list[tuple[int, str]] = []
    place = lines.start
    for line in lines.data.split(b"\n"):
        if line.strip():
            try:
                row, fault = _row(_object(line), schema)
                if fault:
                    faults.append((len(good), fault))
                good.append(row)
                places.append(place)
            except ValueError as error:
                yield Unreadable(place, "not_json", one_line(str(error), 200))
        place += len(line) + 1
    if good:
        yield Block(pa.concat_tables(good).combine_chunks(), np.array(places, np.int64), tuple(faults))


def _object(line: bytes) -> dict[str, Any]:
    """The JSON object that a line is; ValueError, one line, when it is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"not a JSON object: {type(found).__name__}")
    return found


def _row(found: dict[str, Any], schema: pa.Schema) -> tuple[pa.Table, str]:
    """An object as a table of one row, null where a value is of another type, and what was."""
    fault = ""
    columns = []
    for field in schema:
        value = _as_text(found.get(field.name)) if pa.types.is_string(field.type) else found.get(field.name)
        try:
            columns.append(pa.array([value], field.type))
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            fault = fault or f"{field.name}: {one_line(str(error), 200)}"
            columns.append(pa.nulls(1, field.type))
    return pa.Table.from_arrays(columns, schema=schema), fault


def _as_text(value: Any) -> Any:
    """What a layout keeps as JSON inside a string is taken as JSON too."""
    return json.dumps(value) if isinstance(value, dict | list) else value
